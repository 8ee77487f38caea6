"""nexusd with real processes: plain Python programs stand in for web and worker."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from nexus_site import daemon
from nexus_site.daemon import Child, Program, Running, start_ticks

ROOT = Path(__file__).parents[2]

START = """
import json, logging, sys
from pathlib import Path
from nexus_site import daemon
logging.basicConfig(level=logging.INFO, stream=sys.stderr)
daemon.FIRST_DELAY, daemon.STOP_TIMEOUT = 0.05, 1.0
data_dir, port, programs = json.loads(sys.argv[1])
programs = [daemon.Program(name, tuple(argv)) for name, argv in programs]
try:
    daemon.Daemon(Path(data_dir), "127.0.0.1", port, programs).run()
except daemon.Conflict as error:
    sys.exit(f"{error.code}: {error.text}")
"""
NOTE_PID = "import os, pathlib, sys, time; pathlib.Path(sys.argv[1], str(os.getpid())).touch()\n"
SLEEP = NOTE_PID + "time.sleep(600)"
DIE_TWICE = NOTE_PID + "len(os.listdir(sys.argv[1])) < 3 and sys.exit(7); time.sleep(600)"
LISTEN = """
import socket, sys, time
server = socket.create_server(("127.0.0.1", int(sys.argv[2])))
pathlib = __import__("pathlib"); os = __import__("os")
pathlib.Path(sys.argv[1], str(os.getpid())).touch()
time.sleep(600)
"""
STUBBORN = """
import os, pathlib, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.fork()
pathlib.Path(sys.argv[1], str(os.getpid())).touch()
time.sleep(600)
"""


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the condition never became true"
        time.sleep(0.02)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Rig:
    """Starts daemons on one data directory; each program notes its pids in a directory."""

    def __init__(self, tmp_path: Path) -> None:
        self.data_dir = tmp_path / "data"
        self.log = tmp_path / "log"
        self.port = free_port()
        self.daemons: list[subprocess.Popen[bytes]] = []

    def start(self, **sources: str) -> subprocess.Popen[bytes]:
        programs = []
        for name, source in sources.items():
            self.notes(name).mkdir(parents=True, exist_ok=True)
            argv = [sys.executable, "-c", source, str(self.notes(name)), str(self.port)]
            programs.append((name, argv))
        plan = json.dumps([str(self.data_dir), self.port, programs])
        with self.log.open("ab") as log:
            process = subprocess.Popen([sys.executable, "-c", START, plan], stderr=log, cwd=ROOT)
        self.daemons.append(process)
        return process

    def notes(self, name: str) -> Path:
        return self.log.parent / "pids" / name

    def pids(self, name: str) -> list[int]:
        return [int(path.name) for path in self.notes(name).iterdir()]

    def living(self, *names: str) -> list[int]:
        return [pid for name in names for pid in self.pids(name) if start_ticks(pid)]

    def wait_log(self, text: str) -> None:
        wait_for(lambda: text in self.log.read_text())


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    for process in rig.daemons:
        process.kill()
        process.wait()
    wait_for(lambda: not rig.living(*(path.name for path in tmp_path.glob("pids/*"))))


def test_serves_and_says_where(rig: Rig) -> None:
    process = rig.start(web=SLEEP, worker=SLEEP)
    wait_for(lambda: rig.living("web") and rig.living("worker"))
    running = Running.read(rig.data_dir)
    assert running is not None
    assert running.pid == process.pid
    assert running.started == start_ticks(process.pid)
    assert running.url == f"http://127.0.0.1:{rig.port}"


def test_a_child_that_dies_is_started_again(rig: Rig) -> None:
    rig.start(web=SLEEP, worker=DIE_TWICE)
    wait_for(lambda: len(rig.pids("worker")) == 3 and rig.living("worker"))
    rig.wait_log("worker exited with code 7; starting it again")
    assert len(rig.pids("web")) == 1, "the other child was disturbed"


def test_a_killed_child_is_started_again(rig: Rig) -> None:
    rig.start(web=SLEEP)
    wait_for(lambda: rig.living("web"))
    os.kill(rig.living("web")[0], signal.SIGKILL)
    wait_for(lambda: len(rig.pids("web")) == 2 and rig.living("web"))
    rig.wait_log("web was ended by signal 9 (Killed)")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_stops_its_children_in_order(rig: Rig, how: signal.Signals) -> None:
    process = rig.start(web=SLEEP, worker=SLEEP)
    wait_for(lambda: rig.living("web") and rig.living("worker"))
    process.send_signal(how)
    assert process.wait(60) == 0
    assert rig.living("web", "worker") == []
    log = rig.log.read_text()
    assert log.index("web was ended by signal 15") < log.index("worker was ended by signal 15")
    assert not (rig.data_dir / "run/nexusd.json").exists()


def test_a_child_that_will_not_stop_is_killed_with_its_helpers(rig: Rig) -> None:
    process = rig.start(web=STUBBORN)
    wait_for(lambda: len(rig.living("web")) == 2)
    process.terminate()
    assert process.wait(60) == 0
    wait_for(lambda: rig.living("web") == [])


def test_killing_the_daemon_ends_its_children(rig: Rig) -> None:
    process = rig.start(web=LISTEN, worker=SLEEP)
    wait_for(lambda: rig.living("web") and rig.living("worker"))
    process.kill()
    process.wait()
    wait_for(lambda: rig.living("web", "worker") == [])
    assert (rig.data_dir / "run/nexusd.json").exists()
    assert Running.read(rig.data_dir) is None, "a dead daemon is taken for a running one"
    again = rig.start(web=LISTEN, worker=SLEEP)
    wait_for(lambda: rig.living("web"))
    assert again.poll() is None, "what the killed daemon left keeps a new one from starting"


def test_a_second_instance_is_refused(rig: Rig) -> None:
    first = rig.start(web=SLEEP)
    wait_for(lambda: rig.living("web"))
    assert rig.start(web=SLEEP).wait(60) == 1
    rig.wait_log(f"already-running: Nexus already runs on {rig.data_dir} (pid {first.pid}")
    assert len(rig.pids("web")) == 1


def test_a_port_that_is_taken_is_refused(rig: Rig) -> None:
    with socket.create_server(("127.0.0.1", rig.port)):
        assert rig.start(web=SLEEP).wait(60) == 1
    rig.wait_log(f"port-taken: Nexus cannot listen on 127.0.0.1 port {rig.port}")
    assert not (rig.data_dir / "run/nexusd.json").exists()
    assert rig.pids("web") == []


def test_a_reused_pid_is_not_taken_for_the_daemon(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    started = start_ticks(os.getpid())
    assert started
    Running(os.getpid(), started, "127.0.0.1", 1, "http://127.0.0.1:1").write(tmp_path)
    assert Running.read(tmp_path)
    Running(os.getpid(), started - 1, "127.0.0.1", 1, "http://127.0.0.1:1").write(tmp_path)
    assert Running.read(tmp_path) is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"pid": "x"}'])
def test_a_damaged_state_file_means_nothing_runs(tmp_path: Path, content: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/nexusd.json").write_text(content)
    assert Running.read(tmp_path) is None


def test_the_waits_double_to_a_limit_and_a_long_life_resets_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(daemon, "time", SimpleNamespace(monotonic=lambda: now))
    child = Child(Program("web", (sys.executable, "-c", "import sys; sys.exit(0)")), os.environ)
    waits = []
    for lifetime in (0, 0, 0, 0, 0, 0, 0, 61, 0):
        assert child.start_if_due() == 0
        now += lifetime
        while not (wait := child.start_if_due()):
            child.reap()
        waits.append(wait)
        now += wait
    assert waits == [1, 2, 4, 8, 16, 30, 30, 1, 2]


def test_a_program_that_cannot_be_started_is_tried_again() -> None:
    child = Child(Program("web", ("/nonexistent/program",)), os.environ)
    assert child.start_if_due() == daemon.FIRST_DELAY
    child.reap()
    child.stop()


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:9600"),
        ("0.0.0.0", "http://127.0.0.1:9600"),
        ("::1", "http://[::1]:9600"),
        ("::", "http://[::1]:9600"),
    ],
)
def test_local_url(host: str, url: str) -> None:
    assert daemon.local_url(host, 9600) == url


def test_needs_nothing_but_the_standard_library() -> None:
    """The front door imports it before anything is installed."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import nexus_site.daemon"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)
