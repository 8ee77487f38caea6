"""VMs and operations outlive Nexus, however it ends."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import psutil
import pytest

from bench.server import Server
from tests.servers import PATIENCE, history, kill, pid_of, restart, vmms, wait_for_state

CHAIN = ["rootfs", "template", "build", "image", "drive", "vm", "start", "agent"]


def test_a_vm_goes_on_while_nexus_is_restarted(server: Server, vm: dict[str, Any]) -> None:
    pid = pid_of(server, vm)
    restart(server, while_down=lambda: psutil.Process(pid).status())
    adopted = wait_for_event(server, "vm.adopted", vm["id"])
    assert adopted["data"] == {"pid": pid}
    wait_for_state(server, vm["id"], "ready")
    assert pid_of(server, vm) == pid
    server.ctl("vm", "stop", vm["id"], "--force")
    server.ctl("vm", "start", vm["id"])


def test_a_vm_goes_on_when_nexus_is_killed(server: Server, vm: dict[str, Any]) -> None:
    pid = pid_of(server, vm)
    server.stop(kill=True)
    server.start()
    wait_for_state(server, vm["id"], "ready")
    assert pid_of(server, vm) == pid


def test_a_vmm_that_dies_while_nexus_is_down_is_found_with_its_real_exit(
    server: Server, vm: dict[str, Any]
) -> None:
    pid = pid_of(server, vm)
    died: list[float] = []

    def die() -> None:
        kill(pid)
        died.append(time.time())

    restart(server, while_down=die)
    wait_for_state(server, vm["id"], "crashed")
    detail = history(server, vm["id"])[-1]["detail"]
    assert detail["signal"] == 9
    assert detail["ended_at"].startswith(time.strftime("%Y-%m-%dT%H:", time.gmtime(died[0])))


@pytest.mark.parametrize("step", ["drive", "start", "agent"])
def test_a_chain_whose_server_is_killed_ends_well(server: Server, step: str) -> None:
    name = f"killed-at-{step}"
    operation = server.ctl("vm", "from-rootfs", "alpine", "3.23", "--name", name, "--no-wait")
    wait_for_step(server, operation["id"], step)
    server.stop(kill=True)
    server.start()
    ended = wait_for_end(server, operation["id"])
    assert ended["state"] == "succeeded", ended["error"]
    if ended["attempt"] > 1:
        assert "Resumed after an interruption" in ended["note"]
    rows = [row["to_state"] for row in history(server, name)]
    assert rows == ["created", "starting", "running", "ready"]
    mine = [p for p in vmms(server) if server.get(f"/v1/vms/{name}")["id"] in p.cwd()]
    assert len(mine) <= 2, "one VMM and its monitor"
    server.ctl("vm", "delete", name, "--force", "--yes")


def wait_for_step(server: Server, operation: str, step: str) -> None:
    """Return as soon as the step (or a later one) has begun."""
    deadline = time.monotonic() + PATIENCE
    later = CHAIN[CHAIN.index(step) :]
    while time.monotonic() < deadline:
        row = server.get(f"/v1/operations/{operation}")
        if row["state"] not in ("queued", "running"):
            return
        if any(s["name"] in later and s["state"] != "pending" for s in row["steps"]):
            return
    raise AssertionError(f"{step} never began")


def wait_for_end(server: Server, operation: str) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            row: dict[str, Any] = server.get(f"/v1/operations/{operation}")
            if row["state"] not in ("queued", "running"):
                return row
        time.sleep(0.2)
    raise AssertionError("the operation never ended")


def wait_for_event(server: Server, kind: str, subject: str) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for event in reversed(server.get("/v1/events?limit=500")["items"]):
            if event["kind"] == kind and event["subject"]["id"] == subject:
                found: dict[str, Any] = event
                return found
        time.sleep(0.1)
    raise AssertionError(f"no {kind} of {subject}")
