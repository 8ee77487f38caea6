"""What the JSON API of drives takes and gives."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from ninja import Field, Schema

from drives.models import Drive
from nexus_site.core.schemas import ID, Input, Ref, listed


class AttachedTo(Schema):
    """The VM that has the drive, and how."""

    id: ID
    name: str
    is_root: bool
    read_only: bool


class DriveOut(Schema):
    id: ID
    name: str
    state: Annotated[Drive.State, listed(Drive.State)]
    image: Ref | None
    size_bytes: int
    vm: AttachedTo | None
    created_at: datetime

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


class CreateDrive(Input):
    image: str = Field(description="Its name or ID.")
    name: str = Field("", max_length=63, description="Left out, a name is generated.")
    size_mib: int | None = Field(
        None, ge=1, le=64 * 1024 * 1024, description="Left out, the image's size."
    )
