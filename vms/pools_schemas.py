"""What the JSON API of pools takes and gives."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ninja import Field, Schema

from nexus_site.core.schemas import ID, Input, Ref
from vms.models import VM, Pool
from vms.schemas import Name, VMShape, VMState
from vms.services.pools import MOST
from vms.states import State


class WaitingVM(Schema):
    """A VM that waits in a pool, or is being made for it."""

    id: ID
    name: str
    state: VMState
    state_since: datetime


class PoolOut(Schema):
    """VMs of an image that are ready before anybody asks for one."""

    id: ID
    name: str
    image: Ref = Field(description="What its VMs are made of now.")
    template: Ref | None = Field(description="Whose current image it follows; null: none.")
    size: int = Field(description="How many VMs are to wait.")
    ready: int = Field(description="How many can be taken at once.")
    taken: int = Field(description="How many were.")
    problem: str = Field(description="Why it is not full; empty: it is, or is being filled.")
    retry_at: datetime | None = Field(description="After a failure: when it makes the next VM.")
    shape: dict[str, Any] = Field(description="What its VMs are like; see POST /v1/pools.")
    vms: list[WaitingVM]
    created_at: datetime

    @staticmethod
    def resolve_ready(pool: Pool) -> int:
        return sum(vm.state == State.READY for vm in PoolOut.resolve_vms(pool))

    @staticmethod
    def resolve_vms(pool: Pool) -> list[VM]:
        return pool.waiting  # type: ignore[attr-defined, no-any-return]  # queries.pools


class CreatePool(VMShape):
    """A pool of VMs of an image, or of whatever image the last build of a template made."""

    name: str = Field(min_length=1, max_length=63, description="A DNS label.")
    image: str = Field("", description="Name or ID; not with a template.")
    template: str = Field("", description="Name or ID; not with an image.")
    size: int = Field(1, ge=0, le=MOST)


class UpdatePool(Input):
    """What is left out stays as it is."""

    name: str | None = Field(None, min_length=1, max_length=63)
    size: int | None = Field(None, ge=0, le=MOST, description="0 empties it.")


class TakeVM(Input):
    name: str = Name
    or_start: bool = Field(
        default=False,
        description="Where none is ready: start one from the image, which takes longer (202).",
    )
