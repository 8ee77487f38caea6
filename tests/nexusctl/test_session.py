"""``nexusctl vm session`` and ``vm shell``, in real terminals, against a server of the test's."""

from __future__ import annotations

import base64
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from nexusctl import looking
from nexusctl import terminal as terminals
from nexusctl.main import main
from tests.nexusctl.peers import BINARY, CLOSE, TEXT, Peer
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


# In a terminal


def test_a_shell_has_the_whole_terminal() -> None:
    def script(peer: Peer) -> None:
        assert greeted(peer) == {"offset": 0, "rows": 24, "cols": 80}
        write(peer, b"$ ")
        typed(peer, b"\x03\x1a\r")  # no signals, no new lines
        write(peer, b"more")
        order = peer.order()
        assert order == {"type": "resize", "rows": 50, "cols": 200}
        exits(peer, 3)

    server = SessionServer(script)
    server.session = None
    with shown(server, "shell", "hello", "-u", "nobody", "-e", "A=b") as screen:
        screen.read_until(b"$ ")
        assert screen.is_raw()
        screen.type("\x03\x1a\r")
        screen.read_until(b"more")
        screen.resize(50, 200)
        assert screen.ended() == 3
    method, path, body = server.seen[0]
    assert (method, path) == ("POST", PATH)
    assert body == {
        "user": "nobody",
        "cwd": "",
        "env": {"A": "b"},
        "shell": True,
        "tty": {"rows": 24, "cols": 80},
    }
    assert server.asked("DELETE") == [f"{PATH}/main"]


def test_the_keys_that_detach_leave_it() -> None:
    def script(peer: Peer) -> None:
        greeted(peer)
        write(peer, b"$ ")
        typed(peer, b"abc")
        gone(peer)

    server = SessionServer(script)
    with shown(server, "shell", "hello") as screen:
        screen.read_until(b"$ ")
        screen.type("abc\x1dnever")
        assert screen.ended() == 0
    assert b"which goes on" in screen.seen
    assert b"nexusctl vm session attach hello main" in screen.seen
    assert not server.asked("DELETE")


def test_keys_of_ones_own() -> None:
    def script(peer: Peer) -> None:
        greeted(peer)
        write(peer, b"$ ")
        typed(peer, b"\x1d\x10x")
        gone(peer)

    with shown(SessionServer(script), "shell", "hello", "--detach-keys", "ctrl-p,q") as screen:
        screen.read_until(b"$ ")
        screen.type("\x1d\x10x\x10q")
        assert screen.ended() == 0


def test_coming_back_shows_what_was_and_answers_no_old_question() -> None:
    old = b"one\x1b[6n two\x1b[c three"

    def script(peer: Peer) -> None:
        greeted(peer)
        write(peer, old[:5])
        write(peer, old[5:] + b"\x1b[6nnew")
        exits(peer)

    with shown(SessionServer(script, size=len(old)), "shell", "hello", "--session", "main") as it:
        assert it.ended() == 0
    assert b"one two three\x1b[6nnew" in it.seen


def test_a_session_that_has_ended_makes_room() -> None:
    over = {"exit_code": 0, "signal": None, "timed_out": False}

    def script(peer: Peer) -> None:
        greeted(peer)
        exits(peer)

    server = SessionServer(script, exit=over)
    with shown(server, "shell", "hello", "--session", "main") as screen:
        assert screen.ended() == 0
    assert [method for method, _, _ in server.seen] == ["GET", "DELETE", "POST", "DELETE"]
    assert server.seen[2][2]["id"] == "main"


def test_a_lost_connection_is_made_again() -> None:
    def first(peer: Peer) -> None:
        greeted(peer)
        write(peer, b"one")

    def second(peer: Peer) -> None:
        peer.order()
        peer.tell("error", problem={"status": 503, "detail": "The worker does not run."})
        peer.send(CLOSE, (4503).to_bytes(2))

    def third(peer: Peer) -> None:
        greeted(peer, 3)
        write(peer, b"two")
        typed(peer, b"x")
        exits(peer, None, 15)

    with shown(SessionServer(first, second, third), "shell", "hello") as screen:
        screen.read_until(b"two")
        screen.type("x")
        assert screen.ended() == 128 + 15
    said = screen.seen
    assert said.index(b"lost") < said.index(b"connected again") < said.index(b"two")


@pytest.mark.parametrize("keys", ["\x1d", "\x03"], ids=["detach", "ctrl-c"])
def test_who_waits_for_a_connection_can_leave(keys: str) -> None:
    def script(peer: Peer) -> None:
        greeted(peer)
        write(peer, b"one")

    def down(peer: Peer) -> None:
        gone(peer)

    server = SessionServer(script, down)
    with shown(server, "shell", "hello") as screen:
        screen.read_until(b"connecting again")
        screen.type(keys)
        assert screen.ended() == 0
        server.scripts.clear()  # it may have left before it tried


def test_a_terminal_is_restored_when_it_is_ended() -> None:
    def script(peer: Peer) -> None:
        greeted(peer)
        write(peer, b"\x1b[?1049h$ ")
        gone(peer)

    with shown(SessionServer(script), "shell", "hello") as screen:
        screen.read_until(b"$ ")
        screen.process.terminate()
        assert screen.ended() == 128 + 15
    assert b"\x1b[?1047l" in screen.seen


def test_a_terminal_is_restored_when_there_is_no_session() -> None:
    def script(peer: Peer) -> None:
        peer.order()
        peer.tell("error", problem={"status": 404, "detail": "There is no session."})

    with shown(SessionServer(script), "session", "attach", "hello", "main") as screen:
        assert screen.ended() == 4
    assert b"There is no session." in screen.seen


def test_a_program_in_this_terminal() -> None:
    def script(peer: Peer) -> None:
        order = peer.order()
        assert (order["tty"], order["stdin"]) == ({"rows": 24, "cols": 80}, True)
        peer.tell("started", pid=1)
        write(peer, b"ready")
        typed(peer, b"\x03")
        peer.tell("exit", exit_code=4, signal=None, timed_out=False, seconds=0.1)

    with shown(SessionServer(script), "exec", "-t", "hello", "--", "top") as screen:
        screen.read_until(b"ready")
        assert screen.is_raw()
        screen.type("\x03")
        assert screen.ended() == 4


def test_a_shell_without_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["vm", "shell", "hello"]) == 2
    assert "needs a terminal" in capfd.readouterr().err


# Without one


class Outcome:
    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs ``nexusctl vm ARGUMENTS`` against a server."""

    def run(server: SessionServer, *arguments: str) -> Outcome:
        outcome = Outcome()
        with serving(server):
            monkeypatch.setenv("NEXUS_URL", server.url)
            monkeypatch.setenv("NEXUS_TOKEN", "nxt_test")
            outcome.code = main(["vm", *arguments])
        outcome.out, outcome.err = capfd.readouterr()
        return outcome

    return run


def test_logs_follow_over_a_lost_connection(run: Run) -> None:
    def first(peer: Peer) -> None:
        assert greeted(peer, 5, given=9) == {"offset": 5}
        write(peer, b"one\n")
        write(peer, b"err\n", kind=2)

    def second(peer: Peer) -> None:
        greeted(peer, 17, given=20)
        write(peer, b"two\n")
        peer.tell("gap", offset=30)
        exits(peer, 9)

    done = run(SessionServer(first, second), "session", "logs", "-f", "--offset", "5", "hello", "x")
    assert (done.code, done.out) == (0, "one\ntwo\n")
    assert done.err.splitlines() == [
        "[nexusctl: 4 bytes of output are lost: the VM keeps no more]",
        "err",
        "[nexusctl: the connection is lost, connecting again]",
        "[nexusctl: 3 bytes of output are lost: the VM keeps no more]",
        "[nexusctl: connected again]",
        "[nexusctl: 6 bytes of output are lost: the VM keeps no more]",
    ]


def test_a_connection_that_stays_lost_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "LOST_CONTACT", 0.0)

    def first(peer: Peer) -> None:
        greeted(peer)

    def second(peer: Peer) -> None:
        peer.order()

    done = run(SessionServer(first, second), "session", "logs", "-f", "hello", "main")
    assert done.code == 3


def test_a_session_that_has_gone_meanwhile(run: Run) -> None:
    def first(peer: Peer) -> None:
        greeted(peer)

    def second(peer: Peer) -> None:
        peer.order()
        peer.tell("error", problem={"status": 404, "detail": "There is no session “main”."})

    done = run(SessionServer(first, second), "session", "logs", "-f", "hello", "main")
    assert done.code == 4
    assert "There is no session" in done.err


def test_piped_input_is_the_session_s(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    (tmp_path / "input").write_bytes(b"hello")

    def script(peer: Peer) -> None:
        greeted(peer)
        typed(peer, b"hello")
        assert peer.heard() == (TEXT, json.dumps({"type": "eof"}).encode())
        exits(peer, 7)

    with (tmp_path / "input").open("rb") as file:
        monkeypatch.setattr("sys.stdin", file)
        done = run(SessionServer(script, tty=False), "session", "attach", "hello", "main")
    assert done.code == 7


def test_the_list(run: Run) -> None:
    server = SessionServer()
    server.session = [  # type: ignore[assignment]
        SESSION | {"argv": ["evil\x1b[2J", "x"], "size": 2048},
        SESSION | {"id": "job", "exit": {"exit_code": None, "signal": 9, "timed_out": True}},
    ]
    done = run(server, "session", "list", "hello")
    assert done.code == 0
    heading, first, second = done.out.splitlines()
    assert heading.split()[:2] == ["NAME", "STATE"]
    assert first.startswith("main  running")
    assert "2.0 KiB" in first
    assert "evil\\x1b[2J x" in first
    assert second.startswith("job   signal 9")


def test_logs_of_what_there_is(run: Run) -> None:
    class Kept(SessionServer):
        def answer(self, peer: Peer, method: str) -> None:
            self.seen.append((method, peer.path, None))
            at = int(peer.path.partition("offset=")[2].partition("&")[0])
            texts = {"stdout": base64.b64encode(b"out\xff").decode(), "stderr": ""}
            peer.answer(200, texts | {"offset": at, "next_offset": at + 4, "size": 8, "lost": 0})

    server = Kept()
    done = run(server, "session", "logs", "hello", "main")
    assert (done.code, len(server.seen)) == (0, 2)
    assert done.out.encode("utf-8", "surrogateescape").count(b"out") == 2


def test_signals_and_forgetting(run: Run) -> None:
    server = SessionServer()
    assert run(server, "session", "signal", "hello", "main").code == 0
    assert run(server, "session", "signal", "hello", "main", "9").code == 0
    assert run(server, "session", "forget", "--force", "hello", "main").code == 0
    assert server.seen == [
        ("POST", f"{PATH}/main/signal", {"signal": "TERM"}),
        ("POST", f"{PATH}/main/signal", {"signal": 9}),
        ("DELETE", f"{PATH}/main?force=true", None),
    ]


def test_a_detached_program(run: Run) -> None:
    server = SessionServer()
    done = run(server, "exec", "-d", "hello", "--", "make", "-j2")
    assert (done.code, done.out) == (0, "main\n")
    _, path, body = server.seen[0]
    assert (path, body["argv"], body["stdin"]) == (PATH, ["make", "-j2"], False)


# Keys


def test_keys_that_come_in_pieces() -> None:
    keys = terminals.Keys(b"\x10\x11")
    assert keys.take(b"a\x10") == (b"a", False)
    assert keys.take(b"b") == (b"\x10b", False)
    assert keys.take(b"\x10") == (b"", False)
    assert keys.take(b"\x11c") == (b"", True)
    assert terminals.Keys(b"").take(b"abc") == (b"abc", False)


@pytest.mark.parametrize("keys", ["ctrl-", "ctrl-1", "ab", "ctrl-p,,x", "ä"])
def test_what_no_key_is(keys: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["vm", "shell", "hello", "--detach-keys", keys]) == 2
    assert "is no key" in capfd.readouterr().err
