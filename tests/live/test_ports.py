"""A port of a real guest, reached from this machine, and what wakes with it."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from bench.server import BIN, Server
from tests.servers import PATIENCE, history, wait_for_state

PORT = "8080"


@contextmanager
def forwarded(server: Server, vm: str, *ports: str) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """The first of this machine's ports while ``nexusctl vm forward`` runs."""
    command = [BIN / "nexusctl", "vm", "forward", vm, *ports]
    with subprocess.Popen(
        command, env=server.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        try:
            assert running.stdout is not None
            address, _, _ = running.stdout.readline().partition(" → ")
            yield int(address.rpartition(":")[2]), running
        finally:
            running.kill()


def echoed(port: int, text: bytes) -> bytes:
    """What the guest's program sends back."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
        sock.sendall(text)
        sock.shutdown(socket.SHUT_WR)
        said = b""
        while data := sock.recv(1 << 16):
            said += data
        return said


def test_a_port_of_a_guest_answers_and_wakes_it(server: Server, vm: dict[str, Any]) -> None:
    name = vm["name"]
    listen = f"exec nc -lk -p {PORT} -e cat"
    server.run("vm", "exec", "--detach", name, "--", "/bin/sh", "-c", listen)
    server.run("vm", "exec", name, "--", "sh", "-c", f"until nc -z 127.0.0.1 {PORT}; do :; done")
    text = b"otter\n" * 100_000
    with forwarded(server, name, f"0:{PORT}", "0:81") as (port, running):
        assert echoed(port, text) == text
        server.ctl("vm", "update", name, "--idle-suspend", "1m")
        wait_for_state(server, name, "suspended")
        assert echoed(port, text) == text, "it has woken, and its program with it"
        shown = server.get(f"/v1/vms/{name}")
        assert (shown["state"], shown["last_boot"]["resumed_from"]) == ("ready", "suspended")
        reasons = [row["reason"] for row in history(server, name)]
        assert "woken: somebody asked its agent" in reasons
        assert running.stdout is not None
        closed = int(running.stdout.readline().partition(" → ")[0].rpartition(":")[2])
        with pytest.raises(ConnectionResetError):
            echoed(closed, b"")
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=PATIENCE)
    assert running.returncode == 0
    assert "Nothing in the VM takes connections on port 81." in err
    server.ctl("vm", "update", name, "--idle-suspend", "never")
