from django.urls import path

from images import views

app_name = "images"
urlpatterns = [
    path("images/", views.image_list, name="list"),
    path("images/<str:ref>/", views.detail, name="detail"),
    path("images/<str:ref>/packages/", views.packages, name="packages"),
    path("images/<str:ref>/files/", views.files, name="files"),
    path("images/<str:ref>/files/download/", views.download_file, name="download-file"),
    path("images/<str:ref>/export/", views.export, name="export"),
    path("images/<str:ref>/rename/", views.rename, name="rename"),
    path("images/<str:ref>/delete/", views.delete, name="delete"),
    path("distributions/", views.rootfs_list, name="rootfs"),
    path("distributions/fetch/", views.download_rootfs, name="fetch"),
    path("distributions/import/", views.import_rootfs, name="import-rootfs"),
    path("distributions/<str:ref>/", views.rootfs_detail, name="rootfs-detail"),
    path("distributions/<str:ref>/verify/", views.verify_rootfs, name="verify-rootfs"),
    path("distributions/<str:ref>/delete/", views.delete_rootfs, name="delete-rootfs"),
    path("providers/", views.provider_list, name="providers"),
    path("providers/new/", views.new_provider, name="new-provider"),
    path("providers/<str:ref>/", views.edit_provider, name="provider"),
    path("providers/<str:ref>/enable/", views.enable_provider, name="enable-provider"),
    path("providers/<str:ref>/refresh/", views.refresh_provider, name="refresh-provider"),
    path("providers/<str:ref>/delete/", views.delete_provider, name="delete-provider"),
    path("kernels/", views.kernel_list, name="kernels"),
    path("kernels/fetch/", views.download_kernel, name="download-kernel"),
    path("kernels/available/", views.refresh_kernels, name="refresh-kernels"),
    path("kernels/<str:ref>/", views.kernel_detail, name="kernel"),
    path("kernels/<str:ref>/use/", views.use_kernel, name="use-kernel"),
    path("kernels/<str:ref>/verify/", views.verify_kernel, name="verify-kernel"),
    path("kernels/<str:ref>/remove/", views.remove_kernel, name="remove-kernel"),
    path("firecracker/", views.release_list, name="firecracker"),
    path("firecracker/download/", views.download_release, name="download-release"),
    path("firecracker/refresh/", views.refresh_releases, name="refresh-releases"),
    path("firecracker/<str:ref>/use/", views.use_release, name="use-release"),
    path("firecracker/<str:ref>/remove/", views.remove_release, name="remove-release"),
]
