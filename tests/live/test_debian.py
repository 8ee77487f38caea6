"""A Debian from this system's mirror, from nothing to a guest that systemd runs."""

from __future__ import annotations

import time
from typing import Any

import pytest

from bench.server import Server
from tests.servers import PATIENCE, wait_for_state


@pytest.fixture(scope="module")
def debian(server: Server) -> dict[str, Any]:
    """A ready VM of Debian 12. Making its root file system takes about a minute."""
    server.ctl("vm", "from-rootfs", "debian", "bookworm", "--name", "debian", "--memory", "256")
    found: dict[str, Any] = server.get("/v1/vms/debian")
    return found


def test_a_debian_is_made_and_boots_with_systemd(debian: dict[str, Any]) -> None:
    assert debian["state"] == "ready"
    assert debian["agent"]["init"] == "systemd"
    assert "Debian GNU/Linux 12 (bookworm)" in debian["agent"]["os"]


def test_its_root_file_system_says_who_vouches_for_it(
    server: Server, debian: dict[str, Any]
) -> None:
    (rootfs,) = (row for row in server.get("/v1/rootfs")["items"] if row["distro"] == "debian")
    assert rootfs["version"] == "bookworm"
    assert "OpenPGP by apt" in rootfs["verification"]


def test_systemd_comes_to_an_end_of_its_start(server: Server, debian: dict[str, Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while server.get("/v1/vms/debian")["agent"]["boot"]["settled"] is None:
        assert time.monotonic() < deadline, "systemd never reached multi-user.target"
        time.sleep(0.2)
    console = ""
    while "multi-user.target" not in console:
        assert time.monotonic() < deadline, f"systemd never said so on the console: {console}"
        time.sleep(0.2)
        console = server.get("/v1/vms/debian/console?offset=0")["text"]
    assert "[FAILED]" not in console


def test_it_stops_as_systemd_does_and_starts_again(server: Server, debian: dict[str, Any]) -> None:
    server.ctl("vm", "stop", "debian")
    assert wait_for_state(server, "debian", "stopped")
    console = server.get("/v1/vms/debian/console?offset=0")["text"]
    assert "reboot: Power down" in console
    server.ctl("vm", "start", "debian")
    wait_for_state(server, "debian", "ready")
    server.ctl("vm", "delete", "debian", "--force", "--yes")
