"""Real servers and real VMs. One server a session, one VM a module."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.server import Server, running_server

PATIENCE = 240  # seconds; emulated guests on a busy machine are slow, and no test measures time

Wait = Callable[[str, str], dict[str, Any]]


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests here run in one process: they share the server."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.live)
            item.add_marker(pytest.mark.xdist_group("live"))
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A Nexus of its own, with short patience for silent agents."""
    with running_server(NEXUS_HEARTBEAT_INTERVAL="1", NEXUS_HEARTBEAT_TIMEOUT="6") as server:
        yield server
        left = vmms(server)
    assert not any(process.is_running() for process in left), "a VMM outlived its VM"


@pytest.fixture(scope="module")
def vm(server: Server, request: pytest.FixtureRequest) -> dict[str, Any]:
    """A ready VM, shared by the tests of one module."""
    name = request.module.__name__.rpartition(".")[2].replace("_", "-")
    server.ctl("vm", "from-rootfs", "alpine", "3.23", "--name", name, "--memory", "256")
    found: dict[str, Any] = server.get(f"/v1/vms/{name}")
    return found


def wait_for_state(server: Server, ref: str, *states: str) -> dict[str, Any]:
    """The VM once it is in one of ``states``; fails with its history when that never happens."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        vm: dict[str, Any] = server.get(f"/v1/vms/{ref}")
        if vm["state"] in states:
            return vm
        time.sleep(0.1)
    raise AssertionError(f"{ref} never became {states}: {history(server, ref)}")


def history(server: Server, ref: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = server.get(f"/v1/vms/{ref}/history?limit=200")["items"]
    return rows


def pid_of(server: Server, vm: dict[str, Any]) -> int:
    """The process ID of the VM's VMM."""
    record = server.data_dir / "vms" / vm["id"] / "monitor.json"
    return int(json.loads(record.read_text())["pid"])


def vmms(server: Server) -> list[psutil.Process]:
    """Processes that work in the VM directories of this server."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd().startswith(str(server.data_dir / "vms")):
                found.append(process)
        except psutil.Error:
            continue
    return found


def kill(pid: int, with_signal: int = signal.SIGKILL) -> None:
    os.kill(pid, with_signal)


def restart(server: Server, *, while_down: Callable[[], None] = lambda: None) -> None:
    """Stop the server as an operator would, do something, start it again."""
    server.stop()
    while_down()
    server.start()


def ctl_fails(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A ``nexusctl`` call that is expected to fail."""
    done = server.run(*arguments)
    assert done.returncode != 0, done.stdout
    return done
