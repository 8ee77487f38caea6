"""``nexusd``: runs, watches and restarts the two processes of a Nexus host.

They are **web** (pages, API, websockets) and **worker** (jobs and the supervisor of
VMs). A child that dies is started again after 1, 2, 4 ... at most 30 seconds; a minute
of life forgives what was before.

The daemon has one thread and no Django: it sleeps until a signal arrives (SIGCHLD,
SIGTERM, SIGINT, SIGHUP) or a restart is due. Only the standard library is imported
here, so that the front door can use this module before anything is installed.

VMs are not its children: they outlive the daemon and its children alike.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from nexus_site.core.errors import Conflict, NexusError

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 9600

FIRST_DELAY = 1.0
LONGEST_DELAY = 30.0
PROVEN_AFTER = 60.0  # a child that lived this long starts again from FIRST_DELAY
STOP_TIMEOUT = 10.0  # for each child, before it is killed

STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)

log = logging.getLogger("nexusd")


def default_data_dir() -> Path:
    """Where this host's state lives unless told otherwise."""
    if chosen := os.environ.get("NEXUS_DATA_DIR"):
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(base).expanduser().absolute() / "nexus"


def start_ticks(pid: int) -> int | None:
    """When process ``pid`` started, in clock ticks since boot; None when it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    state, *fields = stat.rpartition(")")[2].split()
    return None if state in "ZX" else int(fields[18])


def local_url(host: str, port: int) -> str:
    """The address for programs and people on this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@dataclass(frozen=True)
class Running:
    """A nexusd and where it answers, as written to ``run/nexusd.json``."""

    pid: int
    started: int  # clock ticks since boot: with the pid it names one process for good
    host: str
    port: int
    url: str

    @classmethod
    def read(cls, data_dir: Path) -> Self | None:
        """The nexusd that serves ``data_dir`` now; None when there is none."""
        try:
            running = cls(**json.loads((data_dir / "run/nexusd.json").read_text()))
        except (OSError, ValueError, TypeError):
            return None
        return running if running.alive() else None

    def alive(self) -> bool:
        return start_ticks(self.pid) == self.started

    def write(self, data_dir: Path) -> None:
        final = data_dir / "run/nexusd.json"
        temporary = final.with_suffix(".json.tmp")
        with temporary.open("w") as file:
            json.dump(asdict(self), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(final)


@dataclass(frozen=True)
class Program:
    """A command that nexusd keeps running."""

    name: str
    argv: tuple[str, ...]


def programs() -> tuple[Program, ...]:
    """Web and worker, in the order in which they are started and stopped."""
    return tuple(
        Program(name, (sys.executable, "-m", "django", f"nexus_{name}"))
        for name in ("web", "worker")
    )


class Child:
    """One program's process, and when it may be started again after it died."""

    def __init__(self, program: Program, environment: Mapping[str, str]) -> None:
        self.name = program.name
        self._argv = program.argv
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._delay = FIRST_DELAY
        self._start_at = 0.0

    def start_if_due(self) -> float:
        """Start the program unless it runs or must wait; the seconds that it must wait."""
        if self._process:
            return 0
        wait = self._start_at - time.monotonic()
        if wait > 0:
            return wait
        self._started_at = time.monotonic()
        try:
            self._process = self._spawn()
        except (OSError, subprocess.SubprocessError) as error:
            return self._failed(f"did not start ({error})")
        log.info("%s started (pid %d)", self.name, self._process.pid)
        return 0

    def _spawn(self) -> subprocess.Popen[bytes]:
        # An own session: Ctrl-C in the terminal reaches the daemon alone, which then
        # stops its children in order. (No threads here, so preexec_fn is safe.)
        return subprocess.Popen(
            self._argv,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_die_with(os.getpid()),
        )

    def reap(self) -> None:
        """If the process ended, say how, and set when it may start again."""
        if self._process is None or self._process.poll() is None:
            return
        ending = _ending(self._process.returncode)
        self._process = None
        self._failed(ending)

    def _failed(self, how: str) -> float:
        if time.monotonic() - self._started_at >= PROVEN_AFTER:
            self._delay = FIRST_DELAY
        wait = self._delay
        log.error("%s %s; starting it again in %.0f s", self.name, how, wait)
        self._start_at = time.monotonic() + wait
        self._delay = min(wait * 2, LONGEST_DELAY)
        return wait

    def stop(self) -> None:
        """End the process: SIGTERM, and SIGKILL to it and its helpers after STOP_TIMEOUT."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            log.warning("%s did not stop in %.0f s; killing it", self.name, STOP_TIMEOUT)
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        log.info("%s %s", self.name, _ending(self._process.returncode))
        self._process = None


class Daemon:
    """Keeps ``programs`` running for one data directory, until a stop signal."""

    def __init__(self, data_dir: Path, host: str, port: int, programs: Sequence[Program]) -> None:
        self._data_dir = data_dir
        self._host, self._port = host, port
        self._url = local_url(host, port)
        environment = os.environ | {
            "NEXUS_DATA_DIR": str(data_dir),
            "NEXUS_HOST": host,
            "NEXUS_PORT": str(port),
            "PYTHONUNBUFFERED": "1",
        }
        environment.setdefault("DJANGO_SETTINGS_MODULE", "nexus_site.settings")
        # Uploads are spooled before anybody sees them: not into a /tmp that may be memory.
        environment.setdefault("TMPDIR", str(data_dir / "run" / "tmp"))
        self._children = [Child(program, environment) for program in programs]

    def run(self) -> None:
        """Serve until SIGTERM, SIGINT or SIGHUP.

        Raises Conflict when another nexusd has the data directory, or somebody the port.
        """
        for directory in ("run", "run/tmp"):
            (self._data_dir / directory).mkdir(parents=True, exist_ok=True, mode=0o700)
        with _only_one(self._data_dir):
            check_port_free(self._host, self._port)
            # Blocked, they stay pending until sigtimedwait() asks for them: none is missed.
            signal.pthread_sigmask(signal.SIG_BLOCK, {*STOP_SIGNALS, signal.SIGCHLD})
            self._announce()
            try:
                self._watch()
            finally:
                for child in self._children:
                    child.stop()
                (self._data_dir / "run/nexusd.json").unlink(missing_ok=True)
        log.info("stopped")

    def _announce(self) -> None:
        pid = os.getpid()
        started = start_ticks(pid) or 0
        Running(pid, started, self._host, self._port, self._url).write(self._data_dir)
        log.info("serving %s from %s", self._url, self._data_dir)

    def _watch(self) -> None:
        while True:
            waits = [child.start_if_due() for child in self._children]
            timeout = min((wait for wait in waits if wait), default=60.0)
            got = signal.sigtimedwait({*STOP_SIGNALS, signal.SIGCHLD}, timeout)
            if got and got.si_signo in STOP_SIGNALS:
                log.info("stopping (%s)", signal.Signals(got.si_signo).name)
                return
            for child in self._children:
                child.reap()


@contextmanager
def _only_one(data_dir: Path) -> Iterator[None]:
    with (data_dir / "run/nexusd.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            running = Running.read(data_dir)
            who = f" (pid {running.pid}, {running.url})" if running else ""
            raise Conflict(
                f"Nexus already runs on {data_dir}{who}.",
                hint="Stop it with `./nexus down`, or choose another --data-dir.",
                code="already-running",
            ) from None
        yield


def check_port_free(host: str, port: int) -> None:
    """Raise Conflict when nobody can listen there, or somebody else does."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen()
    except OSError as error:
        raise Conflict(
            f"Nexus cannot listen on {host} port {port}: {error.strerror}.",
            hint="Choose another one with --port.",
            code="port-taken",
        ) from error


def _die_with(daemon_pid: int) -> Callable[[], None]:
    """What a child does before exec: die when the daemon dies, even by SIGKILL."""

    def prepare() -> None:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != daemon_pid:  # the daemon died before prctl: no signal will come
            os._exit(1)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    return prepare


def _ending(returncode: int) -> str:
    if returncode < 0:
        return f"was ended by signal {-returncode} ({signal.strsignal(-returncode)})"
    return f"exited with code {returncode}"


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nexusd", description="Runs Nexus on this host.")
    environ = os.environ
    parser.add_argument("--host", default=environ.get("NEXUS_HOST", DEFAULT_HOST))
    parser.add_argument("--port", type=int, default=environ.get("NEXUS_PORT", DEFAULT_PORT))
    parser.add_argument("--data-dir", type=Path, default=default_data_dir())
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """The command ``nexusd``; returns its exit code."""
    options = _options(argv)
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s: %(message)s"
    )
    data_dir = options.data_dir.expanduser().absolute()
    try:
        Daemon(data_dir, options.host, options.port, programs()).run()
    except NexusError as error:
        print(f"nexusd: {error.text} {error.hint}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
