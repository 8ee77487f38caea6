"""Writes docs/reference/nexusctl.md from the commands themselves.

``python -m nexusctl.reference docs/reference/nexusctl.md``
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from nexusctl.main import ALIASES, cli

INTRODUCTION = """\
# nexusctl

The command line of Nexus: a client of its [HTTP API](api.md).

It finds the server of this machine and its token in the data directory (`NEXUS_DATA_DIR`,
by default `$XDG_DATA_HOME/nexus` or `~/.local/share/nexus`). `NEXUS_URL` and `NEXUS_TOKEN`, or
`--server` and `--token`, name another server; the token of this machine is sent to no other.
`NEXUS_TIMEOUT` is how many seconds an answer may take (30).

- Wherever a thing is asked for, its name or its ID will do. Lists show both.
- Data is on stdout; notes, progress and errors are on stderr. `NO_COLOR` is honoured.
- `--json` prints the API's answer, on every command.
- Changes that take time are watched to their end: `✓` done, `↷` nothing to do, `✗` failed,
  `↶` undone. `--no-wait` does not wait, `--dry-run` shows the plan and changes nothing.
  Ctrl-C ends the watching, not the work.

| exit code | meaning |
|---|---|
| 0 | fine |
| 1 | failed |
| 2 | wrong usage |
| 3 | the server does not answer |
| 4 | not found |
| 5 | conflict: the state of things forbids it now |
| 6 | denied |
| 130 | interrupted |

This page is made from the commands by `python -m nexusctl.reference`.
"""


def reference() -> str:
    """The whole page, in Markdown."""
    return "\n".join([INTRODUCTION, *_sections()])


def _sections() -> Iterator[str]:
    context = click.Context(cli, info_name="nexusctl")
    for name, command in sorted(cli.commands.items()):
        yield f"## {name}\n"
        yield from _section(command, click.Context(command, context, info_name=name), name)
    yield "## Other names\n"
    yield "\n".join(f"- `{alias}`: {name}" for alias, name in sorted(ALIASES.items())) + "\n"


def _section(command: click.Command, context: click.Context, title: str) -> Iterator[str]:
    """One command; a group's own commands are its subsections."""
    if not isinstance(command, click.Group):
        yield _command(command, context)
        return
    yield f"{command.help}\n"
    for name, subcommand in sorted(command.commands.items()):
        yield f"### {title} {name}\n"
        subcontext = click.Context(subcommand, context, info_name=name)
        yield from _section(subcommand, subcontext, f"{title} {name}")


def _command(command: click.Command, context: click.Context) -> str:
    """Its help, usage and options; the common options are left out."""
    pieces = " ".join(command.collect_usage_pieces(context))
    text = f"{command.help}\n\n    {context.command_path} {pieces}\n"
    options = [
        parameter.get_help_record(context)
        for parameter in command.get_params(context)
        if isinstance(parameter, click.Option) and parameter.expose_value
    ]
    rows = [f"| `{record[0]}` | {record[1].replace('  [', ' [')} |" for record in options if record]
    return "\n".join([text, "| option | |", "|---|---|", *rows, ""]) if rows else text


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(reference())
