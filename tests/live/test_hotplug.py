"""Drives that come and go while a real VM runs. One boot, and one more at the end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from bench.server import Server
from tests.live.guests import inside
from tests.live.test_nexus_comes_and_goes import wait_for_end
from tests.servers import PATIENCE, ctl_fails

SDA = "grep -c sda /proc/partitions || true"


@pytest.fixture(scope="module")
def cargo(server: Server, vm: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """An empty drive."""
    made = server.ctl("drive", "create", "--size", "64MiB", "--name", "hot-cargo")
    yield server.get(f"/v1/drives/{made['subject']['id']}")
    server.run("vm", "delete", vm["id"], "--force", "--with-snapshots", "--yes")
    for drive in server.get("/v1/drives")["items"]:
        server.run("drive", "delete", drive["id"], "--with-snapshots", "--yes")


def test_a_drive_comes_is_written_to_and_goes(
    server: Server, vm: dict[str, Any], cargo: dict[str, Any]
) -> None:
    assert server.get(f"/v1/vms/{vm['id']}")["hotplug_problem"] == ""
    server.ctl("drive", "attach", cargo["id"], vm["id"], "--data")
    with inside(server, vm) as guest:
        guest.sh("mount /dev/sda /mnt; echo cargo > /mnt/file; sync")
        assert cargo["id"] in guest.sh("tail -c +5 /sys/block/sda/device/vpd_pg80")
    refused = ctl_fails(server, "drive", "detach", cargo["id"])
    assert "/mnt" in refused.stdout + refused.stderr
    assert server.get(f"/v1/drives/{cargo['id']}")["vm"]["id"] == vm["id"]
    taken = server.ctl("vm", "snapshot", vm["id"], "--name", "with-cargo")
    assert "frozen by the agent" in taken["steps"][0]["note"]
    with inside(server, vm) as guest:
        assert guest.sh("cat /mnt/file; umount /mnt") == "cargo"
    server.ctl("drive", "detach", cargo["id"])
    with inside(server, vm) as guest:
        assert guest.sh(SDA) == "0"
    assert server.get(f"/v1/drives/{cargo['id']}")["vm"] is None


def test_a_read_only_drive_cannot_be_written_to(
    server: Server, vm: dict[str, Any], cargo: dict[str, Any]
) -> None:
    server.ctl("drive", "attach", cargo["id"], vm["id"], "--data", "--read-only")
    with inside(server, vm) as guest:
        assert guest.sh("cat /sys/block/sda/ro; mount -o ro /dev/sda /mnt; cat /mnt/file") == (
            "1\ncargo"
        )
        guest.sh("umount /mnt")
    server.ctl("drive", "detach", cargo["id"])


@pytest.mark.parametrize("verb", ["attach", "detach"])
@pytest.mark.parametrize("step", [0, 1])
def test_nexus_is_killed_in_the_middle(
    server: Server, vm: dict[str, Any], cargo: dict[str, Any], verb: str, step: int
) -> None:
    body: dict[str, Any] = {"vm": vm["id"], "is_root": False}
    if verb == "detach":
        server.ctl("drive", "attach", cargo["id"], vm["id"], "--data")
        body = {}
    operation = server.post(f"/v1/drives/{cargo['id']}/{verb}", **body)
    wait_until_begun(server, operation["id"], step)
    server.stop(kill=True)
    server.start()
    ended = wait_for_end(server, operation["id"])
    assert ended["state"] == "succeeded", ended["error"]
    with inside(server, vm) as guest:
        assert guest.sh(SDA) == ("1" if verb == "attach" else "0")
    if verb == "attach":
        server.ctl("drive", "detach", cargo["id"])


def test_after_a_start_it_is_a_data_drive_like_any_other(
    server: Server, vm: dict[str, Any], cargo: dict[str, Any]
) -> None:
    server.ctl("drive", "attach", cargo["id"], vm["id"], "--data")
    server.ctl("vm", "restart", vm["id"])
    with inside(server, vm) as guest:
        assert guest.sh("mount /dev/vdb /mnt; cat /mnt/file; umount /mnt") == "cargo"
    refused = ctl_fails(server, "drive", "detach", cargo["id"])
    assert "started with this drive" in refused.stdout + refused.stderr
    server.ctl("vm", "stop", vm["id"])
    server.ctl("drive", "detach", cargo["id"])
    assert server.get(f"/v1/drives/{cargo['id']}")["state"] == "ready"


def wait_until_begun(server: Server, operation: str, step: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if server.get(f"/v1/operations/{operation}")["steps"][step]["state"] != "pending":
            return
    raise AssertionError(f"step {step} never began")
