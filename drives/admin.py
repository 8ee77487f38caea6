"""Drives and snapshots in the admin."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from drives import services
from drives.models import Drive, Snapshot
from nexus_site.core.admin import ReadOnlyAdmin


@admin.register(Drive)
class DriveAdmin(ReadOnlyAdmin):
    list_display = (
        "name",
        "letters",
        "state",
        "origin",
        "image",
        "size_bytes",
        "delete_with_vm",
        "created_at",
    )
    list_filter = ("state", "origin", "delete_with_vm")
    list_select_related = ("image",)
    search_fields = ("name", "image__name")
    search_ids = ("pk", "image_id", "source_drive_id", "source_snapshot_id", "head_id")
    actions = ("take_snapshots", "delete_drives")

    @admin.action(description="Take snapshots of selected drives", permissions=["operate"])
    def take_snapshots(self, request: HttpRequest, rows: QuerySet[Drive]) -> None:
        self.call_for_each(request, rows, services.take_snapshot, "Taking a snapshot")

    @admin.action(description="Delete selected drives", permissions=["operate"])
    def delete_drives(self, request: HttpRequest, rows: QuerySet[Drive]) -> HttpResponse | None:
        question = "Delete these drives and all data on them?"
        if page := self.confirm(request, rows, "delete_drives", question):
            return page
        self.call_for_each(request, rows, services.delete_drive, "Deleting")
        return None


@admin.register(Snapshot)
class SnapshotAdmin(ReadOnlyAdmin):
    list_display = (
        "name",
        "letters",
        "state",
        "drive",
        "parent",
        "consistency",
        "size_bytes",
        "created_at",
    )
    list_filter = ("state", "consistency")
    list_select_related = ("drive", "parent")
    search_fields = ("name", "drive__name")
    search_ids = ("pk", "drive_id", "parent_id")
    actions = ("delete_snapshots",)

    @admin.action(description="Delete selected snapshots", permissions=["operate"])
    def delete_snapshots(
        self, request: HttpRequest, rows: QuerySet[Snapshot]
    ) -> HttpResponse | None:
        question = "Delete these snapshots? What the drives held then is lost."
        if page := self.confirm(request, rows, "delete_snapshots", question):
            return page
        self.call_for_each(request, rows, services.delete_snapshot, "Deleting")
        return None
