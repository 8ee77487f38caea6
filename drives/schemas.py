"""What the JSON API of drives, snapshots and their storage takes and gives."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from ninja import Field, Schema

from drives.models import Consistency, Drive, Snapshot
from drives.services import made_of, usage_of
from nexus_site.core.schemas import ID, Input, Ref, listed

SizeMib = Annotated[int, Field(ge=1, le=16 * 1024 * 1024)]
Name = Field("", max_length=63, description="Left out, a name is generated.")
_GOES = "Whether it goes when the VM goes that it is in."
DeleteWithVM = Field(False, description=_GOES)


class AttachedTo(Schema):
    """The VM that has the drive, and how."""

    id: ID
    name: str
    is_root: bool
    read_only: bool


class UsageOut(Schema):
    """What a file takes on the disk; null where the storage cannot tell."""

    size_bytes: int = Field(description="What a VM sees.")
    used_bytes: int = Field(description="Data on the disk; what is shared counts in each file.")
    exclusive_bytes: int | None = Field(description="What deleting it would free.")
    shared_bytes: int | None


class SnapshotOut(Schema):
    """A read-only point in time of a drive."""

    id: ID
    name: str
    state: Annotated[Snapshot.State, listed(Snapshot.State)]
    drive: Ref
    parent: Ref | None = Field(description="The snapshot before it.")
    vm_snapshot: Ref | None = Field(description="The VM's snapshot that it is a part of.")
    is_head: bool = Field(description="Whether the drive goes on from it.")
    size_bytes: int
    consistency: Annotated[Consistency, listed(Consistency)] | None
    created_at: datetime

    @staticmethod
    def resolve_vm_snapshot(snapshot: Snapshot) -> Any:
        part = getattr(snapshot, "part", None)
        return part.vm_snapshot if part is not None else None

    @staticmethod
    def resolve_is_head(snapshot: Snapshot) -> bool:
        return bool(snapshot.drive.head_id == snapshot.pk)

    @staticmethod
    def resolve_consistency(snapshot: Snapshot) -> str | None:
        return snapshot.consistency or None


class SnapshotDetail(SnapshotOut):
    usage: UsageOut | None
    children: list[Ref] = Field(description="The snapshots that came after it.")
    clones: list[Ref] = Field(description="The drives that were made of it.")

    @staticmethod
    def resolve_usage(snapshot: Snapshot) -> Any:
        return usage_of(snapshot)

    @staticmethod
    def resolve_children(snapshot: Snapshot) -> Any:
        return list(snapshot.children.order_by("created_at"))

    @staticmethod
    def resolve_clones(snapshot: Snapshot) -> Any:
        return list(made_of(snapshot))


class DriveOut(Schema):
    """A drive as lists show it."""

    id: ID
    name: str
    state: Annotated[Drive.State, listed(Drive.State)]
    origin: Annotated[Drive.Origin, listed(Drive.Origin)]
    image: Ref | None = Field(description="The image that it descends from.")
    source: Ref | None = Field(description="The drive or the snapshot that it was made of.")
    size_bytes: int
    delete_with_vm: bool
    vm: AttachedTo | None
    created_at: datetime

    @staticmethod
    def resolve_source(drive: Drive) -> Any:
        return drive.source_snapshot or drive.source_drive

    @staticmethod
    def resolve_vm(drive: Drive) -> dict[str, Any] | None:
        attachment = getattr(drive, "attachment", None)
        if attachment is None:
            return None
        vm = attachment.vm
        return {
            "id": vm.id,
            "name": vm.name,
            "is_root": attachment.is_root,
            "read_only": attachment.read_only,
        }


class DriveDetail(DriveOut):
    usage: UsageOut | None = Field(description="Null while its file is not there.")
    head: Ref | None = Field(description="The snapshot that its contents go on from.")
    snapshots: list[SnapshotOut]
    clones: list[Ref] = Field(description="The drives that were made of it or of its snapshots.")

    @staticmethod
    def resolve_usage(drive: Drive) -> Any:
        return usage_of(drive)

    @staticmethod
    def resolve_snapshots(drive: Drive) -> Any:
        return list(drive.snapshots.all())

    @staticmethod
    def resolve_clones(drive: Drive) -> Any:
        return list(made_of(drive))


class CreateDrive(Input):
    """A copy of an image, a drive or a snapshot; of none of them, an empty ext4 drive."""

    name: str = Name
    image: str = Field("", description="Name or ID of an image.")
    drive: str = Field("", description="Name or ID of a drive.")
    snapshot: str = Field("", description="Name or ID of a snapshot.")
    size_mib: SizeMib | None = Field(None, description="Left out, the size of what is copied.")
    delete_with_vm: bool = DeleteWithVM


class UpdateDrive(Input):
    """What is left out stays as it is."""

    name: str | None = Field(None, min_length=1, max_length=63)
    delete_with_vm: bool | None = Field(None, description=_GOES)


class ResizeDrive(Input):
    size_mib: SizeMib = Field(description="No less than it has.")


class TakeSnapshot(Input):
    name: str = Name


class UpdateSnapshot(Input):
    name: str = Field(min_length=1, max_length=63)


class CapacityOut(Schema):
    """The file system that drives are on."""

    total_bytes: int
    free_bytes: int


class TotalsOut(Schema):
    """Of all drives and snapshots; what is shared is used in each of them."""

    drives: int
    snapshots: int
    size_bytes: int
    used_bytes: int
    exclusive_bytes: int | None
    memory_bytes: int = Field(description="Saved memories of VMs, beside those.")


class CostOut(Schema):
    """A drive or a snapshot, and what it takes; null while its file is not there."""

    id: ID
    name: str
    usage: UsageOut | None

    @staticmethod
    def resolve_id(cost: Any) -> int:
        return int(cost.row.pk)

    @staticmethod
    def resolve_name(cost: Any) -> str:
        return str(cost.row.name)


class StorageOut(Schema):
    """The storage of this host."""

    backend: str = Field(description="btrfs, reflink or copy.")
    directory: str
    file_system: str
    pool: str | None = Field(description="The file that the file system is in, if Nexus made it.")
    quota_groups: bool = Field(description="Whether btrfs counts exclusive and shared bytes.")
    problems: list[str] = Field(description="Why the better backends do not work here.")
    capacity: CapacityOut
    totals: TotalsOut
    drives: list[CostOut]
    snapshots: list[CostOut]

    @staticmethod
    def resolve_backend(status: Any) -> str:
        return str(status.description.backend)

    @staticmethod
    def resolve_directory(status: Any) -> str:
        return str(status.description.directory)

    @staticmethod
    def resolve_file_system(status: Any) -> str:
        return str(status.description.file_system)

    @staticmethod
    def resolve_pool(status: Any) -> str | None:
        return str(status.description.pool) if status.description.pool else None

    @staticmethod
    def resolve_quota_groups(status: Any) -> bool:
        return bool(status.description.quota_groups)

    @staticmethod
    def resolve_problems(status: Any) -> list[str]:
        return list(status.description.problems)


class ProblemOut(Schema):
    """Something that database and disk do not agree about."""

    kind: str = Field(
        description="orphan-drive, orphan-snapshot, missing-drive, missing-snapshot, wrong-size, "
        "stuck or leftover."
    )
    subject: str = Field(description="The ID of a drive or a snapshot, or a path.")
    name: str
    text: str
    repair: str = Field(description="What a repair does about it.")


class ReportOut(Schema):
    """What a check has found among so many files of drives and snapshots."""

    problems: list[ProblemOut]
    drives: int
    snapshots: int


class InitStorage(Input):
    size_mib: int = Field(ge=1, description="Of the pool, which is a sparse file.")
