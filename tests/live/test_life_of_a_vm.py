"""A VM from nothing to its end, as a person sees it."""

from __future__ import annotations

import itertools
import signal
from typing import Any

from bench.server import Server
from tests.servers import ctl_fails, history, kill, pid_of, vmms, wait_for_state


def test_the_history_tells_the_whole_way_to_ready(server: Server, vm: dict[str, Any]) -> None:
    rows = history(server, vm["id"])
    assert [row["to_state"] for row in rows] == ["created", "starting", "running", "ready"]
    assert all(b["from_state"] == a["to_state"] for a, b in itertools.pairwise(rows))
    assert all(row["reason"] and row["actor"] and row["at"] for row in rows)
    assert "said hello after" in rows[-1]["reason"]


def test_the_agent_reports_the_guest_and_takes_its_name(server: Server, vm: dict[str, Any]) -> None:
    agent = server.get(f"/v1/vms/{vm['id']}")["agent"]
    image = server.get("/v1/images/alpine-3-23")
    assert agent["image"]["image_id"] == image["id"]
    assert agent["image"]["image_name"] == image["name"]
    assert "Alpine Linux v3.23" in agent["os"]
    assert agent["kernel"].startswith("6.")


def test_the_console_has_the_guests_own_words(server: Server, vm: dict[str, Any]) -> None:
    page = server.get(f"/v1/vms/{vm['id']}/console?offset=0")
    assert "Linux version" in page["text"] or "OpenRC" in page["text"]


def test_a_second_vm_skips_what_is_there_and_says_so(server: Server, vm: dict[str, Any]) -> None:
    plan = server.ctl("vm", "from-rootfs", "alpine", "3.23", "--name", "second", "--dry-run")
    actions = {step["name"]: step["action"] for step in plan["steps"]}
    assert [name for name, action in actions.items() if action == "skip"] == [
        "rootfs", "template", "build",
    ]  # fmt: skip
    assert server.run("vm", "inspect", "second").returncode == 4


def test_a_running_vm_is_not_started_again(server: Server, vm: dict[str, Any]) -> None:
    done = ctl_fails(server, "vm", "start", vm["name"])
    assert done.returncode == 5
    assert "is ready" in done.stderr


def test_a_taken_name_is_a_conflict_and_nothing_is_made(server: Server, vm: dict[str, Any]) -> None:
    before = server.get("/v1/drives")["items"]
    done = ctl_fails(server, "vm", "from-rootfs", "alpine", "3.23", "--name", vm["name"])
    assert done.returncode == 5
    assert server.get("/v1/drives")["items"] == before


def test_a_guest_that_hangs_is_unreachable_until_it_answers(
    server: Server, vm: dict[str, Any]
) -> None:
    pid = pid_of(server, vm)
    kill(pid, signal.SIGSTOP)
    try:
        wait_for_state(server, vm["id"], "unreachable")
    finally:
        kill(pid, signal.SIGCONT)
    wait_for_state(server, vm["id"], "ready")
    silent, back = history(server, vm["id"])[-2:]
    assert "no heartbeat" in silent["reason"]
    assert "answers again" in back["reason"]


def test_a_killed_vmm_is_a_crash_with_a_post_mortem(server: Server, vm: dict[str, Any]) -> None:
    pid = pid_of(server, vm)
    kill(pid)
    wait_for_state(server, vm["id"], "crashed")
    crash = history(server, vm["id"])[-1]
    assert crash["to_state"] == "crashed"
    assert "SIGKILL" in crash["reason"]
    assert crash["detail"]["signal"] == 9
    assert crash["detail"]["console"], "the guest's last lines"
    assert crash["detail"]["last_heartbeat"]
    assert pid not in [process.pid for process in vmms(server)]


def test_a_crashed_vm_starts_again_with_its_drive(server: Server, vm: dict[str, Any]) -> None:
    server.ctl("vm", "start", vm["id"])
    boots = server.get(f"/v1/vms/{vm['id']}/boots")["items"]
    assert [boot["number"] for boot in boots] == [2, 1]
    assert server.get(f"/v1/vms/{vm['id']}")["state"] == "ready"


def test_a_stop_is_graceful(server: Server, vm: dict[str, Any]) -> None:
    operation = server.ctl("vm", "stop", vm["name"])
    assert operation["steps"][0]["note"] == "the agent shut the guest down"
    rows = history(server, vm["id"])[-2:]
    assert [row["to_state"] for row in rows] == ["stopping", "stopped"]
    assert rows[-1]["detail"]["exit_code"] == 0


def test_a_deleted_vm_leaves_nothing(server: Server, vm: dict[str, Any]) -> None:
    directory = server.data_dir / "vms" / vm["id"]
    assert directory.exists()
    server.ctl("vm", "delete", vm["name"], "--yes")
    assert server.run("vm", "inspect", vm["id"]).returncode == 4
    assert not directory.exists()
    drives = {drive["name"] for drive in server.get("/v1/drives")["items"]}
    assert vm["name"] not in drives
