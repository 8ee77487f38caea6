"""This terminal while it is that of a program in a VM."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click

#: Back from a second screen; the cursor shown; no mouse, no marks around pastes, no colours.
RESET = b"\x1b[?1047l\x1b[?25h\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l\x1b[m"

#: What a terminal answers by itself: it would type the answers into whatever runs now.
_QUESTIONS = re.compile(
    rb"\x1b\[[>=?]?[0-9;]*[cn]"  # device attributes, status and cursor
    rb"|\x1b\[>[0-9]*q|\x1b\[\??[0-9;]*\$p|\x1b\[[0-9]*x|\x1bZ|\x05"
    rb"|\x1b\[(?:1[1348-9]|2[01])t"  # sizes and titles
    rb"|\x1b\](?:4;[0-9]+|1[0-9]|52;[a-z0-9]*);\?(?:\x07|\x1b\\)"
    rb"|\x1bP[+$]q[^\x1b]*\x1b\\"
)

DEFAULT_KEYS = "ctrl-]"


def size() -> dict[str, int]:
    """Rows and columns; 24 and 80 where it does not say."""
    for stream in (1, 0, 2):
        with contextlib.suppress(OSError):
            columns, rows = os.get_terminal_size(stream)
            if rows and columns:
                return {"rows": rows, "cols": columns}
    return {"rows": 24, "cols": 80}


@contextmanager
def raw(resized: Callable[[], None]) -> Iterator[None]:
    """Every key goes to the program, Ctrl-C too; ``resized`` is called with each new size.

    However the block ends, but by KILL, the terminal is as it was.
    """
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    handlers: dict[int, Any] = {signal.SIGWINCH: lambda _, __: resized()}
    handlers |= dict.fromkeys((signal.SIGTERM, signal.SIGHUP), _end)
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        tty.setraw(keyboard, termios.TCSADRAIN)
        yield
    finally:
        if sys.stdout.isatty():
            sys.stdout.flush()
            os.write(1, RESET)
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
        for number, handler in previous.items():
            signal.signal(number, handler)


def note(text: str) -> None:
    """A line for the person, on a terminal that does not begin lines by itself."""
    click.echo(f"\r\n[nexusctl: {text}]\r", err=True)


def without_questions(replayed: bytes) -> bytes:
    """Old output fit to be shown again: nobody waits for answers to its questions."""
    return _QUESTIONS.sub(b"", replayed)


def write(channel: int, data: bytes) -> None:
    """Pass output on as it is; where its reader has gone the command ends like ``cat``."""
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[os.write(channel, rest) :]
    except BrokenPipeError:
        raise click.exceptions.Exit(128 + signal.SIGPIPE) from None


class Keys:
    """Looks for the keys that detach in what is typed."""

    def __init__(self, keys: bytes) -> None:
        self._keys, self._held = keys, b""

    def take(self, typed: bytes) -> tuple[bytes, bool]:
        """What goes to the program, and whether the keys came; what may be their beginning
        is held back until it is clear."""
        typed, self._held = self._held + typed, b""
        if self._keys and (found := typed.find(self._keys)) >= 0:
            return typed[:found], True
        for count in range(min(len(self._keys) - 1, len(typed)), 0, -1):
            if typed.endswith(self._keys[:count]):
                self._held = typed[-count:]
                return typed[:-count], False
        return typed, False


def parsed_keys(_: click.Context, __: click.Parameter, text: str) -> bytes:
    """``ctrl-p,ctrl-q`` or ``~,.`` as bytes; none for an empty text."""
    return b"".join(_key(name.strip()) for name in text.split(",")) if text else b""


def _key(name: str) -> bytes:
    letter = name[5:] if name.lower().startswith("ctrl-") else ""
    if len(letter) == 1 and "@" <= letter.upper() <= "_":
        return bytes([ord(letter.upper()) & 0x1F])
    if len(name) == 1 and name.isascii() and name.isprintable():
        return name.encode()
    raise click.BadParameter(f"“{name}” is no key: ctrl-X or one character, with commas between.")


def _end(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


keys_option = click.option(
    "--detach-keys",
    "keys",
    default=DEFAULT_KEYS,
    show_default=True,
    callback=parsed_keys,
    metavar="KEYS",
    help="What leaves the session and lets it go on: ctrl-X or characters, with commas between.",
)
