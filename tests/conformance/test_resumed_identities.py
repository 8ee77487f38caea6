"""Many guests that go on from one memory at once: each becomes somebody, before anybody uses it."""

from __future__ import annotations

import shutil
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from guest_agent.clock import CLOSE, set_clock
from guest_agent.connection import AgentConnection
from guest_agent.messages import Configuration, Network
from nexus_site.core.ids import NexusID
from tests.conformance.guests import PATIENCE, copy_disk
from tests.conformance.test_identities import MACHINE_ID, put, run, ssh_keygen_files
from tests.firecracker_release import IN_THE_RIG
from vms.hypervisors.base import Disk

if TYPE_CHECKING:
    from tests.conformance.conftest import BareVM, Boot, NewSpec

pytestmark = pytest.mark.live

AT_ONCE = 3 if IN_THE_RIG else 20
MEM_SIZE_MIB = 128
CLOCK_LIMIT = 0.05  # seconds
HAS_KEYGEN = shutil.which("ssh-keygen") is not None
KEY = "/etc/ssh/ssh_host_ed25519_key"
LOOK = f"""
    head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \\n'; echo
    cat /etc/machine-id /etc/nexus/identity /run/nexus/boot-id /proc/sys/kernel/hostname
    cat /sys/class/net/eth0/address; cut -d' ' -f2 {KEY}.pub 2>/dev/null || true
"""


@dataclass(frozen=True)
class Guest:
    """Who one is, and by how many seconds its clock is off at least."""

    random: str
    machine_id: str
    record: str
    boot_id: str
    hostname: str
    mac: str
    key: str
    clock_off: float
    clock_bound: float  # what was known of that when it was set, on a busy machine


@pytest.fixture(scope="module")
def saved(boot: Boot, alpine: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A guest's memory, and its disk of the same moment."""
    memory, disk = tmp_path_factory.mktemp("memory"), tmp_path_factory.mktemp("disk") / "root"
    mine = disk.with_name("mine")
    copy_disk(alpine, mine)
    vm = boot(disks=(Disk("root", mine),), mem_size_mib=MEM_SIZE_MIB)
    vm.talk(furnish)
    vm.driver.pause(vm.handle)
    vm.driver.snapshot(vm.handle, memory)
    copy_disk(mine, disk)
    vm.driver.kill(vm.handle)
    return memory, disk


async def furnish(agent: AgentConnection) -> None:
    await run(agent, f"mkdir -p /etc/nexus /etc/ssh; echo {MACHINE_ID} >/etc/machine-id")
    if HAS_KEYGEN:
        for file, content in ssh_keygen_files().items():
            await put(agent, file, content)
        await run(agent, f"ssh-keygen -q -N '' -t ed25519 -f {KEY}")


async def become(agent: AgentConnection, vm: BareVM) -> Guest:
    """What the worker does at a hello; and who the guest is then."""
    bound = await set_clock(agent)
    wanted = Configuration(
        hostname=vm.spec.name,
        network=Network(mac=vm.spec.mac),
        identity=vm.spec.ref,
        boot_id=str(uuid.uuid4()),
    )
    answer = await agent.configure(wanted, PATIENCE)
    assert (answer.identity, answer.boot_id) == ("new", wanted.boot_id)
    assert bound is not None
    off = await clock_off(agent)
    random, machine_id, record, boot_id, name, mac, *key = (await run(agent, LOOK)).splitlines()
    return Guest(random, machine_id, record, boot_id, name, mac, "".join(key), off, bound)


async def clock_off(agent: AgentConnection) -> float:
    """The guest's clock was read between two looks at the host's."""
    before = time.time()
    guest = (await agent.heartbeat(PATIENCE)).time
    return max(before - guest, guest - time.time(), 0.0)


def test_all_are_somebody_else(
    boot: Boot, new_spec: NewSpec, saved: tuple[Path, Path], tmp_path: Path
) -> None:
    memory, disk = saved

    def go_on(number: int) -> tuple[BareVM, Guest]:
        copy = tmp_path / f"root-{number}"
        copy_disk(disk, copy)
        spec = new_spec(
            name=f"copy-{number}",
            ref=str(NexusID.random()),
            mac=f"52:54:00:00:01:{number:02x}",
            disks=(Disk("root", copy),),
            mem_size_mib=MEM_SIZE_MIB,
        )
        vm = boot(spec=spec, snapshot=memory)
        return vm, vm.talk(lambda agent: become(agent, vm))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(go_on, range(AT_ONCE)))
    guests = [guest for _, guest in found]
    for vm, guest in found:
        assert guest.record == vm.spec.ref
        assert (guest.hostname, guest.mac) == (vm.spec.name, vm.spec.mac)
        assert guest.machine_id != MACHINE_ID
        assert guest.clock_off <= CLOCK_LIMIT + max(0, guest.clock_bound - CLOSE)
    for fact in ("random", "machine_id", "boot_id", *(["key"] if HAS_KEYGEN else [])):
        assert len({getattr(guest, fact) for guest in guests}) == AT_ONCE, fact
    assert all(len(guest.random) == 64 for guest in guests)
