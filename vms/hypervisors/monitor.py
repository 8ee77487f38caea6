"""The monitor: a small program that starts one VMM, outlives Nexus and sees how it ends.

    python -I -S monitor.py VM_DIR [--env NAME=VALUE | --fifo PATH=LOG | --keep FD]... -- PROGRAM...

It starts that program with VM_DIR as its working directory, in an environment of what --env says,
and returns when it runs: exit status 0 and VM_DIR/monitor.json, or 1 and the reason on stderr. A
child in its own session stays behind and

- copies the VMM's stdout (the guest's console) to console.log, its stderr to vmm.log and what
  it writes into each of the FIFOs, which are there already, to that log; guests are hostile,
  so each log is rotated once to <name>.1 and never takes more;
- keeps the descriptors open that it was given with --keep, for the locks on them;
- writes exit.json when the VMM has ended: code or signal, and the time.

Killing the monitor does not harm the VMM. There is a monitor for every running VM and a VM
waits for it at its start, so it imports nothing that brings more: json, signal or contextlib
would each double the time until it works.
"""

# ruff: noqa: PTH105, PTH110, PTH123, PTH202, SIM105

from __future__ import annotations

import os
import select
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

CONSOLE, VMM_LOG = "console.log", "vmm.log"
CONSOLE_LIMIT = 4 * 1024 * 1024
VMM_LOG_LIMIT = 256 * 1024  # and that of every other log
CHUNK = 64 * 1024
GATHER_MS = 20  # VMMs write consoles byte by byte: to take each by itself would cost the guest CPU
STARTED = b"started"
SIGKILL = 9


class BoundedLog:
    """A log file that moves to <name>.1 when it reaches `limit` bytes: two files at most.

    <name>.dropped counts the bytes that are gone for good, so that readers can number what
    is left. It never raises: a full disk costs log lines, not the VM.
    """

    def __init__(self, name: str, limit: int) -> None:
        self.name, self.limit = name, limit
        self.fd = -1
        self.size = 0
        self._rotate()

    def write(self, data: bytes) -> None:
        while data:
            if self.size >= self.limit:
                self._rotate()
            part, data = data[: self.limit - self.size], data[self.limit - self.size :]
            try:
                self.size += os.write(self.fd, part)
            except OSError:
                return

    def _rotate(self) -> None:
        """Begin an empty file; what the last one held is the older part now."""
        try:
            if os.path.getsize(self.name):
                self._count_dropped()
                os.replace(self.name, self.name + ".1")
        except OSError:
            pass
        if self.fd >= 0:
            os.close(self.fd)
        self.fd, self.size = -1, 0
        try:
            self.fd = os.open(self.name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        except OSError:
            pass

    def _count_dropped(self) -> None:
        """Add what is about to be overwritten to the count in <name>.dropped."""
        try:
            dropped = os.path.getsize(self.name + ".1")
            if os.path.exists(self.name + ".dropped"):
                with open(self.name + ".dropped", encoding="ascii") as file:
                    dropped += int(file.read())
            with open(self.name + ".dropped", "w", encoding="ascii") as file:
                file.write(str(dropped))
        except (OSError, ValueError):
            pass


class Launch:
    """What to start, from the words of the command line; ``ValueError`` for other words."""

    def __init__(self, words: list[str]) -> None:
        end = words.index("--")
        self.argv = words[end + 1 :]
        self.env: dict[str, str] = {}
        self.fifos: dict[str, str] = {}  # their logs, by path
        self.keep: list[int] = []
        for option, value in zip(words[:end:2], words[1:end:2], strict=True):
            if option == "--env":
                name, _, self.env[name] = value.partition("=")
            elif option == "--fifo":
                path, _, self.fifos[path] = value.rpartition("=")
            elif option == "--keep":
                self.keep.append(int(value))
            else:
                raise ValueError(f"unknown option {option}")


def main(vm_dir: str, *words: str) -> int:
    """Leave a monitor behind and say whether the VMM started."""
    launch = Launch(list(words))
    os.chdir(vm_dir)
    os.umask(0o077)
    answer, tell = os.pipe()
    if os.fork() == 0:
        os.close(answer)
        os._exit(monitor(launch, tell))
    os.close(tell)
    said = _read_all(answer)
    if said == STARTED:
        return 0
    print(said.decode() or "The monitor died.", file=sys.stderr)
    return 1


def monitor(launch: Launch, tell: int) -> int:
    """Start the VMM, report to `tell`, then watch it to its end."""
    try:
        os.setsid()
        fifos = open_fifos(launch.fifos)
        pid, outputs = start(launch.argv, launch.env)
    except Exception as error:  # whatever it was, the starter must hear of it
        os.write(tell, str(error).encode())
        return 1
    os.write(tell, STARTED)
    os.close(tell)
    _let_go_of_the_starter()
    started = start_time(pid)
    status = watch(pid, outputs | fifos)
    for file in launch.keep:  # who reads of the end may lock them again
        os.close(file)
    write_record("exit.json", {"pid": pid, "started": started, **exit_record(status)})
    return 0


def open_fifos(fifos: dict[str, str]) -> dict[int, str]:
    """The log of each open FIFO. They are open for writing as well: so a VMM that opens its
    end without waiting finds us, and there is no end of file before it has done so."""
    flags = os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    return {os.open(path, flags): log for path, log in fifos.items()}


def start(argv: list[str], env: dict[str, str]) -> tuple[int, dict[int, str]]:
    """The VMM's pid, and the logs of its stdout and stderr; monitor.json tells who it is.

    It gets a session of its own, so that a signal to the monitor's group does not reach it,
    and nothing of our environment: secrets of Nexus have no place in it. It inherits that
    Python ignores SIGPIPE, so it may go on writing when the monitor is no more; but not that we
    were started with SIGTERM blocked.
    """
    stdout, vmm_stdout = os.pipe()
    stderr, vmm_stderr = os.pipe()
    pid = os.posix_spawn(
        argv[0],
        argv,
        env,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, vmm_stdout, 1),
            (os.POSIX_SPAWN_DUP2, vmm_stderr, 2),
        ],
        setsid=True,
        setsigmask=(),
    )
    os.close(vmm_stdout)
    os.close(vmm_stderr)
    try:
        write_record("monitor.json", identity(pid))
    except OSError:
        os.kill(pid, SIGKILL)
        os.waitpid(pid, 0)
        raise
    return pid, {stdout: CONSOLE, stderr: VMM_LOG}


def watch(pid: int, outputs: dict[int, str]) -> int:
    """Copy the VMM's outputs to their logs until it has ended; its wait status."""
    named = {
        name: BoundedLog(name, CONSOLE_LIMIT if name == CONSOLE else VMM_LOG_LIMIT)
        for name in outputs.values()
    }
    logs = {fd: named[name] for fd, name in outputs.items()}
    vmm = os.pidfd_open(pid)
    poll = select.poll()
    for fd in (vmm, *logs):
        os.set_blocking(fd, False)
        poll.register(fd, select.POLLIN)
    end = select.poll()
    end.register(vmm, select.POLLIN)
    ended = False
    while not ended:
        ready = {fd for fd, _ in poll.poll()}
        full = False
        for fd in ready & logs.keys():
            data = _read(fd)
            if data == b"":
                poll.unregister(fd)
            elif data:
                logs[fd].write(data)
                full = full or len(data) == CHUNK
        ended = vmm in ready or (not full and bool(end.poll(GATHER_MS)))
    for fd, log in logs.items():
        while data := _read(fd):  # what was still in the pipes
            log.write(data)
    return os.waitpid(pid, 0)[1]


def identity(vmm: int) -> dict[str, int | str]:
    """Which processes these are, for ever: pid, start time, and the host's boot."""
    return {
        "boot_id": boot_id(),
        "pid": vmm,
        "started": start_time(vmm),
        "monitor_pid": os.getpid(),
        "monitor_started": start_time(os.getpid()),
    }


def exit_record(status: int) -> dict[str, int | float | None]:
    code = os.waitstatus_to_exitcode(status)
    return {
        "code": code if code >= 0 else None,
        "signal": -code if code < 0 else None,
        "at": time.time(),
    }


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def start_time(pid: int) -> int:
    """When the process started, in clock ticks since boot; OSError when there is none."""
    return int(_stat(pid)[19])


def runs(pid: int, started: float) -> bool:
    """Whether this very process is there and not a zombie."""
    try:
        stat = _stat(pid)
    except OSError:
        return False
    return int(stat[19]) == started and stat[0] not in (b"Z", b"X")


def write_record(name: str, record: Mapping[str, int | float | str | None]) -> None:
    """As JSON. The words in it are plain."""
    words = ", ".join(f'"{key}": {_json(value)}' for key, value in record.items())
    write_whole(name, f"{{{words}}}")


def _json(value: float | str | None) -> str:
    if value is None:
        return "null"
    return f'"{value}"' if isinstance(value, str) else repr(value)


def write_whole(name: str, text: str) -> None:
    """Write the file whole or not at all, and to the disk."""
    with open(name + ".tmp", "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(name + ".tmp", name)


def _stat(pid: int) -> list[bytes]:
    """/proc/<pid>/stat from the state on: [0] is the state, [19] the start time."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        # The name in parentheses may hold anything, so read on from the last one.
        return file.read().rpartition(b")")[2].split()


def _read(fd: int) -> bytes | None:
    """What is there to read; empty at the end, None when there is nothing yet."""
    try:
        return os.read(fd, CHUNK)
    except BlockingIOError:
        return None


def _read_all(fd: int) -> bytes:
    data = b""
    while part := os.read(fd, CHUNK):
        data += part
    return data


def _let_go_of_the_starter() -> None:
    """Keep none of its files open, or it would wait for us."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
