"""What the JSON API of VMs' snapshots takes and gives."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from ninja import Field, Schema

from drives.models import Consistency
from nexus_site.core.schemas import ID, Input, Ref, listed
from vms.models import SnapshotPart, VMSnapshot
from vms.schemas import ChangedShape

Name = Field(default="", max_length=63, description="A DNS label. Left out, a name is generated.")
Stop = Field(default=False, description="Shut a running VM down before and start it again after.")


class SnapshotPartOut(Schema):
    """A drive's snapshot, and the place that the drive had in the VM."""

    id: ID
    name: str
    drive: Ref
    size_bytes: int
    is_root: bool
    read_only: bool

    @staticmethod
    def resolve_id(part: SnapshotPart) -> ID:
        return part.snapshot.ref

    @staticmethod
    def resolve_name(part: SnapshotPart) -> str:
        return part.snapshot.name

    @staticmethod
    def resolve_drive(part: SnapshotPart) -> object:
        return part.snapshot.drive

    @staticmethod
    def resolve_size_bytes(part: SnapshotPart) -> int:
        return part.snapshot.size_bytes


class VMSnapshotOut(Schema):
    """All drives of a VM at one instant."""

    id: ID
    name: str
    vm: Ref
    state: Annotated[VMSnapshot.State, listed(VMSnapshot.State)]
    parent: Ref | None = Field(description="The snapshot that the VM went on from.")
    is_head: bool = Field(description="Whether the VM goes on from this one.")
    consistency: Annotated[Consistency, listed(Consistency)] | None = Field(
        description="frozen: the agent had the guest write everything out; crash: as after a "
        "power cut; at-rest: the VM did not run. Null until it is made."
    )
    held_ms: int | None = Field(description="How long the VM's CPUs stood still for it.")
    vcpu_count: int
    mem_size_mib: int
    with_memory: bool = Field(description="A checkpoint: VMs can be forked from it.")
    memory_bytes: int | None = Field(description="What its memory takes on the disk.")
    memory_of: dict[str, str] = Field(
        description="What saved its memory, and can load it: hypervisor, version, accelerator."
    )
    drives: list[SnapshotPartOut]
    created_at: datetime

    @staticmethod
    def resolve_is_head(snapshot: VMSnapshot) -> bool:
        return bool(snapshot.vm.head_id == snapshot.pk)

    @staticmethod
    def resolve_consistency(snapshot: VMSnapshot) -> str | None:
        return snapshot.consistency or None

    @staticmethod
    def resolve_drives(snapshot: VMSnapshot) -> list[SnapshotPart]:
        return list(snapshot.parts.all())


class SnapshotVM(Input):
    name: str = Name


class UpdateVMSnapshot(Input):
    name: str = Field(min_length=1, max_length=63)


class RollBackVM(Input):
    snapshot: str = Field(description="Name or ID of a snapshot of the VM.")
    stop: bool = Stop


class RollBackDrive(Input):
    snapshot: str = Field(description="Name or ID of a snapshot of the drive.")
    stop: bool = Stop


class CloneVM(ChangedShape):
    """What is left out is as in the VM; sizes as in the snapshot."""

    name: str = Name
    snapshot: str = Field(default="", description="Name or ID; left out, the VM as it is now.")
    start: bool = False
