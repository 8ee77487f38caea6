"""What guests count, as they tell it and as they lie about it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from guest_agent.connection import AgentConnection
from guest_agent.messages import Configuration, Heartbeat
from guest_agent.metrics import CPU, DeviceWork, InterfaceTraffic
from guest_agent.yamux import ProtocolError
from nexus_site.core.errors import Broken, Invalid

from .conftest import PATIENCE, AgentProcess
from .test_messages import HEARTBEAT, json_values

Connect = Callable[[], Awaitable[AgentConnection]]

TRAFFIC = {
    f"{way}_{what}": n
    for n, (way, what) in enumerate(
        (way, what) for way in ("rx", "tx") for what in ("bytes", "packets", "errors", "drops")
    )
}
WORK = {"read_bytes": 1, "reads": 2, "write_bytes": 3, "writes": 4}
CPU_TICKS = {"user": 1, "system": 2, "idle": 3, "iowait": 4, "steal": 5, "count": 6}
FULL: dict[str, Any] = HEARTBEAT | {
    "memory": {"total": 10, "available": 5, "swap_total": 8, "swap_free": 7},
    "cpu": CPU_TICKS,
    "network": [{"name": "eth0", **TRAFFIC}],
    "io": [{"device": "vda", **WORK}],
    "processes": 12,
}


def test_counts_are_read() -> None:
    heartbeat = Heartbeat.parse(FULL)
    assert heartbeat.cpu == CPU(1, 2, 3, 4, 5, 6)
    assert heartbeat.network == (InterfaceTraffic("eth0", 0, 1, 2, 3, 4, 5, 6, 7),)
    assert heartbeat.io == (DeviceWork("vda", 1, 2, 3, 4),)
    assert (heartbeat.swap_total, heartbeat.swap_free, heartbeat.processes) == (8, 7, 12)
    assert json.loads(json.dumps(heartbeat.to_dict()))["cpu"]["count"] == 6


def test_older_agents_count_nothing() -> None:
    heartbeat = Heartbeat.parse(HEARTBEAT)
    assert (heartbeat.cpu, heartbeat.network, heartbeat.io) == (None, (), ())
    assert (heartbeat.swap_total, heartbeat.processes) == (0, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"cpu": []},
        {"cpu": {}},
        {"cpu": CPU_TICKS | {"steal": -1}},
        {"cpu": CPU_TICKS | {"steal": 2**64}},
        {"network": {}},
        {"network": [1]},
        {"network": [{"name": "eth0"}]},
        {"network": [{"name": 1, **TRAFFIC}]},
        {"network": [{"name": "e", **TRAFFIC}] * 33},
        {"io": None},
        {"io": [{"device": "vda", **WORK}] * 65},
        {"processes": "many"},
        {"memory": FULL["memory"] | {"swap_free": None}},
    ],
)
def test_counts_that_cannot_be_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        Heartbeat.parse(FULL | change)


@settings(deadline=None)
@given(json_values)
def test_any_value_is_read_or_refused(value: Any) -> None:
    for key in ("cpu", "network", "io", "processes"):
        for change in ({key: value}, {key: [value]}, {key: {"name": value}}):
            with contextlib.suppress(ProtocolError):
                Heartbeat.parse(FULL | change)


async def test_a_real_agent_counts(agent: AgentProcess, connect: Connect) -> None:
    (agent.sandbox / "sys/block/vda").mkdir(parents=True)
    agent.write(
        "proc/diskstats",
        "254 0 vda 10 0 16 5 20 0 32 5 0 0 0\n"
        "254 1 vda1 1 0 1 1 1 0 1 1 0 0 0\n"
        "7 0 loop0 1 0 1 1 1 0 1 1 0 0 0\n",
    )
    agent.start()
    connection = await connect()
    first = await connection.heartbeat(PATIENCE)
    assert first.cpu
    assert first.cpu.idle > 0
    assert first.cpu.count > 0
    assert first.processes >= 1
    assert first.io == (DeviceWork("vda", 16 * 512, 10, 32 * 512, 20),)
    interfaces = {path.name for path in interface_paths()} - {"lo"}
    assert {traffic.name for traffic in first.network} <= interfaces
    later = await connection.heartbeat(PATIENCE)
    assert later.cpu
    assert later.cpu.user + later.cpu.idle >= first.cpu.user + first.cpu.idle


def interface_paths() -> list[Path]:
    return list(Path("/sys/class/net").iterdir())


# What configure got besides


async def test_lines_of_hosts_are_a_block(agent: AgentProcess, connect: Connect) -> None:
    agent.write("etc/hosts", "127.0.0.1\tlocalhost\n10.9.9.9 mine")
    agent.start()
    connection = await connect()
    lines = ["10.0.0.5 db db.local", "fe80::1\tpeer"]
    for _ in range(2):
        await connection.configure(Configuration(hosts=lines, hostname="otter"), PATIENCE)
    written = agent.read("etc/hosts")
    assert written.splitlines()[:3] == ["127.0.0.1\tlocalhost", "10.9.9.9 mine", "127.0.1.1\totter"]
    assert [line for line in written.splitlines() if line in lines] == lines
    assert written.count("# Nexus") == 2
    await connection.configure(Configuration(hosts=["1.2.3.4 only"]), PATIENCE)
    assert "1.2.3.4 only\n" in agent.read("etc/hosts")
    assert "db.local" not in agent.read("etc/hosts")
    await connection.configure(Configuration(hosts=[]), PATIENCE)
    assert agent.read("etc/hosts").splitlines() == [
        "127.0.0.1\tlocalhost",
        "10.9.9.9 mine",
        "127.0.1.1\totter",
    ]


@pytest.mark.parametrize(
    "line",
    ["", "10.0.0.1", "db 10.0.0.1", "10.0.0.1 a\n10.0.0.2 b", "10.0.0.1 a#b", "fe80::1%eth0 a"],
)
async def test_a_line_of_hosts_must_be_one(
    agent: AgentProcess, connect: Connect, line: str
) -> None:
    with pytest.raises(Invalid):
        Configuration(hosts=[line])
    agent.start()
    connection = await connect()
    with pytest.raises(Broken, match="hosts: "):
        await connection.exchange({"op": "configure", "hosts": [line]}, PATIENCE)
    assert not (agent.sandbox / "etc/hosts").exists()


async def test_variables_reach_login_shells(agent: AgentProcess, connect: Connect) -> None:
    agent.start()
    connection = await connect()
    await connection.configure(Configuration(env={"A": "it's", "B": "two\nlines"}), PATIENCE)
    profile = agent.read("etc/profile.d/nexus.sh")
    agent.write(
        "profile.sh", profile.replace("/etc/nexus/env", str(agent.sandbox / "etc/nexus/env"))
    )
    said = bytearray()
    program = f"set -eu; . {agent.sandbox}/profile.sh; sh -c 'echo \"$A|$B\"'"
    for argv in (["sh", "-c", program], ["sh", "-c", 'echo "$A|$B"']):
        await connection.execute(argv, on_output=lambda _, data: said.extend(data))
    assert said == b"it's|two\nlines\n" * 2
