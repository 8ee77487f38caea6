"""nexusctl vm session …"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import click

from nexusctl import output, terminal
from nexusctl.app import App, Group, pass_app
from nexusctl.formatting import ago, size

vm_argument = click.argument("vm", metavar="VM")
session_argument = click.argument("session", metavar="SESSION")


@click.group("session", cls=Group)
def session_() -> None:
    """Programs that live on in VMs by themselves.

    `nexusctl vm exec --detach` and `nexusctl vm shell` begin them.
    """


@session_.command("list")
@vm_argument
@pass_app
def list_(app: App, vm: str) -> None:
    """List what runs in a VM, and what has ended and is not forgotten; the oldest first."""
    app.answer(app.client.get(f"/vms/{vm}/sessions"), _show)


@session_.command()
@click.option("--follow", "-f", is_flag=True, help="Go on until the session has ended.")
@click.option("--offset", type=click.IntRange(0), default=0, help="Bytes of output to leave out.")
@vm_argument
@session_argument
@pass_app
def logs(app: App, vm: str, session: str, follow: bool, offset: int) -> None:
    """Print what is kept of a session's output, as it was written."""
    if app.json:
        for part in _parts(app, vm, session, offset):
            output.as_json_line(part)
    elif follow:
        from nexusctl.looking import Look, Session

        Look(app.client, Session(vm, session)).run(offset)
    else:
        import base64

        for part in _parts(app, vm, session, offset):
            if part["lost"] and part["offset"] > part["lost"]:
                output.note(f"[nexusctl: {part['lost']} bytes of output are lost]")
            terminal.write(1, base64.b64decode(part["stdout"]))
            terminal.write(2, base64.b64decode(part["stderr"]))


@session_.command()
@terminal.keys_option
@click.option(
    "--no-stdin", "-n", is_flag=True, help="Pass no input on; Ctrl-C then ends the look alone."
)
@vm_argument
@session_argument
@pass_app
def attach(app: App, vm: str, session: str, keys: bytes, no_stdin: bool) -> None:
    """Look at a session, type into it, and end with its exit code.

    What is kept of its output comes first. Leaving lets it go on: with the keys that detach
    where it has a terminal, else with Ctrl-C.
    """
    found = app.client.get(f"/vms/{vm}/sessions/{session}")
    code = look(app, vm, found, keys=keys, stdin=found["stdin"] and not no_stdin)
    if code is not None:
        raise click.exceptions.Exit(code)


@session_.command()
@vm_argument
@session_argument
@click.argument("name", metavar="[SIGNAL]", default="TERM")
@pass_app
def signal(app: App, vm: str, session: str, name: str) -> None:
    """Send a signal to a session's process group: TERM, or what is named, such as INT or 9."""
    body = {"signal": int(name) if name.isdigit() else name}
    app.client.call("POST", f"/vms/{vm}/sessions/{session}/signal", body=body)


@session_.command()
@click.option("--force", is_flag=True, help="Kill what still runs.")
@vm_argument
@session_argument
@pass_app
def forget(app: App, vm: str, session: str, force: bool) -> None:
    """Give up what is kept of a session that has ended."""
    path = f"/vms/{vm}/sessions/{session}"
    app.client.call("DELETE", path, query={"force": force} if force else None)


def look(app: App, vm: str, found: dict[str, Any], *, keys: bytes, stdin: bool) -> int | None:
    """Look at the session ``found``: its exit code, or None where the person has left."""
    from nexusctl.looking import Look, Session

    here = sys.stdin.isatty() and sys.stdout.isatty()
    wanted = Session(vm, found["id"], old=found["size"])
    source = sys.stdin.fileno() if stdin else None
    code = Look(
        app.client, wanted, stdin=source, raw=stdin and found["tty"] and here, keys=keys
    ).run()
    if code is None:
        output.note(f"Left the session “{found['id']}”, which goes on.")
        output.note(f"Come back: nexusctl vm session attach {vm} {found['id']}")
    return code


def _parts(app: App, vm: str, session: str, offset: int) -> Iterator[dict[str, Any]]:
    """What is kept, answer after answer, up to what there is now."""
    while True:
        part = app.client.get(
            f"/vms/{vm}/sessions/{session}/output", offset=offset, encoding="base64"
        )
        yield part
        if part["next_offset"] in (offset, part["size"]):
            return
        offset = part["next_offset"]


def _show(sessions: list[dict[str, Any]]) -> None:
    headings = ("NAME", "STATE", "BEGAN", "OUTPUT", "TTY", "USER", "LOOKERS", "PROGRAM")
    rows = [
        (
            session["id"],
            output.state(_state(session)),
            f"{ago(session['started_at'])} ago",
            size(session["size"]),
            "yes" if session["tty"] else "",
            output.visible(session["user"]) or "root",
            str(session["attached"]),
            output.visible(" ".join(session["argv"]))[:60],
        )
        for session in sessions
    ]
    output.table(headings, rows, empty="No sessions.")


def _state(session: dict[str, Any]) -> str:
    ended = session["exit"]
    if ended is None:
        return "running"
    if ended["exit_code"] is None:
        return f"signal {ended['signal']}"
    return f"exit {ended['exit_code']}"
