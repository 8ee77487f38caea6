"""A server that knows one session, whose sockets the test speaks on."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.nexusctl.peers import BINARY, CLOSE, Peer
from tests.nexusctl.terminals import Terminal, terminal

Script = Callable[[Peer], None]
ATTACHED = {"pid": 7, "offset": 0, "tty": True, "stdin": True, "existing": True}
SESSION = {
    "id": "main",
    "argv": ["/bin/sh"],
    "pid": 7,
    "user": "",
    "cwd": "/root",
    "tty": True,
    "stdin": True,
    "started_at": "2026-01-01T00:00:00Z",
    "ended_at": None,
    "exit": None,
    "first_offset": 0,
    "size": 0,
    "keep_bytes": 1048576,
    "attached": 0,
}
PATH = "/v1/vms/hello/sessions"


class SessionServer:
    """Knows one session; each socket to it follows the next script."""

    def __init__(self, *scripts: Script, **session: Any) -> None:
        self.scripts = list(scripts)
        self.session: dict[str, Any] | None = SESSION | session
        self.seen: list[tuple[str, str, Any]] = []
        self.failed: list[BaseException] = []
        self.threads: list[threading.Thread] = []
        self.url = ""

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "NEXUS_URL": self.url, "NEXUS_TOKEN": "nxt_test"}

    def asked(self, method: str) -> list[str]:
        return [path for seen, path, _ in self.seen if seen == method]

    def listen(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return  # it was closed
            thread = threading.Thread(target=self.serve, args=(sock,), daemon=True)
            self.threads.append(thread)
            thread.start()

    def serve(self, sock: socket.socket) -> None:
        try:
            with sock:
                peer = Peer(sock)
                method = peer.take_request()
                if peer.path.startswith("/ws/"):
                    peer.shake_hands()
                    self.scripts.pop(0)(peer)
                else:
                    self.answer(peer, method)
                peer.file.close()
        except BaseException as error:
            self.failed.append(error)

    def answer(self, peer: Peer, method: str) -> None:
        body = peer.body() if "content-length" in peer.headers else None
        self.seen.append((method, peer.path, body))
        if method == "DELETE":
            self.session = None
            peer.answer(204)
        elif method == "GET" and self.session is None:
            peer.answer(404, {"detail": "There is no such session.", "status": 404})
        else:
            self.session = self.session or SESSION
            peer.answer(200, self.session)


@contextmanager
def serving(server: SessionServer) -> Iterator[SessionServer]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        threading.Thread(target=server.listen, args=(listener,), daemon=True).start()
        yield server
        for thread in server.threads:
            thread.join(30)
    if server.failed:
        raise server.failed[0]
    assert not server.scripts, "every socket was opened"


@contextmanager
def shown(server: SessionServer, *arguments: str) -> Iterator[Terminal]:
    with serving(server), terminal("vm", *arguments, env=server.env) as made:
        yield made


def greeted(peer: Peer, wanted: int = 0, given: int | None = None) -> dict[str, Any]:
    """Take the client's first message, and say that it is attached."""
    greeting: dict[str, Any] = peer.order()
    assert greeting["offset"] == wanted
    peer.tell("attached", **ATTACHED | {"offset": wanted if given is None else given})
    return greeting


def write(peer: Peer, text: bytes, kind: int = 1) -> None:
    peer.send(BINARY, bytes([kind]) + text)


def typed(peer: Peer, wanted: bytes) -> None:
    got = b""
    while got != wanted:
        kind, data = peer.heard()
        assert kind == BINARY, data
        got += data
        assert wanted.startswith(got)


def exits(peer: Peer, code: int | None = 0, signal: int | None = None) -> None:
    peer.tell("exit", code=code, signal=signal, timed_out=False)
    peer.send(CLOSE, (1000).to_bytes(2))


def gone(peer: Peer) -> None:
    """Wait until the client has left."""
    assert peer.file.read(1) == b""
