"""nexusctl template …"""

from __future__ import annotations

from typing import Any

import click

from nexusctl import output
from nexusctl.app import App, Group, Work, confirm, dry_run_option, pass_app, show_named, yes_option
from nexusctl.commands import build, template_files, warm
from nexusctl.commands.template_recipes import recipe_facts, recipe_options
from nexusctl.formatting import ago, when


@click.group(cls=Group)
def template() -> None:
    """Recipes for images."""


for command in (
    template_files.edit,
    template_files.export,
    template_files.import_,
    template_files.diff,
):
    template.add_command(command)
template.add_command(build.trigger, "build")
template.add_command(warm.make, "warm")


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
@recipe_options
@dry_run_option
@pass_app
def create(
    app: App,
    distro: str,
    version: str,
    name: str,
    description: str,
    recipe: dict[str, Any],
    work: Work,
) -> None:
    """Make a template of a distribution's root file system on this host."""
    body = {"distro": distro, "version": version, "name": name, "description": description}
    row = app.change("POST", "/templates", work, body=body | {"recipe": recipe})
    if row:
        show_named(row)


@template.command()
@click.argument("template", metavar="TEMPLATE")
@click.option("--version", type=int, help="Left out, the current one.")
@pass_app
def inspect(app: App, template: str, version: int | None) -> None:
    """Show all about a template."""
    row = app.client.get(f"/templates/{template}")
    if version:
        row |= {"current": app.client.get(f"/templates/{template}/versions/{version}")}
    app.answer(row, show_template)


@template.command()
@click.argument("template", metavar="TEMPLATE")
@pass_app
def versions(app: App, template: str) -> None:
    """List a template's versions, newest first."""
    app.items(f"/templates/{template}/versions", show_versions)


@template.command()
@click.argument("template", metavar="TEMPLATE")
@click.argument("version", type=int)
@dry_run_option
@pass_app
def revert(app: App, template: str, version: int, work: Work) -> None:
    """Make a new version that says what an old one says."""
    row = app.change("POST", f"/templates/{template}/revert", work, body={"version": version})
    if row:
        template_files.show_saved(row)


@template.command()
@click.argument("template", metavar="TEMPLATE")
@click.option("--name", default="", help="Left out, a name is generated.")
@click.option("--version", type=int, help="Left out, the current one.")
@dry_run_option
@pass_app
def copy(app: App, template: str, name: str, version: int | None, work: Work) -> None:
    """Make another template that says the same."""
    body = {"name": name, "version": version}
    row = app.change("POST", f"/templates/{template}/copy", work, body=body)
    if row:
        show_named(row)


@template.command()
@click.argument("template", metavar="TEMPLATE")
@click.argument("name")
@dry_run_option
@pass_app
def rename(app: App, template: str, name: str, work: Work) -> None:
    """Give a template another name."""
    row = app.change("PATCH", f"/templates/{template}", work, body={"name": name})
    if row:
        show_named(row)


@template.command()
@click.argument("template", metavar="TEMPLATE")
@yes_option
@dry_run_option
@pass_app
def delete(app: App, template: str, yes: bool, work: Work) -> None:
    """Delete a template with its builds; one whose images are here stays."""
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
                _rootfs(row["current"]),
                ago(row["created_at"]),
            ]
            for row in rows
        ],
        empty="No templates. Make one: nexusctl template create alpine 3.23",
    )


def show_versions(rows: list[Any]) -> None:
    output.table(
        ["VERSION", "ID", "ROOTFS", "AGE"],
        [[str(row["number"]), row["id"], _rootfs(row), ago(row["created_at"])] for row in rows],
        empty="No versions.",
    )


def show_template(row: dict[str, Any]) -> None:
    current = row["current"]
    output.facts(
        [
            ("name", row["name"]),
            ("id", row["id"]),
            ("description", row["description"]),
            ("version", f"{current['number']} ({current['id']})"),
            ("created", when(row["created_at"])),
            ("rootfs", f"{_rootfs(current)} ({current['rootfs']['id']})"),
            *recipe_facts(current["recipe"]),
        ]
    )


def _rootfs(version: dict[str, Any]) -> str:
    return f"{version['rootfs']['distro']} {version['rootfs']['version']}"
