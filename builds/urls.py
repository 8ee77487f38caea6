from django.urls import path

from builds import views

app_name = "builds"
urlpatterns = [
    path("templates/", views.template_list, name="templates"),
    path("templates/new/", views.new_template, name="new-template"),
    path("templates/<str:ref>/", views.template_detail, name="template"),
    path("templates/<str:ref>/delete/", views.delete_template, name="delete-template"),
    path("templates/<str:ref>/build/", views.run_build, name="build"),
    path("builds/", views.build_list, name="list"),
    path("builds/<str:ref>/", views.build_detail, name="detail"),
]
