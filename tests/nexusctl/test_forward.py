"""``nexusctl vm forward``, as a process, against a server whose every byte is the test's."""

from __future__ import annotations

import json
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from nexusctl.main import main
from tests.nexusctl.peers import BINARY, CLOSE, TEXT, Peer
from tests.nexusctl.session_servers import SessionServer, gone, serving

PATIENCE = 60.0
REFUSED = {
    "status": 409,
    "code": "port-refused",
    "detail": "Nothing in the VM takes connections on port 80.",
    "hint": "A program must listen there.",
}


class Forwarding:
    """The command while it runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.ports: list[int] = []

    def connect(self, port: int) -> socket.socket:
        return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)

    def interrupt(self) -> tuple[int, str]:
        """Ctrl-C; how it ended, and what it had said on stderr."""
        self.process.send_signal(signal.SIGINT)
        _, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, err


@contextmanager
def forwarding(server: SessionServer, *arguments: str, lines: int = 1) -> Iterator[Forwarding]:
    """Any free ports of this machine that lead to ports of the VM “hello”."""
    with serving(server):
        command = [sys.executable, "-m", "nexusctl", "vm", "forward", "hello", *arguments]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, env=server.env, stdout=pipe, stderr=pipe, text=True) as it:
            running = Forwarding(it)
            try:
                assert it.stdout is not None
                for _ in range(lines):
                    address, _, _ = it.stdout.readline().partition(" → ")
                    running.ports.append(int(address.rpartition(":")[2]))
                yield running
            finally:
                it.kill()


def to_the_end(sock: socket.socket) -> bytes:
    said = b""
    while data := sock.recv(1 << 16):
        said += data
    return said


def ended(sock: socket.socket) -> None:
    """Say that this is all, and wait until the other end has said so too."""
    sock.shutdown(socket.SHUT_WR)
    assert to_the_end(sock) == b""
    sock.close()


def done(peer: Peer) -> None:
    peer.send(CLOSE, (1000).to_bytes(2))


def echo(peer: Peer) -> None:
    """A program that sends back what it gets, and ends when that has ended."""
    peer.tell("connected")
    while True:
        kind, data = peer.heard()
        if kind == TEXT:
            assert json.loads(data) == {"type": "eof"}
            break
        assert kind == BINARY
        peer.tell("window", bytes=len(data))
        peer.send(BINARY, data)
    peer.tell("eof")
    done(peer)


def test_a_connection_is_a_websocket_and_its_ends_are_passed_on() -> None:
    asked = []

    def script(peer: Peer) -> None:
        asked.append((peer.path, peer.headers["authorization"]))
        echo(peer)

    with forwarding(SessionServer(script), "0:80") as running:
        with running.connect(running.ports[0]) as sock:
            sock.sendall(b"hello")
            assert sock.recv(100) == b"hello"
            ended(sock)
        assert running.interrupt() == (0, "Ctrl-C ends it.\n\n")
    assert asked == [("/ws/vms/hello/ports/80", "Bearer nxt_test")]


def test_much_arrives_whole_and_waits_for_room() -> None:
    sent = random.Random(1).randbytes(1_500_000)
    got = bytearray()

    def script(peer: Peer) -> None:
        peer.tell("connected")
        owed = 0
        while True:
            kind, data = peer.heard()
            if kind == TEXT:
                break
            got.extend(data)
            owed += len(data)
            assert owed <= 256 * 1024, "no more than the window"
            if owed > 200_000:
                peer.tell("window", bytes=owed)
                owed = 0
        peer.send(BINARY, sent[:700_000])
        peer.send(BINARY, sent[700_000:])
        peer.tell("eof")
        done(peer)

    with forwarding(SessionServer(script), "0:80") as running:
        with running.connect(running.ports[0]) as sock:
            sock.sendall(sent)
            sock.shutdown(socket.SHUT_WR)
            assert to_the_end(sock) == sent
        assert running.interrupt()[0] == 0
    assert got == sent


def test_several_ports_and_connections_at_once() -> None:
    paths = []

    def script(peer: Peer) -> None:
        paths.append(peer.path)
        echo(peer)

    server = SessionServer(script, script, script)
    with forwarding(server, "0:80", "0:443", lines=2) as running:
        first, second = running.ports
        socks = [running.connect(port) for port in (first, second, second)]
        for number, sock in enumerate(socks):
            sock.sendall(b"%d" % number)
        for number, sock in enumerate(socks):
            assert sock.recv(100) == b"%d" % number
            ended(sock)
        assert running.interrupt()[0] == 0
    assert sorted(paths) == ["/ws/vms/hello/ports/443"] * 2 + ["/ws/vms/hello/ports/80"]


def test_a_refused_port_ends_that_connection_alone_and_is_told() -> None:
    def refuse(peer: Peer) -> None:
        peer.tell("error", problem=REFUSED)
        peer.send(CLOSE, (4409).to_bytes(2))

    with forwarding(SessionServer(refuse, echo), "0:80") as running:
        (port,) = running.ports
        with running.connect(port) as sock, pytest.raises(ConnectionResetError):
            to_the_end(sock)
        with running.connect(port) as sock:
            sock.sendall(b"again")
            assert sock.recv(100) == b"again"
            ended(sock)
        code, err = running.interrupt()
    assert code == 0
    assert f"✗ 127.0.0.1:{port}: Nothing in the VM takes connections on port 80.\n" in err
    assert "hint: A program must listen there.\n" in err


def break_off(peer: Peer) -> None:
    peer.tell("connected")
    peer.send(BINARY, b"half of i")
    assert peer.heard() == (BINARY, b"x")


def test_a_server_that_breaks_off_is_told_from_an_end() -> None:
    with forwarding(SessionServer(break_off), "0:80") as running:
        with running.connect(running.ports[0]) as sock:
            assert sock.recv(100) == b"half of i"
            sock.sendall(b"x")
            with pytest.raises(ConnectionResetError):
                to_the_end(sock)
        code, err = running.interrupt()
    assert code == 0
    assert "broke its answer off" in err


def test_who_leaves_here_ends_the_websocket_and_is_no_error() -> None:
    def script(peer: Peer) -> None:
        peer.tell("connected")
        peer.send(BINARY, b"x" * 1000)
        gone(peer)

    with forwarding(SessionServer(script), "0:80") as running:
        sock = running.connect(running.ports[0])
        assert sock.recv(1) == b"x"
        sock.close()  # with bytes that it has not read: a reset
        code, err = running.interrupt()
    assert (code, err) == (0, "Ctrl-C ends it.\n\n")


def test_json_says_where() -> None:
    server = SessionServer()
    with serving(server):
        command = [sys.executable, "-m", "nexusctl", "--json", "vm", "forward", "hello", "0:80"]
        with subprocess.Popen(command, env=server.env, stdout=subprocess.PIPE, text=True) as it:
            assert it.stdout is not None
            text = ""
            while not text.endswith("]\n"):
                text += it.stdout.readline()
            it.send_signal(signal.SIGINT)
            assert it.wait(PATIENCE) == 0
    (way,) = json.loads(text)
    assert way["port"] == 80
    assert way["local"].startswith("127.0.0.1:")


def run(server: SessionServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    with serving(server):
        command = [sys.executable, "-m", "nexusctl", "vm", "forward", *arguments]
        return subprocess.run(
            command, env=server.env, capture_output=True, text=True, timeout=PATIENCE, check=False
        )


def test_a_port_that_is_in_use_here() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(SessionServer(), "hello", f"{port}:80")
    assert (done.returncode, done.stdout) == (5, "")
    assert f"Port {port} of 127.0.0.1 is in use on this machine." in done.stderr
    assert "0:80" in done.stderr


def test_an_address_that_this_machine_has_not() -> None:
    done = run(SessionServer(), "hello", "--address", "192.0.2.1", "0:80")
    assert done.returncode == 1
    assert "Nothing can listen on port 0 of 192.0.2.1" in done.stderr
    assert "Whoever reaches 192.0.2.1 reaches these ports of “hello”" in done.stderr


def test_a_vm_that_is_not_there() -> None:
    server = SessionServer()
    server.session = None  # it answers 404
    done = run(server, "nobody", "80")
    assert (done.returncode, done.stdout) == (4, "")


@pytest.mark.parametrize(
    "arguments",
    [
        ("hello",),
        ("hello", "http"),
        ("hello", "80:"),
        ("hello", ":80:80"),
        ("hello", "0"),
        ("hello", "65536"),
        ("hello", "65536:80"),
        ("hello", "--address", "somewhere", "80"),
    ],
)
def test_wrong_usage(capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    assert main(["vm", "forward", *arguments]) == 2
