"""Does KVM work here with QEMU? See `vms.hypervisors.kvm`."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

from vms.hypervisors import kvm
from vms.hypervisors.base import Problem
from vms.hypervisors.qemu.binary import QemuBinary
from vms.hypervisors.qemu.command import machine, machine_arguments

KVM = kvm.KVM
TRIAL_SECONDS = 10
RECORD = "kvm.json"
CONSEQUENCE = "VMs run in emulation, several times slower"


def kvm_problem(
    qemu: QemuBinary,
    kernel: Path | None,
    cache_dir: Path,
    seconds: float = TRIAL_SECONDS,
    arguments: tuple[str, ...] = (),
) -> Problem | None:
    """Why VMs cannot use KVM on this host, or None when they can.

    The trial's answer is kept in `cache_dir` and holds for this host kernel, QEMU and
    /dev/kvm. Without one, `kernel` is tried, with `arguments`, for at most `seconds`; with
    neither, KVM counts as not usable.
    """
    if problem := kvm.access_problem(KVM, CONSEQUENCE):
        return problem
    trial = None
    if kernel is not None:
        trial = partial(try_guest, qemu, kernel, seconds=seconds, arguments=arguments)
    vmm = [qemu.version, str(qemu.path), *arguments]
    failure = kvm.answer(cache_dir / RECORD, KVM, vmm, trial)
    if failure is None:
        return Problem("KVM has not been tried: there is no kernel yet.", "Start a first VM.")
    return kvm.unusable(failure, CONSEQUENCE) if failure else None


def try_guest(
    qemu: QemuBinary,
    kernel: Path,
    accelerator: str = "kvm",
    tsc_khz: int | None = None,
    *,
    seconds: float = TRIAL_SECONDS,
    arguments: tuple[str, ...] = (),
) -> str:
    """Run the tiny guest. Empty when it ran, else what went wrong, for people."""
    with tempfile.TemporaryDirectory(prefix="nexus-kvm-") as directory:
        command = [
            *machine(qemu, accelerator, vcpu_count=1, mem_size_mib=kvm.TRIAL_MIB),
            *("-kernel", str(kernel), "-initrd", str(kvm.trial_initrd(Path(directory)))),
            *("-append", " ".join((*machine_arguments(accelerator, tsc_khz), *arguments))),
        ]
        return kvm.run_trial(command, qemu.environment, seconds)
