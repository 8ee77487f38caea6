"""nexusctl template …: templates as YAML documents, and what differs between versions."""

from __future__ import annotations

import difflib
import tempfile
from pathlib import Path
from typing import Any, TextIO

import click

from nexusctl import output
from nexusctl.app import App, Command, Work, dry_run_option, pass_app, show_named
from nexusctl.errors import Failure

COLOURS = {"+": "green", "-": "red", "@": "cyan"}


@click.command(cls=Command)
@click.argument("template", metavar="TEMPLATE")
@click.option(
    "--output", "-o", "target", type=click.Path(dir_okay=False), help="A file, instead of stdout."
)
@click.option("--version", type=int, help="Left out, the current one.")
@pass_app
def export(app: App, template: str, target: str | None, version: int | None) -> None:
    """Print a template as YAML."""
    text = app.client.text(f"/templates/{template}/yaml", version=version)
    if target:
        Path(target).write_text(text)
    else:
        app.answer(text, lambda whole: click.echo(whole, nl=False))


@click.command("import", cls=Command)
@click.argument("file", type=click.File())
@click.option("--replace", is_flag=True, help="Make a new version where one of its name is there.")
@dry_run_option
@pass_app
def import_(app: App, file: TextIO, replace: bool, work: Work) -> None:
    """Make a template of a YAML FILE; - is stdin."""
    query = {"replace": True} if replace else {}
    row = app.change("POST", "/templates/import", work, query=query, document=file.read())
    if row:
        show_saved(row)


@click.command(cls=Command)
@click.argument("template", metavar="TEMPLATE")
@click.option("--file", "-f", type=click.File(), help="Take this YAML instead; - is stdin.")
@dry_run_option
@pass_app
def edit(app: App, template: str, file: TextIO | None, work: Work) -> None:
    """Edit a template as YAML in $EDITOR; what is saved is a new version."""
    path = f"/templates/{template}/yaml"
    if file:
        row = app.change("PUT", path, work, document=file.read())
    else:
        number = app.client.get(f"/templates/{template}")["current"]["number"]
        before = app.client.text(path, version=number)
        text = click.edit(before, extension=".yaml", require_save=False)
        if text is None or text == before:
            output.note("Nothing was changed.")
            return
        row = _put(app, path, text, number, work)
    if row:
        show_saved(row)


@click.command(cls=Command)
@click.argument("template", metavar="TEMPLATE")
@click.argument("older", type=int, required=False)
@click.argument("newer", type=int, required=False)
@pass_app
def diff(app: App, template: str, older: int | None, newer: int | None) -> None:
    """Show what differs between two versions; by default what the last edit changed."""
    newer = newer or int(app.client.get(f"/templates/{template}")["current"]["number"])
    older = older or newer - 1
    if older < 1:
        output.note("There is only one version.")
        return
    found = difflib.unified_diff(
        _lines(app, template, older),
        _lines(app, template, newer),
        f"version {older}",
        f"version {newer}",
        lineterm="",
    )
    app.answer(list(found), _show_diff)


def show_saved(row: dict[str, Any]) -> None:
    show_named(row)
    output.note(f"Its current version is {row['current']['number']}.")


def _put(app: App, path: str, text: str, number: int, work: Work) -> Any:
    """Save what was typed; when that is refused it is kept in a file."""
    try:
        return app.change("PUT", path, work, query={"expected_version": number}, document=text)
    except Failure as failure:
        with tempfile.NamedTemporaryFile("w", suffix=".yaml", delete=False) as kept:
            kept.write(text)
        failure.hint = f"{failure.hint}\nYour text is kept in {kept.name}".strip()
        raise


def _lines(app: App, template: str, number: int) -> list[str]:
    """A version without the comment above it, which always differs."""
    lines = app.client.text(f"/templates/{template}/yaml", version=number).splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def _show_diff(lines: list[str]) -> None:
    if not lines:
        output.note("Nothing differs.")
    for line in lines:
        output.data(output.style(output.plain(line), fg=COLOURS.get(line[:1])))
