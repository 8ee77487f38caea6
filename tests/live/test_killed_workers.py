"""However often the worker is killed, storage and database stay together."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from bench.server import Server, running_server
from nexus_site.daemon import programs
from tests.servers import PATIENCE

pytestmark = pytest.mark.xdist_group("killed-workers")

KILLS = 50
MIB = 1 << 20


class Workers:
    """The worker of a server, killed and started again as nexusd would, but without its pauses."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._command = next(p.argv for p in programs() if p.name == "worker")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = {"DJANGO_SETTINGS_MODULE": "nexus_site.settings"} | self.server.env
        log = self.server.data_dir / "run" / "killed-workers.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, env=environment, stdout=output, stderr=output
            )

    def kill(self) -> None:
        assert self._process is not None, "started before"
        assert self._process.poll() is None, "the worker ended by itself"
        self._process.kill()
        self._process.wait()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server without a worker; it has an image."""
    with running_server() as server:
        server.ctl("image", "from-rootfs", "alpine", "3.23", "--name", "alpine")
        with without_worker(server):
            yield server


@contextlib.contextmanager
def without_worker(server: Server) -> Iterator[None]:
    """Only the web process serves inside the block."""
    server.stop()
    command = next(p.argv for p in programs() if p.name == "web")
    environment = {"DJANGO_SETTINGS_MODULE": "nexus_site.settings"} | server.env
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as web:
        try:
            wait_until_serving(server)
            yield
        finally:
            web.terminate()
    server.start()


def wait_until_serving(server: Server) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(server.url + "/healthz", timeout=2).close()
            return
        time.sleep(0.05)
    raise AssertionError("the web process never answered")


def ask(server: Server, method: str, path: str, **body: Any) -> None:
    """Ask for a change; the answer may be a refusal but no failure."""
    token = (server.data_dir / "token").read_text().strip()
    request = urllib.request.Request(
        f"{server.url}/v1{path}", json.dumps(body).encode(), method=method
    )
    request.add_header("Authorization", f"Bearer {token}")
    request.add_header("Content-Type", "application/json")
    with contextlib.ExitStack() as stack:
        try:
            answer: Any = urllib.request.urlopen(request, timeout=30)
        except urllib.error.HTTPError as refusal:
            answer = refusal
        stack.enter_context(answer)
        assert answer.status < 500, f"{method} {path}: {answer.read()!r}"


def rows(server: Server, kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.get(f"/v1/{kind}?limit=200")["items"]
    return found


def ask_for_anything(server: Server, rng: random.Random) -> None:
    """One change to drives and snapshots, whatever they are now."""
    drives, snapshots = rows(server, "drives"), rows(server, "snapshots")
    drive = rng.choice(drives)["name"] if drives else ""
    snapshot = rng.choice(snapshots) if snapshots else None
    size = 8192 + rng.randrange(1, 4096)
    changes: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "/drives", {"image": "alpine"}),
        ("POST", "/drives", {"size_mib": 64}),
    ]
    if drive:
        changes += [
            ("POST", "/drives", {"drive": drive}),
            ("POST", f"/drives/{drive}/snapshots", {}),
            ("POST", f"/drives/{drive}/snapshots", {}),
            ("POST", f"/drives/{drive}/resize", {"size_mib": size}),
            ("DELETE", f"/drives/{drive}?with_snapshots=1", {}),
        ]
    if snapshot:
        name, of = snapshot["name"], snapshot["drive"]["name"]
        changes += [
            ("POST", "/drives", {"snapshot": name}),
            ("POST", f"/drives/{of}/rollback", {"snapshot": name}),
            ("DELETE", f"/snapshots/{name}", {}),
        ]
    method, path, body = rng.choice(changes)
    ask(server, method, path, **body)


def open_operations(server: Server) -> list[dict[str, Any]]:
    return [
        row
        for state in ("running", "queued")
        for row in server.get(f"/v1/operations?state={state}&limit=200")["items"]
    ]


def wait_for_work(server: Server) -> None:
    """Until the worker has begun something; some changes are refused, so not for ever."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if server.get("/v1/operations?state=running&limit=1")["items"]:
            return
        if not server.get("/v1/operations?state=queued&limit=1")["items"]:
            return
        time.sleep(0.005)


def wait_until_idle(server: Server) -> None:
    deadline = time.monotonic() + PATIENCE
    while left := open_operations(server):
        assert time.monotonic() < deadline, f"these never ended: {left}"
        time.sleep(0.2)


@pytest.mark.timeout(1200)
def test_fifty_kills_of_the_worker_leave_nothing_wrong(server: Server) -> None:
    rng = random.Random(4)
    workers = Workers(server)
    workers.start()
    interrupted: set[str] = set()
    kinds: set[str] = set()
    for _ in range(KILLS):
        if rng.random() < 0.6:  # else what was interrupted is interrupted again
            wait_until_idle(server)
        for _ in range(6):
            ask_for_anything(server, rng)
        wait_for_work(server)
        time.sleep(rng.uniform(0, 0.2))
        workers.kill()
        for operation in server.get("/v1/operations?state=running&limit=200")["items"]:
            interrupted.add(operation["id"])
            kinds.add(operation["kind"])
        workers.start()
    wait_until_idle(server)
    assert len(interrupted) >= KILLS / 5, "the kills did not meet the work"
    assert len(kinds) >= 4, f"only these were interrupted: {kinds}"
    assert server.get("/v1/storage/check")["problems"] == []
    assert_rows_and_files_agree(server)
    workers.kill()


def assert_rows_and_files_agree(server: Server) -> None:
    """Said without the words of ``storage check``."""
    for kind, directory in (("drives", "drives"), ("snapshots", "drives/snapshots")):
        there = rows(server, kind)
        assert {row["state"] for row in there} <= {"ready"}
        sizes = {row["id"]: row["size_bytes"] for row in there}
        assert sizes == sizes_of_files(server, directory)


def sizes_of_files(server: Server, directory: str) -> dict[str, int]:
    """Every drive or snapshot on the disk by its ID, whatever the backend's layout."""
    found = {}
    for path in (server.data_dir / directory).iterdir():
        if path.name in ("snapshots", "seeds"):
            continue
        disk = path / "disk.img" if path.is_dir() else path
        found[path.name.removesuffix(".img")] = disk.stat().st_size
    return found
