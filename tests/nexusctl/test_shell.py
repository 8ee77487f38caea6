"""``nexusctl vm shell`` and its like in real terminals, against a server of the test's."""

from __future__ import annotations

import pytest

from nexusctl import terminal as terminals
from nexusctl.main import main
from tests.nexusctl.peers import CLOSE, Peer
from tests.nexusctl.session_servers import (
    PATH,
    SessionServer,
    exits,
    gone,
    greeted,
    shown,
    typed,
    write,
)


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
