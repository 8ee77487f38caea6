"""Freezing a real guest: its programs wait, and its disks are whole meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from guest_agent.connection import AgentConnection, AgentRefused
from guest_agent.exec import Execution, ExitStatus, Program
from images.formats.e2fsprogs import run_tool
from tests.conformance.guests import PATIENCE, copy_disk
from vms.hypervisors.base import Disk

if TYPE_CHECKING:
    from tests.conformance.conftest import BareVM, Boot

pytestmark = pytest.mark.live

INCOMPATIBLE_AT, NEEDS_RECOVERY = 1024 + 0x60, 4  # of an ext4 superblock: a journal to replay
# Writes each line of its input to a file, and tells that it has.
WRITER = 'while read word; do echo "$word" >>/srv/log && echo "wrote $word"; done'


@pytest.fixture(scope="module")
def vm(boot: Boot, alpine: Path, tmp_path_factory: pytest.TempPathFactory) -> BareVM:
    """An Alpine with a second disk, mounted at /srv."""
    directory = tmp_path_factory.mktemp("disks")
    root, data = directory / "root", directory / "data"
    copy_disk(alpine, root)
    run_tool("mke2fs", ["-q", "-t", "ext4", data, "16M"])
    vm = boot(disks=(Disk("root", root), Disk("data", data)))
    vm.talk(lambda agent: run(agent, "mount -t ext4 /dev/vdb /srv"))
    return vm


async def run(agent: AgentConnection, script: str) -> str:
    """What a shell script printed that went well."""
    output = bytearray()
    async with asyncio.timeout(PATIENCE):
        status = await agent.execute(
            ["sh", "-c", script], on_output=lambda _, data: output.extend(data), merge=True
        )
    assert status == ExitStatus(0, None), output.decode(errors="replace")
    return output.decode()


async def says(execution: Execution) -> str:
    """Its next line."""
    text = b""
    async with asyncio.timeout(PATIENCE):
        while not text.endswith(b"\n"):
            output = await execution.read()
            assert output, f"it ended: {execution.exit}"
            text += output[1]
    return text.decode().strip()


async def until_it_hangs(agent: AgentConnection, execution: Execution) -> None:
    """Returns when the program waits in the kernel and takes no signals, as for a frozen disk."""
    async with asyncio.timeout(PATIENCE):
        while "D (disk sleep)" not in await run(agent, f"cat /proc/{execution.pid}/status"):
            pass


def conversation(
    talk: Callable[[AgentConnection], Awaitable[None]],
) -> Callable[[BareVM], None]:
    """A test that is one connection to the agent."""

    def test(vm: BareVM) -> None:
        vm.talk(talk)

    test.__doc__ = talk.__doc__
    return test


@conversation
async def test_writes_wait_for_the_thaw(agent: AgentConnection) -> None:
    before = await agent.start(Program(["sh", "-c", WRITER], stdin=True))
    await before.write(b"one\n")
    assert await says(before) == "wrote one"

    assert await agent.freeze(60) == ["/srv", "/"]
    after = await agent.start(Program(["touch", "/etc/after"]))
    await before.write(b"two\n")
    await until_it_hangs(agent, before)
    await until_it_hangs(agent, after)
    assert await run(agent, "cat /srv/log") == "one\n"
    with pytest.raises(AgentRefused, match="frozen already"):
        await agent.freeze()
    await agent.heartbeat(PATIENCE)

    assert await agent.thaw() == ["/", "/srv"]
    assert await says(before) == "wrote two"
    assert await after.read() is None
    assert after.exit == ExitStatus(0, None)
    assert await run(agent, "cat /srv/log; ls /etc/after") == "one\ntwo\n/etc/after\n"
    before.close()
    after.close()


def test_the_disks_are_whole_while_frozen(vm: BareVM, tmp_path: Path) -> None:
    """A copy needs no journal, and has what was written last though nobody synced it."""

    async def copy(agent: AgentConnection) -> None:
        await run(agent, "echo precious >/root/file; echo precious >/srv/file")
        await agent.freeze(60)
        for disk in vm.spec.disks:
            copy_disk(disk.path, tmp_path / disk.name)
        assert await agent.thaw(), "it did not thaw while the disks were copied"

    vm.talk(copy)
    for name, file in (("root", "root/file"), ("data", "file")):
        copied = tmp_path / name
        assert not copied.read_bytes()[INCOMPATIBLE_AT] & NEEDS_RECOVERY
        run_tool("e2fsck", ["-f", "-n", copied])
        run_tool("debugfs", ["-R", f"dump {file} {tmp_path / 'file'}", copied])
        assert (tmp_path / "file").read_text() == "precious\n"
        (tmp_path / "file").unlink()


@conversation
async def test_it_thaws_by_itself(agent: AgentConnection) -> None:
    writer = await agent.start(Program(["sh", "-c", WRITER], stdin=True))
    stream = await agent.open_stream({"op": "freeze", "timeout": 1})
    await agent.read_reply(stream)
    stream.reset()
    await writer.write(b"three\n")
    assert await says(writer) == "wrote three"
    assert await agent.thaw() == [], "which tells the host so"
    writer.close()


def test_it_thaws_when_the_host_leaves(vm: BareVM) -> None:
    async def freeze_and_leave(agent: AgentConnection) -> None:
        await agent.freeze(60)

    async def freeze_again(agent: AgentConnection) -> None:
        assert await run(agent, "echo back >/srv/back; cat /srv/back") == "back\n"
        assert await agent.freeze(60) == ["/srv", "/"]
        assert await agent.thaw()

    for _ in range(2):
        vm.talk(freeze_and_leave)
    vm.talk(freeze_again)


@conversation
async def test_a_program_of_a_host_that_left_does_not_keep_it_frozen(
    agent: AgentConnection,
) -> None:
    """Killing what hangs works only after the thaw; the agent goes on meanwhile."""
    await agent.freeze(60)
    writer = await agent.start(Program(["touch", "/etc/never"]))
    await until_it_hangs(agent, writer)
    writer.close()
    await agent.heartbeat(PATIENCE)
    assert await agent.thaw() == ["/", "/srv"]
    assert await run(agent, "cat /srv/log") != ""
