"""nexusctl kernel: those that are here, those that can be had, and which one VMs start with."""

from __future__ import annotations

from pathlib import Path
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
    work_options,
    yes_option,
)
from nexusctl.errors import Failure
from nexusctl.formatting import ago, seconds, size, when

kernel_argument = click.argument("kernel", metavar="KERNEL")
PROVIDERS = ("anvil", "distro", "embedded", "local")
MOST_OPTIONS = 200  # of a difference, on a screen; all are in --json


@click.command("list", cls=Command)
@click.option("--refresh", is_flag=True, help="Ask the publishers first.")
@pass_app
def list_(app: App, refresh: bool) -> None:
    """List what can be downloaded, as far as it is known."""
    asked = None
    if refresh:
        asked = app.client.call("POST", "/kernels/available/refresh", query={"wait": 60})
    found = app.client.get("/kernels/available")
    app.answer(found, show_offers)
    if asked and asked["state"] != "succeeded":
        raise Failure.of_operation(asked)


@click.command(cls=Command)
@pass_app
def installed(app: App) -> None:
    """List what is on this host."""
    app.items("/kernels", show_installed)


@click.command(cls=Command)
@click.argument("version", default="")
@click.option(
    "--provider",
    type=click.Choice(PROVIDERS),
    default="anvil",
    show_default=True,
    help="Released kernels, Debian's packages, the one of Nexus, or a file on the server.",
)
@click.option(
    "--path",
    type=click.Path(path_type=Path),
    help="On the server. For local: a kernel or its directory. For distro: a .deb to take.",
)
@work_options
@pass_app
def download(app: App, version: str, provider: str, path: Path | None, work: Work) -> None:
    """Bring a kernel here and boot it once on each VMM; without VERSION the newest."""
    body = {
        "version": version,
        "provider": provider,
        "path": str(path.expanduser().absolute()) if path else "",
    }
    operation = app.change("POST", "/kernels", work, body=body)
    if operation:
        row = app.client.get(f"/kernels/{operation['result']['kernel']}")
        output.data(f"{row['name']}  {row['id']}  {row['state']}")
        if not row["is_default"]:
            output.note(f"Use it from now on: nexusctl kernel use {row['name']}")


@click.command(cls=Command)
@kernel_argument
@dry_run_option
@pass_app
def use(app: App, kernel: str, work: Work) -> None:
    """Start VMs with this kernel from now on; those that run stay on theirs."""
    row = app.change("POST", f"/kernels/{kernel}/use", work)
    if row:
        output.data(f"{row['name']}  {row['id']}")


@click.command(cls=Command)
@kernel_argument
@click.option("--config", is_flag=True, help="Print the options that it was built with.")
@pass_app
def inspect(app: App, kernel: str, config: bool) -> None:
    """Show all about a kernel."""
    if config:
        found = app.client.get(f"/kernels/{kernel}/config")
        app.answer(found, show_config)
    else:
        app.answer(app.client.get(f"/kernels/{kernel}"), show_kernel)


@click.command(cls=Command)
@click.argument("before", metavar="KERNEL")
@click.argument("after", metavar="OTHER")
@pass_app
def diff(app: App, before: str, after: str) -> None:
    """Show how OTHER differs from KERNEL: size, boot times, options."""
    app.answer(app.client.get(f"/kernels/{before}/diff/{after}"), show_diff)


@click.command(cls=Command)
@kernel_argument
@yes_option
@dry_run_option
@pass_app
def remove(app: App, kernel: str, yes: bool, work: Work) -> None:
    """Remove a kernel that no VM runs or is pinned to, and that is not the default."""
    confirm(f"Remove the kernel {kernel}?", yes=yes, work=work)
    app.change("DELETE", f"/kernels/{kernel}", work)


@click.command(cls=Command)
@kernel_argument
@click.option("--boot", is_flag=True, help="Also boot it once on each VMM.")
@work_options
@pass_app
def verify(app: App, kernel: str, boot: bool, work: Work) -> None:
    """Read a kernel's files and compare their checksums."""
    operation = app.change("POST", f"/kernels/{kernel}/verify", work, body={"boot": boot})
    if operation:
        row = app.client.get(f"/kernels/{kernel}")
        output.data(f"{row['name']}  {row['id']}  {row['state']}")


@click.command(cls=Command)
@click.argument("kernel", metavar="[KERNEL]", default="")
@pass_app
def scores(app: App, kernel: str) -> None:
    """Show how fast guests were ready, by kernel, image and VMM, from real boots."""
    app.answer(app.client.get("/kernel-scores", kernel=kernel), show_scores)


COMMANDS = (list_, installed, download, use, inspect, diff, remove, verify, scores)


def show_offers(found: dict[str, Any]) -> None:
    output.table(
        ["VERSION", "ARCH", "PROVIDER", "SIZE", "INSTALLED"],
        [
            [
                row["version"],
                row["arch"],
                row["provider"],
                size(row["size_bytes"]),
                "yes" if row["installed"] else "no",
            ]
            for row in found["items"]
        ],
        empty="Nothing is known that could be downloaded.",
    )
    if newer := found["news"]["newer"]:
        build, looked = f"nexusctl kernel build {newer[0]}", ago(found["news"]["looked_at"])
        output.note(
            f"Newer at kernel.org: {', '.join(newer)}. Build one: {build}. Looked {looked} ago."
        )
    elif problem := found["news"]["problem"]:
        output.note(f"Whether there are newer ones at kernel.org is not known: {problem}")
    looked = when(found["refreshed_at"]) if found["refreshed_at"] else "never"
    output.note(f"The publishers were asked: {looked}. Ask: nexusctl kernel list --refresh")


def show_installed(rows: list[Any]) -> None:
    output.table(
        ["NAME", "ID", "VERSION", "STATE", "DEFAULT", "SIZE", "BOOTS IN", "VMS", "FROM", "AGE"],
        [
            [
                row["name"],
                row["id"],
                row["version"],
                row["state"],
                "yes" if row["is_default"] else "no",
                size(row["size_bytes"]),
                _boots(row),
                str(len(row["running"])),
                row["provider"],
                ago(row["created_at"]),
            ]
            for row in rows
        ],
        empty="No kernels yet; the first start of a VM unpacks one.",
    )


def show_kernel(row: dict[str, Any]) -> None:
    output.facts(
        [
            ("name", row["name"]),
            ("id", row["id"]),
            ("version", row["version"]),
            ("arch", row["arch"]),
            ("state", row["state"]),
            ("default", "yes" if row["is_default"] else "no"),
            ("size", size(row["size_bytes"])),
            ("boots in", _boots(row)),
            ("provider", row["provider"]),
            ("source", row["source"]),
            ("verified by", row["verification"]),
            ("compiler", row["compiler"]),
            ("sha256", row["sha256"]),
            ("options", row["config_digest"] or "not known"),
            ("run by", ", ".join(row["running"]) or "no VM"),
            ("pinned by", ", ".join(row["pinned"]) or "no VM"),
            ("created", when(row["created_at"])),
        ]
    )
    for vmm, found in sorted(row["boots"].items()):
        if found["problem"]:
            output.note(f"{vmm}: {found['problem']}")


def show_config(found: dict[str, Any]) -> None:
    for line in found["text"].splitlines():
        output.data(output.visible(line))


def show_diff(found: dict[str, Any]) -> None:
    before, after = found["before"], found["after"]
    output.table(
        ["", before["name"], after["name"]],
        [
            ["version", before["version"], after["version"]],
            ["size", size(before["size_bytes"]), size(after["size_bytes"])],
            ["boots in", _boots(before), _boots(after)],
            ["state", before["state"], after["state"]],
        ],
        empty="",
    )
    options = found["options"]
    if options is None:
        output.note("The options of one of them are not known.")
        return
    rows = [[row["option"], row["before"], row["after"]] for row in options[:MOST_OPTIONS]]
    output.table(["OPTION", "BEFORE", "AFTER"], rows, empty="Their options are the same.")
    if len(options) > MOST_OPTIONS:
        output.note(f"{len(options) - MOST_OPTIONS} more options differ: see all with --json")


def show_scores(rows: list[Any]) -> None:
    output.table(
        ["KERNEL", "IMAGE", "VMM", "BOOTS", "FAILED", "P50", "P95"],
        [
            [
                row["kernel"]["name"],
                row["image"] or "(deleted)",
                f"{row['hypervisor']}/{row['accelerator']}",
                str(row["boots"]),
                str(row["failures"]),
                seconds(row["p50"]),
                seconds(row["p95"]),
            ]
            for row in rows
        ],
        empty="No guest has booted yet.",
    )


def _boots(row: dict[str, Any]) -> str:
    """``qemu 1.2 s, firecracker 0.3 s``."""
    return ", ".join(
        f"{vmm} {seconds(found['seconds'])}" if found["seconds"] is not None else f"{vmm} failed"
        for vmm, found in sorted(row["boots"].items())
    )
