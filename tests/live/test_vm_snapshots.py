"""What a guest finds after its VM was snapshotted, set back and cloned. Three boots, in order."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from bench.server import Server
from tests.live.guests import apart, inside
from tests.servers import ctl_fails, history, wait_for_state
from vms.hypervisors.qemu import qmp

FIRST_ID = "0123456789abcdef0123456789abcdef"


def test_a_snapshot_while_it_runs_is_frozen_by_the_agent(
    server: Server, vm: dict[str, Any]
) -> None:
    with inside(server, vm) as guest:
        said = guest.sh(
            "echo first > /root/file; echo unsynced > /root/other;"
            f"echo {FIRST_ID} > /etc/machine-id; cat /sys/block/vda/serial"
        )
    assert said == vm["drives"][0]["id"], "the disk's serial number is the drive's ID"
    operation = server.ctl("vm", "snapshot", vm["name"], "--name", "monday")
    assert "frozen by the agent" in operation["steps"][0]["note"]
    shown = server.ctl("vm", "snapshot-inspect", "monday")
    assert (shown["state"], shown["consistency"]) == ("ready", "frozen")
    assert shown["held_ms"] is not None
    moves = [row["to_state"] for row in history(server, vm["id"])]
    assert "paused" in moves
    assert moves[-1] == "ready"


def test_going_back_stops_restores_and_starts_in_one_operation(
    server: Server, vm: dict[str, Any]
) -> None:
    with inside(server, vm) as guest:
        guest.sh("echo second > /root/file; rm /root/other; sync")
    done = ctl_fails(server, "vm", "rollback", vm["name"], "monday", "--yes")
    assert (done.returncode, "--stop" in done.stderr) == (5, True)
    plan = server.ctl("vm", "rollback", vm["name"], "monday", "--stop", "--dry-run")
    names = [step["name"] for step in plan["steps"]]
    operation = server.ctl("vm", "rollback", vm["name"], "monday", "--stop", "--yes")
    assert [step["name"] for step in operation["steps"]] == names
    assert {step["state"] for step in operation["steps"]} == {"done"}


def test_the_guest_is_as_it_was_and_who_it_was(server: Server, vm: dict[str, Any]) -> None:
    """Besides: a VM that a killed worker held, CPUs at rest, goes on when Nexus is back."""
    with inside(server, vm) as guest:
        said = guest.sh("cat /root/file /root/other /etc/machine-id")
        assert said.split() == ["first", "unsynced", FIRST_ID]
        apart(qmp.ask, guest.directory, "stop")
        assert apart(qmp.status, guest.directory) == "paused"
    assert apart(qmp.status, server.data_dir / "vms" / vm["id"]) == "running"


@pytest.mark.parametrize("delay", [0.0, 0.1, 0.3])
def test_a_server_that_is_killed_meanwhile_ends_its_snapshot_when_it_is_back(
    server: Server, vm: dict[str, Any], delay: float
) -> None:
    operation = server.ctl("vm", "snapshot", vm["name"], "--no-wait")
    time.sleep(delay)
    server.stop(kill=True)
    server.start()
    ended = server.ctl("operation", "wait", operation["id"])
    assert ended["state"] == "succeeded", ended["error"]
    wait_for_state(server, vm["id"], "ready")
    assert apart(qmp.status, server.data_dir / "vms" / vm["id"]) == "running"
    shown = server.ctl("vm", "snapshot-inspect", ended["result"]["vm_snapshot"])
    assert shown["consistency"] in ("frozen", "crash")
    server.ctl("vm", "snapshot-delete", shown["id"], "--yes")
    assert server.ctl("storage", "check")["problems"] == []


def test_a_clone_of_a_snapshot_is_another_guest(server: Server, vm: dict[str, Any]) -> None:
    server.ctl("vm", "stop", vm["name"])
    server.ctl("drive", "create", "--image", "alpine-3-23", "--name", "data")
    server.ctl("drive", "attach", "data", vm["name"], "--data", "--read-only")
    operation = server.ctl("vm", "snapshot", vm["name"], "--name", "tuesday")
    assert "taken at rest" in operation["steps"][0]["note"]
    server.ctl("vm", "clone", vm["name"], "--snapshot", "tuesday", "--name", "twin", "--start")
    twin = server.get("/v1/vms/twin")
    original = server.get(f"/v1/vms/{vm['id']}")
    assert twin["mac"] != original["mac"]
    with inside(server, twin) as guest:
        said = guest.sh(
            "cat /root/file /etc/machine-id /sys/class/net/eth0/address; hostname;"
            "for disk in /sys/block/vd?; do cat $disk/serial; echo; done; cat /sys/block/vdb/ro"
        ).split()
    file, machine, mac, name, *serials, read_only = said
    assert (file, name, mac) == ("first", "twin", twin["mac"])
    assert len(machine) == 32
    assert machine != FIRST_ID, "a clone has a machine ID of its own"
    assert serials == [drive["id"] for drive in twin["drives"]]
    assert read_only == "1"


def test_clones_stay_when_vm_and_snapshots_go(server: Server, vm: dict[str, Any]) -> None:
    listed = ctl_fails(server, "vm", "delete", vm["name"], "--yes")
    assert "monday" in listed.stderr
    server.ctl("vm", "delete", vm["name"], "--with-snapshots", "--yes")
    assert server.get("/v1/vms/twin")["state"] == "ready"
    names = {drive["name"] for drive in server.get("/v1/drives")["items"]}
    assert {"twin", "twin-data", "data"} <= names, "a drive that was given to the VM stays"
    assert vm["name"] not in names
    server.ctl("vm", "delete", "twin", "--force", "--yes")


@pytest.fixture(scope="module", autouse=True)
def _nothing_is_left(server: Server) -> Iterator[None]:
    yield
    for name in ("data", "more"):
        server.run("drive", "delete", name, "--yes")
