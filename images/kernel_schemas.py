"""What the JSON API of kernels takes and gives, beside a kernel itself."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ninja import Field, Schema

from images.schemas import KernelOut
from nexus_site.core.schemas import Input, Page, Ref


class KernelOfferOut(Schema):
    """A kernel that a provider can deliver."""

    version: str
    arch: str
    provider: str
    size_bytes: int | None = Field(description="Of the download; null when not known before.")
    source: str
    installed: bool


class KernelNewsOut(Schema):
    """What kernel.org maintains that is newer than what is here, as the daily look found it."""

    newer: list[str] = Field(description="The newest first.")
    latest: str = Field(description="The latest stable one; empty where it is not known.")
    looked_at: datetime | None = Field(description="Null before kernel.org has answered.")
    problem: str = Field(description="Why asking it failed last; empty if it did not.")


class KernelOffersOut(Page[KernelOfferOut]):
    """What can be had, as far as it is known."""

    refreshed_at: datetime | None = Field(description="When the publishers were asked last.")
    problem: str = Field(description="Why asking them failed then; empty if it did not.")
    news: KernelNewsOut


class DownloadKernel(Input):
    version: str = Field("", max_length=60, description="Left out, the newest.")
    provider: str = Field("anvil", max_length=40, description="anvil, distro, embedded or local.")
    path: str = Field("", max_length=4000, description="On the server; for distro and local.")


class VerifyKernel(Input):
    boot: bool = Field(False, description="Also boot it once on each VMM, and keep how it went.")


class KernelConfigOut(Schema):
    text: str = Field(description="The options that it was built with, as the kernel has them.")


class OptionDifference(Schema):
    option: str
    before: str = Field(description="n: off.")
    after: str


class KernelDiffOut(Schema):
    """How one kernel differs from another."""

    before: KernelOut
    after: KernelOut
    options: list[OptionDifference] | None = Field(
        description="Null where the options of either are not known."
    )


class KernelScoreOut(Schema):
    """How the guests of an image came up with a kernel on a VMM, over their real boots."""

    kernel: Ref
    image: str = Field(description="Empty: it has been deleted.")
    hypervisor: str
    accelerator: str
    boots: int
    failures: int = Field(description="Boots that ended without the agent's hello.")
    p50: float | None = Field(description="Seconds from the start of the VMM to the hello.")
    p95: float | None

    @staticmethod
    def resolve_kernel(score: Any) -> dict[str, str]:
        return {"id": score.kernel_id, "name": score.kernel}
