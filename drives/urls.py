from django.urls import path

from drives.views import drives, snapshots, storage, uploads

app_name = "drives"
urlpatterns = [
    path("drives/", drives.drive_list, name="list"),
    path("drives/import/", uploads.import_drive, name="import"),
    path("drives/<str:ref>/", drives.detail, name="detail"),
    path("drives/<str:ref>/rename/", drives.rename, name="rename"),
    path("drives/<str:ref>/resize/", drives.resize, name="resize"),
    path("drives/<str:ref>/keep/", drives.keep, name="keep"),
    path("drives/<str:ref>/snapshot/", drives.snapshot, name="take-snapshot"),
    path("drives/<str:ref>/delete/", drives.delete, name="delete"),
    path("drives/<str:ref>/export/", drives.export, name="export"),
    path("snapshots/<str:ref>/", snapshots.detail, name="snapshot"),
    path("snapshots/<str:ref>/rename/", snapshots.rename, name="rename-snapshot"),
    path("snapshots/<str:ref>/delete/", snapshots.delete, name="delete-snapshot"),
    path("snapshots/<str:ref>/export/", snapshots.export, name="export-snapshot"),
    path("storage/", storage.storage, name="storage"),
    path("storage/check/", storage.check, name="check-storage"),
    path("storage/repair/", storage.repair, name="repair-storage"),
]
