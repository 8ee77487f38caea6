"""What is inside an image: its packages, its files, and the whole of it to take away.

All of it is a stranger's: paths and names may hold any bytes, so they travel percent-encoded
and are shown through the ``visible`` filter; files are shown as text or not at all.
"""

from __future__ import annotations

import posixpath
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, quote

from django.http import HttpResponse, HttpResponseBase
from django.urls import reverse
from django.views.decorators.http import require_safe

from images.entries import Entry, Kind, encoded
from images.inspection import open_image
from images.models import Image
from images.services import contents, require_file
from images.views.images import image_context
from nexus_site.core.errors import Invalid
from nexus_site.core.htmx import Request, page, render_page
from nexus_site.core.ids import resolve
from nexus_site.core.listing import ValueListing
from nexus_site.core.streaming import Download
from nexus_site.core.text import visible

MOST_TEXT = 256 << 10  # bytes of a file that a page shows
MOST_LINKS = 40
PACKAGES_A_PAGE = 100


@dataclass(frozen=True)
class Line:
    """An entry as a line of the list of files."""

    entry: Entry
    url: str

    @property
    def mode(self) -> str:
        return _mode_text(self.entry)

    @property
    def changed(self) -> datetime:
        return datetime.fromtimestamp(self.entry.mtime, UTC)


@require_safe
@page()
def packages(request: Request, ref: str) -> HttpResponse:
    """What the distribution's package manager has installed."""
    image = resolve(Image.objects.all(), ref)
    listing = ValueListing(
        request,
        image.packages,
        words=lambda package: " ".join(package),
        page_size=PACKAGES_A_PAGE,
    )
    context = image_context(image, "Packages") | {"listing": listing}
    fragments = ("images/_packages.html",)
    return render_page(request, "images/packages.html", context, fragments=fragments)


@require_safe
@page()
def files(request: Request, ref: str) -> HttpResponse:
    """The directory or the file at ``?path=``; links are followed inside the image."""
    image = resolve(Image.objects.all(), ref)
    entry = find(image, path_of(request))
    context = image_context(image, "Files") | {
        "entry": entry,
        "trail": _trail(image, entry.path),
        "fragment": "images-files",
    }
    if entry.kind is Kind.DIRECTORY:
        entries = contents.list_directory(image, entry.path)
        context["lines"] = [Line(found, address(image, _goal(found))) for found in entries]
    else:
        context |= _file(image, entry)
    fragments = ("images/_files.html",)
    return render_page(request, "images/files.html", context, fragments=fragments)


@require_safe
@page()
def download_file(request: Request, ref: str) -> HttpResponseBase:
    """The bytes of the file at ``?path=``."""
    image = resolve(Image.objects.all(), ref)
    entry = find(image, path_of(request))
    found = contents.open_file(image, entry.path)
    return Download(found.pieces, visible(entry.name), entry.size)


@require_safe
@page()
def export(request: Request, ref: str) -> HttpResponseBase:
    """The whole image in ``?format=``."""
    image = resolve(Image.objects.all(), ref)
    form = request.GET.get("format", "ext4.zst")
    return Download(contents.export(image, form), f"{image.name}{contents.EXPORTS[form]}")


def path_of(request: Request) -> str:
    """``?path=``, whatever bytes it is made of."""
    query = request.META.get("QUERY_STRING", "")
    pairs: list[tuple[str, str]] = parse_qsl(query, errors="surrogateescape")
    return dict(pairs).get("path", "/")


def find(image: Image, path: str) -> Entry:
    """What is at ``path`` after all links. ``NotFound``, ``Invalid``."""
    with open_image(require_file(image)) as view:
        for _ in range(MOST_LINKS):
            entry = view.entry(path)
            if entry.kind is not Kind.SYMLINK:
                return entry
            path = _goal(entry)
    raise Invalid("Too many symbolic links lead on from there.", code="too-many-links")


def address(image: Image, path: str) -> str:
    """The page of what is at ``path``."""
    return f"{reverse('images:files', args=[image.ref])}?path={quote(encoded(f'/{path}'))}"


def _goal(entry: Entry) -> str:
    """Where a click on the entry leads: for a link, where that points to."""
    if entry.kind is not Kind.SYMLINK:
        return entry.path
    return posixpath.join("/", entry.parent, entry.target).lstrip("/")


def _trail(image: Image, path: str) -> list[dict[str, str]]:
    """The directories on the way to ``path`` and itself, each with its address."""
    parts = path.split("/") if path else []
    return [
        {"name": name, "url": address(image, "/".join(parts[: at + 1]))}
        for at, name in enumerate(parts)
    ]


def _file(image: Image, entry: Entry) -> dict[str, Any]:
    """What the page of a file shows: its text, or why not."""
    url = f"{reverse('images:download-file', args=[image.ref])}?path={quote(encoded(entry.path))}"
    if entry.kind is not Kind.FILE:
        return {"why": f"This is a {str(entry.kind).replace('-', ' ')}: it has no content."}
    facts = {"download_url": url, "mode": _mode_text(entry)}
    if entry.size > MOST_TEXT:
        return facts | {"why": "It is too large to be shown here."}
    data = b"".join(contents.open_file(image, entry.path).pieces)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return facts | {"why": "It is no text."}
    if "\0" in text:
        return facts | {"why": "It is no text."}
    return facts | {"text": visible(text, keep="\n\t"), "lines_of_text": len(text.splitlines())}


def _mode_text(entry: Entry) -> str:
    """As ``ls -l`` writes it."""
    return stat.filemode(entry.st_mode)
