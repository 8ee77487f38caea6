"""``nexusctl vm exec`` against a server whose every byte is the test's."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from nexusctl.main import main
from tests.nexusctl.peers import BINARY, CLOSE, PING, PONG, TEXT, Peer

EXIT = {"exit_code": 0, "signal": None, "timed_out": False, "seconds": 0.1}


Script = Callable[[Peer], None]


class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """Runs ``nexusctl vm exec ARGUMENTS`` against a server that does as ``script`` says."""

    def run(script: Script, *arguments: str) -> Outcome:
        outcome = Outcome()
        with serving(script) as url:
            monkeypatch.setenv("NEXUS_URL", url)
            monkeypatch.setenv("NEXUS_TOKEN", "nxt_test")
            outcome.code = main(["vm", "exec", *arguments])
        outcome.out, outcome.err = capfd.readouterr()
        return outcome

    return run


@contextmanager
def serving(script: Script) -> Iterator[str]:
    failed: list[BaseException] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            try:
                sock, _ = listener.accept()
                with sock:
                    peer = Peer(sock)
                    script(peer)
                    peer.file.close()
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(30)
    if failed:
        raise failed[0]


def test_everything_that_was_said_is_asked_for(run):
    asked: list[Any] = []

    def script(peer: Peer) -> None:
        peer.shake_hands()
        asked.append((peer.path, peer.headers["authorization"], peer.order()))
        peer.tell("exit", **EXIT)

    options = ("-u", "nobody", "-w", "/tmp", "-e", "A=b=c", "-e", "E=", "--timeout", "3", "--merge")
    assert run(script, "hello", *options, "-n", "--", "sh", "-c", "x").code == 0
    assert asked == [
        (
            "/ws/vms/hello/exec",
            "Bearer nxt_test",
            {
                "argv": ["sh", "-c", "x"],
                "user": "nobody",
                "cwd": "/tmp",
                "env": {"A": "b=c", "E": ""},
                "timeout": 3.0,
                "merge": True,
                "stdin": False,
            },
        )
    ]


def test_outputs_of_every_size_are_apart_and_whole(run):
    sizes = (1, 124, 125, 126, 65534, 65535, 300_000)

    def script(peer: Peer) -> None:
        peer.shake_hands()
        peer.order()
        for size in sizes:
            peer.send(BINARY, b"\x01" + b"o" * size)
        peer.send(BINARY, b"\x02error", first=0)
        peer.send(PING, b"there?")
        peer.send(0, b" and more")
        assert peer.heard() == (PONG, b"there?")
        peer.tell("exit", **EXIT | {"exit_code": 7})

    done = run(script, "hello", "-n", "--", "x")
    assert (done.code, len(done.out), done.err) == (7, sum(sizes), "error and more")


@pytest.mark.parametrize(
    ("how", "code"),
    [({"exit_code": None, "signal": 15}, 143), ({"exit_code": 255}, 255)],
)
def test_how_it_ended_is_passed_on(run, how, code):
    def script(peer: Peer) -> None:
        peer.shake_hands()
        peer.order()
        peer.tell("exit", **EXIT | how)

    assert run(script, "hello", "-n", "--", "x").code == code


def test_input_waits_for_room_and_arrives_whole(run, monkeypatch, tmp_path):
    sent = os.urandom(700_000)
    (tmp_path / "input").write_bytes(sent)
    got = bytearray()

    def script(peer: Peer) -> None:
        peer.shake_hands()
        assert peer.order()["stdin"] is True
        peer.tell("started", pid=1)
        owed = 0
        while True:
            kind, data = peer.heard()
            if kind == TEXT:
                assert json.loads(data) == {"type": "eof"}
                break
            got.extend(data)
            owed += len(data)
            assert owed <= 256 * 1024, "no more than the window"
            if owed > 200_000:
                peer.tell("window", bytes=owed)
                owed = 0
        peer.tell("exit", **EXIT)

    with (tmp_path / "input").open("rb") as file:
        monkeypatch.setattr("sys.stdin", file)
        assert run(script, "hello", "-i", "--", "cat").code == 0
    assert got == sent


def test_a_problem_is_told_with_its_exit_code(run):
    def script(peer: Peer) -> None:
        peer.shake_hands()
        peer.order()
        problem = {"status": 409, "detail": "The VM “hello” is stopped.", "hint": "Start it."}
        peer.tell("error", problem=problem)
        peer.send(CLOSE, (4409).to_bytes(2))

    done = run(script, "hello", "-n", "--", "x")
    assert done.code == 5
    assert "is stopped" in done.err
    assert "hint: Start it." in done.err


def bad_accept(peer: Peer) -> None:
    peer.shake_hands("bm90IHlvdXJz")


def refused(peer: Peer) -> None:
    peer.file.readline()
    peer.sock.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")


def silent(peer: Peer) -> None:
    peer.file.readline()


@pytest.mark.parametrize("script", [bad_accept, refused, silent])
def test_what_is_no_nexus_is_unreachable(run, script):
    done = run(script, "hello", "-n", "--", "x")
    assert done.code == 3
    assert "✗" in done.err


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x81\x85mask",
        b"\xf1\x00",
        b"\x80\x00",
        b"\x82\x7f" + b"\xff" * 8,
        b"\x88\x02\x03\xf3",
    ],
    ids=["nothing", "masked", "extension", "out of turn", "endless", "closed"],
)
def test_a_server_that_breaks_off_or_the_protocol(run, frame):
    def script(peer: Peer) -> None:
        peer.shake_hands()
        peer.order()
        peer.sock.sendall(frame)

    done = run(script, "hello", "-n", "--", "x")
    assert done.code == 3
    assert "broke its answer off" in done.err


@pytest.mark.parametrize(
    "arguments",
    [("hello",), ("hello", "--env", "A", "--", "x"), ("hello", "--timeout", "0", "--", "x")],
)
def test_wrong_usage(capfd, arguments):
    assert main(["vm", "exec", *arguments]) == 2
