"""nexusctl drive …, snapshot …: files to take away, and files that become drives."""

from __future__ import annotations

from pathlib import Path

import click

from nexusctl import files, output
from nexusctl.app import (
    App,
    Command,
    Work,
    pass_app,
    sha256_option,
    show_named,
    upload,
    work_options,
)
from nexusctl.formatting import size
from nexusctl.sizes import SIZE

SUFFIX = ".tar.zst"

output_option = click.option(
    "--output", "-o", "target", type=click.Path(path_type=Path), help="Left out: NAME.tar.zst"
)


@click.command(cls=Command)
@click.argument("drive", metavar="DRIVE")
@output_option
@pass_app
def export(app: App, drive: str, target: Path | None) -> None:
    """Write a drive at rest into a file (- is the standard output)."""
    _export(app, f"/drives/{drive}/export", target or Path(drive + SUFFIX))


@click.command("export", cls=Command)
@click.argument("snapshot", metavar="SNAPSHOT")
@output_option
@pass_app
def export_snapshot(app: App, snapshot: str, target: Path | None) -> None:
    """Write a snapshot into a file (- is the standard output)."""
    _export(app, f"/snapshots/{snapshot}/export", target or Path(snapshot + SUFFIX))


@click.command("import", cls=Command)
@click.argument(
    "file", type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path)
)
@click.option("--name", default="", help="Left out, the one that it was exported by.")
@click.option("--size", "size_mib", type=SIZE, help="Grow it: 20G, 512M…; left out, as it is.")
@click.option("--delete-with-vm", is_flag=True, help="It goes with the VM that it is in.")
@sha256_option
@work_options
@pass_app
def import_(
    app: App,
    file: Path,
    name: str,
    size_mib: int | None,
    delete_with_vm: bool,
    sha256: str,
    work: Work,
) -> None:
    """Make a drive of a FILE: an exported drive, a raw or a qcow2 disk; - is stdin."""
    query = {"name": name, "size_mib": size_mib, "sha256": sha256}
    query |= {"filename": "" if str(file) == "-" else file.name}
    query |= {"delete_with_vm": True} if delete_with_vm else {}
    operation = upload(app, "/drives/import", file, work, **query)
    if operation:
        show_named(operation["subject"])


def _export(app: App, path: str, target: Path) -> None:
    with files.sink(target) as sink:
        done = app.client.download(path, sink)
    output.note(f"{target}: {size(done)}")
