"""What every command stands on: options that all share, calls, long work."""

from __future__ import annotations

import functools
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from nexusctl import output
from nexusctl.errors import INTERRUPTED, Failure, Unreachable
from nexusctl.formatting import seconds
from nexusctl.progress import Operation, progress

if TYPE_CHECKING:
    from nexusctl.client import Client

F = TypeVar("F", bound=Callable[..., Any])

LOOK = 0.3  # seconds that one question after a running operation may wait for its end
LOST_CONTACT = 60.0  # seconds without the server after which waiting for an operation ends


@dataclass
class App:
    """What the command line said about server and output."""

    url: str = ""
    token: str = ""
    json: bool = False

    @cached_property
    def client(self) -> Client:
        from nexusctl.client import Client
        from nexusctl.server import find_server

        return Client(find_server(self.url, self.token))

    def answer(self, answer: Any, show: Callable[[Any], None]) -> None:
        """Print ``answer``, as JSON if that was asked for."""
        if self.json:
            output.as_json(answer)
        else:
            show(answer)

    def items(self, path: str, show: Callable[[list[Any]], None], **query: Any) -> None:
        """Print every item of a list of the API."""
        self.answer(list(self.client.pages(path, **query)), show)

    def change(self, method: str, path: str, work: Work, **call: Any) -> Any:
        """Make a change and see it through.

        Returns the operation that has succeeded, or the row that was changed; None when
        there is nothing more to say (a dry run, ``--no-wait``, ``--json``).
        """
        query = call.pop("query", {}) | ({"dry_run": True} if work.dry_run else {})
        return self.see(self.client.call(method, path, query=query, **call), work)

    def see(self, made: Any, work: Work) -> Any:
        """See through what a change answered with; see ``change``."""
        if work.dry_run:
            self.answer(made, show_plan)
            return None
        if made is not None and "steps" in made:
            return self._see_through(made, work)
        if self.json and made is not None:
            output.as_json(made)
            return None
        return made

    def follow(self, operation: Operation) -> Operation:
        """Show an operation until it has ended. Raises ``Failure`` unless it succeeded."""
        try:
            with progress(quiet=self.json) as shown:
                shown.show(operation)
                while not operation["ended_at"]:
                    operation = self._look(operation["id"])
                    shown.show(operation)
        except KeyboardInterrupt:
            output.note(f"\nNobody watches any more; “{operation['title']}” goes on.")
            output.note(f"Follow it: nexusctl operation wait {operation['id']}")
            output.note(f"Cancel it: nexusctl operation cancel {operation['id']}")
            raise click.exceptions.Exit(INTERRUPTED) from None
        if self.json:
            output.as_json(operation)
        if operation["state"] != "succeeded":
            raise Failure.of_operation(operation)
        return operation

    def _see_through(self, operation: Operation, work: Work) -> Operation | None:
        if work.no_wait:
            self.answer(operation, show_accepted)
            return None
        operation = self.follow(operation)
        if self.json:
            return None
        took = seconds(operation["seconds"])
        output.note(f"{output.style('✓', fg='green')} {operation['title']} ({took})")
        return operation

    def _look(self, operation_id: str) -> Operation:
        """The operation as it is now; a server that is restarted is waited for."""
        give_up = time.monotonic() + LOST_CONTACT
        while True:
            try:
                found: Operation = self.client.get(f"/operations/{operation_id}", wait=LOOK)
            except Unreachable as error:
                if time.monotonic() > give_up:
                    error.hint = f"Follow it later: nexusctl operation wait {operation_id}"
                    raise
                time.sleep(1)
            else:
                return found


@dataclass(frozen=True)
class Work:
    """How a change is to be made."""

    dry_run: bool
    no_wait: bool = False


def _remember(field: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def callback(context: click.Context, _: click.Parameter, value: Any) -> None:
        if value:
            setattr(context.ensure_object(App), field, value)

    return callback


def common_options(*, hidden: bool) -> list[click.Parameter]:
    """Options that every command and the program itself take, before or after its name."""
    return [
        click.Option(
            ["--json"],
            is_flag=True,
            expose_value=False,
            callback=_remember("json"),
            help="Print the API's answer as JSON.",
        ),
        click.Option(
            ["--server"],
            metavar="URL",
            expose_value=False,
            hidden=hidden,
            callback=_remember("url"),
            help="The server; else NEXUS_URL, else the one of this machine.",
        ),
        click.Option(
            ["--token"],
            metavar="TOKEN",
            expose_value=False,
            hidden=hidden,
            callback=_remember("token"),
            help="A token; else NEXUS_TOKEN, else the one of this machine's server.",
        ),
    ]


class Command(click.Command):
    """A command that takes the common options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += common_options(hidden=True)


class Group(click.Group):
    """A group of such commands; some have a second name."""

    command_class = Command
    aliases: dict[str, str] = {}

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        return super().get_command(context, self.aliases.get(name, name))


Group.group_class = Group
pass_app = click.make_pass_decorator(App, ensure=True)


def work_options(function: F) -> F:
    """``--dry-run`` and ``--no-wait``, as the argument ``work``."""

    @click.option("--dry-run", is_flag=True, help="Show the plan and change nothing.")
    @click.option("--no-wait", is_flag=True, help="Do not wait for the end.")
    @functools.wraps(function)
    def wrapper(*args: Any, dry_run: bool, no_wait: bool, **kwargs: Any) -> Any:
        return function(*args, work=Work(dry_run, no_wait), **kwargs)

    return wrapper  # type: ignore[return-value]


def dry_run_option(function: F) -> F:
    """``--dry-run``, as the argument ``work``, for changes that take no time."""

    @click.option("--dry-run", is_flag=True, help="Check the request and change nothing.")
    @functools.wraps(function)
    def wrapper(*args: Any, dry_run: bool, **kwargs: Any) -> Any:
        return function(*args, work=Work(dry_run), **kwargs)

    return wrapper  # type: ignore[return-value]


def _check_sha256(_: click.Context, __: click.Parameter, value: str) -> str:
    digits = value.strip().lower()
    if digits and not re.fullmatch("[0-9a-f]{64}", digits):
        raise click.BadParameter("it has 64 hexadecimal digits, as sha256sum prints them.")
    return digits


sha256_option = click.option(
    "--sha256",
    default="",
    metavar="DIGITS",
    callback=_check_sha256,
    help="The file's SHA-256; what has another is refused.",
)


def import_options(function: F) -> F:
    """``--format`` and ``--sha256`` of a file that is sent."""
    known = click.option("--format", default="", help="Left out, it is found by looking.")
    return known(sha256_option(function))


yes_option = click.option("--yes", "-y", is_flag=True, help="Do not ask.")


def confirm(question: str, *, yes: bool, work: Work) -> None:
    """Ask before something is lost; where nobody can answer, ``--yes`` is demanded."""
    if yes or work.dry_run:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} Say --yes: there is no terminal to ask on.")
    click.confirm(question, abort=True, err=True)


def upload(app: App, path: str, file: Path, work: Work, **query: Any) -> Any:
    """Send a file or a directory to the server and see through what becomes of it."""
    from nexusctl import files

    query |= {"dry_run": True} if work.dry_run else {}
    with files.source(file) as (source, size):
        made = app.client.upload(path, source, size, **query)
    return app.see(made, work)


def show_plan(plan: dict[str, Any]) -> None:
    output.data(f"Would: {plan['title']}" if plan["title"] else "Would be done.")
    for step in plan["steps"]:
        mark = "↷" if step["action"] == "skip" else "·"
        note = f": {step['note']}" if step["note"] else ""
        output.data(f"  {mark} {step['title']}{note}")


def show_accepted(operation: Operation) -> None:
    output.data(operation["id"])
    output.note(f"{operation['title']}: {operation['state']}")
    output.note(f"Follow it: nexusctl operation wait {operation['id']}")


def show_named(row: dict[str, Any]) -> None:
    """The name and the ID of something, as lists show them."""
    output.data(f"{row['name']}  {row['id']}")
