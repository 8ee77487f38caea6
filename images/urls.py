from django.urls import path

from images import views

app_name = "images"
urlpatterns = [
    path("images/", views.image_list, name="list"),
    path("images/<str:ref>/", views.detail, name="detail"),
    path("images/<str:ref>/delete/", views.delete, name="delete"),
    path("distributions/", views.rootfs_list, name="rootfs"),
    path("distributions/fetch/", views.download_rootfs, name="fetch"),
    path("kernels/", views.kernel_list, name="kernels"),
]
