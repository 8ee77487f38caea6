"""A VM's memory saved, and its guest going on elsewhere, on the real VMMs."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from guest_agent.connection import AgentConnection
from nexus_site.core.errors import Conflict, Invalid, NexusError
from tests.conformance.guests import copy_disk, run
from vms.hypervisors.base import Disk, Exit

if TYPE_CHECKING:
    from tests.conformance.conftest import BareVM, Boot, Conversation, NewSpec, Remains

pytestmark = pytest.mark.live

MEM_SIZE_MIB = 128  # it is saved more than once


async def heartbeat(connection: AgentConnection) -> Any:
    return await connection.heartbeat(timeout=60)


@pytest.fixture(scope="module")
def disk(alpine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The saved VM's root, as it was when it was saved; each restored one gets a copy."""
    disk = tmp_path_factory.mktemp("disk") / "root"
    copy_disk(alpine, disk)
    return disk


@pytest.fixture(scope="module")
def saved(boot: Boot, disk: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[BareVM, Path]:
    """A VM that ran, and the directory in which its memory is. It went on after that."""
    directory = tmp_path_factory.mktemp("snapshot")
    mine = directory.with_name("mine")
    copy_disk(disk, mine)
    vm = boot(disks=(Disk("root", mine),), mem_size_mib=MEM_SIZE_MIB)
    vm.talk(lambda agent: run(agent, "echo remembered >/root/note; mkdir /tmp/only-in-memory"))
    vm.driver.pause(vm.handle)
    vm.driver.snapshot(vm.handle, directory)
    copy_disk(mine, disk)
    vm.driver.resume(vm.handle)
    return vm, directory


@pytest.fixture
def restored_spec(new_spec: NewSpec, disk: Path, tmp_path: Path) -> Any:
    copy = tmp_path / "root"
    copy_disk(disk, copy)
    disks = (Disk("other-name", copy),)
    return new_spec(name="another", disks=disks, mem_size_mib=MEM_SIZE_MIB)


def test_the_saved_vm_goes_on(saved: tuple[BareVM, Path]) -> None:
    vm, _ = saved
    assert vm.talk(lambda agent: run(agent, "cat /root/note")) == "remembered\n"


def test_the_guest_goes_on_in_another_vm(
    boot: Boot, saved: tuple[BareVM, Path], restored_spec: Any, hello: Conversation
) -> None:
    """Beside the one that was saved, which still runs."""
    vm, directory = saved
    restored = boot(spec=restored_spec, snapshot=directory)
    assert restored.talk(hello).boot_id == vm.talk(hello).boot_id
    assert restored.talk(lambda agent: run(agent, "ls -d /tmp/only*; cat /root/note; sync")) == (
        "/tmp/only-in-memory\nremembered\n"
    )
    restored.driver.pause(restored.handle)
    restored.driver.resume(restored.handle)
    assert restored.talk(heartbeat).uptime > 0
    assert isinstance(restored.driver.kill(restored.handle), Exit)


def test_a_restored_vm_may_be_saved(
    boot: Boot,
    saved: tuple[BareVM, Path],
    restored_spec: Any,
    new_spec: NewSpec,
    hello: Conversation,
    tmp_path: Path,
) -> None:
    vm, directory = saved
    restored = boot(spec=restored_spec, snapshot=directory)
    again = tmp_path / "again"
    again.mkdir()
    restored.driver.pause(restored.handle)
    restored.driver.snapshot(restored.handle, again)
    restored.driver.kill(restored.handle)
    third_spec = new_spec(disks=restored_spec.disks, mem_size_mib=MEM_SIZE_MIB)
    third = boot(spec=third_spec, snapshot=again)
    assert third.talk(hello).boot_id == vm.talk(hello).boot_id


def test_checkpoints_of_one_vm_do_not_need_each_other(
    boot: Boot,
    saved: tuple[BareVM, Path],
    restored_spec: Any,
    new_spec: NewSpec,
    hello: Conversation,
    tmp_path: Path,
) -> None:
    """Each is whole without those before it, and without the memory that the VM went on from."""
    last = shutil.copytree(saved[1], tmp_path / "loaded")
    vm = boot(spec=restored_spec, snapshot=last)
    root, wrote = tmp_path / "root-of-the-last", ""
    for number in range(3):
        write = f"head -c 3000000 /dev/urandom >/tmp/{number} && cat /tmp/? | sha256sum"
        wrote = vm.talk(lambda agent, script=write: run(agent, script))
        before, last = last, tmp_path / f"checkpoint-{number}"
        made = tmp_path / "made"
        made.mkdir()
        vm.driver.pause(vm.handle)
        vm.driver.snapshot(vm.handle, made, later=True)
        copy_disk(restored_spec.disks[0].path, root)
        vm.driver.resume(vm.handle)
        shutil.rmtree(before)
        for _ in range(2):
            vm.driver.complete(made)
        made.rename(last)
    vm.driver.kill(vm.handle)
    forked = boot(
        spec=new_spec(disks=(Disk("root", root),), mem_size_mib=MEM_SIZE_MIB), snapshot=last
    )
    assert forked.talk(hello).boot_id == saved[0].talk(hello).boot_id
    assert forked.talk(lambda agent: run(agent, "cat /tmp/? | sha256sum")) == wrote


def test_what_is_left_for_later_needs_no_vm(
    boot: Boot, saved: tuple[BareVM, Path], restored_spec: Any, remains: Remains, tmp_path: Path
) -> None:
    vm = boot(spec=restored_spec, snapshot=saved[1])
    made = tmp_path / "made"
    made.mkdir()
    vm.driver.pause(vm.handle)
    vm.driver.snapshot(vm.handle, made, later=True)
    vm.driver.kill(vm.handle)
    vm.driver.cleanup(vm.vm_dir)
    assert remains(vm.spec) == []
    vm.driver.complete(made)
    again = boot(spec=restored_spec, snapshot=made)
    assert again.talk(heartbeat).uptime > 0


def test_a_running_guest_is_not_saved(saved: tuple[BareVM, Path], tmp_path: Path) -> None:
    vm, _ = saved
    with pytest.raises(Conflict):
        vm.driver.snapshot(vm.handle, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change", ["memory", "cpus", "disks"])
def test_another_machine_is_refused(
    boot: Boot, saved: tuple[BareVM, Path], restored_spec: Any, remains: Remains, change: str
) -> None:
    changes: dict[str, dict[str, Any]] = {
        "memory": {"mem_size_mib": 512},
        "cpus": {"vcpu_count": 2},
        "disks": {"disks": ()},
    }
    spec = replace(restored_spec, **changes[change])
    with pytest.raises(Invalid) as caught:
        boot(spec=spec, snapshot=saved[1])
    assert caught.value.code == "snapshot-incompatible"
    assert remains(spec) == []


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_snapshot_is_refused(
    boot: Boot,
    saved: tuple[BareVM, Path],
    restored_spec: Any,
    remains: Remains,
    tmp_path: Path,
    damage: str,
) -> None:
    """Whichever of its files it is."""
    for file in sorted(saved[1].iterdir()):
        copy = tmp_path / f"without-{file.name}"
        copy.mkdir()
        for other in saved[1].iterdir():
            if other != file:
                os.link(other, copy / other.name)
        if damage == "cut":
            (copy / file.name).write_bytes(file.read_bytes()[:-1])
        with pytest.raises(Invalid) as caught:
            boot(spec=restored_spec, snapshot=copy)
        assert caught.value.code == "snapshot-incompatible"
        assert remains(restored_spec) == []
        shutil.rmtree(copy)


def test_an_empty_directory_is_no_snapshot(
    boot: Boot, restored_spec: Any, remains: Remains, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(NexusError) as caught:
        boot(spec=restored_spec, snapshot=empty)
    assert caught.value.code == "snapshot-incompatible"
    assert remains(restored_spec) == []
