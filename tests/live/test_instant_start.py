"""An image boots once: the next VM of it goes on from there, and is a machine of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from bench.server import Server, running_server
from tests.servers import PATIENCE, history, vmms

pytestmark = [pytest.mark.xdist_group("instant-start"), pytest.mark.timeout(8 * PATIENCE)]

PATIENT = {
    "NEXUS_HEARTBEAT_TIMEOUT": "60",
    "NEXUS_AGENT_READY_TIMEOUT": "600",
    "NEXUS_WARM_TEMPLATES": "1",
}
ENDED = ("succeeded", "failed", "cancelled")
MADE_OF = "cat /etc/nexus/image.yaml"
#: What would be the same in two guests if one were the other's copy.
SELF = "hostname; cat /sys/class/net/eth0/address; od -An -tx1 -N16 /dev/urandom"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server with warm templates, whose only image has one: “one” has booted from it."""
    with running_server(**PATIENT) as server:
        server.ctl("vm", "from-rootfs", "alpine", "3.23", "--name", "one", "--memory", "256")
        wait_until_made(server)
        yield server
        wait_until_made(server)
        for template in templates(server):
            server.ctl("warm", "delete", template["id"], "--yes")


def templates(server: Server) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.get("/v1/warm-templates")["items"]
    return found


def makings(server: Server) -> list[dict[str, Any]]:
    """The operations that make templates, newest first."""
    rows = server.get("/v1/operations?limit=200")["items"]
    return [row for row in rows if row["kind"] == "warm.make"]


def wait_until_made(server: Server) -> None:
    """Until every template that is to be made is made, or has failed."""
    deadline = time.monotonic() + 3 * PATIENCE
    while time.monotonic() < deadline:
        waiting = [row for row in templates(server) if row["state"] in ("wanted", "making")]
        if not waiting and all(row["state"] in ENDED for row in makings(server)):
            return
        time.sleep(0.5)
    raise AssertionError(f"{templates(server)} {makings(server)[:1]}")


def says(server: Server, vm: str, script: str) -> str:
    done = server.run("vm", "exec", vm, "--", "sh", "-c", script)
    assert done.returncode == 0, done.stderr or done.stdout
    return done.stdout


def boot(server: Server, vm: str) -> dict[str, Any]:
    found: dict[str, Any] = server.get(f"/v1/vms/{vm}/boots")["items"][0]
    return found


def image_of(server: Server) -> str:
    return str(server.get("/v1/images")["items"][0]["name"])


@pytest.fixture(scope="module")
def two(server: Server) -> str:
    server.ctl("vm", "from-image", image_of(server), "--name", "two", "--memory", "256")
    return "two"


def test_the_first_has_booted_and_the_second_goes_on(server: Server, two: str) -> None:
    first, second = boot(server, "one"), boot(server, two)
    assert (first["resumed_from"], first["resumed"]) == ("", "there is no warm template yet")
    assert second["resumed_from"] == "warm", second["resumed"]
    assert any("resumed" in row["reason"] for row in history(server, two))
    (template,) = templates(server)
    assert (template["state"], template["hits"]) == ("ready", 1)
    assert template["memory_bytes"] > 10 << 20
    assert template["disk_bytes"] > 10 << 20
    print(f"hello after {first['seconds_to_hello']} s booted, {second['seconds_to_hello']} resumed")


def test_nobody_sees_who_booted_for_it(server: Server, two: str) -> None:
    assert {vm["name"] for vm in server.get("/v1/vms")["items"]} == {"one", two}
    assert sum(server.get("/v1/status")["vms"].values()) == 2
    assert {drive["name"] for drive in server.get("/v1/drives")["items"]} == {"one", two}
    assert not server.get("/v1/snapshots")["items"]
    assert not server.get("/v1/storage/check")["problems"]


def test_the_second_is_another_machine(server: Server, two: str) -> None:
    one, other = says(server, "one", SELF).split("\n"), says(server, two, SELF).split("\n")
    assert (one[0], other[0]) == ("one", two)
    assert len({*one[:3], *other[:3]}) == 6, "names, addresses and random bytes are their own"
    clock = float(says(server, two, "date +%s"))
    assert abs(clock - time.time()) < PATIENCE, "not the time when it was saved"


def test_it_works_and_keeps_what_is_written(server: Server, two: str) -> None:
    assert says(server, two, MADE_OF) == says(server, "one", MADE_OF)
    assert "10.0.2.15" in says(server, two, "ip address show eth0")
    says(server, two, "dd if=/dev/urandom of=/root/kept bs=64k count=16 && sync")
    digest = says(server, two, "sha256sum /root/kept")
    server.ctl("vm", "restart", two)
    assert boot(server, two)["resumed"] == "its drives have been used before"
    assert says(server, two, "sha256sum /root/kept") == digest
    assert "kept" not in says(server, "one", "ls /root")


def test_a_cold_start_boots(server: Server) -> None:
    image = image_of(server)
    server.ctl("vm", "from-image", image, "--name", "three", "--memory", "256", "--cold")
    assert boot(server, "three")["resumed"] == "a cold start was asked for"


def test_a_nexus_killed_while_it_makes_one_leaves_nothing_wrong(server: Server) -> None:
    image = image_of(server)
    server.ctl("warm", "make", image, "--memory", "192", "--no-wait")
    deadline = time.monotonic() + PATIENCE
    while makings(server)[0]["current_step"] not in ("agent", "settle"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert server.daemon is not None
    children = psutil.Process(server.daemon.pid).children(recursive=True)
    server.stop(kill=True)
    for child in children:
        child.kill()
    psutil.wait_procs(children)
    server.start()
    wait_until_made(server)
    (making,) = [row for row in makings(server) if row["attempt"] > 1]
    assert making["state"] == "succeeded", making
    assert {row["state"] for row in templates(server)} == {"ready"}
    assert not server.get("/v1/storage/check")["problems"]
    running = [vm for vm in server.get("/v1/vms")["items"] if vm["state"] == "ready"]
    programs = {process.cwd() for process in vmms(server)}
    assert len(programs) == len(running), "no VMM is left over"
    server.ctl("vm", "from-image", image, "--name", "four", "--memory", "192")
    assert boot(server, "four")["resumed_from"] == "warm"
