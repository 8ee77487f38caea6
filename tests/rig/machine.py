"""Level 1 as a QEMU process: started, watched, and how it ended."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

KERNEL_ARGS = (
    "console=ttyS0",
    "loglevel=4",
    "root=/dev/nvme0n1",
    "rw",
    "init=/usr/sbin/rig-init",
    "mitigations=off",
    "panic=-1",
    "nokaslr",
    "tsc=reliable",  # else two emulated CPUs make Linux fall back to a slow clock
    "no_timer_check",
    # QEMU loses an interrupt now and then that comes while a guest inside is entered or left. What
    # ticks by itself goes on with the next tick; else all stands still, for minutes or for ever.
    "nohz=off",
    "highres=off",
    "norandmaps",  # QEMU keeps what it translated of a program by its addresses
)
PRIORITY = -15  # as of `nice`
LAST_WORDS = 3000  # characters of the console that an error shows
_LOOK_EVERY = 0.2  # seconds

Listener = Callable[[bytes], None]


@dataclass(frozen=True)
class Machine:
    """One level 1 and its files; ``directory`` gets what it says."""

    kernel: Path
    root: Path
    job: Path
    directory: Path
    cpus: int = 1  # with several, emulated guests inside now and then hang or die at boot
    memory_mib: int = 8192
    kernel_args: tuple[str, ...] = KERNEL_ARGS

    @property
    def console(self) -> Path:
        return self.directory / "console.log"

    @property
    def output(self) -> Path:
        return self.directory / "output.log"

    @property
    def status(self) -> Path:
        return self.directory / "status"

    @property
    def words(self) -> Path:
        """What QEMU itself says."""
        return self.directory / "qemu.log"

    def command(self) -> list[str]:
        """QEMU's command line. ``-cpu max`` without KVM emulates AMD's virtualization."""
        serial = (f"file:{path}" for path in (self.console, self.output, self.status))
        return [
            *("qemu-system-x86_64", "-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max"),
            *("-smp", str(self.cpus), "-m", str(self.memory_mib)),
            *("-nodefaults", "-display", "none", "-no-reboot"),
            *(word for port in serial for word in ("-serial", port)),
            *("-kernel", str(self.kernel), "-append", " ".join(self.kernel_args)),
            *_disk("root", self.root, "snapshot=on"),  # what is in the cache stays as it is
            *_disk("job", self.job, "cache=unsafe"),
        ]


def _disk(name: str, file: Path, options: str) -> list[str]:
    """An NVMe disk: Debian's cloud kernel has the driver built in, so needs no initrd."""
    path = str(file).replace(",", ",,")
    drive = f"if=none,id={name},file={path},format=raw,{options}"
    return ["-drive", drive, "-device", f"nvme,serial={name},drive={name}"]


@dataclass(frozen=True)
class Ended:
    """How level 1 ended: the command's exit status, or why there is none."""

    status: int | None
    problem: str = ""


def run(machine: Machine, limit: float, listen: Listener = lambda data: None) -> Ended:
    """Run a machine to its end, at most ``limit`` seconds; ``listen`` gets its output live."""
    for path in (machine.console, machine.output, machine.status):
        path.write_bytes(b"")
    began = time.monotonic()
    with machine.words.open("wb") as words, machine.output.open("rb") as output:
        qemu = subprocess.Popen(
            machine.command(), stdin=subprocess.DEVNULL, stdout=words, stderr=words
        )
        with suppress(PermissionError):  # it takes longest of all that is tested beside it
            os.setpriority(os.PRIO_PROCESS, qemu.pid, PRIORITY)
        try:
            while qemu.poll() is None and time.monotonic() - began < limit:
                listen(output.read())
                time.sleep(_LOOK_EVERY)
            in_time = qemu.poll() is not None
        finally:
            qemu.kill()
            qemu.wait()
        listen(output.read())
    return _ending(machine, in_time, limit)


def _ending(machine: Machine, in_time: bool, limit: float) -> Ended:
    status = machine.status.read_text(errors="replace").strip()
    if status.isdigit():
        return Ended(int(status))
    if not in_time:
        what = f"Level 1 was stopped: it still ran after {limit:.0f} s."
    else:
        what = "Level 1 ended without a status."
    console = machine.console.read_text(errors="replace")[-LAST_WORDS:]
    words = machine.words.read_text(errors="replace").strip()
    return Ended(None, "\n".join(filter(None, (what, words, "Its console's last words:", console))))
