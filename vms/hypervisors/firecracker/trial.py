"""Does Firecracker run guests here? See `vms.hypervisors.kvm`."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from vms.hypervisors import kvm
from vms.hypervisors.base import Problem
from vms.hypervisors.firecracker.binary import FirecrackerBinary
from vms.hypervisors.firecracker.configuration import MACHINE
from vms.hypervisors.kernel_arguments import CONSOLE

KVM = kvm.KVM
RECORD = "firecracker-kvm.json"
CONSEQUENCE = "Firecracker cannot start VMs"


def kvm_problem(
    binary: FirecrackerBinary,
    kernel: Path | None,
    cache_dir: Path,
    seconds: float,
    arguments: tuple[str, ...] = (),
) -> Problem | None:
    """Why Firecracker cannot start VMs on this host, or None when it can.

    The trial's answer is kept in `cache_dir` and holds for this host kernel, Firecracker and
    /dev/kvm. Without one, `kernel` is tried, with `arguments`, for at most `seconds`; with
    neither, KVM counts as not usable.
    """
    if problem := kvm.access_problem(KVM, CONSEQUENCE):
        return problem
    trial = None if kernel is None else lambda: try_guest(binary, kernel, seconds, arguments)
    vmm = [binary.version, str(binary.path), *arguments]
    failure = kvm.answer(cache_dir / RECORD, KVM, vmm, trial)
    if failure is None:
        return Problem("KVM has not been tried: there is no kernel yet.", "Start a first VM.")
    return kvm.unusable(failure, CONSEQUENCE) if failure else None


def try_guest(
    binary: FirecrackerBinary, kernel: Path, seconds: float, arguments: tuple[str, ...] = ()
) -> str:
    """Run the tiny guest. Empty when it ran, else what went wrong, for people."""
    with tempfile.TemporaryDirectory(prefix="nexus-kvm-") as directory:
        boot = {
            "kernel_image_path": str(kernel),
            "initrd_path": str(kvm.trial_initrd(Path(directory))),
            "boot_args": " ".join((*CONSOLE, *MACHINE, *arguments)),
        }
        machine = {"vcpu_count": 1, "mem_size_mib": kvm.TRIAL_MIB}
        document = Path(directory, "config.json")
        document.write_text(
            json.dumps({"boot-source": boot, "machine-config": machine, "drives": []})
        )
        command = [str(binary.path), "--no-api", "--config-file", str(document)]
        return kvm.run_trial(command, {}, seconds)
