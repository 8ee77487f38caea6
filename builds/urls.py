from django.urls import path

from builds.views import builds, templates

app_name = "builds"
urlpatterns = [
    path("templates/", templates.template_list, name="templates"),
    path("templates/new/", templates.new_template, name="new-template"),
    path("templates/<str:ref>/", templates.template_detail, name="template"),
    path("templates/<str:ref>/delete/", templates.delete_template, name="delete-template"),
    path("templates/<str:ref>/build/", builds.run_build, name="build"),
    path("builds/", builds.build_list, name="list"),
    path("builds/<str:ref>/", builds.build_detail, name="detail"),
]
