"""What only the QEMU driver has, on the real QEMU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from guest_agent.binary import host_tsc_khz
from nexus_site.core.errors import Retryable
from vms.hypervisors.qemu import Qemu, kvm, qmp
from vms.hypervisors.qemu.binary import find_qemu

if TYPE_CHECKING:
    from tests.conformance.conftest import BareVM, Boot, BootFiles, Conversation

pytestmark = pytest.mark.live


def test_the_trial_of_kvm_succeeds_where_guests_run(
    boot_files: BootFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Emulation runs guests everywhere, so there the trial's own program must pass."""
    monkeypatch.setattr(kvm, "TRIAL_SECONDS", 180)
    assert kvm.try_guest(find_qemu(), boot_files.vmlinux, "tcg", host_tsc_khz()) == ""


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
