"""What the JSON API of warm templates takes and gives."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from ninja import Field, Schema

from nexus_site.core.schemas import ID, Ref, listed
from vms.models import VM, WarmTemplate
from vms.schemas import HypervisorWish, Limits, MemSizeMib, VcpuCount
from vms.services import warm


class WarmTemplateOut(Schema):
    """An image that has booted once; fresh VMs that fit it go on from there."""

    id: ID
    image: Ref | None = Field(description="Null: it has been deleted.")
    kernel: Ref | None
    state: Annotated[WarmTemplate.State, listed(WarmTemplate.State)] = Field(
        description="wanted: it is made when the worker has nothing else to do; failed: it is not "
        "tried again until somebody asks for that."
    )
    problem: str = Field(description="Why it has failed.")
    facts: dict[str, Any] = Field(description="What must be the same for a VM to go on from it.")
    memory_bytes: int | None = Field(description="What its memory takes on the disk.")
    disk_bytes: int | None = Field(description="What its drives take there, shared blocks too.")
    hits: int = Field(description="How many VMs went on from it.")
    last_hit_at: datetime | None
    created_at: datetime

    @staticmethod
    def resolve_memory_bytes(template: WarmTemplate) -> int | None:
        return template.checkpoint.memory_bytes if template.checkpoint else None

    @staticmethod
    def resolve_disk_bytes(template: WarmTemplate) -> int | None:
        return warm.disk_bytes(template)


class MakeWarmTemplate(Limits):
    """The image, and what the VMs are like that are to go on from it."""

    image: str = Field(min_length=1, max_length=63, description="Its name or ID.")
    vcpu_count: int = VcpuCount
    mem_size_mib: int = MemSizeMib
    hypervisor: HypervisorWish = Field(
        VM.Hypervisor.AUTO, description="auto: the best that works here."
    )
