"""./nexus up and down in a small clone: the real front door and nexusd, the rest played."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nexus_site.daemon import Running, start_ticks

ROOT = Path(__file__).parents[2]
CODE = (
    "nexus",
    "front_door",
    "guest_agent/build.py",
    "guest_agent/agent",
    "nexus_site/__init__.py",
    "nexus_site/daemon.py",
    "nexus_site/core/__init__.py",
    "nexus_site/core/errors.py",
    "requirements",
    "package-lock.json",
    "pyproject.toml",
)
PYTHON = """
case "$*" in
  -c*) echo 3.12.1 ;;
  *nexus_setup*)
    mkdir -p "$NEXUS_DATA_DIR/static"
    touch "$NEXUS_DATA_DIR/nexus.db" "$NEXUS_DATA_DIR/token"
    touch "$NEXUS_DATA_DIR/static/staticfiles.json" ;;
  *sign_in_link*) echo "link for ${*##* }" ;;
esac
"""
NEXUSD = f"""#!{sys.executable}
import sys
sys.path.insert(0, {{clone!r}})
from nexus_site import daemon
WEB = '''
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(os.environ["NEXUS_PORT"])), Handler).serve_forever()
'''
daemon.programs = lambda: [
    daemon.Program("web", (sys.executable, "-c", WEB)),
    daemon.Program("worker", (sys.executable, "-c", "import time; time.sleep(600)")),
]
sys.exit(daemon.main())
"""
NEXUSCTL = """
state=$NEXUS_DATA_DIR/hello
case "$*" in
  "vm inspect"*) [ -f "$state" ] || exit 4 ;;
  "vm from-rootfs"*) echo "hello is ready"; touch "$state" ;;
  "vm list"*) cat "$NEXUS_DATA_DIR/vms.json" ;;
esac
"""


class Clone:
    """A clone whose ``.venv`` and host programs are scripts that note their calls."""

    def __init__(self, directory: Path, bin_dir) -> None:
        self.directory = directory
        self.data_dir = directory.parent / "data"
        self.bin = bin_dir
        self.environment = {"PATH": os.environ["PATH"], "NEXUS_DATA_DIR": str(self.data_dir)}
        for name in CODE:
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, directory / name)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        venv = directory / ".venv/bin"
        venv.mkdir(parents=True)
        for name, script in (("python", PYTHON), ("nexusctl", NEXUSCTL)):
            bin_dir.add(name, script).rename(venv / name)
        (venv / "nexusd").write_text(NEXUSD.format(clone=str(directory)))
        (venv / "nexusd").chmod(0o755)

    def spawn(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, self.directory / "nexus", *words],
            cwd=self.directory,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *words: str) -> tuple[int, str]:
        """Exit code and what was printed."""
        with self.spawn(*words) as process:
            output, _ = process.communicate(timeout=120)
            return process.returncode, output

    def up(self, *words: str) -> tuple[int, str]:
        return self.run("up", "--port", str(self.port), *words)

    def running(self) -> Running | None:
        return Running.read(self.data_dir)

    def called(self, program: str) -> list[str]:
        words = [call.partition(" ") for call in self.bin.calls]
        return [arguments for name, _, arguments in words if name == program]


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the condition never became true"
        time.sleep(0.02)


@pytest.fixture
def clone(tmp_path: Path, bin_dir) -> Iterator[Clone]:
    bin_dir.link("mkdir", "touch", "cat")
    bin_dir.add("npm", "mkdir -p node_modules")
    bin_dir.add("qemu-system-x86_64", "echo QEMU emulator version 9.1.0")
    for program in ("mke2fs", "debugfs"):
        bin_dir.add(program)
    clone = Clone(tmp_path / "clone", bin_dir)
    yield clone
    clone.run("down")
    assert clone.running() is None


def test_up_sets_up_starts_and_creates_the_first_vm(clone: Clone) -> None:
    code, output = clone.up("--detach")
    assert code == 0, output
    url = f"http://127.0.0.1:{clone.port}"
    assert f"Dashboard  {url}\nSign in    link for {url}  (works once)" in output
    assert output.count(".venv/bin/nexusctl ") == 3
    assert "hello is ready" in output
    assert "\x1b" not in output, "no colours where there is no terminal"
    running = clone.running()
    assert running is not None
    assert running.url == url
    assert "manage.py nexus_setup" in clone.called("python")
    assert clone.called("nexusctl")[1] == "vm from-rootfs alpine 3.23 --name hello"


def test_up_again_says_that_it_runs_and_changes_nothing(clone: Clone) -> None:
    clone.up("--detach")
    running, python, npm = clone.running(), len(clone.called("python")), len(clone.called("npm"))
    code, output = clone.run("up")
    assert code == 0, output
    assert running is not None
    assert f"Nexus already runs: {running.url} (pid {running.pid})" in output
    assert f"link for {running.url}" in output
    assert clone.running() == running
    assert len(clone.called("python")) == python + 1, "more than the link was asked for"
    assert len(clone.called("npm")) == npm
    assert len([call for call in clone.called("nexusctl") if "from-rootfs" in call]) == 1


def test_up_after_down_installs_nothing(clone: Clone) -> None:
    clone.up("--detach", "--no-vm")
    code, output = clone.run("down")
    assert code == 0, output
    assert clone.running() is None
    clone.up("--detach", "--no-vm")
    assert clone.called("python").count("manage.py nexus_setup") == 1
    assert len([call for call in clone.called("python") if "pip" in call]) == 2
    assert clone.called("npm") == ["ci --ignore-scripts --no-audit --no-fund"]
    assert clone.called("nexusctl") == []


@pytest.mark.parametrize("what", ["data", "code", "settings"])
def test_the_data_directory_is_set_up_again_when_it_must_be(clone: Clone, what: str) -> None:
    clone.up("--detach", "--no-vm")
    clone.run("down")
    if what == "data":
        (clone.data_dir / "nexus.db").unlink()
    elif what == "code":
        migration = clone.directory / "vms/migrations/0002_more.py"
        migration.parent.mkdir(parents=True)
        migration.touch()
    else:
        clone.environment["REDIS_URL"] = "redis://localhost"
    code, output = clone.up("--detach", "--no-vm")
    assert code == 0, output
    assert clone.called("python").count("manage.py nexus_setup") == 2


def test_in_the_foreground_it_serves_until_ctrl_c(clone: Clone) -> None:
    process = clone.spawn("up", "--no-vm", "--port", str(clone.port))
    wait_for(lambda: "sign_in_link" in " ".join(clone.called("python")))
    running = clone.running()
    assert running is not None
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 130, output
    assert start_ticks(running.pid) is None
    assert clone.running() is None


def test_a_vm_that_does_not_become_ready_is_told_by_the_exit_code(clone: Clone) -> None:
    nexusctl = clone.directory / ".venv/bin/nexusctl"
    nexusctl.write_text("#!/bin/sh\n[ $2 = inspect ] && exit 4\necho no QEMU >&2; exit 1\n")
    code, output = clone.up("--detach")
    assert code == 1, output
    assert "no QEMU" in output
    assert "Dashboard" in output
    assert clone.running(), "Nexus itself serves: the page shows what failed"


def test_a_port_that_is_taken_is_said_before_anything_is_installed(clone: Clone) -> None:
    with socket.create_server(("127.0.0.1", clone.port)):
        code, output = clone.up("--detach")
    assert code == 1
    assert f"cannot listen on 127.0.0.1 port {clone.port}: Address already in use" in output
    assert "--port" in output
    assert clone.bin.calls == []


def test_a_setup_that_fails_shows_why(clone: Clone) -> None:
    clone.bin.add("npm", "echo npm says no; exit 1")
    code, output = clone.up("--detach")
    assert code == 1
    assert "npm says no" in output
    assert "Traceback" not in output
    assert clone.running() is None


def test_down_without_a_server(clone: Clone) -> None:
    code, output = clone.run("down")
    assert code == 0
    assert "No Nexus runs on" in output
    code, output = clone.run("down", "--vms")
    assert code == 1
    assert "./nexus up --detach --no-vm" in output


def test_down_vms_stops_those_that_run(clone: Clone) -> None:
    clone.up("--detach", "--no-vm")
    states = ["ready", "stopped", "unreachable", "failed", "paused"]
    vms = [{"id": f"id-{state}", "name": state, "state": state} for state in states]
    (clone.data_dir / "vms.json").write_text(json.dumps(vms))
    code, output = clone.run("down", "--vms")
    assert code == 0, output
    assert clone.called("nexusctl") == [
        "vm list --json",
        "vm stop id-ready",
        "vm stop id-unreachable",
        "vm stop id-paused",
    ]
    assert clone.running() is None


def test_test_hands_its_arguments_to_pytest(clone: Clone) -> None:
    clone.bin.add("chromium")
    pytest_call = '[ "$2" = pytest ] && echo "1 failed" && exit 3'
    clone.bin.add("python", f"{pytest_call}\n{PYTHON}").rename(clone.directory / ".venv/bin/python")
    code, output = clone.run("test", "-k", "name", "--help", "tests/vms")
    assert code == 3, output
    assert clone.called("python")[-1] == "-m pytest -k name --help tests/vms"
    assert output.splitlines()[-1] == "1 failed", "pytest's closing line is not the last"
    clone.run("test")
    assert clone.called("python")[-1] == (
        "-m pytest -n 2 --dist loadgroup --no-loadscope-reorder --durations=15"
    )
    assert "requirements/test.txt" in " ".join(clone.called("python"))


def test_bench_runs_the_module(clone: Clone) -> None:
    (clone.directory / "bench").mkdir()
    (clone.directory / "bench/boot.py").write_text("import time\n\ndef main() -> None: ...\n")
    (clone.directory / "bench/server.py").touch()
    code, output = clone.run("bench", "boot", "-n", "7", "--peer")
    assert code == 0, output
    assert clone.called("python")[-1] == "-m bench.boot -n 7 --peer"
    code, output = clone.run("bench", "server")
    assert code == 2, "it measures nothing"
    assert "choose from" in output


def test_ci_runs_the_tests() -> None:
    assert (ROOT / ".ci/run").read_text().splitlines()[-1] == "exec ./nexus test"
    assert os.access(ROOT / "nexus", os.X_OK)
