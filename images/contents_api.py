"""Looking into images over HTTP."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import parse_qsl

from django.http import HttpRequest
from ninja import Field, Query, Router, Schema

from images.entries import Entry, encoded
from images.models import Image
from images.services import contents
from nexus_site.core.ids import resolve
from nexus_site.core.schemas import Page
from nexus_site.core.streaming import Download

router = Router(tags=["images, root file systems and kernels"])

_PATH = {"max_length": 4096, "description": "In the image, from its root."}
Directory = Annotated[str, Query("/", **_PATH)]
File = Annotated[str, Query(..., **_PATH)]


class EntryOut(Schema):
    """One name in an image; bytes that are not UTF-8 are shown as ``\\xNN``."""

    name: str
    path: str
    kind: str
    mode: str = Field(description="Octal digits.")
    uid: int
    gid: int
    size: int
    mtime: int = Field(description="Seconds since 1970.")
    target: str = Field(description="Of a symbolic link.")

    @staticmethod
    def of(entry: Entry) -> dict[str, Any]:
        return {
            "name": shown(entry.name),
            "path": f"/{shown(entry.path)}",
            "kind": entry.kind,
            "mode": f"{entry.mode:04o}",
            "uid": entry.uid,
            "gid": entry.gid,
            "size": entry.size,
            "mtime": entry.mtime,
            "target": shown(entry.target),
        }


class PackageOut(Schema):
    name: str
    version: str


@router.get("/images/{ref}/packages", response=Page[PackageOut])
def list_image_packages(request: HttpRequest, ref: str) -> dict[str, Any]:
    """What the distribution's package manager has installed, by name, all on one page."""
    packages = resolve(Image.objects.all(), ref).packages
    items = [{"name": name, "version": version} for name, version in packages]
    return {"items": items, "next_cursor": None}


@router.get("/images/{ref}/files", response=Page[EntryOut])
def list_image_files(request: HttpRequest, ref: str, path: Directory) -> dict[str, Any]:
    """What is in a directory of the image, all on one page."""
    entries = contents.list_directory(resolve(Image.objects.all(), ref), exact(request, path))
    return {"items": [EntryOut.of(entry) for entry in entries], "next_cursor": None}


@router.get("/images/{ref}/file")
def read_image_file(request: HttpRequest, ref: str, path: File) -> Download:
    """The bytes of a file of the image."""
    found = contents.open_file(resolve(Image.objects.all(), ref), exact(request, path))
    return Download(found.pieces, shown(found.entry.name), found.entry.size)


@router.get("/images/{ref}/export")
def export_image(
    request: HttpRequest, ref: str, form: Annotated[str, Query(alias="format")] = "ext4.zst"
) -> Download:
    """The whole image: ``ext4.zst`` (its very bytes) or ``tar`` (its files)."""
    image = resolve(Image.objects.all(), ref)
    return Download(contents.export(image, form), f"{image.name}{contents.EXPORTS[form]}")


def exact(request: HttpRequest, path: str) -> str:
    """The ``path`` of the query with the bytes that are no UTF-8, which Django replaces."""
    query: str = request.META.get("QUERY_STRING", "")
    pairs = parse_qsl(query, errors="surrogateescape")
    return dict(pairs).get("path", path)


def shown(name: str) -> str:
    """A name from an image, for people: nothing but UTF-8."""
    return encoded(name).decode("utf-8", "backslashreplace")
