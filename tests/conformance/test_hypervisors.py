"""What every hypervisor driver must do, on its real VMM."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from guest_agent.connection import AgentConnection
from images.formats.e2fsprogs import run_tool
from nexus_site.core.errors import Broken, Conflict, Invalid, Retryable
from tests.conformance.guests import PATIENCE, copy_disk, read_file, run, say_hello
from vms.hypervisors import monitor
from vms.hypervisors.base import Disk, Exit, Handle

if TYPE_CHECKING:
    from tests.conformance.conftest import BareVM, Boot, BootFiles, Conversation, NewDriver, Remains

pytestmark = pytest.mark.live

Until = Callable[[Callable[[], object]], None]


async def power_off(connection: AgentConnection) -> None:
    await connection.shutdown("poweroff", timeout=60)
    await connection.wait_closed()


async def reboot(connection: AgentConnection) -> None:
    await connection.shutdown("reboot", timeout=60)
    await connection.wait_closed()


async def heartbeat(connection: AgentConnection) -> Any:
    return await connection.heartbeat(timeout=60)


def test_probe(new_driver: NewDriver, running: BareVM) -> None:
    probe = new_driver().probe()
    assert probe.usable
    assert probe.accelerator == running.handle.accelerator
    assert re.match(r"\d+\.\d+", probe.version)
    assert all(problem.text and problem.fix for problem in probe.problems)


def test_start_to_hello(running: BareVM, hello: Conversation) -> None:
    said = running.talk(hello)
    assert said.init == "none"
    assert said.boot.root_mounted is not None


def test_the_handle_names_the_process(running: BareVM) -> None:
    handle = running.handle
    assert Path(f"/proc/{handle.monitor_pid}/cwd").readlink() == running.vm_dir
    assert handle.started == monitor.start_time(handle.pid)
    assert monitor.runs(handle.monitor_pid, handle.monitor_started)


def test_it_has_its_memory(running: BareVM) -> None:
    memory = running.talk(heartbeat).memory_total / 2**20
    assert running.spec.mem_size_mib / 2 < memory <= running.spec.mem_size_mib


def test_the_agent_may_be_dialled_again(running: BareVM, hello: Conversation) -> None:
    boot_ids = {running.talk(hello).boot_id for _ in range(3)}
    assert len(boot_ids) == 1


def test_a_directory_runs_one_vm(running: BareVM, new_driver: NewDriver) -> None:
    with pytest.raises(Conflict, match="already"):
        new_driver().launch(running.spec)
    assert new_driver().adopt(running.vm_dir) == running.handle


def test_a_restarted_nexus_adopts_it(
    running: BareVM, new_driver: NewDriver, hello: Conversation
) -> None:
    driver = new_driver()
    handle = driver.adopt(running.vm_dir)
    assert handle == running.handle
    assert type(running)(driver, running.spec, handle).talk(hello)


def test_pause_and_resume(running: BareVM) -> None:
    driver, handle = running.driver, running.handle

    async def heartbeat_while_paused(connection: AgentConnection) -> None:
        await asyncio.to_thread(driver.pause, handle)
        with pytest.raises(Retryable):
            await connection.heartbeat(timeout=2)
        await asyncio.to_thread(driver.resume, handle)
        await connection.heartbeat(timeout=60)

    running.talk(heartbeat_while_paused)


def test_pause_may_be_repeated(running: BareVM) -> None:
    for _ in range(2):
        running.driver.pause(running.handle)
    for _ in range(2):
        running.driver.resume(running.handle)
    assert running.talk(heartbeat).uptime > 0


@pytest.fixture(scope="module")
def switched_off(
    boot: Boot, boot_files: BootFiles, tmp_path_factory: pytest.TempPathFactory
) -> tuple[BareVM, Exit]:
    """A VM with several disks, whose guest has powered itself off, and how its VMM ended."""
    directory = tmp_path_factory.mktemp("disks")
    disks = [Disk("root", boot_files.root, read_only=True)]
    for index in range(1, 5):
        path = directory / f'{index}, "odd" = name.raw'
        path.touch()
        os.truncate(path, index * 2**20)
        disks.append(Disk(f"data{index}", path, read_only=index == 4))
    vm, before = boot(disks=tuple(disks)), time.time()
    vm.talk(power_off)
    ended = vm.wait()
    assert ended.at is not None
    assert before <= ended.at <= time.time()
    return vm, ended


def test_disks_come_in_order_and_whole(switched_off: tuple[BareVM, Exit]) -> None:
    """The kernel tells each disk's sectors on its console."""
    vm, _ = switched_off
    found = re.findall(r"\[(vd[a-z])\] (\d+) 512-byte", vm.console())
    sectors = [disk.path.stat().st_size // 512 for disk in vm.spec.disks]
    assert sorted(found) == [(f"vd{chr(97 + n)}", str(size)) for n, size in enumerate(sectors)]


def test_graceful_shutdown(switched_off: tuple[BareVM, Exit], until: Until) -> None:
    """The guest powers itself off: exit code 0, and the console is complete."""
    vm, ended = switched_off
    assert (ended.code, ended.signal) == (0, None)
    assert "Linux version" in vm.console().splitlines()[0]
    assert re.search(r"\] reboot: (Power down|machine restart)$", vm.console().splitlines()[-1])
    until(lambda: not monitor.runs(vm.handle.monitor_pid, vm.handle.monitor_started))


def test_a_guest_that_reboots_ends_its_vmm(boot: Boot) -> None:
    vm = boot()
    vm.talk(reboot)
    assert vm.wait().code == 0


def test_shutdown_ends_the_guest_in_order(
    boot: Boot, alpine: Path, tmp_path: Path, until: Until, remains: Remains
) -> None:
    """Also a paused one; what it has written, and not synchronized, is on its disks."""
    disk = tmp_path / "disk"
    copy_disk(alpine, disk)
    vm = boot(disks=(Disk("root", disk),))
    vm.talk(lambda agent: run(agent, "echo written >/last-words"))
    vm.driver.pause(vm.handle)
    ended = vm.driver.shutdown(vm.handle, timeout=PATIENCE)
    assert ended is not None
    assert ended.code == 0
    assert vm.driver.shutdown(vm.handle, timeout=0) == ended
    run_tool("e2fsck", ["-fn", disk])
    assert read_file(disk, "/last-words") == b"written\n"
    until(lambda: not monitor.runs(vm.handle.monitor_pid, vm.handle.monitor_started))
    vm.driver.cleanup(vm.vm_dir)
    vm.driver.cleanup(vm.vm_dir)  # it may be repeated
    assert remains(vm.spec) == []


def test_shutdown_does_not_wait_for_ever(boot: Boot) -> None:
    """A guest that has hardly begun to boot does not hear the button."""
    vm = boot()
    assert vm.driver.shutdown(vm.handle, timeout=0) is None
    assert vm.driver.adopt(vm.vm_dir) == vm.handle


@pytest.fixture(scope="module")
def killed(boot: Boot) -> tuple[BareVM, str, Exit]:
    """A VM whose VMM was killed, the boot ID that its guest had, and how it ended."""
    vm = boot()
    boot_id = vm.talk(say_hello).boot_id
    return vm, boot_id, vm.driver.kill(vm.handle)


def test_kill_tells_the_exact_signal(
    killed: tuple[BareVM, str, Exit], new_driver: NewDriver
) -> None:
    vm, _, ended = killed
    assert ended.describe() == "killed by signal 9 (SIGKILL)"
    assert ended.at is not None
    assert new_driver().adopt(vm.vm_dir) == ended
    assert vm.driver.kill(vm.handle) == ended


def test_control_of_an_ended_vm_is_a_conflict(
    killed: tuple[BareVM, str, Exit], tmp_path: Path
) -> None:
    vm, _, ended = killed
    controls: list[Callable[[Handle], object]] = [
        vm.driver.pause,
        vm.driver.resume,
        lambda handle: vm.driver.snapshot(handle, tmp_path),
        lambda handle: vm.driver.balloon(handle, 128),
    ]
    for control in controls:
        with pytest.raises(Conflict, match="does not run"):
            control(vm.handle)
    assert vm.driver.shutdown(vm.handle, timeout=0) == ended


def test_a_vm_starts_again_in_its_directory(
    boot: Boot, killed: tuple[BareVM, str, Exit], hello: Conversation
) -> None:
    vm, boot_id, _ = killed
    again = boot(spec=vm.spec)
    assert again.talk(hello).boot_id != boot_id
    assert (vm.vm_dir / "console.log.1").exists()


def test_a_death_while_nexus_is_down_is_known(boot: Boot, new_driver: NewDriver) -> None:
    """Another program kills the VMM; nobody of Nexus is there but the monitor."""
    vm = boot()
    os.kill(vm.handle.pid, signal.SIGABRT)
    vm.wait()
    ended = new_driver().adopt(vm.vm_dir)
    assert isinstance(ended, Exit)
    assert (ended.code, ended.signal) == (None, signal.SIGABRT)


def test_a_killed_monitor_does_not_harm_the_vm(
    boot: Boot, new_driver: NewDriver, hello: Conversation, until: Until
) -> None:
    vm = boot()
    os.kill(vm.handle.monitor_pid, signal.SIGKILL)
    until(lambda: not monitor.runs(vm.handle.monitor_pid, vm.handle.monitor_started))
    assert new_driver().adopt(vm.vm_dir) == vm.handle
    assert vm.talk(hello)  # it boots on, though nobody reads its console
    assert vm.driver.kill(vm.handle) == Exit(None, None, None)


def test_two_vms_cannot_write_one_disk(boot: Boot, tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.touch()
    os.truncate(path, 2**20)
    disks = (Disk("shared", path),)
    first = boot(disks=disks)
    with pytest.raises((Broken, Conflict)) as caught:
        boot(disks=disks)
    assert "lock" in caught.value.text + caught.value.detail
    first.driver.kill(first.handle)
    first.driver.cleanup(first.vm_dir)
    boot(disks=disks)


def test_a_guest_that_switches_itself_off_is_noticed(
    boot: Boot, alpine: Path, tmp_path: Path, until: Until
) -> None:
    """By itself, not by its agent: the VMM ends, or else the driver can tell."""
    disk = tmp_path / "disk"
    copy_disk(alpine, disk)
    vm = boot(disks=(Disk("root", disk),))

    async def switch_off(agent: AgentConnection) -> None:
        assert not vm.driver.has_halted(vm.vm_dir)
        await run(agent, "(sleep 1; poweroff -f) >/dev/null 2>&1 &")

    vm.talk(switch_off)
    until(lambda: isinstance(vm.driver.adopt(vm.vm_dir), Exit) or vm.driver.has_halted(vm.vm_dir))


def test_memory_goes_back_and_forth(boot: Boot, until: Until) -> None:
    """Or the VMM is one that cannot do it, and says so."""
    vm = boot()
    before = vm.talk(heartbeat).memory_available
    try:
        vm.driver.balloon(vm.handle, vm.spec.mem_size_mib - 64)
    except Invalid as refused:
        if refused.code != "balloon-unsupported" or not refused.hint:
            raise
        return
    until(lambda: vm.talk(heartbeat).memory_available < before - 50 * 2**20)
    vm.driver.balloon(vm.handle, vm.spec.mem_size_mib)
    until(lambda: vm.talk(heartbeat).memory_available > before - 20 * 2**20)


def test_metrics_are_counters_by_name(running: BareVM) -> None:
    metrics = running.driver.metrics(running.handle)
    assert all(isinstance(name, str) for name in metrics)
    assert json.loads(json.dumps(metrics)) == metrics


def test_what_cannot_be_plugged_is_said(running: BareVM, boot_files: BootFiles) -> None:
    """Plugging itself is in the live tests, with a guest that sees the disks."""
    problem = running.driver.hotplug_problem(running.vm_dir)
    if problem:
        with pytest.raises(Conflict) as caught:
            running.driver.plug(running.handle, Disk("data", boot_files.root, read_only=True))
        assert caught.value.text == problem
