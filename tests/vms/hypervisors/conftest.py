"""Programs under a real monitor; /bin/sh stands in for a VMM where only the process matters."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests import firecracker_release
from vms.hypervisors import monitor, monitored
from vms.hypervisors.base import Exit, Handle
from vms.hypervisors.firecracker import FirecrackerBinary

Start = Callable[[str], Handle]
PATIENCE = 60.0


@pytest.fixture(scope="session")
def firecracker(tmp_path_factory: pytest.TempPathFactory) -> FirecrackerBinary:
    """The real one; what it does without KVM, it does everywhere."""
    found = firecracker_release.installed()
    return found or firecracker_release.of_the_package(tmp_path_factory.mktemp("release"))


@pytest.fixture
def vm_dir(tmp_path: Path) -> Path:
    path = tmp_path / "vm"
    path.mkdir()
    return path


@pytest.fixture
def start(vm_dir: Path) -> Iterator[Start]:
    """Starts a shell script as the VMM of `vm_dir`; nothing of it outlives the test."""
    started: list[Handle] = []

    def start_script(script: str) -> Handle:
        handle = monitored.start(vm_dir, ["/bin/sh", "-c", script], {"PATH": os.defpath}, "tcg")
        started.append(handle)
        return handle

    yield start_script
    for handle in started:
        with suppress(ProcessLookupError):
            os.killpg(handle.pid, signal.SIGKILL)  # the shell's children, too
        monitored.kill(handle)
        if monitor.runs(handle.monitor_pid, handle.monitor_started):
            with suppress(ProcessLookupError):
                os.kill(handle.monitor_pid, signal.SIGKILL)


@pytest.fixture
def until() -> Callable[[Callable[[], object]], None]:
    """Waits for a state, with patience for a busy machine."""

    def wait_until(state: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not state():
            assert time.monotonic() < deadline, "this state never came"
            time.sleep(0.01)

    return wait_until


@pytest.fixture
def ended(vm_dir: Path) -> Callable[[Handle], Exit]:
    """Waits for the VMM's end and tells how it was."""

    def wait_for_end(handle: Handle) -> Exit:
        result = monitored.wait(handle, PATIENCE)
        assert result is not None, "it still runs"
        return result

    return wait_for_end
