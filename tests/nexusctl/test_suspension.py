"""``nexusctl vm pause``, ``suspend``, ``checkpoint``, ``fork`` and their like, and the real API."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nexusctl.commands.suspension import idle
from tests.factories import make_vm
from tests.nexusctl.conftest import Outcome
from tests.vms.fake_vmm import FakeVmm, install
from tests.vms.real_drives import add_drive, make_running
from vms.models import VM, VMSnapshot
from vms.states import State

Ctl = Callable[..., Outcome]


@pytest.fixture
def vm(ctl: Ctl, monkeypatch: pytest.MonkeyPatch) -> VM:
    """A ready VM, whose VMM is the test's."""
    vm = make_vm(name="web", root=False, mem_size_mib=128)
    add_drive(vm, "root", is_root=True)
    vmm: FakeVmm = install(monkeypatch)
    vmm.run(make_running(vm))
    return vm


def state(vm: VM) -> str:
    return str(VM.objects.get(pk=vm.pk).state)


def test_a_vm_is_paused_and_goes_on(ctl: Ctl, vm: VM) -> None:
    assert "Stop its CPUs" in ctl("vm", "pause", "web", "--dry-run").out
    assert ctl("vm", "pause", "web").out.startswith("web  ")
    assert state(vm) == State.PAUSED
    refused = ctl("vm", "resume", "web")
    assert refused.code == 5
    assert "nexusctl vm unpause web" in refused.err
    assert ctl("vm", "unpause", "web").code == 0
    assert state(vm) == State.READY


def test_a_suspended_vm_says_so(ctl: Ctl, vm: VM) -> None:
    assert ctl("vm", "suspend", "web").code == 0
    shown = ctl("vm", "inspect", "web").out
    assert "never suspended" in shown
    assert "of memory saved" in shown
    assert "Prepare kernel" in ctl("vm", "resume", "web", "--cold", "--dry-run").out


def test_a_checkpoint_tells_its_size_and_its_pause(ctl: Ctl, vm: VM) -> None:
    made = ctl("vm", "checkpoint", "web", "--name", "monday")
    assert (made.code, made.out.split()[0]) == (0, "monday")
    assert "of memory; its drives as after a power cut, its CPUs stood still for" in made.err
    heading, row = ctl("vm", "snapshots", "web").out.splitlines()
    assert "MEMORY" in heading
    assert "KiB" in row
    assert VMSnapshot.objects.get().with_memory


def test_forks_are_named_one_a_line(ctl: Ctl, vm: VM) -> None:
    made = ctl("vm", "fork", "web", "-n", "2", "--no-start", "--name", "job")
    assert [line.split()[0] for line in made.out.splitlines()] == ["job-1", "job-2"]
    assert ctl("vm", "fork", "web", "-n", "101").code != 0


@pytest.mark.parametrize(
    ("given", "minutes"), [("10m", 10), ("2h", 120), ("7", 7), ("never", None)]
)
def test_idle_times_as_people_write_them(ctl: Ctl, vm: VM, given: str, minutes: int | None) -> None:
    VM.objects.filter(pk=vm.pk).update(idle_suspend_minutes=3)
    assert ctl("vm", "update", "web", "--idle-suspend", given).code == 0
    assert VM.objects.get(pk=vm.pk).idle_suspend_minutes == minutes
    assert "is no time" in ctl("vm", "update", "web", "--idle-suspend", "soon").err


def test_what_is_said_of_idle_vms() -> None:
    assert idle({"idle_suspend_minutes": 10, "saved_memory": {}}) == "suspended after 10 min"
