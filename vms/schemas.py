"""What the JSON API of VMs takes and gives."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, cast

from ninja import Field, Schema

from nexus_site.core.schemas import ID, Input, Ref, listed
from vms.choice import expectation
from vms.models import VM
from vms.provisioning_records import phase_of
from vms.provisioning_schemas import ProvisioningIn
from vms.services import agent_outdated, hotplug_problem
from vms.shape import MOST_IDLE_MINUTES
from vms.states import Desired, State

VMState = Annotated[State, listed(State)]
Name = Field("", max_length=63, description="A DNS label. Left out, a name is generated.")
VcpuCount = Field(1, ge=1, le=1024)
Cold = Field(False, description="Let the guest boot, though it could go on from a saved memory.")
MemSizeMib = Field(512, ge=1, le=64 * 1024 * 1024)
HypervisorWish = Annotated[VM.Hypervisor, listed(VM.Hypervisor)]
RestartPolicy = Annotated[VM.RestartPolicy, listed(VM.RestartPolicy)]
UnreachableAction = Annotated[VM.UnreachableAction, listed(VM.UnreachableAction)]
IdleMinutes = Annotated[
    int | None,
    Field(
        ge=0,
        le=MOST_IDLE_MINUTES,
        description="Minutes without work after which it is suspended; 0: never. Whoever needs "
        "its agent wakes it.",
    ),
]


class Limits(Input):
    """What a VM may take from its host in a second."""

    disk_mib_s: int | None = Field(
        default=None,
        ge=0,
        le=1 << 20,
        description="Each disk, reading and writing, in MiB; 0: no limit.",
    )
    disk_iops: int | None = Field(
        default=None, ge=0, le=10_000_000, description="How often each disk may do so; 0: no limit."
    )
    network_mib_s: int | None = Field(
        default=None, ge=0, le=1 << 20, description="The network each way, in MiB; 0: no limit."
    )


class VMShape(Limits):
    """What a new VM is to be like."""

    vcpu_count: int = VcpuCount
    mem_size_mib: int = MemSizeMib
    hypervisor: HypervisorWish = Field(
        VM.Hypervisor.AUTO, description="auto: the best that works here."
    )
    restart_policy: RestartPolicy = Field(
        VM.RestartPolicy.NO,
        description="on-failure: started again when it crashed or could not be started; always: "
        "also when its guest switched itself off.",
    )
    unreachable_action: UnreachableAction = Field(
        VM.UnreachableAction.KEEP, description="What is done once its agent does not answer."
    )
    idle_suspend_minutes: IdleMinutes = None


class ChangedShape(Limits):
    """What a VM is to be like that is like another one, or was; what is left out stays."""

    vcpu_count: int | None = Field(default=None, ge=1, le=1024)
    mem_size_mib: int | None = Field(default=None, ge=1, le=64 * 1024 * 1024)
    hypervisor: HypervisorWish | None = None
    restart_policy: RestartPolicy | None = None
    unreachable_action: UnreachableAction | None = None
    idle_suspend_minutes: IdleMinutes = None


class AttachedDrive(Schema):
    id: ID
    name: str
    size_bytes: int
    is_root: bool
    read_only: bool
    delete_with_vm: bool = Field(description="Deleted when the VM is.")


class VMOut(Schema):
    """A VM as lists show it."""

    id: ID
    name: str
    state: VMState
    state_since: datetime
    desired_state: Annotated[Desired, listed(Desired)]
    vcpu_count: int
    mem_size_mib: int
    hypervisor: HypervisorWish = Field(description="What it is to run on.")
    vmm: str = Field(description="What it runs on, or ran on last; empty: it never ran.")
    disk_mib_s: int | None
    disk_iops: int | None
    network_mib_s: int | None
    restart_policy: RestartPolicy
    restarts: int = Field(description="How often in a row its policy has started it again.")
    restart_at: datetime | None = Field(description="When its policy starts it again.")
    unreachable_action: UnreachableAction
    idle_suspend_minutes: int | None = Field(description="Null: it never suspends itself.")
    saved_memory: dict[str, Any] = Field(
        description="Of a suspended VM: saved_at, bytes, seconds, reason (request or idle), "
        "hypervisor, version and accelerator."
    )
    kernel: Ref | None = Field(description="Null: the default kernel at each start.")
    image: Ref | None = Field(description="What its root drive was made from.")
    drives: list[AttachedDrive]
    agent_version: str | None
    agent_outdated: bool = Field(description="It runs, with an agent older than this Nexus's.")
    heartbeat_at: datetime | None = Field(description="When its agent was heard last.")
    created_at: datetime

    @staticmethod
    def resolve_drives(vm: VM) -> list[dict[str, Any]]:
        return [
            {
                "id": attachment.drive.id,
                "name": attachment.drive.name,
                "size_bytes": attachment.drive.size_bytes,
                "is_root": attachment.is_root,
                "read_only": attachment.read_only,
                "delete_with_vm": attachment.drive.delete_with_vm,
            }
            for attachment in vm.attachments.all()
        ]

    @staticmethod
    def resolve_agent_version(vm: VM) -> str | None:
        return cast("str | None", vm.agent.get("agent_version"))

    @staticmethod
    def resolve_agent_outdated(vm: VM) -> bool:
        return agent_outdated(vm)


class BootOut(Schema):
    """One start of a VM."""

    id: ID
    number: int
    hypervisor: str
    hypervisor_version: str
    accelerator: str
    choice: str = Field(description="Why it was this hypervisor.")
    resumed_from: str = Field(description="Whose memory it went on from; empty: it booted.")
    resumed: str = Field(description="From what it went on, or why it booted.")
    jailed: bool = Field(description="Whether the VMM had no rights but its own.")
    kernel: Ref | None
    launched_at: datetime | None
    hello_at: datetime | None
    seconds_to_hello: float | None
    ended_at: datetime | None
    exit: dict[str, Any] | None
    metrics: dict[str, Any] = Field(
        description="The VMM's own counters under its own names, as last seen; without zeros."
    )

    @staticmethod
    def resolve_exit(boot: Any) -> dict[str, Any] | None:
        return boot.exit or None


class NextStart(Schema):
    """What a start would use, as far as is known."""

    hypervisor: str = Field(description="Empty: none, or not known.")
    reason: str = Field(description="Why that one, or why none.")


class VMDetail(VMOut):
    mac: str
    agent: dict[str, Any] = Field(description="What the agent said in its last hello.")
    heartbeat: dict[str, Any] = Field(description="The agent's last answer.")
    last_boot: BootOut | None
    parent: Ref | None = Field(description="What it was cloned or forked from, if that is there.")
    pool: Ref | None = Field(description="The pool that it was taken from, if that is there.")
    source_snapshot: Ref | None = Field(description="What it was cloned from, if that is there.")
    hotplug_problem: str = Field(
        description="Why drives cannot be attached or detached now; empty: they can."
    )
    next_start: NextStart
    phase: str = Field(description="What provisioning does now, in words; empty: nothing.")

    @staticmethod
    def resolve_phase(vm: VM) -> str:
        return phase_of(vm)

    @staticmethod
    def resolve_next_start(vm: VM) -> dict[str, str]:
        hypervisor, reason = expectation(vm.hypervisor)
        return {"hypervisor": hypervisor, "reason": reason}

    @staticmethod
    def resolve_hotplug_problem(vm: VM) -> str:
        return hotplug_problem(vm)

    @staticmethod
    def resolve_last_boot(vm: VM) -> Any:
        return next(iter(vm.boots.all()), None)


class TransitionOut(Schema):
    """One move of a VM's state; ``from_state`` is empty for its creation."""

    number: int
    at: datetime
    from_state: str
    to_state: VMState
    reason: str
    actor: str
    operation_id: ID | None
    detail: dict[str, Any]


class CreateVM(VMShape):
    """A VM from an image, which gets a drive of its own, or with a drive as its root."""

    name: str = Name
    image: str = Field("", description="Name or ID; not with a drive.")
    drive: str = Field("", description="Name or ID; not with an image.")
    kernel: str = Field("", description="Name or ID; left out, the default kernel.")
    start: bool = False
    cold: bool = Cold
    provisioning: ProvisioningIn | None = Field(None, description="What its guest is given.")


class UpdateVM(ChangedShape):
    """What is left out stays as it is."""

    name: str | None = Field(None, min_length=1, max_length=63)
    kernel: str | None = Field(
        None, max_length=63, description="Name or ID; empty: the default one at each start."
    )


class StartVM(Input):
    cold: bool = Field(
        default=False,
        description="Let the guest boot, though it could go on from a saved memory; a suspended "
        "VM's own is given up.",
    )


class StopVM(Input):
    force: bool = Field(default=False, description="Kill the VMM without asking the guest.")


class BalloonVM(Input):
    mem_size_mib: int = Field(ge=1, le=64 * 1024 * 1024, description="What its guest is to keep.")


class DeleteQuery(Schema):
    force: bool = Field(False, description="Stop the VM first if it runs.")
    keep_drives: bool = Field(False, description="Keep its drives; they can be attached again.")
    with_snapshots: bool = Field(
        False, description="Delete its snapshots too, and those of drives that go with it."
    )


class AttachDrive(Input):
    vm: str = Field(description="Name or ID of a VM, at rest or ready.")
    is_root: bool = True
    read_only: bool = False
    delete_with_vm: bool | None = Field(
        None, description="Delete it when the VM is deleted; left out, as it was."
    )
