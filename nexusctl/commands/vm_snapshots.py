"""nexusctl vm snapshot …, rollback, clone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import click

from nexusctl import output
from nexusctl.app import (
    App,
    Command,
    Work,
    confirm,
    dry_run_option,
    pass_app,
    show_named,
    work_options,
    yes_option,
)
from nexusctl.commands.vm_shape import changed_shape_options
from nexusctl.formatting import mib, size, when

vm_argument = click.argument("vm", metavar="VM")
snapshot_argument = click.argument("snapshot", metavar="SNAPSHOT")
name_option = click.option("--name", default="", help="Left out, a name is generated.")
stop_option = click.option(
    "--stop", is_flag=True, help="Shut a running VM down before and start it again after."
)

MADE = {
    "at-rest": "taken at rest",
    "frozen": "frozen by the agent",
    "crash": "as after a power cut",
}


@click.command(cls=Command)
@vm_argument
@name_option
@work_options
@pass_app
def snapshot(app: App, vm: str, name: str, work: Work) -> None:
    """Keep what all drives of a VM hold at one instant.

    A VM that runs stands still meanwhile; its agent writes everything out first.
    """
    operation = app.change("POST", f"/vms/{vm}/snapshots", work, body={"name": name})
    if operation:
        made = app.client.get(f"/vm-snapshots/{operation['result']['vm_snapshot']}")
        show_named(made)
        output.note(f"It was {how(made)}.")


@click.command(cls=Command)
@vm_argument
@pass_app
def snapshots(app: App, vm: str) -> None:
    """List the snapshots of a VM as a tree; * is where it goes on from."""
    app.items(f"/vms/{vm}/snapshots", show_tree)


@click.command("snapshot-inspect", cls=Command)
@snapshot_argument
@pass_app
def inspect(app: App, snapshot: str) -> None:
    """Show all about a snapshot of a VM."""
    app.answer(app.client.get(f"/vm-snapshots/{snapshot}"), show_snapshot)


@click.command("snapshot-rename", cls=Command)
@snapshot_argument
@click.argument("name")
@dry_run_option
@pass_app
def rename(app: App, snapshot: str, name: str, work: Work) -> None:
    """Give a snapshot of a VM another name."""
    row = app.change("PATCH", f"/vm-snapshots/{snapshot}", work, body={"name": name})
    if row:
        show_named(row)


@click.command("snapshot-delete", cls=Command)
@snapshot_argument
@yes_option
@work_options
@pass_app
def delete(app: App, snapshot: str, yes: bool, work: Work) -> None:
    """Delete a snapshot of a VM; clones made of it stay."""
    confirm(f"Delete the snapshot {snapshot}?", yes=yes, work=work)
    app.change("DELETE", f"/vm-snapshots/{snapshot}", work)


@click.command(cls=Command)
@vm_argument
@snapshot_argument
@stop_option
@yes_option
@work_options
@pass_app
def rollback(app: App, vm: str, snapshot: str, stop: bool, yes: bool, work: Work) -> None:
    """Give all drives of a VM what they held in a snapshot.

    What was written since is lost, unless there is a snapshot of it.
    """
    confirm(f"Roll {vm} back to {snapshot}? What was written since is lost.", yes=yes, work=work)
    body = {"snapshot": snapshot, "stop": stop}
    app.change("POST", f"/vms/{vm}/rollback", work, body=body)


@click.command(cls=Command)
@vm_argument
@click.option("--snapshot", default="", help="Left out, the VM as it is now.")
@name_option
@click.option("--start", is_flag=True, help="Start it as well.")
@changed_shape_options
@work_options
@pass_app
def clone(
    app: App,
    vm: str,
    snapshot: str,
    name: str,
    start: bool,
    shape: dict[str, Any],
    work: Work,
) -> None:
    """Make a VM with copies of all drives of another, and an identity of its own."""
    body = {"snapshot": snapshot, "name": name, "start": start} | shape
    operation = app.change("POST", f"/vms/{vm}/clone", work, body=body)
    if operation:
        show_named(operation["subject"])


COMMANDS = (snapshot, snapshots, inspect, rename, delete, rollback, clone)


def show_tree(rows: list[Any]) -> None:
    output.table(
        ["NAME", "ID", "STATE", "MADE", "HELD", "MEMORY", "DRIVES", "CREATED"],
        [
            [
                f"{branch}{row['name']}{' *' if row['is_head'] else ''}",
                row["id"],
                output.state(row["state"]),
                MADE.get(row["consistency"] or "", ""),
                _held(row),
                _memory(row),
                str(len(row["drives"])),
                when(row["created_at"]),
            ]
            for branch, row in as_tree(rows)
        ],
        empty="No snapshots. Take one: nexusctl vm snapshot VM",
    )


def as_tree(rows: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows, oldest first, each after its parent, with the branch that leads to it."""
    known = {row["id"] for row in rows}
    children: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in reversed(rows):
        parent = row["parent"]["id"] if row["parent"] else ""
        children[parent if parent in known else ""].append(row)
    waiting = [("", "", row) for row in reversed(children[""])]
    while waiting:
        branch, below, row = waiting.pop()
        yield branch, row
        after = children[row["id"]]
        if len(after) == 1:  # a line of snapshots stays a line
            waiting.append((below, below, after[0]))
            continue
        forks = [(f"{below}├─ ", f"{below}│  ", child) for child in after[:-1]]
        forks += [(f"{below}└─ ", f"{below}   ", child) for child in after[-1:]]
        waiting += reversed(forks)


def show_snapshot(row: dict[str, Any]) -> None:
    output.facts(
        [
            ("name", row["name"]),
            ("id", row["id"]),
            ("vm", f"{row['vm']['name']} ({row['vm']['id']})"),
            ("state", output.state(row["state"])),
            ("made", how(row) if row["consistency"] else ""),
            ("parent", f"{row['parent']['name']} ({row['parent']['id']})" if row["parent"] else ""),
            ("goes on", "the VM goes on from it" if row["is_head"] else ""),
            ("cpus", str(row["vcpu_count"])),
            ("memory", mib(row["mem_size_mib"])),
            ("saved", _saved(row)),
            ("drives", "\n".join(_drive(part) for part in row["drives"])),
            ("created", when(row["created_at"])),
        ]
    )


def _drive(part: dict[str, Any]) -> str:
    kind = "root" if part["is_root"] else "data"
    mode = ", read-only" if part["read_only"] else ""
    return f"{part['drive']['name']} as {part['name']}, {kind}, {size(part['size_bytes'])}{mode}"


def how(row: dict[str, Any]) -> str:
    held = _held(row)
    return MADE[row["consistency"]] + (f", its CPUs stood still for {held}" if held else "")


def _memory(row: dict[str, Any]) -> str:
    """What a checkpoint's memory takes; empty for other snapshots."""
    return size(row["memory_bytes"]) if row["memory_bytes"] is not None else ""


def _saved(row: dict[str, Any]) -> str:
    by = row["memory_of"]
    return f"{_memory(row)} by {by['hypervisor']} {by['version']}" if by else ""


def _held(row: dict[str, Any]) -> str:
    return f"{row['held_ms']} ms" if row["held_ms"] is not None else ""
