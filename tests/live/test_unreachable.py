"""Guests that hang, panic or fall behind: what Nexus says of them, and what it does."""

from __future__ import annotations

import asyncio
import shutil
import time
import urllib.error
from pathlib import Path
from typing import Any

import pytest

from bench.server import Server
from guest_agent import build, transports
from guest_agent.binary import agent_version
from guest_agent.connection import AgentConnection
from guest_agent.upgrade import upgrade
from tests.firecracker_release import IN_THE_RIG
from tests.live.guests import agent_socket, apart
from tests.servers import PATIENCE, history, wait_for_state

AGENTS = "$(pidof nexus-agent)"


def sh(server: Server, vm: dict[str, Any], script: str) -> str:
    answer = server.post(f"/v1/vms/{vm['id']}/exec", argv=["sh", "-c", script])
    assert answer["exit_code"] == 0, answer
    return str(answer["stdout"])


def leave_behind(server: Server, vm: dict[str, Any], script: str) -> None:
    """Have the guest run a script that outlives the agent's attention."""
    sh(server, vm, f"setsid sh -c 'sleep 1; {script}' </dev/null >/dev/null 2>&1 &")


def boots(server: Server, vm: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.get(f"/v1/vms/{vm['id']}/boots")["items"]
    return found


def wait_for_boot(server: Server, vm: dict[str, Any], number: int) -> None:
    """Until the VM is ready after so many starts."""
    deadline = time.monotonic() + PATIENCE
    while boots(server, vm)[0]["number"] < number:
        assert time.monotonic() < deadline, history(server, vm["id"])
        time.sleep(0.2)
    wait_for_state(server, vm["id"], "ready")


def wait_for_services(server: Server, vm: dict[str, Any]) -> None:
    """Until init has started them all, and applied the distribution's kernel settings before."""
    deadline = time.monotonic() + PATIENCE
    while server.get(f"/v1/vms/{vm['id']}")["agent"]["boot"]["settled"] is None:
        assert time.monotonic() < deadline, "init has not started all services"
        time.sleep(0.2)


def test_an_agent_that_stands_still_is_unreachable_and_comes_back(
    server: Server, vm: dict[str, Any]
) -> None:
    leave_behind(server, vm, f"kill -STOP {AGENTS}; sleep 30; kill -CONT {AGENTS}")
    wait_for_state(server, vm["id"], "unreachable")
    wait_for_state(server, vm["id"], "ready")
    silent, back = history(server, vm["id"])[-2:]
    assert silent["reason"].startswith("no heartbeat for ")
    assert "not answer" in silent["reason"]
    assert "answers again after" in back["reason"]
    assert back["reason"].endswith("s of silence")


def test_a_clock_that_jumped_is_set_again(server: Server, vm: dict[str, Any]) -> None:
    sh(server, vm, "date -s '2031-01-01 00:00:00'")
    deadline = time.monotonic() + PATIENCE
    while abs(int(sh(server, vm, "date +%s")) - time.time()) > 60:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    events = server.get(f"/v1/events?subject={vm['id']}&limit=500")["items"]
    assert any(event["kind"] == "vm.clock_corrected" for event in events)
    assert server.get(f"/v1/vms/{vm['id']}")["state"] == "ready"


def test_a_kernel_that_panics_is_a_crash_and_the_policy_starts_it_again(
    server: Server, vm: dict[str, Any]
) -> None:
    server.ctl("vm", "update", vm["id"], "--restart", "on-failure")
    wait_for_services(server, vm)
    before = boots(server, vm)[0]["number"]
    before_panic = len(history(server, vm["id"]))
    with pytest.raises(urllib.error.HTTPError):
        sh(server, vm, "echo c > /proc/sysrq-trigger; sleep 60")
    wait_for_boot(server, vm, before + 1)
    moves = [(row["to_state"], row["reason"]) for row in history(server, vm["id"])]
    crash = max(n for n, (state, _) in enumerate(moves) if state == "crashed")
    assert moves[crash][1].endswith("the guest panicked")
    assert "unreachable" not in {state for state, _ in moves[before_panic:]}, "it waited"
    assert moves[crash + 1] == ("starting", "restart policy: on-failure, attempt 1")
    again = history(server, vm["id"])[crash + 1]
    assert again["actor"] == "system"
    assert again["operation_id"]
    found = server.get(f"/v1/vms/{vm['id']}")
    assert (found["restarts"], found["restart_at"]) == (1, None)


def test_an_unreachable_vm_is_restarted_where_it_wants_that(
    server: Server, vm: dict[str, Any]
) -> None:
    server.ctl("vm", "update", vm["id"], "--on-unreachable", "restart")
    before = boots(server, vm)[0]["number"]
    leave_behind(server, vm, f"kill -STOP {AGENTS}")
    wait_for_boot(server, vm, before + 1)
    server.ctl("vm", "update", vm["id"], "--on-unreachable", "keep", "--restart", "no")
    reasons = [row["reason"] for row in history(server, vm["id"])]
    assert any(reason.startswith("unreachable action: restart (no h") for reason in reasons)


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent of an earlier version."""
    if IN_THE_RIG:
        pytest.skip("the rig has no Go toolchain; QEMU's guests try this on the host")
    directory = tmp_path_factory.mktemp("older")
    source = shutil.copytree(build.SOURCE, directory / "agent")
    (source / "VERSION").write_text("0.0.1\n")
    return build.build(source=source, directory=directory)


def put_in_place(directory: Path, binary: Path) -> None:
    """Replace the agent of a VM, whose server is down."""

    async def replace() -> None:
        socket = agent_socket(directory)
        line = transports.open_line(socket.path, guest_dials=socket.guest_dials, uid=socket.uid)
        agent = await AgentConnection.open(*await line.connect(), hello_timeout=PATIENCE)
        try:
            await upgrade(agent, binary, PATIENCE)
        finally:
            await agent.close()
            line.close()

    apart(asyncio.run, replace())


def wait_for_agent(server: Server, vm: dict[str, Any], version: str) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE
    while True:
        found: dict[str, Any] = server.get(f"/v1/vms/{vm['id']}")
        if (found["state"], found["agent_version"]) == ("ready", version):
            return found
        assert time.monotonic() < deadline, history(server, vm["id"])
        time.sleep(0.2)


def test_an_older_agent_is_told_and_upgraded_while_the_vm_runs(
    server: Server, vm: dict[str, Any], older: Path
) -> None:
    server.stop()
    try:
        put_in_place(server.data_dir / "vms" / vm["id"], older)
    finally:
        server.start()
    assert wait_for_agent(server, vm, "0.0.1")["agent_outdated"], "it lives in the VM"

    server.ctl("vm", "restart", vm["id"])
    assert not wait_for_agent(server, vm, agent_version())["agent_outdated"], "the initrd's"

    leave_behind(server, vm, 'kill -9 $(pidof nexus-agent | tr " " "\\n" | sort -n | head -1)')
    assert wait_for_agent(server, vm, "0.0.1")["agent_outdated"], "it lies on the drive"
    number = boots(server, vm)[0]["number"]
    session = server.post(f"/v1/vms/{vm['id']}/sessions", argv=["sleep", "1000"])
    operation = server.ctl("vm", "agent-upgrade", vm["id"])
    assert [step["note"] for step in operation["steps"]] == [
        "agent 0.0.1 leaves",
        f"agent {agent_version()} said hello",
    ]
    found = wait_for_agent(server, vm, agent_version())
    assert not found["agent_outdated"]
    assert boots(server, vm)[0]["number"] == number, "the guest went on"
    sessions = server.get(f"/v1/vms/{vm['id']}/sessions")
    assert session["id"] in str(sessions), "and so did its sessions"
