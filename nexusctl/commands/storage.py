"""nexusctl storage …"""

from __future__ import annotations

from typing import Any

import click

from nexusctl import output
from nexusctl.app import App, Group, Work, confirm, pass_app, work_options, yes_option
from nexusctl.errors import FAILED
from nexusctl.formatting import size
from nexusctl.sizes import SIZE


@click.group(cls=Group)
def storage() -> None:
    """Where drives and snapshots are kept."""


@storage.command()
@pass_app
def status(app: App) -> None:
    """Show the backend, how full it is, and what each drive takes."""
    app.answer(app.client.get("/storage"), show_storage)


@storage.command()
@click.option(
    "--loopback", "size_mib", type=SIZE, required=True, help="The size of its file: 20G, 512M…"
)
@work_options
@pass_app
def init(app: App, size_mib: int, work: Work) -> None:
    """Make a btrfs in a file and keep drives in it.

    For hosts whose file system cannot share blocks. Nexus must run as root and have no drives
    yet. The file is sparse: it takes what is in it.
    """
    operation = app.change("POST", "/storage/init", work, body={"size_mib": size_mib})
    if operation:
        output.data(operation["result"]["pool"])


@storage.command()
@click.option("--repair", is_flag=True, help="Do what is proposed.")
@yes_option
@work_options
@pass_app
def check(app: App, repair: bool, yes: bool, work: Work) -> None:
    """Compare database and disk; ends with 1 where they do not agree.

    With --repair what has no owner is deleted, and what is missing is marked so.
    """
    if repair:
        confirm("Delete what has no owner, mark what is missing?", yes=yes, work=work)
        app.change("POST", "/storage/repair", work)
        return
    report = app.client.get("/storage/check")
    app.answer(report, show_report)
    if report["problems"]:
        raise click.exceptions.Exit(FAILED)


def show_storage(row: dict[str, Any]) -> None:
    capacity, totals = row["capacity"], row["totals"]
    output.facts(
        [
            ("backend", row["backend"]),
            ("directory", row["directory"]),
            ("file system", row["file_system"] + (", quota groups" if row["quota_groups"] else "")),
            ("pool", row["pool"] or ""),
            ("disk", f"{size(capacity['total_bytes'])}, {size(capacity['free_bytes'])} free"),
            ("drives", str(totals["drives"])),
            ("snapshots", str(totals["snapshots"])),
            ("size", size(totals["size_bytes"])),
            ("used", f"{size(totals['used_bytes'])}, counting shared data in each"),
            ("memories", f"{size(totals['memory_bytes'])}, saved by VMs"),
            ("better", "\n".join(row["problems"])),
        ]
    )
    kinds = [("drive", found) for found in row["drives"]]
    kinds += [("snapshot", found) for found in row["snapshots"]]
    if kinds:
        output.data("")
        _show_costs(kinds)


def _show_costs(found: list[tuple[str, dict[str, Any]]]) -> None:
    output.table(
        ["KIND", "NAME", "ID", "SIZE", "ON DISK", "ALONE", "SHARED"],
        [
            [
                kind,
                row["name"],
                row["id"],
                *(size(usage[part]) for part in _PARTS),
            ]
            for kind, row in found
            for usage in [row["usage"] or dict.fromkeys(_PARTS)]
        ],
        empty="",
    )


_PARTS = ("size_bytes", "used_bytes", "exclusive_bytes", "shared_bytes")


def show_report(report: dict[str, Any]) -> None:
    looked = f"{report['drives']} drives and {report['snapshots']} snapshots on the disk"
    problems = report["problems"]
    if not problems:
        output.data(f"All is well: {looked}.")
        return
    for problem in problems:
        output.data(f"{problem['kind']}: {output.visible(problem['text'])}")
        output.data(f"  {problem['repair']}.")
    output.note(f"{len(problems)} problems, {looked}.")
    output.note("Repair them: nexusctl storage check --repair")
