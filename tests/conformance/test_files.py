"""The files and counts of a real guest."""

from __future__ import annotations

import asyncio
import hashlib
import io
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from guest_agent.connection import AgentConnection
from guest_agent.files import Files
from nexus_site.core.errors import Conflict, NotFound
from tests.conformance.guests import PATIENCE, copy_disk
from tests.firecracker_release import IN_THE_RIG
from vms.hypervisors.base import Disk

if TYPE_CHECKING:
    from tests.conformance.conftest import BareVM, Boot

pytestmark = pytest.mark.live

SIZE = (4 if IN_THE_RIG else 24) * 1024 * 1024
BLOCK = bytes(range(256)) * 1024


@pytest.fixture(scope="module")
def vm(boot: Boot, alpine: Path, tmp_path_factory: pytest.TempPathFactory) -> BareVM:
    root = tmp_path_factory.mktemp("drive") / "root"
    copy_disk(alpine, root)
    return boot(disks=(Disk("root", root),))


async def blocks() -> AsyncIterator[bytes]:
    for _ in range(SIZE // len(BLOCK)):
        yield BLOCK


async def few(data: bytes) -> AsyncIterator[bytes]:
    yield data


def test_a_large_file_goes_in_and_out(vm: BareVM) -> None:
    async def carry(agent: AgentConnection) -> tuple[int, str]:
        files = Files(agent)
        await files.write("/srv/deep/large", blocks(), size=SIZE, parents=True, timeout=PATIENCE)
        digest = hashlib.sha256()
        async with asyncio.timeout(PATIENCE):
            async for data in await files.read("/srv/deep/large", timeout=PATIENCE):
                digest.update(data)
        size = (await files.stat("/srv/deep/large", timeout=PATIENCE)).size
        await files.remove("/srv/deep", recursive=True)
        return size, digest.hexdigest()

    expected = hashlib.sha256(BLOCK * (SIZE // len(BLOCK))).hexdigest()
    assert vm.talk(carry) == (SIZE, expected)


def test_a_tree_goes_in_and_out(vm: BareVM) -> None:
    async def carry(agent: AgentConnection) -> bytes:
        files = Files(agent)
        async with asyncio.timeout(PATIENCE):
            first = await files.read_tar("/etc", name="", timeout=PATIENCE)
            await files.write_tar(
                "/srv/etc", first, keep_owner=True, parents=True, timeout=PATIENCE
            )
            both = []
            for path in ("/etc/passwd", "/srv/etc/passwd"):
                info = await files.stat(path, timeout=PATIENCE)
                both.append((info.size, info.mode, info.uid, int(info.modified)))
            assert both[0] == both[1]
            second = await files.read_tar("/srv/etc", timeout=PATIENCE)
            return b"".join([data async for data in second])

    content = vm.talk(carry)
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        names = tar.getnames()
        assert {"etc", "etc/passwd", "etc/os-release"} <= set(names)
        passwd = tar.extractfile("etc/passwd")
        assert passwd
        assert passwd.read().startswith(b"root:x:0:0:")


def test_the_kernels_own_files_and_refusals(vm: BareVM) -> None:
    async def look(agent: AgentConnection) -> bytes:
        files = Files(agent)
        names = [file.name for file in (await files.list("/", timeout=PATIENCE)).files]
        assert names == sorted(names)
        assert {"bin", "etc", "proc"} <= set(names)
        with pytest.raises(NotFound):
            await files.write("/proc/nexus", blocks(), timeout=PATIENCE)
        await files.write("/proc/sys/vm/swappiness", few(b"11"), offset=0, timeout=PATIENCE)
        download = await files.read("/proc/sys/vm/swappiness", timeout=PATIENCE)
        assert [data async for data in download] == [b"11\n"]
        with pytest.raises(Conflict):
            await files.remove("/etc", timeout=PATIENCE)
        download = await files.read("/proc/version", timeout=PATIENCE)
        return b"".join([data async for data in download])

    assert vm.talk(look).startswith(b"Linux version 6.")


def test_a_guest_counts(vm: BareVM) -> None:
    async def beat(agent: AgentConnection) -> None:
        heartbeat = await agent.heartbeat(PATIENCE)
        assert heartbeat.cpu
        assert heartbeat.cpu.count == 1
        assert heartbeat.cpu.user + heartbeat.cpu.system > 0
        assert "vda" in [disk.device for disk in heartbeat.io]
        assert sum(disk.read_bytes for disk in heartbeat.io) > 0
        assert heartbeat.processes > 2

    vm.talk(beat)
