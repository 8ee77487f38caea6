"""Starting and stopping nexusd from outside."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from front_door import server as server_module
from front_door.server import Server
from front_door.steps import Step
from nexus_site.core.errors import Broken
from nexus_site.daemon import Running, start_ticks

ROOT = Path(__file__).parents[2]
Start = Callable[[], "subprocess.Popen[bytes]"]
NEXUSD = """#!{python}
import sys
sys.path.insert(0, {root!r})
from nexus_site import daemon
WEB = '''
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/healthz" else 404)
        self.end_headers()
print("web is up", flush=True)
http.server.HTTPServer(("127.0.0.1", int(os.environ["NEXUS_PORT"])), Handler).serve_forever()
'''
daemon.programs = lambda: [daemon.Program("web", (sys.executable, "-c", WEB))]
sys.exit(daemon.main())
"""


def install(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A real nexusd whose web process answers /healthz and nothing else."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    text = NEXUSD.format(python=sys.executable, root=str(ROOT))
    monkeypatch.setattr(server_module, "NEXUSD", install(tmp_path / "nexusd", text))
    monkeypatch.delenv("NEXUS_HOST", raising=False)
    return Server(tmp_path / "data", port)


@pytest.fixture
def start(server: Server, this: Step) -> Iterator[Start]:
    """Start it, and stop it after the test."""
    started = []

    def start() -> subprocess.Popen[bytes]:
        started.append(server.start(this))
        return started[-1]

    yield start
    server.stop()
    for process in started:
        process.wait(60)


def test_starts_and_stops(server: Server, start: Start) -> None:
    process = start()
    running = server.running()
    assert running is not None
    assert running.pid == process.pid
    assert os.getsid(process.pid) == process.pid, "it would get the terminal's Ctrl-C"
    assert server.healthy()
    assert "web is up" in server.log.read_text()
    assert server.stop()
    assert process.wait(60) == 0
    assert not server.healthy()
    assert not server.stop()


def test_commands_are_told_where_the_running_one_is(server: Server, start: Start) -> None:
    start()
    other = Server(server.data_dir, 1)
    assert other.environment()["NEXUS_PORT"] == str(server.port)
    assert other.url == f"http://127.0.0.1:{server.port}"


def test_one_that_ends_while_starting_shows_its_last_words(
    server: Server, this: Step, tmp_path: Path
) -> None:
    server.log.parent.mkdir(parents=True)
    server.log.write_text("an old line\n")
    install(tmp_path / "nexusd", "#!/bin/sh\necho ImportError: no such thing >&2\nexit 3\n")
    with pytest.raises(Broken, match="Nexus stopped while starting") as caught:
        server.start(this)
    assert caught.value.detail == "ImportError: no such thing\n"


def test_one_that_never_answers_is_stopped(
    server: Server, this: Step, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "START_TIMEOUT", 0.3)
    note = tmp_path / "pid"
    install(tmp_path / "nexusd", f"#!/bin/sh\necho $$ > {note}\nexec sleep 600\n")
    with pytest.raises(Broken, match="does not answer"):
        server.start(this)
    assert note.exists()
    assert start_ticks(int(note.read_text())) is None


def test_a_stranger_with_the_same_pid_is_left_alone(server: Server) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as stranger:
        started = start_ticks(stranger.pid)
        assert started
        (server.data_dir / "run").mkdir(parents=True)
        Running(stranger.pid, started - 1, "127.0.0.1", 1, "").write(server.data_dir)
        assert not server.stop()
        assert stranger.poll() is None
        stranger.kill()


def test_a_large_log_is_put_aside(server: Server, start: Start) -> None:
    server.log.parent.mkdir(parents=True)
    server.log.write_bytes(b"x" * (server_module.LARGEST_LOG + 1))
    start()
    assert server.log.stat().st_size < 10_000
    assert server.log.with_suffix(".log.1").stat().st_size == server_module.LARGEST_LOG + 1


def test_the_state_file_is_what_others_read(server: Server, start: Start) -> None:
    """nexusctl finds the server by it."""
    process = start()
    state = json.loads((server.data_dir / "run/nexusd.json").read_text())
    assert state == {
        "pid": process.pid,
        "started": start_ticks(process.pid),
        "host": "127.0.0.1",
        "port": server.port,
        "url": f"http://127.0.0.1:{server.port}",
    }
