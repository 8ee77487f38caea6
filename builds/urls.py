from django.urls import path

from builds.views import builds, kernels, template_forms, templates

app_name = "builds"
urlpatterns = [
    path("templates/", templates.template_list, name="templates"),
    path("templates/new/", template_forms.new_template, name="new-template"),
    path("templates/<str:ref>/", templates.template_detail, name="template"),
    path("templates/<str:ref>/edit/", template_forms.edit_template, name="edit-template"),
    path("templates/<str:ref>/yaml/", templates.template_yaml, name="template-yaml"),
    path("templates/<str:ref>/rename/", templates.rename_template, name="rename-template"),
    path("templates/<str:ref>/copy/", templates.copy_template, name="copy-template"),
    path("templates/<str:ref>/delete/", templates.delete_template, name="delete-template"),
    path(
        "templates/<str:ref>/versions/<int:number>/",
        templates.template_version,
        name="template-version",
    ),
    path(
        "templates/<str:ref>/versions/<int:number>/revert/",
        templates.revert_template,
        name="revert-template",
    ),
    path("templates/<str:ref>/build/", builds.run_build, name="build"),
    path("builds/", builds.build_list, name="list"),
    path("builds/kernels/", kernels.kernel_build_list, name="kernel-builds"),
    path("builds/kernels/<str:ref>/", kernels.kernel_build_detail, name="kernel-build"),
    path("builds/<str:ref>/", builds.build_detail, name="detail"),
    path("builds/<str:ref>/again/", builds.build_again, name="again"),
    path("images/<str:ref>/verify/", builds.verify_image, name="verify-image"),
]
