"""nexusctl operation …"""

from __future__ import annotations

from typing import Any

import click

from nexusctl import output
from nexusctl.app import App, Group, pass_app
from nexusctl.formatting import ago, seconds, when
from nexusctl.progress import MARKS, describe, steps_of

operation_argument = click.argument("operation", metavar="OPERATION")


@click.group(cls=Group)
def operation() -> None:
    """Long-running work and its steps (also: op)."""


@operation.command("list")
@click.option("--state", default="", help="Only operations in this state.")
@click.option("--limit", type=click.IntRange(1, 200), default=50, show_default=True)
@pass_app
def list_(app: App, state: str, limit: int) -> None:
    """List operations, newest first."""
    page = app.client.get("/operations", state=state, limit=limit)
    app.answer(page["items"], show_operations)


@operation.command()
@operation_argument
@pass_app
def inspect(app: App, operation: str) -> None:
    """Show an operation's steps."""
    app.answer(app.client.get(f"/operations/{operation}"), show_operation)


@operation.command()
@operation_argument
@pass_app
def wait(app: App, operation: str) -> None:
    """Watch an operation until it has ended; fails if it does."""
    app.follow(app.client.get(f"/operations/{operation}"))


@operation.command()
@operation_argument
@pass_app
def cancel(app: App, operation: str) -> None:
    """Ask an operation to stop and to undo what it did."""
    app.answer(app.client.call("POST", f"/operations/{operation}/cancel"), show_cancelled)


def show_operations(rows: list[Any]) -> None:
    output.table(
        ["ID", "STATE", "TITLE", "STEP", "TOOK", "AGE", "ACTOR"],
        [
            [
                row["id"],
                output.state(row["state"]),
                row["title"],
                "" if row["ended_at"] else row["current_step"] or "",
                seconds(row["seconds"]),
                ago(row["created_at"]),
                row["actor"],
            ]
            for row in rows
        ],
        empty="No operations.",
    )


def show_operation(row: dict[str, Any]) -> None:
    subject, error = row["subject"], row["error"]
    output.facts(
        [
            ("id", row["id"]),
            ("title", row["title"]),
            ("state", output.state(row["state"])),
            ("about", f"{subject['kind']} {subject['name']} ({subject['id']})" if subject else ""),
            ("actor", row["actor"]),
            ("created", when(row["created_at"])),
            ("took", seconds(row["seconds"])),
            *([("note", row["note"])] if row["note"] else []),
            *([("error", error["text"]), ("hint", error["hint"])] if error else []),
        ]
    )
    for depth, _, step in steps_of(row):
        mark, colour = MARKS.get(step["state"], ("…", "blue"))
        output.data(f"{'  ' * (depth + 1)}{output.style(mark, fg=colour)} {describe(step)}")


def show_cancelled(row: dict[str, Any]) -> None:
    output.note(f"“{row['title']}” stops at its next step and is undone.")
    output.note(f"Watch it: nexusctl operation wait {row['id']}")
