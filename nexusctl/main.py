"""``nexusctl``: the program, its groups of commands, and how it ends."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import click

from nexusctl.app import Group, common_options
from nexusctl.commands.build import build
from nexusctl.commands.drive import drive
from nexusctl.commands.firecracker import firecracker
from nexusctl.commands.image import image
from nexusctl.commands.kernel import kernel
from nexusctl.commands.operation import operation
from nexusctl.commands.pool import pool
from nexusctl.commands.provider import provider
from nexusctl.commands.rootfs import rootfs
from nexusctl.commands.snapshot import snapshot
from nexusctl.commands.storage import storage
from nexusctl.commands.system import doctor, event, sign_in_link, status, version
from nexusctl.commands.template import template
from nexusctl.commands.vm import vm
from nexusctl.commands.warm import warm
from nexusctl.errors import FAILED, INTERRUPTED

ALIASES = {"dr": "drive", "ws": "drive", "snap": "snapshot", "op": "operation"}
COMMANDS = (
    vm,
    drive,
    snapshot,
    storage,
    image,
    template,
    build,
    rootfs,
    provider,
    kernel,
    warm,
    pool,
    firecracker,
    operation,
    event,
    status,
    doctor,
    sign_in_link,
    version,
)


class Program(Group):
    """The program itself."""

    aliases = ALIASES


cli = Program(
    name="nexusctl",
    commands=COMMANDS,
    params=common_options(hidden=False),
    context_settings={"help_option_names": ["-h", "--help"]},
    help="MicroVMs for AI agents, from the command line.\n\n"
    "Names and IDs are taken alike. Answers are on stdout, notes and progress on stderr. "
    "Exit codes: 0 fine, 1 failed, 2 usage, 3 server unreachable, 4 not found, 5 conflict, "
    "6 denied, 130 interrupted.",
)


def run() -> NoReturn:
    """The shell's entry point; never shows a traceback unless NEXUS_DEBUG is set."""
    sys.exit(main(sys.argv[1:]))


def main(arguments: list[str]) -> int:
    """Run one command line; its exit code."""
    try:
        code = cli.main(arguments, prog_name="nexusctl", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort as error:
        if not isinstance(error.__cause__, KeyboardInterrupt):
            click.echo("Aborted.", err=True)  # a question was answered with no
        return INTERRUPTED
    except Exception as error:
        if os.environ.get("NEXUS_DEBUG"):
            raise
        click.echo(f"✗ nexusctl met an error of its own: {type(error).__name__}: {error}", err=True)
        click.echo("hint: NEXUS_DEBUG=1 shows where; please report it.", err=True)
        return FAILED
    return code if isinstance(code, int) else 0
