"""The sockets of a VM's directory, however long its path is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from guest_agent.transports import AwaitedLine, DialledLine, connect, listen, open_line

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


# A line on which the guest dials


@pytest.fixture
def line(deep: Path) -> Iterator[AwaitedLine]:
    line = AwaitedLine(deep / "v.sock_1024")
    yield line
    line.close()


def call(path: Path, word: bytes) -> socket.socket:
    """A guest's call, as it stands in the host's queue at once."""
    caller = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        caller.connect(f"/proc/self/fd/{directory}/{path.name}")
        caller.settimeout(PATIENCE)
        caller.sendall(word)
    except OSError:
        caller.close()
        raise
    finally:
        os.close(directory)
    return caller


async def test_a_call_waits_until_it_is_asked_for(line: AwaitedLine) -> None:
    with call(line.path, b"hello") as caller:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await line.connect()
            assert await reader.readexactly(5) == b"hello"
            writer.write(b"welcome")
            await writer.drain()
        assert caller.recv(7) == b"welcome"
        writer.close()
        await writer.wait_closed()


async def test_of_several_callers_the_newest_counts_and_the_others_are_hung_up_on(
    line: AwaitedLine,
) -> None:
    callers = [call(line.path, word) for word in (b"old", b"mid", b"new")]
    async with asyncio.timeout(PATIENCE):
        reader, writer = await line.connect()
        assert await reader.readexactly(3) == b"new"
    assert [_ends(caller) for caller in callers[:2]] == [True, True]
    writer.close()
    await writer.wait_closed()
    for caller in callers:
        caller.close()


async def test_a_storm_of_callers_costs_no_descriptors(line: AwaitedLine) -> None:
    before = open_descriptors()
    stop = threading.Event()

    def storm() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError):  # hung up on
                call(line.path, b"?").close()

    guests = [threading.Thread(target=storm) for _ in range(3)]
    for guest in guests:
        guest.start()
    try:
        async with asyncio.timeout(PATIENCE):
            for _ in range(50):
                _, writer = await line.connect()
                writer.close()
                await writer.wait_closed()
    finally:
        stop.set()
        line.close()  # lets go of those who are calling
        await asyncio.gather(*(asyncio.to_thread(guest.join) for guest in guests))
    await asyncio.sleep(0)
    assert open_descriptors() <= before


async def test_it_is_told_when_the_agent_calls_anew(line: AwaitedLine) -> None:
    with call(line.path, b"one"):
        async with asyncio.timeout(PATIENCE):
            _, writer = await line.connect()
        told = asyncio.create_task(line.superseded())
        await asyncio.sleep(0)
        assert not told.done()
        with call(line.path, b"two"):
            async with asyncio.timeout(PATIENCE):
                await told
                reader, newer = await line.connect()
                assert await reader.readexactly(3) == b"two"
        for end in (writer, newer):
            end.close()
            await end.wait_closed()


async def test_only_its_own_user_may_call(deep: Path) -> None:
    path = deep / "v.sock_1024"
    line = AwaitedLine(path)
    assert (path.stat().st_mode & 0o777, path.stat().st_uid) == (0o600, os.geteuid())
    line.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
async def test_a_jailed_vmm_owns_its_socket_whatever_lies_in_its_place(tmp_path: Path) -> None:
    target = tmp_path / "host-file"
    target.touch()
    path = tmp_path / "v.sock_1024"
    path.symlink_to(target)
    line = AwaitedLine(path, uid=2_000_000_001)
    found = path.lstat()
    assert path.is_socket()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (2_000_000_001,) * 2 + (0o600,)
    assert target.stat().st_uid == 0
    line.close()


async def test_its_end_leaves_no_file_but_that_of_the_next_one(deep: Path) -> None:
    path = deep / "v.sock_1024"
    old = AwaitedLine(path)
    new = AwaitedLine(path)
    old.close()
    assert path.is_socket(), "it is another's by now"
    new.close()
    assert not path.exists()
    new.close()


async def test_a_line_is_dialled_or_awaited(tmp_path: Path) -> None:
    dialled = open_line(tmp_path / "agent.sock", guest_dials=False)
    assert isinstance(dialled, DialledLine)
    with pytest.raises(FileNotFoundError):
        await dialled.connect()
    awaited = open_line(tmp_path / "v.sock_1024", guest_dials=True)
    assert isinstance(awaited, AwaitedLine)
    awaited.close()
    with pytest.raises(FileNotFoundError):
        open_line(tmp_path / "gone" / "v.sock_1024", guest_dials=True)


def _ends(caller: socket.socket) -> bool:
    try:
        return caller.recv(1) == b""
    except ConnectionResetError:
        return True
