"""Sessions of a real guest: they outlive connections and the agent itself."""

from __future__ import annotations

import asyncio
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from guest_agent import build
from guest_agent.chunks import ExitStatus
from guest_agent.connection import AgentConnection
from guest_agent.exec import Program, Terminal
from guest_agent.messages import Configuration, Hello
from guest_agent.sessions import Attachment, Sessions
from guest_agent.upgrade import upgrade
from tests.conformance.guests import PATIENCE
from tests.firecracker_release import IN_THE_RIG
from vms.hypervisors.base import Disk

if TYPE_CHECKING:
    from tests.conformance.conftest import BareVM, Boot

pytestmark = pytest.mark.live

COUNTER = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done"


@pytest.fixture(scope="module")
def vm(boot: Boot, alpine: Path, tmp_path_factory: pytest.TempPathFactory) -> BareVM:
    root = tmp_path_factory.mktemp("drive") / "root"
    shutil.copy(alpine, root)
    return boot(disks=(Disk("root", root),))


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent of a later version."""
    if IN_THE_RIG:
        pytest.skip("the rig has no Go toolchain; QEMU's guests try this on the host")
    directory = tmp_path_factory.mktemp("newer")
    source = shutil.copytree(build.SOURCE, directory / "agent")
    (source / "VERSION").write_text("9.9.9\n")
    return build.build(source=source, directory=directory)


async def read_until(attachment: Attachment, wanted: bytes) -> bytes:
    seen = b""
    async with asyncio.timeout(PATIENCE):
        while wanted not in seen:
            output = await attachment.read()
            assert output, f"it ended: {attachment.exit} after {seen!r}"
            seen += output.data
    return seen


async def press_until_cancelled(attachment: Attachment, key: bytes) -> None:
    """As people do: on a busy machine the program may not have begun when it is pressed first."""
    while True:
        await attachment.write(key)
        await asyncio.sleep(2)


async def to_the_end(attachment: Attachment) -> None:
    async with asyncio.timeout(PATIENCE):
        while await attachment.read():
            pass
    attachment.close()


def test_a_login_shell_is_there_after_the_connection_was_not(vm: BareVM) -> None:
    async def begin(agent: AgentConnection) -> int:
        await agent.configure(Configuration(env={"COLOUR": "blue"}), PATIENCE)
        sessions = Sessions(agent)
        await sessions.start("shell", Program(shell=True, tty=Terminal(30, 90)), timeout=PATIENCE)
        attachment = await sessions.attach("shell", timeout=PATIENCE)
        await attachment.write(b"X=kept; echo $0 $COLOUR $(tty) $(stty size)\n")
        await read_until(attachment, b"blue /dev/pts/0 30 90\r\n")
        return attachment.offset

    async def go_on(agent: AgentConnection, offset: int) -> ExitStatus | None:
        sessions = Sessions(agent)
        (state,) = await sessions.list(PATIENCE)
        assert (state.id, state.tty, state.exit) == ("shell", True, None)
        everything = await sessions.attach("shell", timeout=PATIENCE)
        await read_until(everything, b"X=kept")
        attachment = await sessions.attach("shell", offset, timeout=PATIENCE)
        await attachment.resize(40, 100)
        await attachment.write(b"echo $X $(stty size)\n")
        await read_until(attachment, b"kept 40 100\r\n")
        await attachment.write(b"echo wait''ing; sleep 1000\n")
        await read_until(attachment, b"waiting\r\n")
        keys = asyncio.create_task(press_until_cancelled(attachment, b"\x03"))
        await read_until(attachment, b"# ")
        keys.cancel()
        await attachment.write(b"exit 7\n")
        await to_the_end(attachment)
        await sessions.forget("shell", PATIENCE)
        assert await sessions.list(PATIENCE) == []
        return attachment.exit

    offset = vm.talk(begin)
    assert vm.talk(lambda agent: go_on(agent, offset)) == ExitStatus(code=7)


def test_the_agent_is_replaced_and_its_sessions_go_on(vm: BareVM, newer: Path) -> None:
    async def replace(agent: AgentConnection) -> tuple[Hello, int]:
        sessions = Sessions(agent)
        program = Program(["sh", "-c", COUNTER])
        started = await sessions.start("count", program, timeout=PATIENCE)
        await read_until(await sessions.attach("count", timeout=PATIENCE), b"10\n")
        await upgrade(agent, newer, PATIENCE)
        return agent.hello, started.pid

    async def look(agent: AgentConnection) -> tuple[Hello, int]:
        sessions = Sessions(agent)
        attachment = await sessions.attach("count", timeout=PATIENCE)
        seen = await read_until(attachment, b"\n100\n")
        assert seen.startswith(b"".join(b"%d\n" % n for n in range(1, 100)))
        await sessions.signal("count", signal.SIGTERM, PATIENCE)
        await to_the_end(attachment)
        assert attachment.exit == ExitStatus(signal=signal.SIGTERM)
        (state,) = await sessions.list(PATIENCE)
        return agent.hello, state.pid

    before, pid = vm.talk(replace)
    after, same = vm.talk(look)
    assert (after.agent_version, same) == ("9.9.9", pid)
    assert (after.boot_id, after.boot) == (before.boot_id, before.boot)
