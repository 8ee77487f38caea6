"""What the shortcuts take: where they start, what comes of it, and how that is to be."""

from __future__ import annotations

from ninja import Field

from nexus_site.core.schemas import ChangeQuery, Input
from vms.schemas import Cold, Name, VMShape


class _FromRootfs(Input):
    distro: str = Field(min_length=1, max_length=40, examples=["alpine"])
    version: str = Field(min_length=1, max_length=40, examples=["3.23"])
    provider: str = Field(
        "", max_length=63, description="Left out, the first provider that has the distribution."
    )


class _FromTemplate(Input):
    template: str = Field(min_length=1, max_length=63, description="Its name or ID.")


class _FromImage(Input):
    image: str = Field(min_length=1, max_length=63, description="Its name or ID.")


class _Image(Input):
    name: str = Field("", max_length=63, description="Left out, it is named after the template.")


class _Drive(Input):
    name: str = Name
    size_mib: int | None = Field(
        None, ge=1, le=64 * 1024 * 1024, description="Left out, the image's size."
    )


class _VM(VMShape):
    name: str = Name
    kernel: str = Field("", max_length=63, description="Name or ID; left out, the default one.")
    cold: bool = Cold


class ImageFromRootfs(_FromRootfs, _Image):
    pass


class ImageFromTemplate(_FromTemplate, _Image):
    pass


class DriveFromRootfs(_FromRootfs, _Drive):
    pass


class DriveFromTemplate(_FromTemplate, _Drive):
    pass


class DriveFromImage(_FromImage, _Drive):
    pass


class VMFromRootfs(_FromRootfs, _VM):
    pass


class VMFromTemplate(_FromTemplate, _VM):
    pass


class VMFromImage(_FromImage, _VM):
    pass


class ImportImageQuery(ChangeQuery):
    """What is uploaded, and how to carry it out."""

    name: str = Field("", max_length=63, description="Left out, a name is generated.")
    format: str = Field("", max_length=20, description="Left out, it is found by looking.")
    sha256: str = Field("", pattern="^([0-9a-fA-F]{64})?$", description="Refused if it differs.")
    filename: str = Field("", max_length=200, description="Where it comes from, for people.")
