"""A program in a VM, with this terminal's input, output and Ctrl-C."""

from __future__ import annotations

import json
import os
import queue
import signal
import threading
from http.client import HTTPException
from types import FrameType
from typing import Any

import click

from nexusctl.errors import Failure, Unreachable
from nexusctl.websocket import BINARY, CLOSE, PING, PONG, TEXT, Websocket

WINDOW = 256 * 1024  # bytes of input that the server takes before it says that it takes more
PIECE = 32 * 1024

Exit = dict[str, Any]
Sending = tuple[int, bytes]


class Running:
    """Runs one program over ``socket`` to its end."""

    def __init__(self, socket: Websocket, url: str) -> None:
        self._socket, self._url = socket, url
        self._to_send: queue.SimpleQueue[Sending] = queue.SimpleQueue()
        self._room, self._widened = WINDOW, threading.Condition()
        self._interrupts = 0

    def run(self, program: dict[str, Any], stdin: int | None) -> Exit:
        """The exit of ``program``, as the API words it; input is read from the file ``stdin``.

        Raises ``Failure`` when Nexus does not run it, or not to its end.
        """
        self._tell(program)
        threading.Thread(target=self._send_all, name="sender", daemon=True).start()
        before = signal.signal(signal.SIGINT, self._interrupt)
        try:
            return self._follow(stdin)
        except (OSError, HTTPException) as error:
            raise Unreachable(self._url, str(error), began=True) from error
        finally:
            signal.signal(signal.SIGINT, before)

    def _follow(self, stdin: int | None) -> Exit:
        while True:
            message = self._socket.receive()
            if message.kind == BINARY:
                _write(message.data[0], message.data[1:])
            elif message.kind == PING:
                self._to_send.put((PONG, message.data))
            elif message.kind == CLOSE:
                raise HTTPException(f"the socket was closed with {message.code}")
            elif message.kind == TEXT:
                news = json.loads(message.data)
                if news["type"] == "started" and stdin is not None:
                    reader = threading.Thread(target=self._read, args=(stdin,), daemon=True)
                    reader.start()
                elif news["type"] == "window":
                    self._widen(news["bytes"])
                elif news["type"] == "exit":
                    return dict(news)
                elif news["type"] == "error":
                    raise Failure.of_problem(news["problem"]["status"], news["problem"])

    def _interrupt(self, _: int, __: FrameType | None) -> None:
        """Ctrl-C interrupts the program, and the second one kills it."""
        self._interrupts += 1
        self._tell({"type": "signal", "signal": "INT" if self._interrupts == 1 else "KILL"})

    def _tell(self, message: dict[str, Any]) -> None:
        self._to_send.put((TEXT, json.dumps(message).encode()))

    def _send_all(self) -> None:
        """The one thread that sends; a signal handler may put things there at any moment."""
        try:
            while True:
                self._socket.send(*self._to_send.get())
        except OSError:
            pass  # whoever receives is told

    def _read(self, stdin: int) -> None:
        """Send input as long as there is room for it, and at last its end."""
        try:
            while data := os.read(stdin, PIECE):
                with self._widened:
                    self._widened.wait_for(lambda: self._room >= PIECE)
                    self._room -= len(data)
                self._to_send.put((BINARY, data))
        except OSError:
            pass  # input that cannot be read has ended
        self._tell({"type": "eof"})

    def _widen(self, count: int) -> None:
        with self._widened:
            self._room += count
            self._widened.notify()


def _write(channel: int, data: bytes) -> None:
    """Pass output on as it is; where its reader has gone the command ends like ``cat``."""
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[os.write(channel, rest) :]
    except BrokenPipeError:
        raise click.exceptions.Exit(128 + signal.SIGPIPE) from None
