"""VMMs under their monitors, as every driver starts, finds and ends them.

The truth is in the VM's directory: monitor.json names the processes, exit.json how the VMM
ended. Nothing here needs the process that started the VMM to be alive.
"""

from __future__ import annotations

import importlib.util
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from nexus_site.core.errors import Broken, Conflict
from vms.hypervisors import monitor
from vms.hypervisors.base import Exit, Handle
from vms.hypervisors.records import read_json, write_json

START_SECONDS = 30.0
KILL_SECONDS = 30.0
RECORD_SECONDS = 5.0
POLL_SECONDS = 0.005
LAST_BYTES, LAST_LINES = 8000, 20

METRICS = "metrics.json"  # written by drivers whose VMMs tell what they count piece by piece
RECORDS = ("launch.json", "monitor.json", "exit.json", METRICS)
UNSEEN = Exit(None, None, None)


def start(
    vm_dir: Path,
    argv: list[str],
    env: dict[str, str],
    accelerator: str,
    fifos: Mapping[Path, str] | None = None,
    files: Sequence[int] = (),
) -> Handle:
    """Start `argv` in `vm_dir` under a new monitor that outlives this process.

    `env` is the VMM's whole environment; `accelerator` is remembered for `adopt`; what the VMM
    writes into one of `fifos` goes to the log of that name; `files` are open as long as the VMM
    runs. Raises Conflict when a VMM runs there already, Broken when this one does not start.
    """
    require_none(vm_dir)
    forget(vm_dir)
    launch = {"argv": argv, "env": env, "accelerator": accelerator}
    write_json(vm_dir / "launch.json", launch)
    options = [("--env", f"{name}={value}") for name, value in env.items()]
    options += [("--fifo", f"{path}={log}") for path, log in (fifos or {}).items()]
    options += [("--keep", str(file)) for file in files]
    program = [sys.executable, "-I", "-S", _monitor_program(), str(vm_dir)]
    words = [word for option in options for word in option]
    said = _run([*_own_scope(), *program, *words, "--", *argv], files)
    handle = _handle(vm_dir)
    if handle is None:
        forget(vm_dir)
        raise launch_failed(vm_dir, "The VMM could not be started.", said)
    return handle


def require_none(vm_dir: Path) -> None:
    """Raise Conflict when a VMM runs in `vm_dir`."""
    if isinstance(adopt(vm_dir), Handle):
        raise Conflict("A VMM runs in this VM's directory already.", code="vmm-running")


def require_running(handle: Handle) -> None:
    """Raise Conflict when this VMM has ended."""
    if not is_running(handle):
        raise Conflict("The VM does not run any more.", code="vmm-ended")


def adopt(vm_dir: Path) -> Handle | Exit | None:
    """The VMM that runs in `vm_dir`, or how it ended, or None when none was ever started."""
    handle = _handle(vm_dir)
    if handle is None:
        return None
    return exit_of(vm_dir) or handle


def exit_of(vm_dir: Path) -> Exit | None:
    """How the last VMM of `vm_dir` ended; None while it runs or when there was none.

    Cheap while it runs. An Exit with nothing in it means that nobody saw how it ended.
    """
    handle = _handle(vm_dir)
    return None if handle is None else exit_status(handle)


def launched_with(vm_dir: Path) -> list[str]:
    """The command line of the last VMM of `vm_dir`; nothing when there was none."""
    return [str(word) for word in (_read(vm_dir / "launch.json") or {}).get("argv", [])]


def exit_status(handle: Handle, timeout: float = RECORD_SECONDS) -> Exit | None:
    """How this VMM ended; None while it runs.

    Just after its end the monitor may not have written exit.json yet: waits for it, up to
    `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while not is_running(handle):
        monitored = monitor.runs(handle.monitor_pid, handle.monitor_started)
        record = _read(handle.vm_dir / "exit.json")
        if record and (record.get("pid"), record.get("started")) == (handle.pid, handle.started):
            return Exit(record["code"], record["signal"], record["at"])
        if not monitored or time.monotonic() > deadline:
            return UNSEEN
        time.sleep(POLL_SECONDS)
    return None


def is_running(handle: Handle) -> bool:
    """Whether the VMM itself is alive; the same pid in another process does not count."""
    return monitor.runs(handle.pid, handle.started)


def wait(handle: Handle, timeout: float) -> Exit | None:
    """How the VMM ended; None when it still runs after `timeout` seconds."""
    with suppress(OSError):  # no such process, or the pid is a thread's now
        pidfd = os.pidfd_open(handle.pid)
        try:
            if is_running(handle):
                poll = select.poll()
                poll.register(pidfd, select.POLLIN)
                poll.poll(timeout * 1000)
        finally:
            os.close(pidfd)
    return exit_status(handle)


def kill(handle: Handle) -> Exit:
    """SIGKILL to the VMM, never to another process of the same pid; waits for its end."""
    with suppress(OSError):  # no such process, or the pid is a thread's now
        pidfd = os.pidfd_open(handle.pid)
        try:
            if is_running(handle):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)
    ended = wait(handle, KILL_SECONDS)
    if ended is None:
        raise Broken(
            f"The VMM (pid {handle.pid}) does not die.",
            hint="It hangs in the kernel, most often in disk I/O; look at the host's log.",
            code="vmm-unkillable",
        )
    return ended


def cleanup(vm_dir: Path) -> None:
    """Remove the sockets of an ended VMM. Logs and exit status stay."""
    with suppress(FileNotFoundError):
        for path in vm_dir.iterdir():
            if path.is_socket():
                path.unlink(missing_ok=True)


def forget(vm_dir: Path) -> None:
    """Remove everything of an ended VMM but its logs."""
    cleanup(vm_dir)
    for name in RECORDS:
        (vm_dir / name).unlink(missing_ok=True)
        (vm_dir / f"{name}.tmp").unlink(missing_ok=True)


def launch_failed(vm_dir: Path, text: str, said: str = "") -> Broken:
    """The error of a start that failed, with the last lines of the VMM and of its guest."""
    evidence = said or last_words(vm_dir / "vmm.log") or last_words(vm_dir / "console.log")
    return Broken(
        text,
        detail=evidence,
        hint="Its last lines say why; vmm.log in the VM's directory has them all.",
        code="launch-failed",
    )


def last_words(log: Path) -> str:
    """The last lines of a log; nothing when there is no such log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - LAST_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    return "\n".join(lines[-LAST_LINES:]).strip()


def _handle(vm_dir: Path) -> Handle | None:
    """What monitor.json says, whether or not those processes are still there."""
    record = _read(vm_dir / "monitor.json")
    if record is None:
        return None
    same_boot = record["boot_id"] == monitor.boot_id()
    launch = _read(vm_dir / "launch.json") or {}
    return Handle(
        vm_dir=vm_dir,
        pid=record["pid"],
        # No process of an earlier boot of the host can be alive.
        started=record["started"] if same_boot else -1,
        monitor_pid=record["monitor_pid"],
        monitor_started=record["monitor_started"] if same_boot else -1,
        accelerator=launch.get("accelerator", ""),
    )


def _read(path: Path) -> dict[str, Any] | None:
    """A record of ours. They are written atomically, so it is whole or not there."""
    try:
        return read_json(path)
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def _monitor_program() -> str:
    """The monitor as Python has compiled it, where it has: that starts a quarter sooner."""
    compiled = importlib.util.cache_from_source(monitor.__file__)
    return compiled if os.path.exists(compiled) else monitor.__file__


def _run(command: list[str], files: Sequence[int]) -> str:
    """What a short program says on stderr, or why it could not say it; it inherits the files.

    It starts with SIGTERM blocked: when the host shuts down, the VMM ends first and its exit is
    still written down.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        ended = subprocess.run(
            command,
            pass_fds=files,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=START_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return ended.stderr.decode(errors="replace").strip()


def _own_scope() -> list[str]:
    """Under systemd, the prefix that puts the monitor in a scope of its own: stopping the
    service of Nexus then leaves the VM alone."""
    if "INVOCATION_ID" not in os.environ or not shutil.which("systemd-run"):
        return []
    if os.geteuid() == 0:
        manager = "--system"
    elif "XDG_RUNTIME_DIR" in os.environ:
        manager = "--user"
    else:
        return []
    return ["systemd-run", manager, "--scope", "--quiet", "--collect", "--"]
