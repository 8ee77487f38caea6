"""The kernel that Nexus builds, on the real VMMs: one file for all of them, without modules."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from builds.kernels.fragments import default_fragment
from guest_agent.binary import agent_path
from guest_agent.connection import AgentConnection
from images.initrd import build_initrd
from images.kernel_elf import check_vmlinux
from nexus_site.core.errors import Conflict
from tests.conformance.conftest import PATIENCE, BareVM, Boot
from tests.conformance.guests import copy_disk, run, say_hello
from tests.kernels import INSTALL, built_kernel
from vms.hypervisors.base import Disk

#: The first run on a machine builds the kernel, which takes a quarter of an hour or more.
pytestmark = [pytest.mark.live, pytest.mark.timeout(7200)]


@pytest.fixture(scope="module")
def kernel() -> Path:
    found = built_kernel()
    if found is None:
        pytest.skip(f"no built kernel came with the rig: {INSTALL}; python -m tests.kernels")
    return found


@pytest.fixture(scope="module")
def running(
    boot: Boot, kernel: Path, alpine: Path, tmp_path_factory: pytest.TempPathFactory
) -> BareVM:
    """Alpine on it, agent and all, in a VM that all tests share."""
    directory = tmp_path_factory.mktemp("built")
    build_initrd(directory / "initrd", agent_path(), [])
    disk = directory / "alpine.ext4"
    copy_disk(alpine, disk)
    return boot(
        kernel=kernel, bzimage=None, initrd=directory / "initrd", disks=(Disk("root", disk),)
    )


def test_it_is_an_elf_that_starts_by_pvh(kernel: Path) -> None:
    check_vmlinux(kernel.read_bytes())


def test_alpine_comes_to_the_hello(running: BareVM) -> None:
    hello = running.talk(say_hello)
    assert hello.agent_version


def test_what_a_guest_needs_is_built_in(running: BareVM) -> None:
    async def look(agent: object) -> str:
        return await run(
            agent,  # type: ignore[arg-type]
            "uname -r; test ! -e /proc/modules; echo $?; mount | grep ' / '; ls /sys/class/net;"
            "ls /sys/bus/virtio/drivers; grep -c . /proc/filesystems; ls /sys/bus/scsi",
        )

    said = running.talk(look)
    lines = said.splitlines()
    assert lines[0].endswith("-nexus")
    assert lines[1] == "0"
    assert "/dev/vda on / type ext4 (rw" in said
    for driver in ("virtio_blk", "virtio_net", "virtio_console", "virtio_balloon", "virtio_rng"):
        assert driver in said
    assert "virtio_scsi" in said


def test_only_in_emulation_it_leaves_out_what_takes_long_there(running: BareVM) -> None:
    async def look(agent: AgentConnection) -> str:
        return await run(agent, "cat /proc/cmdline; dmesg")

    arguments, _, log = running.talk(look).partition("\n")
    emulated = "nexus.emulated" in arguments.split()
    assert ("(initmem) memory" not in log) == emulated
    assert not (emulated and "TSC calibration using PIT" in log)


def test_a_disk_that_comes_later_is_found(running: BareVM, tmp_path: Path) -> None:
    """Though it looks for no disks at its boot."""
    late = Disk("late", tmp_path / "late")
    with late.path.open("xb") as file:
        file.truncate(2**20)
    if problem := running.driver.hotplug_problem(running.vm_dir):
        with pytest.raises(Conflict, match=re.escape(problem)):
            running.driver.plug(running.handle, late)
        return

    async def find(agent: AgentConnection) -> str:
        return (await agent.find_disk("late")).device

    running.driver.plug(running.handle, late)
    deadline = time.monotonic() + PATIENCE
    while not (device := running.talk(find)):
        assert time.monotonic() < deadline, running.console()
        time.sleep(0.05)
    assert device.endswith("sda")


def test_it_says_which_options_it_has(running: BareVM) -> None:
    async def look(agent: object) -> str:
        return await run(agent, "zcat /proc/config.gz")  # type: ignore[arg-type]

    config = running.talk(look).splitlines()
    lost = [
        wish
        for wish in default_fragment("x86_64").wishes
        if not wish[0].startswith("#") and not any(line in config for line in wish)
    ]
    assert lost == []
