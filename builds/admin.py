"""Templates and builds in the admin."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from builds import services
from builds.models import Build, Template, TemplateVersion
from nexus_site.core.admin import ReadOnlyAdmin


@admin.register(Template)
class TemplateAdmin(ReadOnlyAdmin):
    list_display = ("name", "letters", "description", "created_at")
    search_fields = ("name", "description")
    actions = ("build", "delete_templates")

    @admin.action(description="Build an image from selected templates", permissions=["operate"])
    def build(self, request: HttpRequest, rows: QuerySet[Template]) -> None:
        self.call_for_each(request, rows, services.trigger_build, "Building")

    @admin.action(description="Delete selected templates", permissions=["operate"])
    def delete_templates(
        self, request: HttpRequest, rows: QuerySet[Template]
    ) -> HttpResponse | None:
        if page := self.confirm(request, rows, "delete_templates", "Delete these templates?"):
            return page
        self.call_for_each(request, rows, services.delete_template, "Deleted")
        return None


@admin.register(TemplateVersion)
class TemplateVersionAdmin(ReadOnlyAdmin):
    list_display = ("__str__", "letters", "rootfs", "created_at")
    list_select_related = ("template", "rootfs")
    search_fields = ("template__name",)
    search_ids = ("pk", "template_id", "rootfs_id")


@admin.register(Build)
class BuildAdmin(ReadOnlyAdmin):
    list_display = ("letters", "image_name", "state", "template_version", "created_at", "ended_at")
    list_filter = ("state",)
    list_select_related = ("template_version__template",)
    search_fields = ("image_name", "template_version__template__name")
    search_ids = ("pk", "operation_id", "image_id")
