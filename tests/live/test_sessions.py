"""Sessions and shells in a real VM: they outlive whoever looks, and Nexus itself."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from bench.server import BIN, Server
from tests.nexusctl.terminals import Terminal, terminal
from tests.servers import PATIENCE, wait_for_state

COUNTER = "n=0; while :; do n=$((n+1)); echo $n; sleep 0.1; done"


def sessions(server: Server, vm: dict[str, Any]) -> dict[str, Any]:
    found: list[dict[str, Any]] = server.get(f"/v1/vms/{vm['id']}/sessions")
    return {session["id"]: session for session in found}


def ctl(server: Server, *arguments: str, given: str = "") -> str:
    """``nexusctl vm ARGUMENTS``, which must succeed; not JSON."""
    done = subprocess.run(
        [str(BIN / "nexusctl"), "vm", *arguments],
        env=server.env,
        input=given,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(autouse=True)
def nothing_runs_on(server: Server, vm: dict[str, Any]) -> Any:
    yield
    for name in sessions(server, vm):
        ctl(server, "session", "forget", "--force", vm["id"], name)


def shell(server: Server, vm: dict[str, Any], *options: str) -> Any:
    return terminal("vm", "shell", vm["id"], *options, env=server.env)


def types(screen: Terminal, command: str, answer: str) -> None:
    """Have the shell that waits do something that shows ``answer``, which is not in it."""
    screen.seen = b""
    screen.type(f"{command}\r")
    screen.read_until(answer.encode())
    screen.read_until(b"# ")  # what is typed before the prompt is thrown away


def test_a_counter_is_followed_over_a_restart_of_nexus(server: Server, vm: dict[str, Any]) -> None:
    assert ctl(server, "exec", "-d", vm["id"], "--", "sh", "-c", COUNTER) == "sh\n"
    follow = [str(BIN / "nexusctl"), "vm", "session", "logs", "-f", vm["id"], "sh"]
    with subprocess.Popen(
        follow, env=server.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as following:
        try:
            assert following.stdout
            assert following.stderr
            assert [following.stdout.readline() for _ in range(5)] == [
                f"{n}\n" for n in range(1, 6)
            ]
            server.stop()
            assert "lost" in following.stderr.readline()
            server.start()
            assert "connected again" in following.stderr.readline()
            before = sessions(server, vm)["sh"]["size"]
            numbers = [int(following.stdout.readline()) for _ in range(60)]
            assert numbers == list(range(6, 66))
        finally:
            following.kill()
    part = server.get(f"/v1/vms/{vm['id']}/sessions/sh/output?offset={before}")
    assert (part["offset"], part["lost"], part["exit"]) == (before, 0, None)
    whole = server.get(f"/v1/vms/{vm['id']}/sessions/sh/output")["stdout"]
    assert whole[before:].startswith(part["stdout"][:10])
    assert whole.startswith("1\n2\n3\n")


def test_a_shell_is_left_and_found_again(server: Server, vm: dict[str, Any]) -> None:
    with shell(server, vm, "--session", "work") as screen:
        screen.read_until(b"# ")
        types(screen, "WORD=otter; tty", "/dev/pts/")
        types(screen, "stty size", "24 80")
        screen.type("\x1d")
        assert screen.ended() == 0
        assert b"goes on" in screen.seen
    with shell(server, vm, "--session", "work") as screen:
        screen.read_until(b"24 80")  # the scrollback
        assert b"/dev/pts/" in screen.seen
        assert b"\x1b[6n" not in screen.seen
        types(screen, "echo $WORD$WORD", "otterotter")
        screen.resize(40, 111)
        screen.type('until [ "$(stty size)" = "40 111" ]; do sleep 0.1; done; exit 7\r')
        assert screen.ended() == 7
    assert "work" not in sessions(server, vm)


def test_a_shell_goes_on_over_a_restart_of_nexus(server: Server, vm: dict[str, Any]) -> None:
    with shell(server, vm) as screen:
        screen.read_until(b"# ")
        types(screen, "WORD=otter; tty", "/dev/pts/")
        server.stop()
        screen.read_until(b"the connection is lost")
        server.start()
        screen.read_until(b"connected again")
        screen.type("echo $WORD$WORD; exit\r")
        screen.read_until(b"otterotter")
        assert screen.ended() == 0
    wait_for_state(server, vm["id"], "ready")


def test_a_program_in_this_terminal(server: Server, vm: dict[str, Any]) -> None:
    arguments = ("vm", "exec", "-t", vm["id"], "--", "sh", "-c", "stty size; read x; echo got $x")
    with terminal(*arguments, env=server.env) as screen:
        screen.read_until(b"24 80")
        screen.type("this\r")
        screen.read_until(b"got this")
        assert screen.ended() == 0


def test_a_signal_and_what_is_left(server: Server, vm: dict[str, Any]) -> None:
    made = server.post(f"/v1/vms/{vm['id']}/exec", argv=["sleep", "4250"], detach=True)
    assert (made["id"], made["exit"]) == ("sleep", None)
    ctl(server, "session", "signal", vm["id"], "sleep", "INT")
    ctl(server, "session", "logs", "-f", vm["id"], "sleep")  # until its end
    assert sessions(server, vm)["sleep"]["exit"]["signal"] == 2
    assert "signal 2" in ctl(server, "session", "list", vm["id"])
    ctl(server, "session", "forget", vm["id"], "sleep")
    assert sessions(server, vm) == {}


def test_piped_input_and_its_end(server: Server, vm: dict[str, Any]) -> None:
    assert ctl(server, "exec", "-d", "-i", vm["id"], "--", "sh", "-c", "cat; exit 0") == "sh\n"
    given = "".join(f"{n}\n" for n in range(100_000))
    assert ctl(server, "session", "attach", vm["id"], "sh", given=given) == given
    assert sessions(server, vm)["sh"]["exit"]["exit_code"] == 0
