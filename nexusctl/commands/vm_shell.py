"""nexusctl vm shell …"""

from __future__ import annotations

import contextlib
import sys
from typing import Any

import click

from nexusctl import terminal
from nexusctl.app import App, Command, pass_app
from nexusctl.commands.vm_exec import variables
from nexusctl.commands.vm_session import look
from nexusctl.errors import NOT_FOUND, Failure


@click.command(cls=Command)
@click.option("--user", "-u", default="", help="name, uid or name:group; left out, root.")
@click.option("--cwd", "-w", default="", help="Where it begins; left out, at home.")
@click.option(
    "--env", "-e", multiple=True, metavar="NAME=VALUE", callback=variables, help="A variable."
)
@click.option("--session", default="", help="Come back to this session, or begin it.")
@terminal.keys_option
@click.argument("vm", metavar="VM")
@pass_app
def shell(app: App, /, vm: str, session: str, keys: bytes, **program: Any) -> None:
    """A login shell in a ready VM, in this terminal, and its exit code.

    It is a session: it lives on when the connection breaks, which is made again by itself, and
    when the keys that detach are typed. --session comes back to it, with its scrollback. A shell
    that has ended is forgotten.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError(
            "A shell needs a terminal. Without one: nexusctl vm exec VM -- sh -c '…'"
        )
    body = program | {"shell": True, "tty": terminal.size()}
    found = _begun(app, vm, session, body)
    code = look(app, vm, found, keys=keys, stdin=True)
    if code is not None:
        with contextlib.suppress(Failure):  # the VM has forgotten it already
            app.client.call("DELETE", f"/vms/{vm}/sessions/{found['id']}")
        raise click.exceptions.Exit(code)


def _begun(app: App, vm: str, session: str, body: dict[str, Any]) -> dict[str, Any]:
    """The session to look at; one that has ended makes room for a new one."""
    path = f"/vms/{vm}/sessions"
    if session:
        try:
            if (found := app.client.get(f"{path}/{session}"))["exit"] is None:
                return dict(found)
            app.client.call("DELETE", f"{path}/{session}")
        except Failure as failure:
            if failure.exit_code != NOT_FOUND:
                raise
        body = body | {"id": session}
    return dict(app.client.call("POST", path, body=body)) | {"size": 0}
