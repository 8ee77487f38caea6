"""A program in a VM for as long as this command runs: input, output, Ctrl-C or a terminal."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from types import FrameType
from typing import Any

from nexusctl import terminal
from nexusctl.errors import Failure, Unreachable
from nexusctl.link import PIECE, Link, News, Output
from nexusctl.websocket import Websocket


class Running:
    """Runs one program over ``socket`` to its end."""

    def __init__(self, socket: Websocket, url: str) -> None:
        self._link, self._url = Link(socket), url
        self._interrupts = 0

    def run(self, program: dict[str, Any], stdin: int | None, *, raw: bool = False) -> News:
        """The exit of ``program``, as the API words it; input is read from the file ``stdin``.

        ``raw`` gives it this terminal and all of its keys. Raises ``Failure`` when Nexus does not
        run it, or not to its end.
        """
        self._link.say(program)
        with terminal.raw(self._resize) if raw else self._interruptible():
            try:
                return self._follow(stdin)
            except (OSError, HTTPException) as error:
                raise Unreachable(self._url, str(error), began=True) from error

    def _follow(self, stdin: int | None) -> News:
        for message in self._link.messages():
            if isinstance(message, Output):
                terminal.write(message.kind, message.data)
            elif message["type"] == "started" and stdin is not None:
                threading.Thread(target=self._read, args=(stdin,), daemon=True).start()
            elif message["type"] == "exit":
                return message
            elif message["type"] == "error":
                raise Failure.of_problem(message["problem"]["status"], message["problem"])
        raise AssertionError("messages end with an error")

    def _resize(self) -> None:
        self._link.say({"type": "resize", **terminal.size()})

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        before = signal.signal(signal.SIGINT, self._interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _interrupt(self, _: int, __: FrameType | None) -> None:
        """Ctrl-C interrupts the program, and the second one kills it."""
        self._interrupts += 1
        self._link.say({"type": "signal", "signal": "INT" if self._interrupts == 1 else "KILL"})

    def _read(self, stdin: int) -> None:
        """Send input as long as there is room for it, and at last its end."""
        try:
            while data := os.read(stdin, PIECE):
                self._link.give(data)
        except OSError:
            pass  # input that cannot be read has ended
        self._link.say({"type": "eof"})
