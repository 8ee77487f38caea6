"""Twenty forks of a Python program: each goes on by itself, from the same line of its work."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from bench.server import Server, running_server
from tests.servers import PATIENCE

pytestmark = [pytest.mark.xdist_group("many-forks"), pytest.mark.timeout(8 * PATIENCE)]

FORKS = 20
#: With twenty emulated guests on a few processors none answers soon, and none is silent.
PATIENT = {"NEXUS_HEARTBEAT_TIMEOUT": "60", "NEXUS_AGENT_READY_TIMEOUT": "600"}
#: Nothing but the agent and the program runs in such a guest.
TEMPLATE = {
    "name": "python",
    "rootfs": {"distro": "debian", "version": "bookworm"},
    "packages": ["python3-minimal"],
    "init": "none",
    "size_mib": 512,
}
LINES = "/root/lines"
#: There is no init to make a machine ID.
PREPARE = f"tr -d - < /proc/sys/kernel/random/uuid > /etc/machine-id; : > {LINES}"
PROGRAM = f"""
import itertools, os, random, time
for count in itertools.count(1):
    with open("{LINES}", "a") as lines:
        print(count, random.random(), os.urandom(16).hex(), file=lines)
    time.sleep(1)
"""
#: The guest's name and ID, and what the program has written once it has gone on.
LOOK = f"""
was=$(wc -l < {LINES})
until [ $(wc -l < {LINES}) -gt $was ]; do sleep 0.3; done
hostname; cat /etc/machine-id; echo $was; cat {LINES}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose VM “work” runs the program."""
    with running_server(**PATIENT) as server:
        file = tmp_path_factory.mktemp("template") / "python.yaml"
        file.write_text(yaml.safe_dump(TEMPLATE))
        server.ctl("rootfs", "download", "debian", "bookworm")
        server.ctl("template", "import", str(file))
        server.ctl("vm", "from-template", "python", "--name", "work", "--memory", "128")
        server.ctl("vm", "exec", "work", "--", "sh", "-c", PREPARE)
        begun = server.run("vm", "exec", "--detach", "work", "--", "python3", "-c", PROGRAM)
        assert begun.returncode == 0, begun.stderr
        yield server


class Seen:
    """What a VM says of itself and of its program, which has just gone on."""

    def __init__(self, server: Server, vm: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while (done := server.run("vm", "exec", vm, "--", "sh", "-c", LOOK)).returncode != 0:
            assert time.monotonic() < deadline, done.stderr or done.stdout
            time.sleep(1)
        self.hostname, self.machine_id, was, *lines = done.stdout.split("\n")[:-1]
        rows = [line.split() for line in lines]
        self.counts = [int(count) for count, _, _ in rows]
        self.draws = [draw for _, draw, _ in rows]  # of Python's own generator
        self.before = int(was)
        self.bytes = [entropy for _, _, entropy in rows]  # of the kernel's


def test_twenty_forks_of_a_python_program_each_go_on_by_themselves(server: Server) -> None:
    at_work = Seen(server, "work")
    operation: dict[str, Any] = server.ctl("vm", "fork", "work", "-n", str(FORKS))
    forks = operation["result"]["forks"]
    assert [fork["state"] for fork in forks] == ["ready"] * FORKS
    seen = []
    for fork in forks:
        seen.append(Seen(server, fork["name"]))  # those before are gone, and it goes on
        assert seen[-1].hostname == fork["name"]
        server.ctl("vm", "delete", fork["name"], "--force", "--with-snapshots", "--yes")
    seen.append(Seen(server, "work"))
    for one in seen:
        assert one.counts == list(range(1, len(one.counts) + 1)), "no line is lost or twice there"
        assert one.bytes[: at_work.before] == at_work.bytes[: at_work.before], "it has begun anew"
    ids = [(one.machine_id, one.hostname) for one in seen]
    assert len({machine_id for machine_id, _ in ids}) == len(ids), sorted(ids)
    fresh = [entropy for one in seen for entropy in one.bytes[one.before :]]
    assert len(set(fresh)) == len(fresh) >= len(seen), "two guests had the same random numbers"
    shortest = min(len(one.counts) for one in seen)
    assert shortest > len(at_work.counts)
    same = {tuple(one.draws[:shortest]) for one in seen}
    assert len(same) == 1, "it is not the very process that goes on"
