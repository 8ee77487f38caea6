"""nexusctl image …"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import click

from nexusctl import files, output
from nexusctl.app import (
    App,
    Group,
    Work,
    confirm,
    dry_run_option,
    import_options,
    pass_app,
    show_named,
    upload,
    work_options,
    yes_option,
)
from nexusctl.commands.shortcuts import add_shortcuts
from nexusctl.formatting import ago, size, when

#: As ``ls -l`` begins its lines.
_LETTERS = {
    "file": "-",
    "directory": "d",
    "symlink": "l",
    "character-device": "c",
    "block-device": "b",
    "fifo": "p",
    "socket": "s",
}
image_argument = click.argument("image", metavar="IMAGE")


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
@image_argument
@pass_app
def inspect(app: App, image: str) -> None:
    """Show all about an image."""
    app.answer(app.client.get(f"/images/{image}"), show_image)


@image.command("import")
@click.argument("file", type=click.Path(exists=True, path_type=Path))
@click.option("--name", default="", help="Left out, a name is generated.")
@import_options
@work_options
@pass_app
def import_(app: App, file: Path, name: str, format: str, sha256: str, work: Work) -> None:
    """Make an image of a file or directory: ext4, qcow2, tar, OCI layout, docker archive."""
    query = {"name": name, "format": format, "sha256": sha256, "filename": file.name}
    operation = upload(app, "/images/import", file, work, **query)
    if operation:
        show_named(operation["subject"])


@image.command()
@image_argument
@click.option(
    "--output", "-o", "target", type=click.Path(path_type=Path), help="Left out: IMAGE.FORMAT"
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["ext4.zst", "tar"]),
    default="ext4.zst",
    show_default=True,
    help="The file system itself, or an archive of its files.",
)
@pass_app
def export(app: App, image: str, target: Path | None, form: str) -> None:
    """Write an image into a file (- is the standard output)."""
    path = target or Path(f"{image}.{form}")
    with files.sink(path) as sink:
        done = app.client.download(f"/images/{image}/export", sink, format=form)
    output.note(f"{path}: {size(done)}")


@image.command()
@image_argument
@work_options
@pass_app
def verify(app: App, image: str, work: Work) -> None:
    """Build an image again from the same inputs and compare every byte."""
    if app.change("POST", f"/images/{image}/verify", work):
        found = app.client.get(f"/images/{image}")
        output.data(f"{found['name']}  {found['id']}  identical  {found['digest']}")


@image.command()
@image_argument
@pass_app
def packages(app: App, image: str) -> None:
    """List what the distribution's package manager has installed."""
    app.answer(app.client.get(f"/images/{image}/packages")["items"], show_packages)


@image.command()
@image_argument
@click.argument("path", default="/")
@pass_app
def ls(app: App, image: str, path: str) -> None:
    """List a directory of an image."""
    app.answer(app.client.get(f"/images/{image}/files", path=path)["items"], show_files)


@image.command()
@image_argument
@click.argument("path")
@pass_app
def cat(app: App, image: str, path: str) -> None:
    """Print a file of an image: as it is into a pipe, harmless onto a terminal."""
    if sys.stdout.isatty():
        content = io.BytesIO()
        app.client.download(f"/images/{image}/file", content, path=path)
        output.guest(content.getvalue().decode("utf-8", "replace"))
    else:
        app.client.download(f"/images/{image}/file", sys.stdout.buffer, path=path)
        sys.stdout.buffer.flush()


@image.command()
@image_argument
@click.argument("name")
@dry_run_option
@pass_app
def rename(app: App, image: str, name: str, work: Work) -> None:
    """Give an image another name."""
    row = app.change("PATCH", f"/images/{image}", work, body={"name": name})
    if row:
        show_named(row)


@image.command()
@image_argument
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
                output.visible(row["os_name"]),
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
            ("os", output.visible(row["os_name"])),
            ("arch", row["arch"]),
            ("rootfs", f"{rootfs['distro']} {rootfs['version']} ({rootfs['id']})"),
            ("build", row["build_id"] or ""),
            ("size", size(row["size_bytes"])),
            ("on disk", size(row["used_bytes"])),
            ("digest", row["digest"]),
            ("init", row["init"]),
            ("packages", str(row["package_count"])),
            ("drives", ", ".join(drive["name"] for drive in row["drives"])),
            ("vms", ", ".join(vm["name"] for vm in row["vms"])),
            ("agent", row["agent_version"]),
            ("created", when(row["created_at"])),
        ]
    )


def show_packages(rows: list[Any]) -> None:
    output.table(
        ["PACKAGE", "VERSION"],
        [[output.visible(row["name"]), output.visible(row["version"])] for row in rows],
        empty="No packages: the image has no package manager that is known.",
    )


def show_files(rows: list[Any]) -> None:
    output.table(
        ["MODE", "OWNER", "SIZE", "NAME"],
        [
            [
                f"{_LETTERS[row['kind']]} {row['mode']}",
                f"{row['uid']}:{row['gid']}",
                size(row["size"]) if row["kind"] == "file" else "",
                output.visible(row["name"] + (f" → {row['target']}" if row["target"] else "")),
            ]
            for row in rows
        ],
        empty="The directory is empty.",
    )
