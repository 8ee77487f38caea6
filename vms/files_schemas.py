"""Files of VMs as the API shows them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from ninja import Field, Query, Schema

from guest_agent.files import MAX_PAGE, PAGE, FileInfo
from nexus_site.core.schemas import Input
from nexus_site.core.text import visible
from vms.files_paths import encoded, inside
from vms.services.files import version_of

Path = Annotated[str, Query("", max_length=16_384, description="Absolute, percent-encoded.")]
User = Annotated[
    str, Field("", max_length=256, description="Whose it is: name, uid, name:group; empty: root.")
]
Mode = Annotated[str, Field("", pattern="^[0-7]{0,4}$", description="Octal digits.")]
Parents = Annotated[bool, Field(False, description="Make directories that are missing.")]


class FileOut(Schema):
    """A file of a VM. ``path`` is percent-encoded, ready to be put behind ``?path=``."""

    name: str = Field(description="For people: what is no text is shown as escapes.")
    path: str
    type: Literal["file", "directory", "link", "fifo", "socket", "device", "unknown"]
    size: int
    mode: str = Field(description="Octal digits.")
    uid: int
    gid: int
    modified: float = Field(description="Seconds since 1970, by the guest's clock.")
    target: str | None = Field(description="Of a symbolic link, for people.")
    version: str = Field(description="Another one once the file has changed.")

    @classmethod
    def of(cls, info: FileInfo, path: str) -> dict[str, Any]:
        return {
            "name": visible(info.name),
            "path": encoded(path),
            "type": info.type,
            "size": info.size,
            "mode": f"{info.mode:04o}",
            "uid": info.uid,
            "gid": info.gid,
            "modified": info.modified,
            "target": None if info.target is None else visible(info.target),
            "version": version_of(info),
        }


class FilesOut(Schema):
    """A file, and the files in it where it is a directory, in the order of their names' bytes."""

    file: FileOut
    items: list[FileOut]
    next_after: str | None = Field(description="Percent-encoded; asks for the next part as after=.")

    @classmethod
    def of(
        cls, info: FileInfo, path: str, files: tuple[FileInfo, ...], more: bool
    ) -> dict[str, Any]:
        return {
            "file": FileOut.of(info, path),
            "items": [FileOut.of(each, inside(path, each.name)) for each in files],
            "next_after": encoded(files[-1].name) if more and files else None,
        }


class WrittenOut(Schema):
    bytes: int


class UnpackedOut(Schema):
    """What an archive held; ``skipped`` counts devices, pipes and the like."""

    entries: int
    bytes: int
    skipped: int


class ListQuery(Input):
    path: str = Field("/", max_length=16_384)
    after: str = Field("", max_length=1024, description="Only names after this one.")
    limit: int = Field(PAGE, ge=1, le=MAX_PAGE)
    follow: bool = Field(True, description="Where it is a link, what that leads to.")


class WriteQuery(Input):
    path: str = Field("", max_length=16_384)
    mode: Mode
    user: User
    parents: Parents

    @property
    def octal(self) -> int | None:
        return int(self.mode, 8) if self.mode else None


class UnpackQuery(Input):
    path: str = Field("", max_length=16_384)
    user: User
    keep_owner: bool = Field(False, description="Whom the archive says, in place of user.")
    parents: Parents


class MoveQuery(Input):
    path: str = Field("", max_length=16_384)
    to: str = Field("", max_length=16_384)
    replace: bool = Field(False, description="Replace what has that name.")
