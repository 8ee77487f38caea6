"""Drives as guests see them: grown, empty ones, and one that moves to another VM. Two boots."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from bench.server import Server
from tests.live.guests import inside
from tests.servers import ctl_fails


@pytest.fixture(scope="module")
def mover(server: Server) -> Iterator[dict[str, Any]]:
    """A ready VM with a root drive that was grown and an empty data drive."""
    server.ctl("image", "from-rootfs", "alpine", "3.23")
    server.ctl("vm", "create", "--image", "alpine-3-23", "--name", "mover", "--memory", "256")
    server.ctl("drive", "resize", "mover", "9GiB")
    server.ctl("drive", "create", "--size", "64MiB", "--name", "cargo")
    server.ctl("drive", "attach", "cargo", "mover", "--data")
    server.ctl("vm", "start", "mover")
    yield server.get("/v1/vms/mover")
    for vm in ("mover", "taker"):
        server.run("vm", "delete", vm, "--force", "--with-snapshots", "--yes")
    for drive in server.get("/v1/drives")["items"]:
        server.run("drive", "delete", drive["id"], "--with-snapshots", "--yes")


def test_the_guest_has_what_a_drive_was_grown_by(server: Server, mover: dict[str, Any]) -> None:
    with inside(server, mover) as guest:
        said = guest.sh(
            "df -Pk / | tail -n 1; mount /dev/vdb /mnt; df -Pk /mnt | tail -n 1;"
            "echo cargo > /mnt/file; umount /mnt; echo here > /root/here"
        )
    root, cargo = (int(line.split()[1]) // 1024 for line in said.splitlines())
    assert root > 8.5 * 1024, "the file system has grown with its drive"
    assert 48 < cargo <= 64, "an empty drive comes with a file system"


def test_copies_of_a_running_vms_drive_say_how_they_were_made(
    server: Server, mover: dict[str, Any]
) -> None:
    operation = server.ctl("snapshot", "create", "mover", "--name", "running")
    assert "frozen by the agent" in operation["steps"][0]["note"]
    assert server.ctl("snapshot", "inspect", "running")["consistency"] == "frozen"
    operation = server.ctl("drive", "create", "--from-drive", "mover", "--name", "copy")
    assert "frozen by the agent" in operation["steps"][0]["note"]
    assert server.get("/v1/vms/mover")["state"] == "ready"


def test_a_drive_of_a_running_vm_is_not_changed(server: Server, mover: dict[str, Any]) -> None:
    for words in (
        ("drive", "resize", "cargo", "96MiB"),
        ("drive", "detach", "cargo"),
        ("drive", "delete", "cargo", "--yes"),
        ("drive", "rollback", "mover", "running", "--yes"),
    ):
        assert ctl_fails(server, *words).returncode == 5, words


def test_a_drive_moves_to_another_vm_with_what_is_on_it(
    server: Server, mover: dict[str, Any]
) -> None:
    server.ctl("vm", "stop", "mover")
    server.ctl("drive", "detach", "cargo")
    server.ctl("drive", "resize", "cargo", "96MiB")
    server.ctl("vm", "create", "--drive", "copy", "--name", "taker", "--memory", "256")
    server.ctl("drive", "attach", "cargo", "taker", "--data")
    server.ctl("vm", "start", "taker")
    with inside(server, server.get("/v1/vms/taker")) as guest:
        said = guest.sh("mount /dev/vdb /mnt; cat /mnt/file /root/here; df -Pk /mnt | tail -n 1")
    cargo, here, usage = said.split(maxsplit=2)
    assert (cargo, here) == ("cargo", "here")
    assert int(usage.split()[1]) > 64 * 1024


def test_given_drives_outlive_their_vm(server: Server, mover: dict[str, Any]) -> None:
    server.ctl("vm", "delete", "taker", "--force", "--yes")
    names = {drive["name"] for drive in server.get("/v1/drives")["items"]}
    assert {"cargo", "copy"} <= names
