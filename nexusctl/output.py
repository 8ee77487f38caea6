"""What the command prints: data on stdout, notes on stderr.

``click.echo`` leaves the colours out where the stream is no terminal; NO_COLOR does so
everywhere.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import IO, Any

import click

from nexusctl.formatting import NOTHING

#: Escape sequences (CSI; OSC; two characters), then single control characters but \n and \t.
_CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-_]"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)

STATE_COLOURS = {
    "ready": "green",
    "succeeded": "green",
    "running": "blue",
    "starting": "cyan",
    "stopping": "cyan",
    "queued": "cyan",
    "creating": "cyan",
    "paused": "yellow",
    "unreachable": "yellow",
    "crashed": "red",
    "failed": "red",
    "cancelled": "yellow",
}


def style(text: str, **looks: Any) -> str:
    """``text`` with colours, unless NO_COLOR says otherwise."""
    return text if os.environ.get("NO_COLOR") else click.style(text, **looks)


def data(text: str) -> None:
    """A line of the answer."""
    click.echo(text)


def note(text: str) -> None:
    """A line for the person who watches."""
    click.echo(text, err=True)


def guest(text: str) -> None:
    """What a guest wrote: as it is into a file or a pipe, harmless onto a terminal."""
    sys.stdout.write(plain(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def plain(text: str) -> str:
    """``text`` without what would move, colour or question a terminal."""
    return _CONTROL.sub("", text)


def visible(text: str) -> str:
    r"""A stranger's name on one line: what is no printable character as ``\x1b``, ``\u202e``."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )


def as_json(answer: Any) -> None:
    click.echo(json.dumps(answer, indent=2, ensure_ascii=False))


def as_json_line(answer: Any) -> None:
    """One line a row, for answers without an end."""
    click.echo(json.dumps(answer, ensure_ascii=False))


def state(name: str) -> str:
    return style(name, fg=STATE_COLOURS.get(name.strip()))


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str) -> None:
    """Rows under headings; a note on stderr when there is none."""
    first, *lines = columns(headings, rows)
    if not lines:
        note(empty)
        return
    for line in (first, *lines):
        data(line)


def columns(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table, its headings first, with two spaces between columns."""
    lines = [list(headings), *([cell or NOTHING for cell in row] for row in rows)]
    widths = [
        max(len(click.unstyle(cell)) for cell in column) for column in zip(*lines, strict=True)
    ]
    return [
        "  ".join(_pad(cell, width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def facts(pairs: Iterable[tuple[str, str]]) -> None:
    """One fact a line, the values under each other."""
    found = list(pairs)
    width = max(len(name) for name, _ in found)
    for name, value in found:
        first, *more = (value or NOTHING).splitlines()
        data(f"{name.ljust(width)}  {first}")
        for line in more:
            data(f"{' ' * width}  {line}")


def is_terminal(stream: IO[str] | None = None) -> bool:
    """Whether a person watches ``stream`` (stderr unless given) and wants it to move."""
    return (stream or sys.stderr).isatty() and os.environ.get("TERM") != "dumb"


def _pad(cell: str, width: int) -> str:
    return cell + " " * (width - len(click.unstyle(cell)))
