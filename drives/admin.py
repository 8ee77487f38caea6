"""Drives in the admin."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from drives import services
from drives.models import Drive
from nexus_site.core.admin import ReadOnlyAdmin


@admin.register(Drive)
class DriveAdmin(ReadOnlyAdmin):
    list_display = ("name", "letters", "state", "image", "size_bytes", "created_at")
    list_filter = ("state",)
    list_select_related = ("image",)
    search_fields = ("name", "image__name")
    search_ids = ("pk", "image_id")
    actions = ("delete_drives",)

    @admin.action(description="Delete selected drives", permissions=["operate"])
    def delete_drives(self, request: HttpRequest, rows: QuerySet[Drive]) -> HttpResponse | None:
        question = "Delete these drives and all data on them?"
        if page := self.confirm(request, rows, "delete_drives", question):
            return page
        self.call_for_each(request, rows, services.delete_drive, "Deleting")
        return None
