"""nexusctl drive …"""

from __future__ import annotations

from typing import Any

import click

from nexusctl import output
from nexusctl.app import (
    App,
    Group,
    Work,
    confirm,
    dry_run_option,
    pass_app,
    show_named,
    work_options,
    yes_option,
)
from nexusctl.commands import drive_files
from nexusctl.commands.shortcuts import add_shortcuts
from nexusctl.commands.vm_snapshots import as_tree
from nexusctl.errors import NOT_FOUND, Failure
from nexusctl.formatting import size, when
from nexusctl.sizes import SIZE

drive_argument = click.argument("drive", metavar="DRIVE")
name_option = click.option("--name", default="", help="Left out, a name is generated.")
size_option = click.option(
    "--size", "size_mib", type=SIZE, help="20G, 512M…; left out, the size of what is copied."
)
goes_option = click.option(
    "--delete-with-vm", is_flag=True, help="It goes when the VM goes that it is in."
)


@click.group(cls=Group)
def drive() -> None:
    """The block devices of VMs (also: dr, ws)."""


@drive.command("list")
@click.option("--image", default="", help="Only drives that descend from it.")
@pass_app
def list_(app: App, image: str) -> None:
    """List drives, newest first."""
    app.items("/drives", show_drives, image=image)


@drive.command()
@click.option("--image", default="", help="Copy an image.")
@click.option("--from-drive", "source", default="", metavar="DRIVE", help="Copy a drive.")
@click.option("--from-snapshot", "snapshot", default="", metavar="SNAPSHOT", help="Copy one.")
@name_option
@size_option
@goes_option
@work_options
@pass_app
def create(app: App, /, work: Work, source: str, **wishes: Any) -> None:
    """Make a drive: a copy, or with a size alone an empty ext4 file system."""
    if not any((wishes["image"], source, wishes["snapshot"], wishes["size_mib"])):
        raise click.UsageError("Say what to copy, or a --size for an empty drive.")
    _make(app, work, drive=source, **wishes)


@drive.command()
@click.argument("source", metavar="DRIVE|SNAPSHOT")
@name_option
@size_option
@goes_option
@work_options
@pass_app
def clone(app: App, /, source: str, work: Work, **wishes: Any) -> None:
    """Make a drive with what another holds now, or held in a snapshot.

    A drive goes before a snapshot of the same name.
    """
    kind = "drive" if _is_drive(app, source) else "snapshot"
    _make(app, work, **{kind: source}, **wishes)


def _is_drive(app: App, ref: str) -> bool:
    try:
        app.client.get(f"/drives/{ref}")
    except Failure as failure:
        if failure.exit_code != NOT_FOUND:
            raise
        return False
    return True


def _make(app: App, work: Work, **body: Any) -> None:
    operation = app.change("POST", "/drives", work, body=body)
    if operation:
        show_named(operation["subject"])


add_shortcuts(drive, "drive", "rootfs", "template", "image")
drive.add_command(drive_files.export)
drive.add_command(drive_files.import_)


@drive.command()
@drive_argument
@pass_app
def inspect(app: App, drive: str) -> None:
    """Show all about a drive."""
    app.answer(app.client.get(f"/drives/{drive}"), show_drive)


@drive.command()
@drive_argument
@click.argument("vm", metavar="VM")
@click.option("--data", is_flag=True, help="As a data drive; else as its root drive.")
@click.option("--read-only", is_flag=True)
@click.option("--delete-with-vm/--keep", default=None, help="Whether it goes with the VM.")
@work_options
@pass_app
def attach(
    app: App,
    drive: str,
    vm: str,
    data: bool,
    read_only: bool,
    delete_with_vm: bool | None,
    work: Work,
) -> None:
    """Put a drive into a VM; one that runs finds it as a SCSI disk, /dev/sda."""
    body: dict[str, Any] = {"vm": vm, "is_root": not data, "read_only": read_only}
    if delete_with_vm is not None:
        body["delete_with_vm"] = delete_with_vm
    row = app.change("POST", f"/drives/{drive}/attach", work, body=body)
    if row and "steps" in row:
        show_named(row["subject"])
    elif row:
        show_named(row)
        output.note(f"It is {_place(row)}.")


@drive.command()
@drive_argument
@work_options
@pass_app
def detach(app: App, drive: str, work: Work) -> None:
    """Take a drive out of its VM; the guest must have unmounted it."""
    row = app.change("POST", f"/drives/{drive}/detach", work)
    if row:
        show_named(row.get("subject", row))


@drive.command()
@drive_argument
@click.argument("name")
@dry_run_option
@pass_app
def rename(app: App, drive: str, name: str, work: Work) -> None:
    """Give a drive another name."""
    row = app.change("PATCH", f"/drives/{drive}", work, body={"name": name})
    if row:
        show_named(row)


@drive.command("set")
@drive_argument
@click.option(
    "--delete-with-vm/--keep", required=True, help="Whether it goes when the VM goes it is in."
)
@dry_run_option
@pass_app
def set_(app: App, drive: str, delete_with_vm: bool, work: Work) -> None:
    """Say whether a drive goes with its VM."""
    body = {"delete_with_vm": delete_with_vm}
    row = app.change("PATCH", f"/drives/{drive}", work, body=body)
    if row:
        show_named(row)


@drive.command()
@drive_argument
@click.argument("size", type=SIZE)
@work_options
@pass_app
def resize(app: App, drive: str, size: int, work: Work) -> None:
    """Make a drive at rest larger (20G, 512M…), and its file system."""
    operation = app.change("POST", f"/drives/{drive}/resize", work, body={"size_mib": size})
    if operation:
        show_named(operation["subject"])


@drive.command()
@drive_argument
@click.argument("snapshot", metavar="SNAPSHOT")
@click.option(
    "--stop", is_flag=True, help="Shut a running VM down before and start it again after."
)
@yes_option
@work_options
@pass_app
def rollback(app: App, drive: str, snapshot: str, stop: bool, yes: bool, work: Work) -> None:
    """Give a drive what it held in one of its snapshots.

    What was written since is lost, unless there is a snapshot of it.
    """
    question = f"Roll {drive} back to {snapshot}? What was written since is lost."
    confirm(question, yes=yes, work=work)
    body = {"snapshot": snapshot, "stop": stop}
    app.change("POST", f"/drives/{drive}/rollback", work, body=body)


@drive.command()
@drive_argument
@click.option("--with-snapshots", is_flag=True, help="Delete its snapshots too.")
@yes_option
@work_options
@pass_app
def delete(app: App, drive: str, with_snapshots: bool, yes: bool, work: Work) -> None:
    """Delete a drive and all that is on it."""
    confirm(f"Delete the drive {drive} and all that is on it?", yes=yes, work=work)
    query = {"with_snapshots": with_snapshots}
    app.change("DELETE", f"/drives/{drive}", work, query=query)


def show_drives(rows: list[Any]) -> None:
    output.table(
        ["NAME", "ID", "STATE", "SIZE", "FROM", "VM"],
        [
            [
                row["name"],
                row["id"],
                output.state(row["state"]),
                size(row["size_bytes"]),
                _origin(row),
                row["vm"]["name"] if row["vm"] else "",
            ]
            for row in rows
        ],
        empty="No drives. Make one: nexusctl drive create --image IMAGE",
    )


def show_drive(row: dict[str, Any]) -> None:
    image = row["image"]
    output.facts(
        [
            ("name", row["name"]),
            ("id", row["id"]),
            ("state", output.state(row["state"])),
            ("size", size(row["size_bytes"])),
            ("on disk", usage(row["usage"])),
            ("from", _origin(row)),
            ("image", f"{image['name']} ({image['id']})" if image else ""),
            ("vm", _place(row) if row["vm"] else "in no VM"),
            ("with its vm", "deleted" if row["delete_with_vm"] else "kept"),
            ("snapshots", "\n".join(_snapshots(row))),
            ("clones", ", ".join(clone["name"] for clone in row["clones"])),
            ("created", when(row["created_at"])),
        ]
    )


def usage(row: dict[str, Any] | None) -> str:
    """What a drive or a snapshot takes: all of it, and what deleting it would free."""
    if row is None:
        return "its file is missing"
    exclusive = row["exclusive_bytes"]
    alone = f", {size(exclusive)} of it alone" if exclusive is not None else ""
    return f"{size(row['used_bytes'])}{alone}"


def _origin(row: dict[str, Any]) -> str:
    """What it was made of: ``image alpine-3-23``, ``empty``."""
    source = row["image"] if row["origin"] == "image" else row["source"]
    return f"{row['origin']} {source['name']}" if source else str(row["origin"])


def _snapshots(row: dict[str, Any]) -> list[str]:
    """As a tree; * is where the drive goes on from."""
    return [
        f"{branch}{found['name']}{' *' if found['is_head'] else ''}"
        for branch, found in as_tree(list(reversed(row["snapshots"])))
    ]


def _place(row: dict[str, Any]) -> str:
    vm = row["vm"]
    kind = "root drive" if vm["is_root"] else "data drive"
    mode = ", read-only" if vm["read_only"] else ""
    return f"the {kind} of {vm['name']} ({vm['id']}){mode}"
