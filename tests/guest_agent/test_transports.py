"""The sockets of a VM's directory, however long its path is."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from guest_agent.transports import connect, listen

from .conftest import PATIENCE, Ends


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    directory = tmp_path / ("d" * 100) / ("e" * 100)
    directory.mkdir(parents=True)
    assert len(os.fsencode(directory)) > 108
    return directory


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def test_a_long_path_is_listened_on_and_dialled(deep: Path) -> None:
    came: asyncio.Queue[Ends] = asyncio.Queue()
    path = deep / "v.sock_1024"
    descriptors = open_descriptors()
    server = await listen(path, lambda *ends: came.put_nowait(ends))
    assert path.is_socket()
    assert path.stat().st_mode & 0o777 == 0o600
    for _ in range(2):
        reader, writer = await connect(path)
        async with asyncio.timeout(PATIENCE):
            their_reader, their_writer = await came.get()
            writer.write(b"ping")
            assert await their_reader.readexactly(4) == b"ping"
            their_writer.write(b"pong")
            assert await reader.readexactly(4) == b"pong"
            writer.close()
            assert await their_reader.read() == b""
            their_writer.close()
            await writer.wait_closed()
            await their_writer.wait_closed()
    server.close()
    await server.wait_closed()
    await asyncio.sleep(0)
    assert open_descriptors() == descriptors


async def test_listening_replaces_what_a_dead_vmm_left(deep: Path) -> None:
    path = deep / "v.sock_1024"
    for _ in range(2):
        (await listen(path, lambda *ends: None)).close()
        assert path.is_socket()
        with pytest.raises(ConnectionRefusedError):
            await connect(path)


async def test_dialling_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await connect(tmp_path / "agent.sock")
    with pytest.raises(FileNotFoundError):
        await connect(tmp_path / "gone" / "agent.sock")


async def test_listening_where_one_may_not(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await listen(tmp_path / "gone" / "agent.sock", lambda *ends: None)
