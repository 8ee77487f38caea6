"""Modules and disks that come while the guest runs: the real agent in a sandbox."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from guest_agent.connection import AgentConnection, AgentRefused
from guest_agent.messages import GuestDisk

from .conftest import AgentProcess

Connect = Callable[[], Awaitable[AgentConnection]]


@pytest.fixture
async def connection(agent: AgentProcess, connect: Connect) -> AgentConnection:
    agent.start()
    opened = await connect()
    agent.write("sys/block/sda/device/vpd_pg80", "\0\x40\0\x05spare")
    agent.write("dev/sda", "")
    return opened


async def test_a_module_is_streamed(agent: AgentProcess, connection: AgentConnection) -> None:
    await connection.load_module("sd_mod.ko", b"m" * 300_000)
    assert agent.calls() == ["load sd_mod.ko 300000"]


@pytest.mark.parametrize("size", [0, 17 << 20])
async def test_a_module_without_a_size_that_can_be_is_refused(
    connection: AgentConnection, size: int
) -> None:
    stream = await connection.open_stream({"op": "load", "name": "sd_mod.ko", "size": size})
    with pytest.raises(AgentRefused, match="16 MiB"):
        await connection.read_reply(stream)


async def test_a_disk_is_found_by_its_serial_number(connection: AgentConnection) -> None:
    assert await connection.find_disk("spare") == GuestDisk("/dev/sda", ())
    assert await connection.find_disk("other") == GuestDisk("", ())
    with pytest.raises(AgentRefused, match="serial number"):
        await connection.find_disk("")


async def test_a_disk_is_released(agent: AgentProcess, connection: AgentConnection) -> None:
    agent.write("sys/block/sda/device/delete", "")
    assert await connection.release_disk("spare") == GuestDisk("/dev/sda", ())
    assert agent.read("sys/block/sda/device/delete") == "1"
