"""What a guest finds after its VM was snapshotted, set back and cloned. Three boots, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.server import Server
from guest_agent import transports
from guest_agent.connection import AgentConnection
from tests.servers import PATIENCE, ctl_fails, history, wait_for_state
from vms.hypervisors.qemu import qmp

FIRST_ID = "0123456789abcdef0123456789abcdef"
GIB = 1 << 30


class Guest:
    """Runs programs in a VM, whose server must be down: an agent talks to one host at a time."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def sh(self, script: str) -> str:
        """What a shell script prints; it must succeed."""
        return asyncio.run(asyncio.wait_for(self._run(script), PATIENCE))

    async def _run(self, script: str) -> str:
        reader, writer = await transports.connect(self.directory / "agent.sock")
        agent = await AgentConnection.open(reader, writer, hello_timeout=PATIENCE)
        said = bytearray()
        try:
            ended = await agent.execute(
                ["/bin/sh", "-ec", script], on_output=lambda _, data: said.extend(data), merge=True
            )
        finally:
            await agent.close()
        assert ended.shell_code == 0, said.decode(errors="replace")
        return said.decode().strip()


@contextmanager
def inside(server: Server, vm: dict[str, Any]) -> Iterator[Guest]:
    """The guest of a VM, while Nexus is down; the VM is ready again after."""
    server.stop()
    try:
        yield Guest(server.data_dir / "vms" / vm["id"])
    finally:
        server.start()
    wait_for_state(server, vm["id"], "ready")


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


def test_a_drive_of_a_running_vm_is_refused_with_the_reason(
    server: Server, vm: dict[str, Any]
) -> None:
    server.ctl("drive", "create", "--image", "alpine-3-23", "--name", "more")
    done = ctl_fails(server, "drive", "attach", "more", vm["name"], "--data")
    assert done.returncode == 5
    assert "virtio-mmio" in done.stderr
    server.ctl("drive", "delete", "more", "--yes")


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
        qmp.ask(guest.directory, "stop")
        assert qmp.status(guest.directory) == "paused"
    assert qmp.status(server.data_dir / "vms" / vm["id"]) == "running"


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
