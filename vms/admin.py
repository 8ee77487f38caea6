"""VMs in the admin: to look at, to search, and to start, stop and delete by the services."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from nexus_site.core.admin import ReadOnlyAdmin
from vms import services
from vms.models import (
    VM,
    Attachment,
    Boot,
    Pool,
    ProvisionedFile,
    Provisioning,
    Sample,
    SnapshotPart,
    Transition,
    VMSnapshot,
    WarmTemplate,
)
from vms.services.pools import delete_pool


@admin.register(VM)
class VMAdmin(ReadOnlyAdmin):
    list_display = (
        "name",
        "letters",
        "state",
        "vcpu_count",
        "mem_size_mib",
        "kernel",
        "heartbeat_at",
        "restart_policy",
        "restart_at",
    )
    list_filter = (
        "state",
        "purpose",
        "desired_state",
        "hypervisor",
        "restart_policy",
        "unreachable_action",
    )
    list_select_related = ("kernel",)
    search_fields = ("name", "mac")
    actions = ("start", "stop", "force_stop", "restart", "snapshot", "upgrade_agents", "delete_vms")

    @admin.action(description="Start selected VMs", permissions=["operate"])
    def start(self, request: HttpRequest, rows: QuerySet[VM]) -> None:
        self.call_for_each(request, rows, services.start_vm, "Starting")

    @admin.action(description="Stop selected VMs", permissions=["operate"])
    def stop(self, request: HttpRequest, rows: QuerySet[VM]) -> None:
        self.call_for_each(request, rows, services.stop_vm, "Stopping")

    @admin.action(description="Force selected VMs off", permissions=["operate"])
    def force_stop(self, request: HttpRequest, rows: QuerySet[VM]) -> HttpResponse | None:
        question = "Kill these VMs without asking their guests?"
        if page := self.confirm(request, rows, "force_stop", question):
            return page
        self.call_for_each(request, rows, lambda vm: services.stop_vm(vm, force=True), "Killing")
        return None

    @admin.action(description="Restart selected VMs", permissions=["operate"])
    def restart(self, request: HttpRequest, rows: QuerySet[VM]) -> None:
        self.call_for_each(request, rows, services.restart_vm, "Restarting")

    @admin.action(description="Snapshot selected VMs", permissions=["operate"])
    def snapshot(self, request: HttpRequest, rows: QuerySet[VM]) -> None:
        self.call_for_each(request, rows, services.snapshot_vm, "Making snapshots of")

    @admin.action(description="Upgrade the agents of selected VMs", permissions=["operate"])
    def upgrade_agents(self, request: HttpRequest, rows: QuerySet[VM]) -> None:
        self.call_for_each(request, rows, services.upgrade_agent, "Upgrading the agents of")

    @admin.action(description="Delete selected VMs and their drives", permissions=["operate"])
    def delete_vms(self, request: HttpRequest, rows: QuerySet[VM]) -> HttpResponse | None:
        question = "Delete these VMs and their drives?"
        if page := self.confirm(request, rows, "delete_vms", question):
            return page
        self.call_for_each(request, rows, services.delete_vm, "Deleting")
        return None


@admin.register(Attachment)
class AttachmentAdmin(ReadOnlyAdmin):
    list_display = ("letters", "drive", "vm", "is_root", "read_only")
    list_filter = ("is_root", "read_only")
    list_select_related = ("drive", "vm")
    search_fields = ("vm__name", "drive__name")
    search_ids = ("pk", "vm_id", "drive_id")
    actions = ("detach",)

    @admin.action(description="Detach selected drives", permissions=["operate"])
    def detach(self, request: HttpRequest, rows: QuerySet[Attachment]) -> None:
        def detach_one(row: Attachment) -> None:
            services.detach_drive(row.drive)

        self.call_for_each(request, rows, detach_one, "Detached")


@admin.register(VMSnapshot)
class VMSnapshotAdmin(ReadOnlyAdmin):
    list_display = ("name", "letters", "vm", "state", "consistency", "held_ms", "created_at")
    list_filter = ("state", "consistency")
    list_select_related = ("vm",)
    search_fields = ("name", "vm__name")
    search_ids = ("pk", "vm_id", "parent_id")
    actions = ("delete_snapshots",)

    @admin.action(description="Delete selected snapshots", permissions=["operate"])
    def delete_snapshots(
        self, request: HttpRequest, rows: QuerySet[VMSnapshot]
    ) -> HttpResponse | None:
        question = "Delete these snapshots and those of their drives?"
        if page := self.confirm(request, rows, "delete_snapshots", question):
            return page
        self.call_for_each(request, rows, services.delete_vm_snapshot, "Deleting")
        return None


@admin.register(SnapshotPart)
class SnapshotPartAdmin(ReadOnlyAdmin):
    list_display = ("letters", "vm_snapshot", "snapshot", "is_root", "read_only")
    list_filter = ("is_root", "read_only")
    list_select_related = ("vm_snapshot", "snapshot")
    search_fields = ("vm_snapshot__name", "snapshot__name")
    search_ids = ("pk", "vm_snapshot_id", "snapshot_id")


@admin.register(Transition)
class TransitionAdmin(ReadOnlyAdmin):
    list_display = ("number", "at", "vm", "from_state", "to_state", "reason", "actor")
    list_filter = ("to_state",)
    list_select_related = ("vm",)
    search_fields = ("vm__name", "reason", "actor")
    search_ids = ("vm_id", "operation_id")
    ordering = ("-number",)


@admin.register(Boot)
class BootAdmin(ReadOnlyAdmin):
    list_display = ("letters", "vm", "number", "accelerator", "launched_at", "hello_at", "ended_at")
    list_filter = ("hypervisor", "accelerator")
    list_select_related = ("vm",)
    search_fields = ("vm__name",)
    search_ids = ("pk", "vm_id")
    ordering = ("-created_at",)


@admin.register(WarmTemplate)
class WarmTemplateAdmin(ReadOnlyAdmin):
    list_display = ("letters", "image", "state", "vm", "hits", "last_hit_at", "created_at")
    list_filter = ("state",)
    list_select_related = ("image", "vm")
    search_fields = ("image__name",)
    search_ids = ("pk", "vm_id", "image_id")


@admin.register(Pool)
class PoolAdmin(ReadOnlyAdmin):
    list_display = ("name", "letters", "image", "template", "size", "taken", "problem")
    list_select_related = ("image", "template")
    search_fields = ("name", "image__name")
    search_ids = ("pk", "image_id")
    actions = ("delete_pools",)

    @admin.action(description="Delete selected pools", permissions=["operate"])
    def delete_pools(self, request: HttpRequest, rows: QuerySet[Pool]) -> HttpResponse | None:
        question = "Delete these pools and the VMs that wait in them?"
        if page := self.confirm(request, rows, "delete_pools", question):
            return page
        self.call_for_each(request, rows, delete_pool, "Deleting")
        return None


@admin.register(Provisioning)
class ProvisioningAdmin(ReadOnlyAdmin):
    list_display = ("letters", "vm", "phase", "on_failure", "script_ended_at")
    list_filter = ("phase", "on_failure")
    list_select_related = ("vm",)
    search_fields = ("vm__name",)
    search_ids = ("pk", "vm_id")
    hidden = ("secret_env",)


@admin.register(ProvisionedFile)
class ProvisionedFileAdmin(ReadOnlyAdmin):
    list_display = ("path", "provisioning", "mode", "user", "secret", "size")
    list_filter = ("secret",)
    list_select_related = ("provisioning__vm",)
    search_fields = ("path", "provisioning__vm__name")
    search_ids = ("pk", "provisioning_id", "provisioning__vm_id")
    hidden = ("content",)


@admin.register(Sample)
class SampleAdmin(ReadOnlyAdmin):
    list_display = ("number", "vm", "at", "thinned", "cpu", "memory_used", "vmm_cpu", "vmm_memory")
    list_filter = ("thinned",)
    list_select_related = ("vm",)
    search_fields = ("vm__name",)
    search_ids = ("vm_id",)
    ordering = ("-number",)
    show_full_result_count = False
