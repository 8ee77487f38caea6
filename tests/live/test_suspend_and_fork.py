"""A program that counts goes on where it was: after a pause, on the disk, and in forks."""

from __future__ import annotations

import subprocess
import time
from typing import Any

import pytest

from bench.server import BIN, Server
from tests.servers import PATIENCE, history, restart, vmms, wait_for_state

COUNT = "n=0; while :; do n=$((n + 1)); echo $n > /root/n; sleep 0.1; done"
WORK = "while :; do i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done; sleep 0.05; done"


@pytest.fixture(scope="module", autouse=True)
def counter(server: Server, vm: dict[str, Any]) -> str:
    """The session of the program that counts."""
    return run(server, "exec", "--detach", vm["name"], "--", "/bin/sh", "-c", COUNT)


def run(server: Server, *arguments: str) -> str:
    """What ``nexusctl vm ARGUMENTS`` prints; it is tried again while the guest is too busy."""
    deadline = time.monotonic() + PATIENCE
    while True:
        done = subprocess.run(
            [BIN / "nexusctl", "vm", *arguments],
            env=server.env,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0 or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def count(server: Server, name: str) -> int:
    """How far the program has counted."""
    return int(run(server, "exec", name, "--", "grep", ".", "/root/n"))


def counts_on(server: Server, name: str, above: int) -> int:
    """How far it has counted, once that is further than ``above``."""
    deadline = time.monotonic() + PATIENCE
    while (now := count(server, name)) <= above and time.monotonic() < deadline:
        time.sleep(0.1)
    assert now > above, "it stands still"
    return now


def guest_time(server: Server, name: str) -> float:
    return float(run(server, "exec", name, "--", "date", "+%s"))


def test_a_pause_stops_the_program_and_its_agent_is_not_called_silent(
    server: Server, vm: dict[str, Any]
) -> None:
    name = vm["name"]
    before = counts_on(server, name, 0)
    server.ctl("vm", "pause", name)
    time.sleep(8)  # longer than this server has patience with a silent agent
    assert server.get(f"/v1/vms/{name}")["state"] == "paused"
    restart(server)
    assert server.get(f"/v1/vms/{name}")["state"] == "paused", "a new supervisor lets it be"
    server.ctl("vm", "unpause", name)
    wait_for_state(server, vm["id"], "ready")
    counts_on(server, name, before)
    assert abs(guest_time(server, name) - time.time()) < 5


def test_a_suspended_vm_goes_on_where_it_was_also_after_a_restart(
    server: Server, vm: dict[str, Any]
) -> None:
    name = vm["name"]
    before = counts_on(server, name, 0)
    server.ctl("vm", "suspend", name)
    shown = server.get(f"/v1/vms/{name}")
    assert (shown["state"], shown["saved_memory"]["reason"]) == ("suspended", "request")
    assert not [p for p in vmms(server) if vm["id"] in p.cwd()], "its VMM has ended"
    restart(server)
    assert server.get(f"/v1/vms/{name}")["state"] == "suspended"
    server.ctl("vm", "resume", name)
    boot = server.get(f"/v1/vms/{name}")["last_boot"]
    assert boot["resumed_from"] == "suspended"
    counts_on(server, name, before)
    assert abs(guest_time(server, name) - time.time()) < 5


def test_memory_that_is_damaged_is_refused_and_a_cold_start_works(
    server: Server, vm: dict[str, Any]
) -> None:
    server.ctl("vm", "fork", vm["name"], "--name", "damaged")
    fork = server.get("/v1/vms/damaged")
    server.ctl("vm", "suspend", "damaged")
    state = server.data_dir / "vms" / fork["id"] / "memory" / "state"
    state.write_bytes(state.read_bytes()[:-1])
    done = server.run("vm", "resume", "damaged")
    assert done.returncode != 0
    assert "not as it was saved" in done.stdout + done.stderr
    assert server.get("/v1/vms/damaged")["state"] == "suspended"
    server.ctl("vm", "start", "damaged", "--cold")
    assert server.get("/v1/vms/damaged")["last_boot"]["resumed_from"] == ""
    server.ctl("vm", "delete", "damaged", "--force", "--yes")


def test_forks_of_a_checkpoint_each_go_on_from_the_same_count(
    server: Server, vm: dict[str, Any]
) -> None:
    name = vm["name"]
    counts_on(server, name, 0)
    server.ctl("vm", "checkpoint", name, "--name", "moment")
    after = count(server, name)
    shown = server.ctl("vm", "snapshot-inspect", "moment")
    assert shown["with_memory"]
    assert shown["memory_bytes"] > 0
    assert shown["held_ms"] is not None
    operation = server.ctl("vm", "fork", name, "-n", "3", "--name", "fork", "--snapshot", "moment")
    forks = [fork["name"] for fork in operation["result"]["forks"]]
    assert forks == ["fork-1", "fork-2", "fork-3"]
    assert {fork["state"] for fork in operation["result"]["forks"]} == {"ready"}
    for fork in forks:
        counts_on(server, fork, after - 1)
        assert run(server, "exec", fork, "--", "hostname") == fork
    server.ctl("vm", "pause", "fork-1")
    counts_on(server, "fork-2", count(server, "fork-2"))
    counts_on(server, name, count(server, name))
    for fork in forks:
        server.ctl("vm", "delete", fork, "--force", "--yes")
    server.ctl("vm", "snapshot-delete", "moment", "--yes")


def test_an_idle_vm_suspends_itself_and_a_program_wakes_it(
    server: Server, vm: dict[str, Any], counter: str
) -> None:
    server.ctl("vm", "fork", vm["name"], "--name", "idle")
    run(server, "session", "signal", "idle", counter, "KILL")
    run(server, "exec", "idle", "--", "touch", "/root/here")
    # The counter mostly sleeps: on a fast machine it takes less than what counts as work.
    work = run(server, "exec", "--detach", vm["name"], "--", "/bin/sh", "-c", WORK)
    for name in ("idle", vm["name"]):
        server.ctl("vm", "update", name, "--idle-suspend", "1m")
    wait_for_state(server, "idle", "suspended")
    assert server.get(f"/v1/vms/{vm['id']}")["state"] == "ready", "what works is no idle VM"
    server.ctl("vm", "update", vm["name"], "--idle-suspend", "never")
    run(server, "session", "signal", vm["name"], work, "KILL")
    last = history(server, "idle")[-1]
    assert (last["reason"], last["actor"]) == ("idle for 1 min", "system")
    assert run(server, "exec", "idle", "--", "ls", "/root/here") == "/root/here"
    shown = server.get("/v1/vms/idle")
    assert (shown["state"], shown["last_boot"]["resumed_from"]) == ("ready", "suspended")
    server.ctl("vm", "delete", "idle", "--force", "--yes")
