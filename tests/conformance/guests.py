"""Talking with real guests, and looking at their disks afterwards."""

from __future__ import annotations

import asyncio
from pathlib import Path

from guest_agent.connection import AgentConnection
from guest_agent.exec import ExitStatus
from guest_agent.messages import Hello
from images.files import copy_sparse, whole_file
from images.formats.disks import open_disk
from images.formats.ext4_reader import Ext4
from tests.firecracker_release import IN_THE_RIG

#: Seconds for whatever a guest does: emulated ones are slow on a busy machine, slower in the rig.
PATIENCE = 600.0 if IN_THE_RIG else 180.0


async def say_hello(agent: AgentConnection) -> Hello:
    """The shortest conversation: just the agent's hello."""
    return agent.hello


async def run(agent: AgentConnection, script: str) -> str:
    """What a shell script printed that went well."""
    output = bytearray()
    async with asyncio.timeout(PATIENCE):
        status = await agent.execute(
            ["sh", "-c", script], on_output=lambda _, data: output.extend(data), merge=True
        )
    assert status == ExitStatus(0, None), output.decode(errors="replace")
    return output.decode()


def copy_disk(source: Path, target: Path) -> None:
    """Copy a disk that no VM writes; holes stay holes."""
    with whole_file(target) as temporary:
        copy_sparse(source, temporary)


def read_file(disk: Path, path: str) -> bytes:
    """A file on a disk that no VM uses."""
    with open_disk(disk) as opened:
        for item in Ext4(opened).items():
            if item.entry.path == path.removeprefix("/"):
                return b"".join(data for _, data in item.pieces)
    raise AssertionError(f"{path} is not on the disk")
