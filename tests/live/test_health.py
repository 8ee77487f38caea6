"""What people see when the worker of a real server is killed, and when it is back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bench.server import Server, running_server
from tests.live.test_killed_workers import Workers, without_worker
from tests.servers import PATIENCE, signed_in

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server whose worker the test starts and kills."""
    with running_server() as server, without_worker(server):
        yield server


@pytest.fixture
def workers(server: Server) -> Iterator[Workers]:
    """Its worker, which the test leaves running."""
    workers = Workers(server)
    yield workers
    workers.kill()


def _until(found: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not found():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def test_a_killed_worker_is_said_and_its_return_too(server: Server, workers: Workers) -> None:
    browser = signed_in(server)
    token = (server.data_dir / "token").read_text().strip()
    here = ("--server", server.url, "--token", token)  # no nexusd says where
    workers.start()
    _until(lambda: server.get("/v1/status")["worker"]["alive"], "the worker never came")
    _until(lambda: server.get("/v1/doctor")["looked_at"], "the worker never looked at its host")
    assert "Runs (pid " in browser("/health/")
    assert "<strong>Worker:</strong>" not in browser("/")
    before = server.get("/v1/status")["worker"]
    assert before["alive"]

    workers.kill()
    assert not server.get("/v1/status")["worker"]["alive"]
    assert "Down since " in browser("/health/")
    assert "<strong>Worker:</strong> Down since " in browser("/")
    doctor = server.run("doctor", *here)
    assert (doctor.returncode, '"key": "worker"' in doctor.stdout) == (1, True)

    workers.start()
    _until(lambda: server.get("/v1/status")["worker"]["alive"], "the worker never came back")
    assert server.get("/v1/status")["worker"]["pid"] != before["pid"]
    assert "<strong>Worker:</strong>" not in browser("/")
    again = server.ctl("doctor", "--again", *here)
    assert again["state"] in ("fine", "limited")
