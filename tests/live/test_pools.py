"""A pool of real VMs: one is taken, has its name at once, and another is made in its place."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bench.server import Server, running_server
from tests.servers import PATIENCE, history, kill, pid_of, vmms

pytestmark = [pytest.mark.xdist_group("pools"), pytest.mark.timeout(8 * PATIENCE)]

PATIENT = {
    "NEXUS_HEARTBEAT_TIMEOUT": "60",
    "NEXUS_AGENT_READY_TIMEOUT": "600",
    "NEXUS_WARM_TEMPLATES": "1",
}
SELF = "hostname; cat /sys/class/net/eth0/address; od -An -tx1 -N16 /dev/urandom"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server whose image has a warm template, and whose pool of two is full."""
    with running_server(**PATIENT) as server:
        server.ctl("image", "from-rootfs", "alpine", "3.23")
        image = server.get("/v1/images")["items"][0]["name"]
        server.ctl("warm", "make", image, "--memory", "256")
        server.ctl("pool", "create", "ready", "--image", image, "--size", "2", "--memory", "256")
        wait_until_full(server)
        yield server
        server.ctl("pool", "delete", "ready", "--yes")
        for vm in server.get("/v1/vms")["items"]:
            server.ctl("vm", "delete", vm["id"], "--force", "--yes")
        wait_until(lambda: not vmms(server), "every VMM has ended")


def pool(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = server.get("/v1/pools/ready")
    return found


def wait_until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 3 * PATIENCE
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.3)


def wait_until_full(server: Server) -> None:
    wait_until(lambda: pool(server)["ready"] == 2, "the pool is full")


def says(server: Server, vm: str, script: str) -> list[str]:
    done = server.run("vm", "exec", vm, "--", "sh", "-c", script)
    assert done.returncode == 0, done.stderr or done.stdout
    return done.stdout.splitlines()


def test_its_vms_have_resumed_and_nobody_sees_them(server: Server) -> None:
    waiting = pool(server)["vms"]
    assert [vm["state"] for vm in waiting] == ["ready", "ready"]
    for vm in waiting:
        boot = server.get(f"/v1/vms/{vm['id']}/boots")["items"][0]
        assert boot["resumed_from"] == "warm", boot["resumed"]
    assert not server.get("/v1/vms")["items"]
    assert not server.get("/v1/drives")["items"]


def test_one_that_is_taken_is_ready_and_has_its_name(server: Server) -> None:
    began = time.monotonic()
    web = server.post("/v1/pools/ready/take", name="web")
    took = time.monotonic() - began
    assert (web["name"], web["state"]) == ("web", "ready")
    one = says(server, "web", SELF)
    server.ctl("vm", "from-pool", "ready", "--name", "db")
    other = says(server, "db", SELF)
    assert (one[0], other[0]) == ("web", "db")
    assert len({*one, *other}) == 6, "each is a machine of its own"
    assert history(server, "web")[-1]["reason"] == "taken from pool ready"
    assert {drive["name"] for drive in server.get("/v1/drives")["items"]} == {"web", "db"}
    wait_until_full(server)
    print(f"taken in {took:.2f} s")
    assert pool(server)["taken"] == 2


def test_one_that_crashes_is_replaced(server: Server) -> None:
    first, second = pool(server)["vms"]
    kill(pid_of(server, first))
    wait_until(lambda: first["id"] not in [vm["id"] for vm in pool(server)["vms"]], "it is gone")
    wait_until_full(server)
    assert second["id"] in [vm["id"] for vm in pool(server)["vms"]]
    assert server.run("vm", "inspect", first["id"]).returncode == 4
    assert not server.get("/v1/storage/check")["problems"]
