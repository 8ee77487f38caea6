"""Images, root file systems and kernels in the admin."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from images import services
from images.models import Image, Kernel, Rootfs
from nexus_site.core.admin import ReadOnlyAdmin


@admin.register(Image)
class ImageAdmin(ReadOnlyAdmin):
    list_display = (
        "name",
        "letters",
        "os_name",
        "arch",
        "agent_version",
        "used_bytes",
        "created_at",
    )
    list_filter = ("arch", "agent_version")
    search_fields = ("name", "os_name")
    search_ids = ("pk", "rootfs_id")
    actions = ("delete_images",)

    @admin.action(description="Delete selected images", permissions=["operate"])
    def delete_images(self, request: HttpRequest, rows: QuerySet[Image]) -> HttpResponse | None:
        if page := self.confirm(request, rows, "delete_images", "Delete these images?"):
            return page
        self.call_for_each(request, rows, services.delete_image, "Deleting")
        return None


@admin.register(Rootfs)
class RootfsAdmin(ReadOnlyAdmin):
    list_display = ("__str__", "letters", "arch", "provider", "format", "size_bytes", "created_at")
    list_filter = ("distro", "arch", "provider")
    search_fields = ("distro", "version", "filename")


@admin.register(Kernel)
class KernelAdmin(ReadOnlyAdmin):
    list_display = ("name", "letters", "version", "arch", "provider", "is_default", "size_bytes")
    list_filter = ("arch", "provider", "is_default")
    search_fields = ("name", "version")
