"""Saved memory as only QEMU has it: a file that many guests share, or one stream."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from guest_agent.binary import host_tsc_khz
from guest_agent.connection import AgentConnection
from images.files import copy_sparse
from nexus_site.core.errors import Broken, Conflict, Invalid, Retryable
from tests.conformance.conftest import IN_THE_RIG
from tests.conformance.guests import PATIENCE, run
from tests.tiny_disk import can_mount, tiny_disk
from vms.hypervisors import monitored
from vms.hypervisors.base import Disk, Handle
from vms.hypervisors.qemu import Qemu, hotplug, memory, migration, qmp

if TYPE_CHECKING:
    from tests.conformance.conftest import BareVM, Boot, Conversation, NewDriver, NewSpec, Remains

pytestmark = pytest.mark.live

AT_ONCE = 4
DISK_MIB = 4
Until = Callable[[Callable[[], object]], None]
Saved = tuple["BareVM", Path]


@pytest.fixture(scope="module")
def new_driver(tmp_path_factory: pytest.TempPathFactory) -> NewDriver:
    """No other driver here: makes QEMU's as a fresh Nexus would."""
    if IN_THE_RIG:
        pytest.skip("the rig is there for Firecracker")
    cache = tmp_path_factory.mktemp("probe")
    return lambda: Qemu(cache, tsc_khz=host_tsc_khz())


@pytest.fixture(scope="module")
def saved(boot: Boot, alpine: Path, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """A VM with a disk of its own that is paused for good, and where it was saved."""
    directory, place = tmp_path_factory.mktemp("snapshot"), tmp_path_factory.mktemp("disk")
    disk = new_copy(alpine, place / "root")
    vm = boot(disks=(Disk("root", disk),))
    vm.talk(lambda agent: run(agent, "echo remembered >/tmp/note; echo kept >/root/note"))
    vm.driver.pause(vm.handle)
    vm.driver.snapshot(vm.handle, directory)
    return vm, directory


def new_copy(source: Path, target: Path) -> Path:
    target.touch()
    copy_sparse(source, target)
    return target


@pytest.fixture
def copy_of(saved: Saved, new_spec: NewSpec, tmp_path: Path) -> Callable[[str], BareVM]:
    """Restores the saved VM with a copy of its disk; that must have a name of its own."""
    vm, directory = saved

    def restore(name: str) -> BareVM:
        disk = Disk(f"root-{name}", new_copy(vm.spec.disks[0].path, tmp_path / name))
        spec = new_spec(name=name, disks=(disk,))
        return type(vm)(vm.driver, spec, vm.driver.restore(spec, directory))

    return restore


@pytest.fixture
def restored(copy_of: Callable[[str], BareVM]) -> Iterator[BareVM]:
    vm = copy_of("restored")
    yield vm
    vm.driver.kill(vm.handle)
    vm.driver.cleanup(vm.vm_dir)


def put(name: str) -> Conversation:
    """Write a name into the guest's memory and onto its disk; what both hold then."""
    script = f"echo {name} >>/tmp/note; echo {name} >>/root/note; sync; cat /tmp/note /root/note"
    return lambda agent: run(agent, script)


def test_many_go_on_at_once_each_for_itself(saved: Saved, copy_of: Callable[[str], BareVM]) -> None:
    _, directory = saved
    names = [f"copy{number}" for number in range(AT_ONCE)]
    file = directory / "memory"
    before = memory.checksum(file)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        vms = list(pool.map(copy_of, names))
        try:
            for vm in vms:
                maps = Path(f"/proc/{vm.handle.pid}/maps").read_text().splitlines()
                assert [line.split()[1] for line in maps if line.endswith(str(file))] == ["rw-p"]
            said = list(pool.map(lambda vm: vm.talk(put(vm.spec.name)), vms))
        finally:
            for vm in vms:
                vm.driver.kill(vm.handle)
    assert said == [f"remembered\n{name}\nkept\n{name}\n" for name in names]
    assert memory.checksum(file) == before


def test_its_files_are_for_nobody_else(saved: Saved) -> None:
    _, directory = saved
    assert {path.name for path in directory.iterdir()} == {"state", "memory", "snapshot.json"}
    for name in ("state", "memory"):
        assert (directory / name).stat().st_mode & 0o777 == 0o600


def test_a_saved_guest_is_saved_again_after_it_ran(
    saved: Saved, restored: BareVM, tmp_path: Path
) -> None:
    """Saved, restored, saved (without a file of its own), restored, saved, restored."""
    vm, spec = restored, restored.spec
    for generation in ("second", "third"):
        vm.talk(put(generation))
        vm.driver.pause(vm.handle)
        directory = tmp_path / generation
        directory.mkdir()
        vm.driver.snapshot(vm.handle, directory)
        assert (directory / "memory").exists() == (generation == "third")
        vm.driver.kill(vm.handle)
        vm = replace(vm, handle=vm.driver.restore(spec, directory))
    said = vm.talk(put("last"))
    vm.driver.kill(vm.handle)
    names = "second\nthird\nlast\n"
    assert said == f"remembered\n{names}kept\n{names}"


def test_the_files_may_go_once_it_runs(
    saved: Saved, copy_of: Callable[[str], BareVM], tmp_path: Path
) -> None:
    vm, directory = saved
    moved = tmp_path / "moved"
    shutil.copytree(directory, moved)
    spec = replace(vm.spec, vm_dir=tmp_path, disks=(one_disk(vm, tmp_path),))
    handle = vm.driver.restore(spec, moved)
    shutil.rmtree(moved)
    try:
        assert "late" in type(vm)(vm.driver, spec, handle).talk(put("late"))
    finally:
        vm.driver.kill(handle)


def one_disk(vm: BareVM, directory: Path) -> Disk:
    return Disk("root", new_copy(vm.spec.disks[0].path, directory / "disk"))


def test_it_is_saved_once_while_it_is_paused(saved: Saved, tmp_path: Path) -> None:
    vm, _ = saved
    vm.driver.pause(vm.handle)
    with pytest.raises(Conflict, match="has been saved") as caught:
        vm.driver.snapshot(vm.handle, tmp_path)
    assert "Resume" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_another_qemu_is_refused(
    saved: Saved, new_spec: NewSpec, new_driver: NewDriver, tmp_path: Path, remains: Remains
) -> None:
    vm, directory = saved
    spec = new_spec(disks=(one_disk(vm, tmp_path),))
    tsc_khz = host_tsc_khz() or 0
    newer, other_machine = Qemu(tmp_path, tsc_khz=tsc_khz), Qemu(tmp_path, tsc_khz=tsc_khz)
    newer.binary = replace(newer.binary, version="7.2.99")
    other_machine.binary = replace(newer.binary, machine="q35", firmware="", version="7.2.22")
    drivers = {
        "QEMU: saved with": newer,
        "machine: saved with": other_machine,
        "TSC kHz: saved with": Qemu(tmp_path, tsc_khz=tsc_khz * 2),
        "accelerator: saved with": Qemu(
            tmp_path,
            tsc_khz=tsc_khz,
            accelerator="tcg" if vm.handle.accelerator == "kvm" else "kvm",
        ),
    }
    for reason, driver in drivers.items():
        with pytest.raises(Invalid, match="another machine") as caught:
            driver.restore(spec, directory)
        assert caught.value.code == "snapshot-incompatible"
        assert reason in caught.value.detail
        assert remains(spec) == []


def test_a_disk_of_another_size_is_refused(saved: Saved, new_spec: NewSpec, tmp_path: Path) -> None:
    vm, directory = saved
    disk = one_disk(vm, tmp_path)
    os.truncate(disk.path, disk.path.stat().st_size + 512)
    for disks in ((disk,), (replace(disk, path=tmp_path / "none"),)):
        with pytest.raises(Invalid) as caught:
            vm.driver.restore(new_spec(disks=disks), directory)
        assert caught.value.detail.startswith("disks: saved with")


def test_disks_may_become_whole_while_qemu_comes_up(
    saved: Saved, new_spec: NewSpec, tmp_path: Path, remains: Remains
) -> None:
    vm, directory = saved
    spec = new_spec(disks=(one_disk(vm, tmp_path),))
    seen: list[object] = []

    def fail() -> None:
        seen.append(vm.driver.adopt(spec.vm_dir))
        raise Conflict("The disk cannot be filled.")

    with pytest.raises(Conflict, match="cannot be filled"):
        vm.driver.restore(spec, directory, disks_whole=fail)
    assert [type(found) for found in seen] == [Handle], "QEMU runs, and its guest does not"
    assert remains(spec) == []


def test_changed_memory_is_refused_and_copied_memory_is_not(
    saved: Saved, new_spec: NewSpec, tmp_path: Path
) -> None:
    vm, directory = saved
    copy = tmp_path / "copy"
    shutil.copytree(directory, copy, copy_function=shutil.copyfile)  # with other times
    spec = new_spec(disks=(one_disk(vm, tmp_path),))
    vm.driver.kill(vm.driver.restore(spec, copy))
    with (copy / "memory").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"!")
    with pytest.raises(Invalid) as caught:
        vm.driver.restore(spec, copy)
    assert caught.value.code == "snapshot-incompatible"
    assert "memory is not what was saved" in caught.value.detail


def test_a_state_that_qemu_cannot_load(
    saved: Saved, new_spec: NewSpec, tmp_path: Path, remains: Remains
) -> None:
    """Though it is what the record says it is."""
    vm, directory = saved
    copy = tmp_path / "copy"
    shutil.copytree(directory, copy)
    state = (copy / "state").read_bytes()
    (copy / "state").write_bytes(state[: len(state) // 2])
    record = json.loads((copy / "snapshot.json").read_text())
    stat = (copy / "state").stat()
    record["files"]["state"] |= {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    (copy / "snapshot.json").write_text(json.dumps(record))
    spec = new_spec(disks=(one_disk(vm, tmp_path),))
    with pytest.raises(Broken) as caught:
        vm.driver.restore(spec, copy)
    assert caught.value.code == "launch-failed"
    assert caught.value.detail
    assert remains(spec) == []


@pytest.mark.skipif(not can_mount(), reason="this user cannot mount a small disk")
@pytest.mark.parametrize("memory_is", ["a file", "in the stream"])
def test_a_full_disk(
    boot: Boot, copy_of: Callable[[str], BareVM], tmp_path: Path, memory_is: str
) -> None:
    vm = boot() if memory_is == "a file" else copy_of("full")
    try:
        vm.driver.pause(vm.handle)
        small = tmp_path / "small"
        small.mkdir()
        with tiny_disk(small, DISK_MIB):
            with pytest.raises(Broken, match="not enough space") as caught:
                vm.driver.snapshot(vm.handle, small)
            assert caught.value.code == "disk-full"
            assert list(small.iterdir()) == []
        assert qmp.status(vm.vm_dir) != "running"
        vm.driver.resume(vm.handle)
        vm.driver.pause(vm.handle)
        enough = tmp_path / "enough"
        enough.mkdir()
        vm.driver.snapshot(vm.handle, enough)
        assert (enough / "snapshot.json").exists()
    finally:
        vm.driver.kill(vm.handle)


def test_a_qemu_that_dies_while_it_saves(
    restored: BareVM, tmp_path: Path, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migration, "NO_LIMIT", 2**20)  # so that it takes a minute
    restored.driver.pause(restored.handle)
    state = tmp_path / "state"

    def kill_it() -> None:
        until(lambda: state.exists() and state.stat().st_size > 0)
        os.kill(restored.handle.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_it)
    killer.start()
    with pytest.raises(Broken) as caught:
        restored.driver.snapshot(restored.handle, tmp_path)
    killer.join()
    assert caught.value.code == "snapshot-failed"
    assert list(tmp_path.glob("*")) == [tmp_path / "restored"]  # its disk
    ended = monitored.wait(restored.handle, PATIENCE)
    assert ended is not None
    assert ended.signal == signal.SIGKILL


def test_a_plugged_disk_is_there_again(boot: Boot, new_spec: NewSpec, tmp_path: Path) -> None:
    """Under another name, at its address; and it may go."""
    directory = tmp_path / "snapshot"
    directory.mkdir()
    disks = [tmp_path / name for name in ("gone", "stays", "copy")]
    for disk in disks:
        disk.touch()
        os.truncate(disk, 2**20)
    vm = boot()
    vm.driver.plug(vm.handle, Disk("gone", disks[0]))
    vm.driver.plug(vm.handle, Disk("stays", disks[1]))
    vm.driver.unplug(vm.handle, "gone")
    vm.driver.pause(vm.handle)
    vm.driver.snapshot(vm.handle, directory)
    spec = new_spec(disks=(*vm.spec.disks, Disk("another", disks[2])))
    again = boot(spec=spec, snapshot=directory)
    (before,) = hotplug.plugged(vm.vm_dir).values()
    assert hotplug.plugged(again.vm_dir) == {"another": before}
    assert before.id == 1
    assert again.driver.hotplug_problem(again.vm_dir, "another") == ""
    again.driver.unplug(again.handle, "another")
    assert hotplug.plugged(again.vm_dir) == {}


def test_a_pci_machine_goes_on(
    boot: Boot, new_spec: NewSpec, hello: Conversation, tmp_path: Path
) -> None:
    directory = tmp_path / "snapshot"
    directory.mkdir()
    driver = Qemu(tmp_path, tsc_khz=host_tsc_khz(), accelerator="tcg")
    driver.binary = replace(driver.binary, machine="q35", firmware="")
    vm = boot(driver)
    boot_id = vm.talk(hello).boot_id
    vm.driver.pause(vm.handle)
    vm.driver.snapshot(vm.handle, directory)
    again = boot(driver, spec=new_spec(), snapshot=directory)
    assert again.talk(hello).boot_id == boot_id


def answers(vm: BareVM) -> bool:
    try:
        return bool(qmp.status(vm.vm_dir))
    except Retryable:
        return False


def test_the_agent_is_reached_though_it_was_in_a_conversation(
    boot: Boot, new_spec: NewSpec, hello: Conversation, tmp_path: Path, until: Until
) -> None:
    """With the host that saved it, which goes on; and a new one may call before it runs."""
    directory = tmp_path / "snapshot"
    directory.mkdir()
    vm = boot()

    async def save_meanwhile(agent: AgentConnection) -> None:
        await asyncio.to_thread(vm.driver.pause, vm.handle)
        await asyncio.to_thread(vm.driver.snapshot, vm.handle, directory)
        await asyncio.to_thread(vm.driver.resume, vm.handle)
        await agent.heartbeat(timeout=PATIENCE)

    vm.talk(save_meanwhile)
    again = replace(vm, spec=new_spec())
    with ThreadPoolExecutor(1) as pool:

        def call_early() -> str:
            until(lambda: answers(again))
            return str(again.talk(hello).boot_id)

        caller = pool.submit(call_early)
        boot(spec=again.spec, snapshot=directory)
        assert caller.result() == vm.talk(hello).boot_id
    assert again.talk(hello).boot_id == vm.talk(hello).boot_id
