"""nexusctl vm exec …"""

from __future__ import annotations

import sys
from typing import Any

import click

from nexusctl import output
from nexusctl.app import App, Command, pass_app


def variables(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    pairs = [value.partition("=") for value in values]
    if wrong := [name for name, sign, _ in pairs if not sign or not name]:
        raise click.BadParameter(f"“{wrong[0]}” is no NAME=VALUE.")
    return {name: value for name, _, value in pairs}


def _seconds(_: click.Context, __: click.Parameter, value: float | None) -> float | None:
    if value is not None and value <= 0:
        raise click.BadParameter("it is more than 0 seconds.")
    return value


@click.command("exec", cls=Command)
@click.option("--user", "-u", default="", help="name, uid or name:group; left out, root.")
@click.option("--cwd", "-w", default="/", show_default=True, help="Where it begins.")
@click.option(
    "--env", "-e", multiple=True, metavar="NAME=VALUE", callback=variables, help="A variable."
)
@click.option("--timeout", type=float, callback=_seconds, help="Seconds, then it is killed.")
@click.option("--merge", is_flag=True, help="Put its stderr into stdout, in order.")
@click.option(
    "--stdin/--no-stdin",
    "-i/-n",
    default=None,
    help="Pass input on, or none; left out: unless it is a terminal.",
)
@click.option(
    "--tty", "-t", is_flag=True, help="Give it a terminal: this one, with all of its keys."
)
@click.option("--detach", "-d", is_flag=True, help="Start it as a session, and print its name.")
@click.argument("vm", metavar="VM")
@click.argument("argv", metavar="-- COMMAND [ARGUMENT]…", nargs=-1, required=True)
@pass_app
def exec_(
    app: App,
    /,
    vm: str,
    argv: tuple[str, ...],
    stdin: bool | None,
    tty: bool,
    detach: bool,
    **program: Any,
) -> None:
    """Run a program in a ready VM, without a shell, and end as it ends.

    The exit code is the program's, 128 + N where signal N ended it. Where nexusctl itself fails
    it has its own codes, which a program may have as well. Ctrl-C interrupts the program and
    all of its process group, a second one kills it; whatever else ends nexusctl kills it too.
    With --detach it lives on by itself, as a session (nexusctl vm session), which can be given
    input if --stdin says so.
    """
    program["argv"] = argv
    if tty:
        program["tty"] = _terminal_size()
    if detach:
        _detached(app, vm, program | {"stdin": bool(stdin) or tty})
        return
    run = _at_the_end if app.json else _live
    raise click.exceptions.Exit(_exit_code(run(app, vm, program, stdin)))


def _terminal_size() -> dict[str, int]:
    from nexusctl import terminal

    return terminal.size()


def _detached(app: App, vm: str, program: dict[str, Any]) -> None:
    session = app.client.call("POST", f"/vms/{vm}/sessions", body=program)
    if app.json:
        output.as_json(session)
        return
    output.data(session["id"])
    output.note(f"Follow it: nexusctl vm session logs -f {vm} {session['id']}")


def _live(app: App, vm: str, program: dict[str, Any], stdin: bool | None) -> dict[str, Any]:
    from nexusctl.running import Running

    raw = "tty" in program and sys.stdin.isatty() and stdin is not False
    source = sys.stdin.fileno() if raw or _wanted(stdin) else None
    with app.client.websocket(f"/vms/{vm}/exec") as socket:
        wanted = program | {"stdin": source is not None}
        ended = Running(socket, app.client.url).run(wanted, source, raw=raw)
    if ended["timed_out"]:
        output.note("The program was killed: its time was over.")
    return ended


def _at_the_end(app: App, vm: str, program: dict[str, Any], stdin: bool | None) -> dict[str, Any]:
    import base64

    body = program
    if _wanted(stdin):
        data = base64.b64encode(sys.stdin.buffer.read()).decode()
        body = program | {"stdin": data, "stdin_encoding": "base64"}
    ended: dict[str, Any] = app.client.run(f"/vms/{vm}/exec", body)
    output.as_json(ended)
    return ended


def _wanted(stdin: bool | None) -> bool:
    """Whether this command's input is the program's."""
    return not sys.stdin.isatty() if stdin is None else stdin


def _exit_code(ended: dict[str, Any]) -> int:
    if ended["exit_code"] is not None:
        return int(ended["exit_code"])
    return 128 + int(ended["signal"])
