"""nexusctl template …"""

from __future__ import annotations

from typing import Any

import click

from nexusctl import output
from nexusctl.app import App, Group, Work, confirm, dry_run_option, pass_app, show_named, yes_option
from nexusctl.formatting import ago, when


@click.group(cls=Group)
def template() -> None:
    """Recipes for images."""


@template.command("list")
@pass_app
def list_(app: App) -> None:
    """List templates by name."""
    app.items("/templates", show_templates)


@template.command()
@click.argument("distro")
@click.argument("version")
@click.option("--name", default="", help="Left out, a name is generated.")
@click.option("--description", default="")
@dry_run_option
@pass_app
def create(app: App, distro: str, version: str, name: str, description: str, work: Work) -> None:
    """Make a template from a distribution's root file system on this host."""
    body = {"distro": distro, "version": version, "name": name, "description": description}
    row = app.change("POST", "/templates", work, body=body)
    if row:
        show_named(row)


@template.command()
@click.argument("template", metavar="TEMPLATE")
@pass_app
def inspect(app: App, template: str) -> None:
    """Show all about a template."""
    app.answer(app.client.get(f"/templates/{template}"), show_template)


@template.command()
@click.argument("template", metavar="TEMPLATE")
@yes_option
@dry_run_option
@pass_app
def delete(app: App, template: str, yes: bool, work: Work) -> None:
    """Delete a template that nothing was built from."""
    confirm(f"Delete the template {template}?", yes=yes, work=work)
    app.change("DELETE", f"/templates/{template}", work)


def show_templates(rows: list[Any]) -> None:
    output.table(
        ["NAME", "ID", "VERSION", "ROOTFS", "AGE"],
        [
            [
                row["name"],
                row["id"],
                str(row["current"]["number"]),
                _rootfs(row),
                ago(row["created_at"]),
            ]
            for row in rows
        ],
        empty="No templates. Make one: nexusctl template create alpine 3.23",
    )


def show_template(row: dict[str, Any]) -> None:
    output.facts(
        [
            ("name", row["name"]),
            ("id", row["id"]),
            ("description", row["description"]),
            ("version", f"{row['current']['number']} ({row['current']['id']})"),
            ("rootfs", f"{_rootfs(row)} ({row['current']['rootfs']['id']})"),
            ("created", when(row["created_at"])),
        ]
    )


def _rootfs(row: dict[str, Any]) -> str:
    rootfs = row["current"]["rootfs"]
    return f"{rootfs['distro']} {rootfs['version']}"
