"""nexusctl status, doctor, version, sign-in-link, event …"""

from __future__ import annotations

import platform
from typing import Any

import click

from nexusctl import __version__, output
from nexusctl.app import App, Command, Group, pass_app
from nexusctl.errors import FAILED, Unreachable
from nexusctl.formatting import mib, size, when


@click.command(cls=Command)
@pass_app
def status(app: App) -> None:
    """Show the server at a glance."""
    app.answer(app.client.get("/status"), show_status)


@click.command(cls=Command)
@click.option("--again", is_flag=True, help="Have the worker look first.")
@pass_app
def doctor(app: App, again: bool) -> None:
    """Show what this host has for Nexus, what it lacks, and how to put that right.

    Ends with 1 when something that Nexus needs is missing.
    """
    if again and app.client.get("/status")["worker"]["alive"]:  # else nobody would look
        app.client.call("POST", "/doctor", query={"wait": 60})
    report = app.client.get("/doctor")
    app.answer(report, show_report)
    if report["state"] == "missing":
        raise click.exceptions.Exit(FAILED)


@click.command(cls=Command)
@pass_app
def version(app: App) -> None:
    """Print the version of this command."""
    found = {"nexusctl": __version__, "python": platform.python_version()}
    app.answer(found, lambda _: output.data(f"nexusctl {__version__}"))


@click.command("sign-in-link", cls=Command)
@pass_app
def sign_in_link(app: App) -> None:
    """Print a link that signs a browser in, once, within 15 minutes."""
    link = app.client.call("POST", "/sign-in-link")
    app.answer(link, lambda made: output.data(made["url"]))


@click.group(cls=Group)
def event() -> None:
    """What happened: the log that everything live is fed from."""


@event.command("list")
@click.option("--after", type=click.IntRange(0), help="Only events after this number.")
@click.option("--limit", type=click.IntRange(1, 500), default=50, show_default=True)
@click.option("--follow", "-f", is_flag=True, help="Go on with events as they happen.")
@pass_app
def list_events(app: App, after: int | None, limit: int, follow: bool) -> None:
    """List events, oldest first."""
    page = app.client.get("/events", after=after, limit=limit)
    if not follow:
        app.answer(page["items"], show_events)
        return
    show = output.as_json_line if app.json else show_event
    for row in page["items"]:
        show(row)
    _follow(app, page["next_after"], show)


def _follow(app: App, after: int, show: Any) -> None:
    """Events as they come; when the connection breaks, on from the last one seen."""
    while True:
        try:
            for row in app.client.events(after):
                after = row["seq"]
                show(row)
        except Unreachable:
            app.client.get("/status")  # gone for good, or only the stream broke?


def show_events(rows: list[Any]) -> None:
    for row in rows:
        show_event(row)


def show_event(row: dict[str, Any]) -> None:
    subject = row["subject"] or {}
    name = subject.get("name") or subject.get("id") or ""
    details = " ".join(f"{key}={value}" for key, value in row["data"].items() if value != "")
    line = [
        str(row["seq"]).rjust(6),
        when(row["at"]),
        row["kind"].ljust(20),
        name,
        details,
        output.style(f"({row['actor']})", dim=True),
    ]
    output.data("  ".join(cell for cell in line if cell))


def show_status(row: dict[str, Any]) -> None:
    host, work = row["host"], row["operations"]
    vms = ", ".join(f"{count} {output.state(name)}" for name, count in row["vms"].items() if count)
    output.facts(
        [
            ("server", f"Nexus {row['version']}"),
            ("worker", _worker(row["worker"])),
            ("vms", vms or "none"),
            ("operations", f"{work['running']} running, {work['queued']} queued"),
            ("cpus", f"{host['cpus']}, {host['cpus_assigned']} assigned to VMs"),
            (
                "memory",
                f"{mib(host['memory_mib'])}, {mib(host['memory_available_mib'])} available, "
                f"{mib(host['memory_assigned_mib'])} assigned to VMs",
            ),
            (
                "disk",
                f"{size(host['disk_total_bytes'])}, {size(host['disk_free_bytes'])} free",
            ),
            ("load", f"{host['load_1m']:.2f}"),
        ]
    )


def _worker(worker: dict[str, Any]) -> str:
    if worker["alive"]:
        return f"running since {when(worker['since'])}"
    if worker["since"]:
        return output.style("down", fg="red") + f", last seen {when(worker['since'])}"
    return output.style("down", fg="red") + ", never seen"


_MARKS: dict[str, dict[str, str]] = {
    "fine": {"text": "✓", "fg": "green"},
    "limited": {"text": "!", "fg": "yellow"},
    "missing": {"text": "✗", "fg": "red"},
}


def show_report(report: dict[str, Any]) -> None:
    width = max(len(found["title"]) for found in report["findings"])
    for found in report["findings"]:
        mark = output.style(**_MARKS[found["state"]])
        data = [found["found"]]
        if found["state"] != "fine":
            data += [found["meaning"], found["fix"]]
        first, *more = [output.visible(line) for line in data if line]
        output.data(f"{mark} {found['title'].ljust(width)}  {first}")
        if found["command"] and found["state"] != "fine":
            more.append(f"$ {output.visible(found['command'])}")
        for line in more:
            output.data(f"{' ' * (width + 4)}{line}")
    looked = when(report["looked_at"]) if report["looked_at"] else "never"
    output.note(f"The worker looked: {looked}. Look again: nexusctl doctor --again")
