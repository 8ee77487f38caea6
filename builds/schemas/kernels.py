"""What the JSON API of kernel builds takes and gives."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ninja import Field, Schema

from builds.kernels.fragments import MAX_FRAGMENT
from builds.models import KernelBuild
from builds.schemas.builds import BuildState
from nexus_site.core.schemas import ID, ErrorRecord, Input, Ref


class BuildKernel(Input):
    """A kernel from the publisher's version or from a tarball on the server; one of the two."""

    version: str = Field("", max_length=40, examples=["6.12.58"])
    source: str = Field("", max_length=500, description="The path of a tarball on the server.")
    sha256: str = Field("", max_length=64, description="What the tarball must have; may be empty.")
    fragment: str = Field(
        "", max_length=MAX_FRAGMENT, description="Kernel options; left out, the project's own."
    )
    arch: str = Field("", max_length=20, description="Left out, that of the server.")
    jobs: int = Field(0, ge=0, le=256, description="Compilers at once; 0: one a CPU.")


class CheckKernelVersion(Input):
    version: str = Field(default="", max_length=40, description="Left out, the latest stable one.")


class KernelBuildOut(Schema):
    """One build of a kernel."""

    id: ID
    state: BuildState
    version: str = Field(description="Empty until the source has said it.")
    arch: str
    source: str
    source_sha256: str
    verification: str = Field(description="What vouches for the source.")
    fragment: str
    jobs: int
    compiler: str
    compiled: int = Field(description="Objects that are compiled.")
    expected: int = Field(description="Objects there will be, as far as one can guess.")
    kernel: Ref | None = Field(description="What it made; null until it has, or when removed.")
    operation_id: ID | None
    error: ErrorRecord | None
    created_at: datetime
    ended_at: datetime | None

    @staticmethod
    def resolve_error(build: KernelBuild) -> dict[str, Any] | None:
        return build.error or None


class KernelBuildDetail(KernelBuildOut):
    fragment_text: str
