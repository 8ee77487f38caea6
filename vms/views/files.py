"""The page with a VM's files: directories, small texts to edit, and what is done with files.

All of it is a guest's: paths and names may hold any bytes, so they travel percent-encoded and are
shown through ``visible``; what is uploaded and downloaded goes over the API.
"""

from __future__ import annotations

import posixpath
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from asgiref.sync import async_to_sync
from django import forms
from django.http import HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from guest_agent.files import FileInfo, Files
from nexus_site.core.dialogs import Dialog
from nexus_site.core.errors import Invalid, NexusError
from nexus_site.core.forms import ServiceForm
from nexus_site.core.htmx import Request, page, render_page, toast
from nexus_site.core.text import visible
from vms.agents import GatewayAgent
from vms.files_paths import cleaned, encoded, inside, path_of
from vms.files_texts import TextFile, read_text, unwritten
from vms.models import VM
from vms.services.files import VMFiles
from vms.services.rules import require_ready
from vms.services.suspension import ready_vm
from vms.views.frame import FRAME_FRAGMENTS, frame

FRAGMENT = "vms-files"
FRAGMENTS = (*FRAME_FRAGMENTS, "vms/_files.html")
A_PAGE = 200  # names
LATEST = 253_402_300_799  # seconds: the end of the year 9999
TYPES = {"directory": stat.S_IFDIR, "link": stat.S_IFLNK, "file": stat.S_IFREG}
TYPES |= {"fifo": stat.S_IFIFO, "socket": stat.S_IFSOCK, "device": stat.S_IFCHR}
AWAY = frozenset({"vm-not-ready", "vm-suspended", "vm-paused"})  # its files come back
ICONS = {"directory": "folder", "link": "link", "file": "file"}


@dataclass(frozen=True)
class Line:
    """A file as a line of the list, or as the head of its own page."""

    vm: VM
    info: FileInfo
    path: str

    @property
    def url(self) -> str:
        """Its page; empty for what has none."""
        return address(self.vm, self.path) if self.info.type in ICONS else ""

    @property
    def download_url(self) -> str:
        names = {"file": "api:read_vm_file", "directory": "api:read_vm_archive"}
        name = names.get(self.info.type)
        return f"{reverse(name, args=[self.vm.ref])}?path={self.encoded}" if name else ""

    @property
    def encoded(self) -> str:
        return encoded(self.path)

    @property
    def icon(self) -> str:
        return ICONS.get(self.info.type, "plug")

    @property
    def mode(self) -> str:
        """As ``ls -l`` writes it."""
        return stat.filemode(TYPES.get(self.info.type, 0) | self.info.mode)

    @property
    def changed(self) -> datetime:
        return datetime.fromtimestamp(min(self.info.modified, LATEST), UTC)


@require_safe
@page("operate")
def browse(request: Request, ref: str) -> HttpResponse:
    """The directory or the file at ``?path=``; links are followed inside the guest."""
    return _shown(request, ref, {})


@require_POST
@page("operate")
def save(request: Request, ref: str) -> HttpResponse:
    """Put the text in the place of the file, unless that is another one by now."""
    files, path = VMFiles(ready_vm(ref)), _path(request)
    text = unwritten(request.POST.get("text", ""), crlf="crlf" in request.POST)
    async_to_sync(files.write_text)(path, text, version=request.POST.get("version", ""))
    return _shown(request, ref, {"saved": True})


def _shown(request: Request, ref: str, context: dict[str, Any]) -> HttpResponse:
    context |= frame(ref, "vms:files")
    vm, path = context["vm"], _path(request)
    context |= {"path": path, "encoded": encoded(path), "fragment": FRAGMENT}
    context["trail"] = _trail(vm, path)
    status = 200
    try:
        require_ready(vm)
        context |= async_to_sync(_look)(vm, path, path_of(request, "after"))
    except NexusError as error:
        context["error"] = error
        context["away"] = error.code in AWAY
        status = 200 if context["away"] else error.status
    return render_page(request, "vms/files.html", context, fragments=FRAGMENTS, status=status)


async def _look(vm: VM, path: str, after: str) -> dict[str, Any]:
    """What the page of a path shows."""
    files = Files(GatewayAgent(vm))
    info = await files.stat(path, follow=True)
    found: dict[str, Any] = {"entry": Line(vm, info, path)}
    if info.type == "directory":
        part = await files.list(path, after=after, limit=A_PAGE)
        found["entries"] = [Line(vm, each, inside(path, each.name)) for each in part.files]
        found["after"] = visible(after)
        if part.more and part.files:
            found["next_url"] = f"{address(vm, path)}&after={encoded(part.files[-1].name)}"
        return found
    if info.type != "file":
        return found | {"text": TextFile(why=f"This is a {info.type}: it has no content.")}
    return found | {"text": await read_text(files, path)}


def address(vm: VM, path: str) -> str:
    """The page of what is at ``path``."""
    return f"{reverse('vms:files', args=[vm.ref])}?path={encoded(path)}"


def _path(request: Request) -> str:
    return cleaned(path_of(request, default="/"))


def _trail(vm: VM, path: str) -> list[dict[str, str]]:
    """The directories on the way to ``path`` and itself, each with its address."""
    parts = path.strip("/").split("/") if path != "/" else []
    return [
        {"name": name, "url": address(vm, "/" + "/".join(parts[: at + 1]))}
        for at, name in enumerate(parts)
    ]


# What is done with files


class NewDirectoryForm(ServiceForm):
    name = forms.CharField(max_length=255, strip=False)

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"]
        if "/" in name or name in (".", ".."):
            raise forms.ValidationError("A name has no slash.")
        return name


class MoveForm(ServiceForm):
    to = forms.CharField(label="New path", max_length=4096, strip=False)
    replace = forms.BooleanField(label="Replace a file that has this name", required=False)


@require_http_methods(["GET", "POST"])
@page("operate")
def make_directory(request: Request, ref: str) -> HttpResponse:
    """A new directory in the one at ``?path=``."""
    files, path = VMFiles(ready_vm(ref)), _path(request)

    def submit(data: dict[str, Any]) -> HttpResponse:
        async_to_sync(files.mkdir)(inside(path, data["name"]))
        return toast(request, f"{visible(data['name'])} is made.")

    dialog = Dialog(f"New directory in {visible(path)}", "Make it")
    return dialog.answer(request, submit, NewDirectoryForm)


@require_http_methods(["GET", "POST"])
@page("operate")
def move(request: Request, ref: str) -> HttpResponse:
    """Another name for the file at ``?path=``."""
    files, path = VMFiles(ready_vm(ref)), _path(request)
    name = visible(posixpath.basename(path))

    def submit(data: dict[str, Any]) -> HttpResponse:
        to = posixpath.join(posixpath.dirname(path), data["to"])
        async_to_sync(files.move)(path, to, replace=data["replace"])
        return toast(request, f"{name} is {visible(to)} now.")

    dialog = Dialog(f"Rename or move {name}", "Move", "It stays in its file system.")
    known = path if visible(path) == path else ""  # a field cannot hold every name
    return dialog.answer(request, submit, MoveForm, {"to": known})


@require_http_methods(["GET", "POST"])
@page("operate")
def remove(request: Request, ref: str) -> HttpResponse:
    """The file at ``?path=`` goes; a directory with all that is in it."""
    files, path = VMFiles(ready_vm(ref)), _path(request)
    info = async_to_sync(files.reading.stat)(path)
    whole = info.type == "directory"
    if path == "/":
        raise Invalid("The root is not removed.", code="guest-invalid")

    def submit(data: dict[str, Any]) -> HttpResponse:
        async_to_sync(files.remove)(path, recursive=whole)
        return toast(request, f"{visible(path)} is deleted.")

    text = "The directory and everything in it are lost." if whole else "The file is lost."
    dialog = Dialog(f"Delete {visible(path)}?", "Delete", text, danger=True)
    return dialog.answer(request, submit)
