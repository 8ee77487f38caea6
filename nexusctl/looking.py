"""A look at a session that survives the loss of its connection."""

from __future__ import annotations

import os
import threading
import time
from contextlib import nullcontext
from dataclasses import dataclass
from http.client import HTTPException

import click

from nexusctl import terminal
from nexusctl.client import Client
from nexusctl.errors import Failure, Unreachable
from nexusctl.link import PIECE, Link, News, Output

SILENCE = 75.0  # seconds without a byte after which the connection is lost: servers ping
LOST_CONTACT = 600.0  # seconds of trying to connect again
PAUSE = 0.5  # seconds between two tries
BLOCKED = 5.0  # seconds that a key waits for a program that reads nothing
CTRL_C = b"\x03"
TRY_AGAIN = 503


@dataclass(frozen=True)
class Session:
    """What to look at. ``old`` is how much output there is already: an earlier look's."""

    vm: str
    name: str
    old: int = 0


class Look:
    """Shows a session here, and passes on what is typed.

    ``stdin`` is read for input; ``raw`` gives this terminal to the session, with ``keys`` to leave.
    """

    def __init__(
        self,
        client: Client,
        session: Session,
        *,
        stdin: int | None = None,
        raw: bool = False,
        keys: bytes = b"",
    ) -> None:
        self._client, self._session = client, session
        self._stdin, self._raw, self._keys = stdin, raw, terminal.Keys(keys)
        self._offset = 0
        self._replayed = bytearray()
        self._attached = False  # at least once
        self._left = threading.Event()
        self._link: Link | None = None
        self._ready, self._readied = False, threading.Condition()  # for input

    def run(self, offset: int = 0) -> int | None:
        """Look from ``offset`` on. The exit code; None where the person has left.

        A lost connection is made again, at the same offset, for as long as the session goes on.
        Raises ``Failure`` when there is no session, or no more of it.
        """
        self._offset = offset
        with terminal.raw(self._resize) if self._raw else nullcontext():
            if self._stdin is not None:
                threading.Thread(target=self._read, name="keyboard", daemon=True).start()
            try:
                return self._until_the_end()
            except KeyboardInterrupt:
                return None

    def _until_the_end(self) -> int | None:
        give_up = 0.0
        while not self._left.is_set():
            try:
                return self._look()
            except Failure as failure:
                if self._left.is_set():
                    return None
                passing = isinstance(failure, Unreachable | Passing)
                if not self._attached or not passing:
                    raise
                if self._ready:
                    self._ready, give_up = False, time.monotonic() + LOST_CONTACT
                    self._note("the connection is lost, connecting again")
                elif time.monotonic() > give_up:
                    raise
            self._left.wait(PAUSE)
        return None

    def _look(self) -> int | None:
        """One connection. Raises ``Unreachable`` or ``Passing`` where another may do better."""
        path = f"/vms/{self._session.vm}/sessions/{self._session.name}"
        with self._client.websocket(path) as socket:
            socket.lose_after(SILENCE)
            self._link = link = Link(socket)
            size = terminal.size() if self._raw else {}
            link.say({"offset": self._offset, **size})
            try:
                return self._follow(link)
            except (OSError, HTTPException) as error:
                raise Unreachable(self._client.url, str(error), began=True) from error
            finally:
                link.shut()

    def _follow(self, link: Link) -> int | None:
        for message in link.messages():
            if isinstance(message, Output):
                self._show(message)
            elif message["type"] == "exit":
                self._show_replayed()
                return _shell_code(message)
            elif message["type"] == "error":
                problem = message["problem"]
                kind = Passing if problem["status"] == TRY_AGAIN else Failure
                raise kind.of_problem(problem["status"], problem)
            else:
                self._go_on(message)
        raise AssertionError("messages end with an error")

    def _go_on(self, news: News) -> None:
        """Take ``attached`` or ``gap``: the next output lies elsewhere."""
        if self._offset and (missed := news["offset"] - self._offset) > 0:
            self._show_replayed()
            self._note(f"{missed} bytes of output are lost: the VM keeps no more")
        self._offset = news["offset"]
        if news["type"] == "attached":
            if self._attached:
                self._note("connected again")
            self._attached = True
            with self._readied:
                self._ready = True
                self._readied.notify_all()

    # Output

    def _show(self, output: Output) -> None:
        """Old output is put together first: a question of it may be cut in two."""
        old = max(self._session.old - self._offset, 0) if self._raw else 0
        self._offset += len(output.data)
        self._replayed += output.data[:old]
        if self._offset >= self._session.old:
            self._show_replayed()
        terminal.write(output.kind, output.data[old:])

    def _show_replayed(self) -> None:
        replayed = terminal.without_questions(bytes(self._replayed))
        self._replayed.clear()
        terminal.write(1, replayed)

    def _note(self, text: str) -> None:
        if self._raw:
            terminal.note(text)
        else:
            click.echo(f"[nexusctl: {text}]", err=True)

    # Input

    def _resize(self) -> None:
        if link := self._link:
            link.say({"type": "resize", **terminal.size()})

    def _read(self) -> None:
        assert self._stdin is not None
        try:
            while data := os.read(self._stdin, PIECE):
                typed, leaves = self._keys.take(data)
                self._type(typed)
                if leaves:
                    self._leave()
                    return
        except OSError:
            pass  # input that cannot be read has ended
        if self._raw:
            self._leave()
        else:
            self._wait_for_link().say({"type": "eof"})

    def _type(self, data: bytes) -> None:
        """Keys that nobody takes are dropped, so that those that leave are always heard."""
        if not data:
            return
        if not self._raw:
            while not self._wait_for_link().give(data):
                pass
        elif self._link and self._ready:
            self._link.give(data, BLOCKED)
        elif CTRL_C in data:
            self._leave()

    def _leave(self) -> None:
        self._left.set()
        if link := self._link:
            link.shut()

    def _wait_for_link(self) -> Link:
        with self._readied:
            self._readied.wait_for(lambda: self._ready)
        assert self._link is not None
        return self._link


class Passing(Failure):
    """What a later try may do."""


def _shell_code(exit_: News) -> int:
    return int(exit_["code"]) if exit_["code"] is not None else 128 + int(exit_["signal"])
