"""nexusctl kernel …"""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import click

from nexusctl import output
from nexusctl.app import App, Group, Work, pass_app, sha256_option, work_options
from nexusctl.commands import kernel_shelf
from nexusctl.commands.build import print_log
from nexusctl.errors import FAILED, Failure
from nexusctl.formatting import ago


@click.group(cls=Group)
def kernel() -> None:
    """Kernels that VMs start."""


for command in kernel_shelf.COMMANDS:
    kernel.add_command(command)


@kernel.command("version-check")
@click.argument("version", default="")
@pass_app
def version_check(app: App, version: str) -> None:
    """Ask kernel.org whether VERSION, by default the latest stable one, can be built here.

    Ends with 0 if it can: it is available, its checksum is signed, and what building takes is
    here. Else with 1.
    """
    asked = app.client.call(
        "POST", "/kernel-versions/check", body={"version": version}, query={"wait": 30}
    )
    while not asked["ended_at"]:
        asked = app.client.get(f"/operations/{asked['id']}", wait=5)
    if asked["state"] != "succeeded":
        raise Failure.of_operation(asked)
    app.answer(asked["result"], show_version)
    if not asked["result"]["buildable"]:
        raise click.exceptions.Exit(FAILED)


@kernel.command()
@click.argument("version", default="")
@click.option(
    "--source",
    type=click.Path(path_type=Path),
    help="A tarball on the server's machine, in place of a VERSION of kernel.org.",
)
@sha256_option
@click.option(
    "--config",
    "fragment",
    type=click.File(),
    help="A fragment of kernel options; left out, that of Nexus.",
)
@click.option("--arch", default="", help="Left out, that of the server.")
@click.option("--jobs", "-j", type=click.IntRange(1, 256), help="Compilers at once; one a CPU.")
@work_options
@pass_app
def build(
    app: App,
    version: str,
    source: Path | None,
    sha256: str,
    fragment: IO[str] | None,
    arch: str,
    jobs: int | None,
    work: Work,
) -> None:
    """Build a kernel from source and boot it once; only one that boots is good."""
    body = {
        "version": version,
        "source": str(source.expanduser().absolute()) if source else "",
        "sha256": sha256,
        "fragment": fragment.read() if fragment else "",
        "arch": arch,
        "jobs": jobs or 0,
    }
    operation = app.change("POST", "/kernel-builds", work, body=body)
    if operation:
        row = app.client.get(f"/kernels/{operation['result']['kernel']}")
        output.data(f"{row['name']}  {row['id']}  {row['state']}")
        for vmm, found in sorted(row["boots"].items()):
            output.note(f"{vmm}: hello after {found['seconds']:.2f} s")


@kernel.command()
@pass_app
def builds(app: App) -> None:
    """List builds of kernels, newest first."""
    app.items("/kernel-builds", show_builds)


@kernel.command()
@click.argument("build", metavar="BUILD")
@click.option("--follow", "-f", is_flag=True, help="Go on until the build has ended.")
@pass_app
def log(app: App, build: str, follow: bool) -> None:
    """Print the log of a kernel's build."""
    print_log(app, f"/kernel-builds/{build}/log", follow=follow)


def show_version(found: dict[str, Any]) -> None:
    output.facts(
        [
            ("version", found["version"]),
            ("kind", found["moniker"] + (", end of life" if found["eol"] else "")),
            ("released", found["released"]),
            ("latest stable", found["latest_stable"]),
            ("available", _yes(found["available"])),
            ("checksums ready", _yes(found["checksums_ready"])),
            ("buildable", _yes(found["buildable"])),
            ("signed by", found["signer"]),
            ("sha256", found["sha256"]),
            ("source", found["source"]),
        ]
    )
    for problem in found["problems"]:
        output.note(problem)


def show_builds(rows: list[Any]) -> None:
    output.table(
        ["ID", "STATE", "VERSION", "OPTIONS", "OBJECTS", "KERNEL", "AGE"],
        [
            [
                row["id"],
                output.state(row["state"]),
                row["version"],
                row["fragment"],
                f"{row['compiled']}/{row['expected']}" if row["expected"] else "",
                row["kernel"]["name"] if row["kernel"] else "",
                ago(row["created_at"]),
            ]
            for row in rows
        ],
        empty="No builds. Start one: nexusctl kernel build VERSION",
    )


def _yes(value: bool) -> str:
    return "yes" if value else "no"
