"""nexusctl image …"""

from __future__ import annotations

from typing import Any

import click

from nexusctl import output
from nexusctl.app import App, Group, Work, confirm, pass_app, work_options, yes_option
from nexusctl.commands.shortcuts import add_shortcuts
from nexusctl.formatting import ago, size, when


@click.group(cls=Group)
def image() -> None:
    """Read-only, bootable root file systems with the agent inside."""


@image.command("list")
@pass_app
def list_(app: App) -> None:
    """List images, newest first."""
    app.items("/images", show_images)


add_shortcuts(image, "image", "rootfs", "template")


@image.command()
@click.argument("image", metavar="IMAGE")
@pass_app
def inspect(app: App, image: str) -> None:
    """Show all about an image."""
    app.answer(app.client.get(f"/images/{image}"), show_image)


@image.command()
@click.argument("image", metavar="IMAGE")
@yes_option
@work_options
@pass_app
def delete(app: App, image: str, yes: bool, work: Work) -> None:
    """Delete an image that no drive depends on."""
    confirm(f"Delete the image {image}?", yes=yes, work=work)
    app.change("DELETE", f"/images/{image}", work)


def show_images(rows: list[Any]) -> None:
    output.table(
        ["NAME", "ID", "OS", "ARCH", "SIZE", "ON DISK", "AGENT", "AGE"],
        [
            [
                row["name"],
                row["id"],
                row["os_name"],
                row["arch"],
                size(row["size_bytes"]),
                size(row["used_bytes"]),
                row["agent_version"],
                ago(row["created_at"]),
            ]
            for row in rows
        ],
        empty="No images. Build one: nexusctl build trigger TEMPLATE",
    )


def show_image(row: dict[str, Any]) -> None:
    rootfs = row["rootfs"]
    output.facts(
        [
            ("name", row["name"]),
            ("id", row["id"]),
            ("os", row["os_name"]),
            ("arch", row["arch"]),
            ("rootfs", f"{rootfs['distro']} {rootfs['version']} ({rootfs['id']})"),
            ("build", row["build_id"] or ""),
            ("size", size(row["size_bytes"])),
            ("on disk", size(row["used_bytes"])),
            ("digest", row["digest"]),
            ("agent", row["agent_version"]),
            ("created", when(row["created_at"])),
        ]
    )
