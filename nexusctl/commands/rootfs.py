"""nexusctl rootfs …"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from nexusctl import output
from nexusctl.app import (
    App,
    Group,
    Work,
    confirm,
    dry_run_option,
    import_options,
    pass_app,
    upload,
    work_options,
    yes_option,
)
from nexusctl.formatting import ago, size, when

rootfs_argument = click.argument("rootfs", metavar="ROOTFS")


@click.group(cls=Group)
def rootfs() -> None:
    """Root file systems as distributions publish them."""


@rootfs.command("list")
@pass_app
def list_(app: App) -> None:
    """List what can be downloaded."""
    app.answer(app.client.get("/rootfs/available")["items"], show_offers)


@rootfs.command()
@pass_app
def installed(app: App) -> None:
    """List what is on this host."""
    app.items("/rootfs", show_installed)


@rootfs.command()
@click.argument("distro")
@click.argument("version")
@click.option("--provider", default="", help="Left out, the first that has it.")
@work_options
@pass_app
def download(app: App, distro: str, version: str, provider: str, work: Work) -> None:
    """Fetch a root file system, so that templates can use it."""
    body = {"distro": distro, "version": version, "provider": provider}
    _show_kept(app, app.change("POST", "/rootfs", work, body=body))


@rootfs.command("import")
@click.argument("distro")
@click.argument("version")
@click.argument("file", type=click.Path(exists=True, path_type=Path))
@import_options
@work_options
@pass_app
def import_(
    app: App, distro: str, version: str, file: Path, format: str, sha256: str, work: Work
) -> None:
    """Keep a file or directory of this machine as a root file system."""
    query = {"distro": distro, "version": version, "format": format, "sha256": sha256}
    _show_kept(app, upload(app, "/rootfs/import", file, work, filename=file.name, **query))


@rootfs.command()
@rootfs_argument
@pass_app
def inspect(app: App, rootfs: str) -> None:
    """Show all about a root file system that is on this host, by its ID (see installed)."""
    app.answer(app.client.get(f"/rootfs/{rootfs}"), show_rootfs)


@rootfs.command()
@rootfs_argument
@work_options
@pass_app
def verify(app: App, rootfs: str, work: Work) -> None:
    """Read the file again and compare its checksum with the one of the day it came."""
    app.change("POST", f"/rootfs/{rootfs}/verify", work)


@rootfs.command()
@rootfs_argument
@yes_option
@dry_run_option
@pass_app
def delete(app: App, rootfs: str, yes: bool, work: Work) -> None:
    """Delete a root file system that no template and no image needs."""
    confirm(f"Delete the root file system {rootfs}?", yes=yes, work=work)
    app.change("DELETE", f"/rootfs/{rootfs}", work)


def _show_kept(app: App, operation: dict[str, Any] | None) -> None:
    if operation:
        row = app.client.get(f"/rootfs/{operation['result']['rootfs']}")
        output.data(f"{row['distro']} {row['version']}  {row['id']}")


def show_offers(rows: list[Any]) -> None:
    output.table(
        ["DISTRO", "VERSION", "ARCH", "PROVIDER", "SIZE", "INSTALLED"],
        [
            [
                row["distro"],
                row["version"],
                row["arch"],
                row["provider"],
                size(row["size_bytes"]),
                "yes" if row["installed"] else "no",
            ]
            for row in rows
        ],
        empty="Nothing can be downloaded here.",
    )


def show_installed(rows: list[Any]) -> None:
    output.table(
        ["DISTRO", "VERSION", "ID", "ARCH", "PROVIDER", "SIZE", "VERIFIED BY", "AGE"],
        [
            [
                row["distro"],
                row["version"],
                row["id"],
                row["arch"],
                row["provider"],
                size(row["size_bytes"]),
                row["verification"],
                ago(row["created_at"]),
            ]
            for row in rows
        ],
        empty="No root file systems. Fetch one: nexusctl rootfs download alpine 3.23",
    )


def show_rootfs(row: dict[str, Any]) -> None:
    output.facts(
        [
            ("distro", row["distro"]),
            ("version", row["version"]),
            ("id", row["id"]),
            ("arch", row["arch"]),
            ("provider", row["provider"]),
            ("source", row["source"]),
            ("format", row["format"]),
            ("size", size(row["size_bytes"])),
            ("sha256", row["sha256"]),
            ("verified by", row["verification"]),
            ("verified", when(row["verified_at"])),
            *((name, _setting(value)) for name, value in row["config"].items() if value),
            ("created", when(row["created_at"])),
        ]
    )


def _setting(value: Any) -> str:
    """What a container image says about itself: a word, a command line, or variables."""
    if isinstance(value, dict):
        lines = [f"{name}={content}" for name, content in value.items()]
    else:
        lines = [shlex.join(value) if isinstance(value, list) else str(value)]
    return "\n".join(output.visible(line) for line in lines)
