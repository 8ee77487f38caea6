"""nexusctl build …"""

from __future__ import annotations

from typing import Any

import click

from nexusctl import output
from nexusctl.app import App, Group, Work, pass_app, show_named, work_options
from nexusctl.formatting import ago, moment, seconds, when

LOG_WAIT = 5.0  # seconds that one question after more of the log may wait


@click.group(cls=Group)
def build() -> None:
    """Runs of templates; each makes an image."""


@build.command()
@click.argument("template", metavar="TEMPLATE")
@click.option("--image-name", default="", help="Left out, it is named after the template.")
@click.option("--rebuild", is_flag=True, help="Make another image even if nothing has changed.")
@work_options
@pass_app
def trigger(app: App, template: str, image_name: str, rebuild: bool, work: Work) -> None:
    """Build an image from a template; find it where nothing has changed."""
    body = {"image_name": image_name, "rebuild": rebuild}
    operation = app.change("POST", f"/templates/{template}/builds", work, body=body)
    if operation:
        show_named(app.client.get(f"/images/{operation['result']['image']}"))


@build.command()
@click.argument("image", metavar="IMAGE")
@work_options
@pass_app
def verify(app: App, image: str, work: Work) -> None:
    """Build an image again from the same inputs and compare every byte."""
    operation = app.change("POST", f"/images/{image}/verify", work)
    if operation:
        found = app.client.get(f"/images/{operation['result']['image']}")
        output.data(f"{found['name']}  {found['id']}  identical  {found['digest']}")


@build.command("list")
@click.option("--template", default="", help="Only builds of this template.")
@pass_app
def list_(app: App, template: str) -> None:
    """List builds, newest first."""
    app.items("/builds", show_builds, template=template)


@build.command()
@click.argument("build", metavar="BUILD")
@pass_app
def inspect(app: App, build: str) -> None:
    """Show all about a build."""
    app.answer(app.client.get(f"/builds/{build}"), show_build)


@build.command()
@click.argument("build", metavar="BUILD")
@click.option("--follow", "-f", is_flag=True, help="Go on until the build has ended.")
@pass_app
def log(app: App, build: str, follow: bool) -> None:
    """Print a build's log."""
    print_log(app, f"/builds/{build}/log", follow=follow)


def print_log(app: App, path: str, *, follow: bool) -> None:
    """Print all of a log that the API has at ``path``, and what comes while it is followed."""
    wait = LOG_WAIT if follow else 0
    page = app.client.get(path)
    if app.json:
        output.as_json(page)
        return
    output.guest(page["text"])
    while page["next_offset"] < page["size"] or (follow and not page["ended"]):
        page = app.client.get(path, offset=page["next_offset"], wait=wait)
        output.guest(page["text"])


def show_builds(rows: list[Any]) -> None:
    output.table(
        ["ID", "STATE", "TEMPLATE", "IMAGE", "IMAGE ID", "TOOK", "AGE"],
        [
            [
                row["id"],
                output.state(row["state"]),
                f"{row['template']['name']} v{row['template_version']}",
                row["image_name"],
                row["image"]["id"] if row["image"] else "",
                _took(row),
                ago(row["created_at"]),
            ]
            for row in rows
        ],
        empty="No builds. Start one: nexusctl build trigger TEMPLATE",
    )


def show_build(row: dict[str, Any]) -> None:
    template, image, error = row["template"], row["image"], row["error"]
    verifies = row["verifies"]
    output.facts(
        [
            ("id", row["id"]),
            ("state", output.state(row["state"])),
            ("template", f"{template['name']} v{row['template_version']} ({template['id']})"),
            ("image", f"{image['name']} ({image['id']})" if image else row["image_name"]),
            *([("verifies", f"{verifies['name']} ({verifies['id']})")] if verifies else []),
            ("operation", row["operation_id"] or ""),
            ("took", _took(row)),
            ("created", when(row["created_at"])),
            *([("error", error["text"]), ("hint", error["hint"])] if error else []),
        ]
    )


def _took(row: dict[str, Any]) -> str:
    if not row["ended_at"]:
        return ""
    return seconds((moment(row["ended_at"]) - moment(row["created_at"])).total_seconds())
