"""One websocket into a VM: input that waits for room, output, and news."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from http.client import HTTPException
from typing import Any, NamedTuple

from nexusctl.websocket import BINARY, CLOSE, PING, PONG, TEXT, Websocket

WINDOW = 256 * 1024  # bytes of input that the server takes before it says that it takes more
PIECE = 32 * 1024
DONE = 1000  # the close code of a socket that has nothing more to say
LAST_WORDS = 1.0  # seconds for what waits to be sent at the end

News = dict[str, Any]


class Output(NamedTuple):
    """``kind`` is 1 for stdout and 2 for stderr, as file descriptors are."""

    kind: int
    data: bytes


class Link:
    """``socket`` with a thread that sends; other threads and signal handlers may say things."""

    def __init__(self, socket: Websocket) -> None:
        self._socket = socket
        self._to_send: queue.SimpleQueue[tuple[int, bytes] | None] = queue.SimpleQueue()
        self._room, self._widened = WINDOW, threading.Condition()
        self._shut = False
        self._sender = threading.Thread(target=self._send_all, name="sender", daemon=True)
        self._sender.start()

    def say(self, message: News) -> None:
        """Send a message; never waits."""
        self._to_send.put((TEXT, json.dumps(message).encode()))

    def give(self, data: bytes, patience: float | None = None) -> bool:
        """Send input, at most ``PIECE``, when there is room for it; False where none came."""
        with self._widened:
            self._widened.wait_for(lambda: self._shut or self._room >= len(data), patience)
            if self._shut or self._room < len(data):
                return False
            self._room -= len(data)
        self._to_send.put((BINARY, data))
        return True

    def messages(self) -> Iterator[Output | News]:
        """What the server says of a program; raises ``OSError`` or ``HTTPException`` when it says
        no more."""
        for piece in self.pieces():
            yield Output(piece[0], piece[1:]) if isinstance(piece, bytes) else piece
        raise HTTPException("the socket was closed")

    def pieces(self) -> Iterator[bytes | News]:
        """What the server says, to the end of a socket that is closed because all was said; else
        raises ``OSError`` or ``HTTPException``."""
        while True:
            message = self._socket.receive()
            if message.kind == BINARY:
                yield message.data
            elif message.kind == PING:
                self._to_send.put((PONG, message.data))
            elif message.kind == CLOSE:
                if message.code == DONE:
                    return
                raise HTTPException(f"the socket was closed with {message.code}")
            elif message.kind == TEXT:
                news: News = json.loads(message.data)
                if news["type"] == "window":
                    self._widen(news["bytes"])
                else:
                    yield news

    def shut(self) -> None:
        """Say what is to be said still, and hear no more; from any thread."""
        with self._widened:
            self._shut = True
            self._widened.notify_all()
        self._to_send.put(None)
        self._sender.join(LAST_WORDS)
        self._socket.shut()

    def _send_all(self) -> None:
        try:
            while (message := self._to_send.get()) is not None:
                self._socket.send(*message)
        except OSError:
            pass  # whoever receives is told

    def _widen(self, count: int) -> None:
        with self._widened:
            self._room += count
            self._widened.notify_all()
