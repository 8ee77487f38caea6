from django.urls import path

from vms import views
from vms.views import files, metrics, snapshots, terminal

app_name = "vms"
urlpatterns = [
    path("vms/", views.vm_list, name="list"),
    path("vms/new/", views.new, {"target": "vm"}, name="new"),
    path("vms/new/preview/", views.preview, {"target": "vm"}, name="preview"),
    path("drives/new/", views.new, {"target": "drive"}, name="new-drive"),
    path("drives/new/preview/", views.preview, {"target": "drive"}, name="preview-drive"),
    path("images/new/", views.new, {"target": "image"}, name="new-image"),
    path("images/new/preview/", views.preview, {"target": "image"}, name="preview-image"),
    path("images/import/", views.import_image, name="import-image"),
    path("vms/<str:ref>/", views.detail, name="detail"),
    path("vms/<str:ref>/console.log", views.console_text, name="console"),
    path("vms/<str:ref>/terminal/", terminal.terminal, name="terminal"),
    path("vms/<str:ref>/metrics/", metrics.metrics_page, name="metrics"),
    path("vms/<str:ref>/files/", files.browse, name="files"),
    path("vms/<str:ref>/files/save/", files.save, name="save-file"),
    path("vms/<str:ref>/files/directory/", files.make_directory, name="make-directory"),
    path("vms/<str:ref>/files/move/", files.move, name="move-file"),
    path("vms/<str:ref>/files/remove/", files.remove, name="remove-file"),
    path("vms/<str:ref>/start/", views.start, name="start"),
    path("vms/<str:ref>/stop/", views.stop, name="stop"),
    path("vms/<str:ref>/restart/", views.restart, name="restart"),
    path("vms/<str:ref>/agent-upgrade/", views.upgrade_agent, name="upgrade-agent"),
    path("vms/<str:ref>/rename/", views.rename, name="rename"),
    path("vms/<str:ref>/change/", views.change, name="change"),
    path("vms/<str:ref>/delete/", views.delete, name="delete"),
    path("vms/<str:ref>/attach/", views.attach_drive, name="attach"),
    path("vms/<str:ref>/snapshot/", snapshots.take, name="take-snapshot"),
    path("vms/<str:ref>/clone/", snapshots.clone, name="clone"),
    path("vm-snapshots/<str:ref>/", snapshots.detail, name="snapshot"),
    path("vm-snapshots/<str:ref>/rollback/", snapshots.rollback, name="rollback"),
    path("vm-snapshots/<str:ref>/rename/", snapshots.rename, name="rename-snapshot"),
    path("vm-snapshots/<str:ref>/delete/", snapshots.delete, name="delete-snapshot"),
    path("snapshots/<str:ref>/rollback/", snapshots.rollback_drive, name="rollback-drive"),
    path("drives/<str:drive_ref>/detach/", views.detach_drive, name="detach"),
]
