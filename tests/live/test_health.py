"""What people see when the worker of a real server is killed, and when it is back."""

from __future__ import annotations

import http.cookiejar
import re
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bench.server import Server, running_server
from tests.live.test_killed_workers import Workers, without_worker
from tests.servers import PATIENCE

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


def _browser(server: Server) -> Callable[[str], str]:
    """Somebody who is signed in and looks at pages."""
    cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
    opener = urllib.request.build_opener(cookies)
    link = server.post("/v1/sign-in-link")["url"]
    with opener.open(link, timeout=30) as page:
        found = re.search(r'csrfmiddlewaretoken" value="(\w+)"', page.read().decode())
    assert found, "the link's page posts a form"
    form = urllib.parse.urlencode({"csrfmiddlewaretoken": found[1]}).encode()
    with opener.open(link, form, timeout=30) as page:
        assert page.url == server.url + "/"

    def look(path: str) -> str:
        with opener.open(server.url + path, timeout=30) as page:
            return str(page.read().decode())

    return look


def _until(found: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not found():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def test_a_killed_worker_is_said_and_its_return_too(server: Server, workers: Workers) -> None:
    browser = _browser(server)
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
