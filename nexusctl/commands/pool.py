"""nexusctl pool …"""

from __future__ import annotations

from typing import Any

import click

from nexusctl import output
from nexusctl.app import (
    App,
    Command,
    Group,
    Work,
    confirm,
    dry_run_option,
    pass_app,
    show_named,
    work_options,
    yes_option,
)
from nexusctl.commands.vm_shape import new_shape_options
from nexusctl.formatting import ago, mib, when

pool_argument = click.argument("pool", metavar="POOL")
_SIZE = click.IntRange(0, 100)


@click.group(cls=Group)
def pool() -> None:
    """Pools: VMs that are ready before anybody asks for one."""


@pool.command("list")
@pass_app
def list_(app: App) -> None:
    """List pools, newest first, with how many VMs are ready in each."""
    app.items("/pools", show_pools)


@pool.command()
@click.argument("name")
@click.option("--image", default="", help="What its VMs are made of.")
@click.option("--template", default="", help="Or the image of this template's last build.")
@click.option("--size", type=_SIZE, default=1, show_default=True, help="How many VMs wait.")
@new_shape_options
@dry_run_option
@pass_app
def create(
    app: App,
    name: str,
    image: str,
    template: str,
    size: int,
    shape: dict[str, Any],
    work: Work,
) -> None:
    """Keep so many VMs of an image ready; they are made in the background.

    Of a template, its VMs are replaced when the template has been built anew.
    """
    body = {"name": name, "image": image, "template": template, "size": size} | shape
    _show_made(app.change("POST", "/pools", work, body=body))


@pool.command()
@pool_argument
@pass_app
def show(app: App, pool: str) -> None:
    """Show all about a pool, with the VMs that wait in it."""
    app.answer(app.client.get(f"/pools/{pool}"), show_pool)


@pool.command()
@pool_argument
@click.argument("size", type=_SIZE)
@dry_run_option
@pass_app
def resize(app: App, pool: str, size: int, work: Work) -> None:
    """Have another number of VMs wait; 0 empties the pool.

    It tries again at once what it has failed to make.
    """
    _show_made(app.change("PATCH", f"/pools/{pool}", work, body={"size": size}))


@click.command(cls=Command)
@pool_argument
@click.option("--name", default="", help="Left out, a name is generated.")
@click.option("--or-start", is_flag=True, help="Where none is ready, start one; that takes longer.")
@work_options
@pass_app
def take(app: App, pool: str, name: str, or_start: bool, work: Work) -> None:
    """Take a VM out of a pool: it is ready, and yours; the pool makes another."""
    body = {"name": name, "or_start": or_start}
    made = app.change("POST", f"/pools/{pool}/take", work, body=body)
    if made:
        show_named(made.get("subject", made))


pool.add_command(take)


@pool.command()
@pool_argument
@yes_option
@work_options
@pass_app
def delete(app: App, pool: str, yes: bool, work: Work) -> None:
    """Delete a pool with the VMs that wait in it; those that were taken stay."""
    confirm(f"Delete the pool {pool} with the VMs that wait in it?", yes=yes, work=work)
    app.change("DELETE", f"/pools/{pool}", work)


def show_pools(rows: list[Any]) -> None:
    output.table(
        ["NAME", "ID", "READY", "IMAGE", "CPUS", "MEMORY", "TAKEN", "CREATED"],
        [
            [
                row["name"],
                row["id"],
                f"{row['ready']}/{row['size']}",
                row["image"]["name"],
                str(row["shape"]["vcpu_count"]),
                mib(row["shape"]["mem_size_mib"]),
                str(row["taken"]),
                ago(row["created_at"]),
            ]
            for row in rows
        ],
        empty="No pools. Make one: nexusctl pool create NAME --image IMAGE --size 3",
    )
    for row in rows:
        _note_problem(row)


def show_pool(row: dict[str, Any]) -> None:
    output.facts(
        [
            ("name", row["name"]),
            ("id", row["id"]),
            ("image", row["image"]["name"]),
            ("template", row["template"]["name"] if row["template"] else ""),
            ("ready", f"{row['ready']} of {row['size']}"),
            ("taken", str(row["taken"])),
            ("cpus", str(row["shape"]["vcpu_count"])),
            ("memory", mib(row["shape"]["mem_size_mib"])),
            ("problem", row["problem"]),
            ("tries again", when(row["retry_at"]) if row["retry_at"] and row["problem"] else ""),
            ("created", when(row["created_at"])),
        ]
    )
    if row["vms"]:
        output.table(
            ["WAITING", "ID", "STATE", "SINCE"],
            [
                [vm["name"], vm["id"], output.state(vm["state"]), ago(vm["state_since"])]
                for vm in row["vms"]
            ],
            empty="",
        )


def _show_made(row: dict[str, Any] | None) -> None:
    if row:
        show_named(row)
        _note_problem(row)


def _note_problem(row: dict[str, Any]) -> None:
    if row["problem"]:
        output.note(f"{row['name']}: {row['problem']}")
