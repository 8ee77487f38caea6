"""What the JSON API of images takes and gives."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from ninja import Field, Schema

from images.models import Image, Kernel, VmmRelease
from nexus_site.core.schemas import ID, Input, Page, Ref, listed

KernelState = Annotated[Kernel.State, listed(Kernel.State)]


class RootfsOut(Schema):
    """A distribution's root file system on this host."""

    id: ID
    distro: str
    version: str
    arch: str
    provider: str
    format: str
    sha256: str
    size_bytes: int
    source: str = Field(description="URL, or how it was made.")
    verification: str = Field(description="What vouches for it: sha256, OpenPGP and key…")
    verified_at: datetime | None = Field(description="When its checksum held last.")
    config: dict[str, Any] = Field(
        description="Of a container image: env, entrypoint, cmd, working_dir, user."
    )
    created_at: datetime


class RootfsRef(Schema):
    id: ID
    distro: str
    version: str


class RootfsOfferOut(Schema):
    """A root file system that a provider can deliver."""

    distro: str
    version: str
    arch: str
    aliases: list[str] = Field(description="Other ways to say the version.")
    provider: str
    format: str = Field(description="Empty when not known before.")
    size_bytes: int | None = Field(description="Of the download; null when not known before.")
    source: str
    installed: bool


class DownloadRootfs(Input):
    distro: str = Field(min_length=1, max_length=40, examples=["alpine"])
    version: str = Field(min_length=1, max_length=40, examples=["3.23"])
    provider: str = Field("", max_length=40, description="Left out, the first that has it.")


class VmmReleaseOut(Schema):
    """A release of Firecracker on this host."""

    id: ID
    version: str
    arch: str
    provider: str
    sha256: str = Field(description="Of firecracker.")
    jailer_sha256: str = Field(description="Empty: it came without a jailer.")
    size_bytes: int
    source: str = Field(description="URL, or where it was.")
    verification: str = Field(description="What vouches for it.")
    is_default: bool = Field(description="Whether VMs are started with it.")
    vms: list[str] = Field(description="The names of the VMs that run on it.")
    created_at: datetime

    @staticmethod
    def resolve_vms(release: VmmRelease) -> list[str]:
        return list(release.running_vms)


class ReleaseOfferOut(Schema):
    """A release of Firecracker that a provider can deliver."""

    version: str
    arch: str
    provider: str
    size_bytes: int | None = Field(description="Of the download; null when not known before.")
    source: str
    installed: bool


class ReleaseOffersOut(Page[ReleaseOfferOut]):
    """What can be downloaded, all on one page, as it was when the publisher was asked last."""

    refreshed_at: datetime | None = Field(description="Null: never.")
    problem: str = Field(description="Why asking failed last; empty if it did not.")


class DownloadRelease(Input):
    version: str = Field("", max_length=40, description="Left out, the newest.")
    provider: str = Field("github", max_length=40, description="github, wheel or local.")
    path: str = Field("", max_length=4000, description="On the server; for wheel and local.")


class KernelBoot(Schema):
    """One try to boot a kernel until the agent says hello."""

    seconds: float | None = Field(description="From start to hello; null: it did not come to it.")
    at: datetime
    problem: str


class KernelOut(Schema):
    id: ID
    name: str
    version: str
    arch: str
    provider: str
    sha256: str
    size_bytes: int
    is_default: bool
    state: KernelState = Field(description="Only a kernel that has booted is good.")
    source: str = Field(description="URL, or how it was made.")
    verification: str = Field(description="What vouches for its source.")
    config_digest: str = Field(description="sha256 of its options; empty: not known.")
    compiler: str
    boots: dict[str, KernelBoot] = Field(description="By VMM: how its last try went.")
    running: list[str] = Field(description="The names of the VMs that run it now.")
    pinned: list[str] = Field(description="The names of the VMs that always start with it.")
    created_at: datetime

    @staticmethod
    def resolve_running(kernel: Kernel) -> list[str]:
        return list(kernel.running_vms)

    @staticmethod
    def resolve_pinned(kernel: Kernel) -> list[str]:
        return list(kernel.pinned_vms)


class ImageOut(Schema):
    """A read-only, bootable root file system with the agent inside."""

    id: ID
    name: str
    arch: str
    os_name: str
    rootfs: RootfsRef
    build_id: ID | None
    size_bytes: int = Field(description="Of its file system.")
    used_bytes: int = Field(description="On this host's disk.")
    digest: str
    init: str = Field(description="What it boots: systemd, openrc, busybox, or none.")
    agent_version: str
    created_at: datetime

    @staticmethod
    def resolve_build_id(image: Image) -> int | None:
        return image.build.pk if image.build else None


NOBODYS = ("warm", "pool")  #: purposes of VMs that are nobody's, and in no list


class ImageDetail(ImageOut):
    """An image with what it was made from, and who needs it."""

    inputs: dict[str, Any] = Field(description="All that its bytes follow from, and its ID.")
    package_count: int
    drives: list[Ref]
    vms: list[Ref]

    @staticmethod
    def resolve_package_count(image: Image) -> int:
        return len(image.packages)

    @staticmethod
    def resolve_drives(image: Image) -> list[Any]:
        vms = {drive: getattr(drive, "attachment", None) for drive in image.drives.all()}
        return [drive for drive, at in vms.items() if at is None or at.vm.purpose not in NOBODYS]

    @staticmethod
    def resolve_vms(image: Image) -> list[Any]:
        drives = [drive for drive in image.drives.all() if hasattr(drive, "attachment")]
        return [d.attachment.vm for d in drives if d.attachment.vm.purpose not in NOBODYS]


class UpdateImage(Input):
    name: str = Field(min_length=1, max_length=63)
