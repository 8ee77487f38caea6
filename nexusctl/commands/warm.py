"""nexusctl warm …"""

from __future__ import annotations

from typing import Any

import click

from nexusctl import output
from nexusctl.app import App, Command, Group, Work, confirm, pass_app, work_options, yes_option
from nexusctl.formatting import ago, mib, size

cold_option = click.option(
    "--cold", is_flag=True, help="Let it boot, though it could go on from a saved memory."
)


@click.group(cls=Group)
def warm() -> None:
    """Warm templates: images that have booted once; new VMs go on from there."""


@warm.command("list")
@pass_app
def list_(app: App) -> None:
    """List warm templates, newest first, with what they take and how often they were used."""
    app.items("/warm-templates", show_warm_templates)


@click.command(cls=Command)
@click.argument("image")
@click.option("--vcpus", "vcpu_count", type=int, default=1, show_default=True)
@click.option(
    "--memory",
    "mem_size_mib",
    type=int,
    default=512,
    show_default=True,
    metavar="MIB",
    help="In MiB.",
)
@work_options
@pass_app
def make(app: App, image: str, vcpu_count: int, mem_size_mib: int, work: Work) -> None:
    """Boot IMAGE once, now, for all VMs of that size.

    That happens by itself after a VM has booted from an image for the first time, unless it has
    failed before.
    """
    body = {"image": image, "vcpu_count": vcpu_count, "mem_size_mib": mem_size_mib}
    operation = app.change("POST", "/warm-templates", work, body=body)
    if operation:
        output.data(operation["result"]["template"])
        output.note("New VMs of the image go on from it.")


warm.add_command(make)


@warm.command()
@click.argument("template", metavar="ID")
@yes_option
@work_options
@pass_app
def delete(app: App, template: str, yes: bool, work: Work) -> None:
    """Delete a warm template; VMs that went on from it run on."""
    confirm(f"Delete the warm template {template}?", yes=yes, work=work)
    app.change("DELETE", f"/warm-templates/{template}", work)


@warm.command()
@work_options
@pass_app
def prune(app: App, work: Work) -> None:
    """Delete those that no VM can go on from any more, and those that are too many.

    That happens by itself every few minutes; --dry-run says which, and why.
    """
    app.change("POST", "/warm-templates/prune", work)


def show_warm_templates(rows: list[Any]) -> None:
    output.table(
        ["ID", "IMAGE", "STATE", "CPUS", "MEMORY", "ON", "SAVED", "DISK", "HITS", "LAST", "MADE"],
        [
            [
                row["id"],
                row["image"]["name"] if row["image"] else "deleted",
                output.state(row["state"]),
                str(row["facts"]["vcpu_count"]),
                mib(row["facts"]["mem_size_mib"]),
                f"{row['facts']['hypervisor']} {row['facts']['hypervisor_version']}",
                size(row["memory_bytes"]) if row["memory_bytes"] else "",
                size(row["disk_bytes"]) if row["disk_bytes"] else "",
                str(row["hits"]),
                ago(row["last_hit_at"]) if row["last_hit_at"] else "",
                ago(row["created_at"]),
            ]
            for row in rows
        ],
        empty="No warm templates. The first is made when a VM has booted from an image.",
    )
    for row in rows:
        if row["problem"]:
            output.note(f"{row['id']}: {row['problem']}")
