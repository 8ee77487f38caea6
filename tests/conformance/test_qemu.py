"""What only the QEMU driver has, on the real QEMU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from guest_agent.binary import host_tsc_khz
from guest_agent.connection import AgentConnection
from nexus_site.core.errors import Invalid, Retryable
from tests.conformance.conftest import IN_THE_RIG
from tests.conformance.guests import run
from vms.hypervisors.base import Disk, RateLimit
from vms.hypervisors.qemu import Qemu, kvm, qmp
from vms.hypervisors.qemu.binary import find_qemu

if TYPE_CHECKING:
    from tests.conformance.conftest import (
        BareVM,
        Boot,
        BootFiles,
        Conversation,
        NewDriver,
        NewSpec,
        Remains,
    )

pytestmark = pytest.mark.live

Until = Callable[[Callable[[], object]], None]


@pytest.fixture(scope="module")
def new_driver(tmp_path_factory: pytest.TempPathFactory) -> NewDriver:
    """No other driver here: makes QEMU's as a fresh Nexus would."""
    if IN_THE_RIG:
        pytest.skip("the rig is there for Firecracker")
    cache = tmp_path_factory.mktemp("probe")
    return lambda: Qemu(cache, tsc_khz=host_tsc_khz())


def test_the_trial_of_kvm_succeeds_where_guests_run(boot_files: BootFiles) -> None:
    """Emulation runs guests everywhere, so there the trial's own program must pass."""
    kernel, tsc_khz = boot_files.vmlinux, host_tsc_khz()
    assert kvm.try_guest(find_qemu(), kernel, "tcg", tsc_khz, seconds=180) == ""


def test_without_microvm_firmware_a_pci_machine_boots(
    boot: Boot, hello: Conversation, tmp_path: Path
) -> None:
    driver = Qemu(tmp_path, tsc_khz=host_tsc_khz(), accelerator="tcg")
    driver.binary = replace(driver.binary, machine="q35", firmware="")
    vm = boot(driver)
    assert vm.talk(hello).boot.root_mounted is not None


def test_an_accelerator_may_be_given(tmp_path: Path) -> None:
    probe = Qemu(tmp_path, accelerator="tcg").probe()
    assert (probe.accelerator, probe.problems) == ("tcg", ())
    assert list(tmp_path.iterdir()) == []


def test_qmp_answers_one_conversation_after_the_other(running: BareVM) -> None:
    for _ in range(3):
        assert qmp.status(running.vm_dir) == "running"


def test_qmp_refusals_and_absence_are_retryable(running: BareVM, tmp_path: Path) -> None:
    with pytest.raises(Retryable) as caught:
        qmp.ask(running.vm_dir, "no-such-command")
    assert "no-such-command" in caught.value.detail
    with pytest.raises(Retryable, match="does not answer"):
        qmp.status(tmp_path)
    with pytest.raises(Retryable, match="does not answer"):
        qmp.status(tmp_path / "no directory")


def test_the_guest_cannot_start_programs_through_qemu(running: BareVM) -> None:
    """Where QEMU has it, the seccomp sandbox is on."""
    status = Path(f"/proc/{running.handle.pid}/status").read_text()
    filtered = "Seccomp:\t2" in status
    assert filtered == find_qemu().sandbox


def test_a_balloon_where_it_is_safe(boot: Boot, tmp_path: Path, until: Until) -> None:
    """The QEMU here may be too old to be given one by itself, not to have one."""
    driver = Qemu(tmp_path, tsc_khz=host_tsc_khz(), accelerator="tcg")
    driver.binary = replace(driver.binary, version="9.0.0")
    vm = boot(driver)

    async def available(connection: AgentConnection) -> int:
        return (await connection.heartbeat(timeout=60)).memory_available >> 20

    before = vm.talk(available)
    driver.balloon(vm.handle, vm.spec.mem_size_mib - 64)
    until(lambda: vm.talk(available) < before - 50)
    driver.balloon(vm.handle, vm.spec.mem_size_mib)
    until(lambda: vm.talk(available) > before - 20)


def test_no_balloon_is_said(boot: Boot, tmp_path: Path) -> None:
    driver = Qemu(tmp_path, tsc_khz=host_tsc_khz(), accelerator="tcg")
    driver.binary = replace(driver.binary, version="7.2.22")
    vm = boot(driver)
    with pytest.raises(Invalid, match="no balloon") as caught:
        driver.balloon(vm.handle, 128)
    assert caught.value.code == "balloon-unsupported"


def test_limited_disks(boot: Boot, boot_files: BootFiles, tmp_path: Path) -> None:
    """One from the start, and one that is plugged: QEMU keeps to their limits."""
    driver = Qemu(tmp_path, tsc_khz=host_tsc_khz())
    root = Disk("root", boot_files.root, read_only=True, limit=RateLimit(3 * 2**20, 70))
    late = Disk("late", tmp_path / "late", limit=RateLimit(operations_per_second=9))
    late.path.write_bytes(bytes(2**20))
    vm = boot(driver, disks=(root,))
    vm.driver.plug(vm.handle, late)
    assert limits(vm) == {"disk0": (3 * 2**20, 70), "plug-late": (0, 9)}
    vm.driver.unplug(vm.handle, "late")
    assert limits(vm) == {"disk0": (3 * 2**20, 70)}
    vm.driver.plug(vm.handle, replace(late, limit=RateLimit(2**20)))
    assert limits(vm)["plug-late"] == (2**20, 0)


def limits(vm: BareVM) -> dict[str, tuple[int, int]]:
    """Bytes and operations a second of each limited disk that QEMU has, by its node."""
    (answer,) = qmp.ask(vm.vm_dir, "query-block")
    disks = [block["inserted"] for block in cast("list[dict[str, Any]]", answer)]
    groups = {disk["node-name"]: f"/objects/limit-{disk['node-name']}" for disk in disks}
    questions = [("qom-get", {"path": path, "property": "limits"}) for path in groups.values()]
    found = cast("list[dict[str, int]]", qmp.ask(vm.vm_dir, *questions))
    return {
        name: (limit["bps-total"], limit["iops-total"])
        for name, limit in zip(groups, found, strict=True)
    }


def test_a_limited_network_is_refused(boot: Boot, remains: Remains, new_spec: NewSpec) -> None:
    spec = new_spec(network_limit=RateLimit(2**20))
    with pytest.raises(Invalid) as caught:
        boot(spec=spec)
    assert caught.value.code == "limit-unsupported"
    assert remains(spec) == []


def test_metrics_count_each_disk(running: BareVM) -> None:
    metrics = running.driver.metrics(running.handle)
    assert set(metrics) == {"disk0"}
    assert metrics["disk0"]["rd_operations"] > 0


def test_a_halted_guest_leaves_qemu_running(boot: Boot, alpine: Path, until: Until) -> None:
    vm = boot(disks=(Disk("root", alpine, read_only=True),))
    vm.talk(lambda agent: run(agent, "true"))
    assert not vm.driver.has_halted(vm.vm_dir)

    vm.talk(lambda agent: run(agent, "(sleep 1; halt -f) >/dev/null 2>&1 &"))
    until(lambda: vm.driver.has_halted(vm.vm_dir))
    assert vm.driver.adopt(vm.vm_dir) == vm.handle
