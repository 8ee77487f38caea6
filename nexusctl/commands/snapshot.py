"""nexusctl snapshot …"""

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
from nexusctl.commands.drive import drive_argument, name_option, usage
from nexusctl.commands.vm_snapshots import MADE, as_tree
from nexusctl.formatting import size, when

snapshot_argument = click.argument("snapshot", metavar="SNAPSHOT")


@click.group(cls=Group)
def snapshot() -> None:
    """What drives held at some point in time (also: snap)."""


@snapshot.command()
@drive_argument
@name_option
@work_options
@pass_app
def create(app: App, drive: str, name: str, work: Work) -> None:
    """Keep what a drive holds now.

    A VM that runs stands still meanwhile; its agent writes everything out first.
    """
    operation = app.change("POST", f"/drives/{drive}/snapshots", work, body={"name": name})
    if operation:
        made = app.client.get(f"/snapshots/{operation['result']['snapshot']}")
        show_named(made)
        output.note(f"It was {MADE[made['consistency']]}.")


@snapshot.command("list")
@click.option("--drive", default="", help="Only those of this drive, as a tree.")
@pass_app
def list_(app: App, drive: str) -> None:
    """List snapshots of drives, newest first; * is where a drive goes on from."""
    app.items("/snapshots", show_tree if drive else show_snapshots, drive=drive)


@snapshot.command()
@snapshot_argument
@pass_app
def inspect(app: App, snapshot: str) -> None:
    """Show all about a snapshot."""
    app.answer(app.client.get(f"/snapshots/{snapshot}"), show_snapshot)


@snapshot.command()
@snapshot_argument
@click.argument("name")
@dry_run_option
@pass_app
def rename(app: App, snapshot: str, name: str, work: Work) -> None:
    """Give a snapshot another name."""
    row = app.change("PATCH", f"/snapshots/{snapshot}", work, body={"name": name})
    if row:
        show_named(row)


@snapshot.command()
@snapshot_argument
@yes_option
@work_options
@pass_app
def delete(app: App, snapshot: str, yes: bool, work: Work) -> None:
    """Delete a snapshot; drives made of it stay."""
    confirm(f"Delete the snapshot {snapshot}?", yes=yes, work=work)
    app.change("DELETE", f"/snapshots/{snapshot}", work)


snapshot.add_command(drive_files.export_snapshot)


def show_snapshots(rows: list[Any]) -> None:
    _table([("", row) for row in rows])


def show_tree(rows: list[Any]) -> None:
    _table(list(as_tree(rows)))


def _table(lines: list[tuple[str, dict[str, Any]]]) -> None:
    output.table(
        ["NAME", "ID", "STATE", "DRIVE", "SIZE", "MADE", "CREATED"],
        [
            [
                f"{branch}{row['name']}{' *' if row['is_head'] else ''}",
                row["id"],
                output.state(row["state"]),
                row["drive"]["name"],
                size(row["size_bytes"]),
                MADE.get(row["consistency"] or "", ""),
                when(row["created_at"]),
            ]
            for branch, row in lines
        ],
        empty="No snapshots. Take one: nexusctl snapshot create DRIVE",
    )


def show_snapshot(row: dict[str, Any]) -> None:
    output.facts(
        [
            ("name", row["name"]),
            ("id", row["id"]),
            ("state", output.state(row["state"])),
            ("drive", _named(row["drive"])),
            ("made", MADE.get(row["consistency"] or "", "")),
            ("part of", _named(row["vm_snapshot"])),
            ("parent", _named(row["parent"])),
            ("children", ", ".join(child["name"] for child in row["children"])),
            ("goes on", "the drive goes on from it" if row["is_head"] else ""),
            ("size", size(row["size_bytes"])),
            ("on disk", usage(row["usage"])),
            ("clones", ", ".join(clone["name"] for clone in row["clones"])),
            ("created", when(row["created_at"])),
        ]
    )


def _named(ref: dict[str, Any] | None) -> str:
    return f"{ref['name']} ({ref['id']})" if ref else ""
