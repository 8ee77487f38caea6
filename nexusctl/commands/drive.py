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
from nexusctl.formatting import size, when

drive_argument = click.argument("drive", metavar="DRIVE")


@click.group(cls=Group)
def drive() -> None:
    """Writable copies of images, for VMs (also: dr, ws)."""


@drive.command("list")
@click.option("--image", default="", help="Only drives made from this image.")
@pass_app
def list_(app: App, image: str) -> None:
    """List drives, newest first."""
    app.items("/drives", show_drives, image=image)


@drive.command()
@click.option("--image", required=True, help="What to copy.")
@click.option("--name", default="", help="Left out, a name is generated.")
@click.option("--size", "size_mib", type=int, metavar="MIB", help="Grow it to so many MiB.")
@work_options
@pass_app
def create(app: App, image: str, name: str, size_mib: int | None, work: Work) -> None:
    """Make a drive from an image."""
    body = {"image": image, "name": name, "size_mib": size_mib}
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
@dry_run_option
@pass_app
def attach(app: App, drive: str, vm: str, data: bool, read_only: bool, work: Work) -> None:
    """Put a drive into a VM at rest."""
    body = {"vm": vm, "is_root": not data, "read_only": read_only}
    row = app.change("POST", f"/drives/{drive}/attach", work, body=body)
    if row:
        show_named(row)
        output.note(f"It is {_place(row)}.")


@drive.command()
@drive_argument
@dry_run_option
@pass_app
def detach(app: App, drive: str, work: Work) -> None:
    """Take a drive out of its VM."""
    row = app.change("POST", f"/drives/{drive}/detach", work)
    if row:
        show_named(row)


@drive.command()
@drive_argument
@yes_option
@work_options
@pass_app
def delete(app: App, drive: str, yes: bool, work: Work) -> None:
    """Delete a drive and all that is on it."""
    confirm(f"Delete the drive {drive} and all that is on it?", yes=yes, work=work)
    app.change("DELETE", f"/drives/{drive}", work)


def show_drives(rows: list[Any]) -> None:
    output.table(
        ["NAME", "ID", "STATE", "SIZE", "IMAGE", "VM"],
        [
            [
                row["name"],
                row["id"],
                output.state(row["state"]),
                size(row["size_bytes"]),
                row["image"]["name"],
                row["vm"]["name"] if row["vm"] else "",
            ]
            for row in rows
        ],
        empty="No drives. Make one: nexusctl drive create --image IMAGE",
    )


def show_drive(row: dict[str, Any]) -> None:
    output.facts(
        [
            ("name", row["name"]),
            ("id", row["id"]),
            ("state", output.state(row["state"])),
            ("size", size(row["size_bytes"])),
            ("image", f"{row['image']['name']} ({row['image']['id']})"),
            ("vm", _place(row) if row["vm"] else "in no VM"),
            ("created", when(row["created_at"])),
        ]
    )


def _place(row: dict[str, Any]) -> str:
    vm = row["vm"]
    kind = "root drive" if vm["is_root"] else "data drive"
    mode = ", read-only" if vm["read_only"] else ""
    return f"the {kind} of {vm['name']} ({vm['id']}){mode}"
