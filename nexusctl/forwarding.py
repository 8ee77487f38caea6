"""Ports of a VM on ports of this machine: each connection becomes one websocket."""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPException

from nexusctl import output
from nexusctl.client import Client
from nexusctl.errors import CONFLICT, Failure, Unreachable
from nexusctl.link import PIECE, Link

BACKLOG = 128
RESET = struct.pack("ii", 1, 0)  # to linger for no time: what is closed so ends with a reset


@dataclass(frozen=True)
class Wish:
    """A port of a VM, and the one of this machine that leads to it; 0 is any that is free."""

    local: int
    port: int


@dataclass(frozen=True)
class Forward:
    """A port of a VM, and what listens for it here."""

    listener: socket.socket
    port: int

    @property
    def address(self) -> str:
        """Where it listens, as people write it."""
        host, port = self.listener.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@contextmanager
def listening(address: str, wishes: Sequence[Wish]) -> Iterator[list[Forward]]:
    """What listens on ``address`` of this machine; ``Failure`` where a port cannot be had."""
    with ExitStack() as stack:
        yield [Forward(stack.enter_context(_listen(address, it)), it.port) for it in wishes]


def _listen(address: str, wish: Wish) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        listener = socket.create_server((address, wish.local), family=family, backlog=BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Failure(
                f"Port {wish.local} of {address} is in use on this machine.",
                hint=f"Name another one before a colon, or 0 for any that is free: 0:{wish.port}",
                exit_code=CONFLICT,
            ) from None
        why = error.strerror or error
        raise Failure(f"Nothing can listen on port {wish.local} of {address}: {why}.") from None
    listener.setblocking(False)
    return listener


def forward(client: Client, vm: str, forwards: Sequence[Forward]) -> None:
    """Carry what connects into the VM called ``vm``, until Ctrl-C: ``KeyboardInterrupt``.

    What goes wrong with one connection is told, and ends that one.
    """
    with selectors.DefaultSelector() as selector:
        for each in forwards:
            selector.register(each.listener, selectors.EVENT_READ, each)
        while True:
            for key, _ in selector.select():
                with contextlib.suppress(OSError):  # it has left already
                    peer, _ = key.data.listener.accept()
                    peer.setblocking(True)
                    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    carrying = (client, vm, key.data, peer)
                    threading.Thread(target=_carry, args=carrying, daemon=True).start()


def _carry(client: Client, vm: str, way: Forward, peer: socket.socket) -> None:
    """One connection, from its beginning to its end."""
    with peer:
        try:
            with client.websocket(f"/vms/{vm}/ports/{way.port}") as websocket:
                _Connection(peer, Link(websocket)).run(client.url)
        except Failure as failure:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            output.note(f"✗ {way.address}: {failure.message}")
            if failure.hint:
                output.note(f"hint: {failure.hint}")


class _Left(Exception):
    """Whoever connected here has left without having heard all."""


class _Connection:
    """Carries bytes between ``peer``, which has connected here, and the other end of ``link``."""

    def __init__(self, peer: socket.socket, link: Link) -> None:
        self._peer, self._link = peer, link
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._left = False

    def run(self, url: str) -> None:
        """Until both have said all, or ``peer`` has left; ``Failure`` for what else ends it."""
        try:
            self._follow()
        except _Left:
            pass
        except (OSError, HTTPException) as error:
            if not self._left:
                raise Unreachable(url, str(error), began=True) from error
        finally:
            self._link.shut()
            if self._reader.ident is not None:
                with contextlib.suppress(OSError):
                    self._peer.shutdown(socket.SHUT_RD)  # wakes who reads
                self._reader.join()

    def _follow(self) -> None:
        for message in self._link.pieces():
            if isinstance(message, bytes):
                self._give(message)
            elif message["type"] == "connected":
                self._reader.start()
            elif message["type"] == "eof":
                with contextlib.suppress(OSError):  # it has left: who reads finds that
                    self._peer.shutdown(socket.SHUT_WR)
            elif message["type"] == "error":
                raise Failure.of_problem(message["problem"]["status"], message["problem"])

    def _give(self, data: bytes) -> None:
        try:
            self._peer.sendall(data)
        except OSError as error:
            raise _Left from error

    def _read(self) -> None:
        """Send what comes as long as there is room for it, and at last its end."""
        try:
            while data := self._peer.recv(PIECE):
                if not self._link.give(data):
                    return
            self._link.say({"type": "eof"})
        except OSError:
            self._left = True
            self._link.shut()
