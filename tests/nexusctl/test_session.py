"""``nexusctl vm session`` without a terminal, against a server of the test's."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from nexusctl import looking
from nexusctl.main import main
from tests.nexusctl.peers import TEXT, Peer
from tests.nexusctl.session_servers import (
    PATH,
    SESSION,
    SessionServer,
    exits,
    greeted,
    serving,
    typed,
    write,
)


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
