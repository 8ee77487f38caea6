"""nexusctl vm cp …, nexusctl vm ls …"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from nexusctl import output
from nexusctl.app import App, Command, pass_app
from nexusctl.formatting import size

if TYPE_CHECKING:
    from nexusctl.copying import Copy

_TYPES = {"directory": stat.S_IFDIR, "link": stat.S_IFLNK, "file": stat.S_IFREG}
_TYPES |= {"fifo": stat.S_IFIFO, "socket": stat.S_IFSOCK, "device": stat.S_IFCHR}


@click.command(cls=Command)
@click.argument("source")
@click.argument("target")
@pass_app
def cp(app: App, source: str, target: str) -> None:
    """Copy a file or a directory into a VM (VM:/PATH), out of one, or from one to another.

    A directory goes with all that is in it; DIRECTORY/. means only what is in it. A target that
    is a directory takes the copy into itself. - is the standard input or output; of a directory
    the output is an archive (tar). Modes are kept, owners are not: in the VM all belongs to root.
    """
    from nexusctl.copying import Copy, Place

    ends = Place.parse(source), Place.parse(target)
    if not any(end.vm for end in ends):
        raise click.UsageError("One of the two is in a VM: VM:/PATH. (A file here: ./NAME.)")
    copy = Copy(app.client, *ends)
    with _progress(copy, quiet=app.json):
        copy.run()
    if app.json:
        output.as_json(vars(copy.counted))
        return
    left_out = f", {copy.counted.skipped} devices and the like left out"
    note = f"{copy.target}: {size(copy.counted.bytes)}"
    output.note(note + (left_out if copy.counted.skipped else ""))


@contextmanager
def _progress(copy: Copy, *, quiet: bool) -> Iterator[None]:
    """A bar on stderr, where somebody watches."""
    if quiet or not output.is_terminal():
        yield
        return
    from rich import progress
    from rich.console import Console

    columns = (
        progress.BarColumn(),
        progress.DownloadColumn(binary_units=True),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("", total=None)
        copy.begin = lambda total: shown.update(task, total=total)
        copy.advance = lambda count: shown.advance(task, count)
        yield


@click.command(cls=Command)
@click.argument("vm", metavar="VM")
@click.argument("path", default="/")
@pass_app
def ls(app: App, vm: str, path: str) -> None:
    """List a directory of a ready VM."""
    items: list[dict[str, Any]] = []
    after: str | None = ""
    while after is not None:
        page = app.client.get(f"/vms/{vm}/files", path=path, after=_decoded(after))
        items += page["items"] if page["file"]["type"] == "directory" else [page["file"]]
        after = page["next_after"]
    app.answer(items, _show)


def _decoded(name: str) -> str:
    from urllib.parse import unquote

    return unquote(name, errors="surrogateescape")


def _show(items: list[dict[str, Any]]) -> None:
    rows = [
        (
            stat.filemode(_TYPES.get(item["type"], 0) | int(item["mode"], 8)),
            f"{item['uid']}:{item['gid']}",
            size(item["size"]),
            item["name"] + (f" → {item['target']}" if item["target"] is not None else ""),
        )
        for item in items
    ]
    output.table(("MODE", "OWNER", "SIZE", "NAME"), rows, empty="Nothing is in it.")
