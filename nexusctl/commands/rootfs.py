"""nexusctl rootfs … and nexusctl kernel …"""

from __future__ import annotations

from typing import Any

import click

from nexusctl import output
from nexusctl.app import App, Group, Work, pass_app, work_options
from nexusctl.formatting import ago, size


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
@work_options
@pass_app
def download(app: App, distro: str, version: str, work: Work) -> None:
    """Fetch a root file system, so that templates can use it."""
    app.change("POST", "/rootfs", work, body={"distro": distro, "version": version})


@click.group(cls=Group)
def kernel() -> None:
    """Kernels that VMs start."""


@kernel.command("list")
@pass_app
def list_kernels(app: App) -> None:
    """List kernels."""
    app.items("/kernels", show_kernels)


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
        ["DISTRO", "VERSION", "ID", "ARCH", "PROVIDER", "SIZE", "AGE"],
        [
            [
                row["distro"],
                row["version"],
                row["id"],
                row["arch"],
                row["provider"],
                size(row["size_bytes"]),
                ago(row["created_at"]),
            ]
            for row in rows
        ],
        empty="No root file systems. Fetch one: nexusctl rootfs download alpine 3.23",
    )


def show_kernels(rows: list[Any]) -> None:
    output.table(
        ["NAME", "ID", "VERSION", "ARCH", "SIZE", "DEFAULT"],
        [
            [
                row["name"],
                row["id"],
                row["version"],
                row["arch"],
                size(row["size_bytes"]),
                "yes" if row["is_default"] else "no",
            ]
            for row in rows
        ],
        empty="No kernels yet; the first start of a VM unpacks one.",
    )
