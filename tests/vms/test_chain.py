"""The chain from a distribution to a VM, with every step failing once and cut short once.

Everything is real here (image, drive, QEMU, agent); only the faults are made.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from django.utils import timezone

from builds.models import Build
from drives.models import Drive
from images.models import Image
from nexus_site.core import operations
from nexus_site.core.errors import Broken
from nexus_site.core.models import Operation
from nexus_site.core.steps import Do, Plan, Run, Step
from vms import chain, lifecycle, shortcuts
from vms.models import VM
from vms.supervisor import Supervisor

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("nudges", "supervisor"),
    pytest.mark.live,
    pytest.mark.xdist_group("live"),
]

STEPS = [step.name for step in chain.plan(Operation(kind="vm.from-rootfs"))]
BEFORE_VM = STEPS[: STEPS.index("vm")]


class Killed(BaseException):
    """As good as SIGKILL: nothing of the worker's clean-up runs."""


@pytest.fixture(autouse=True)
def _nothing_from_before(data_dir: Path) -> None:
    """Rows are gone between tests; so are the files they had."""
    for name in ("images", "drives", "builds", "vms"):
        for path in (data_dir / name).glob("*"):
            if path.is_file():
                path.unlink()
            elif path.name != "snapshots":
                shutil.rmtree(path)


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    supervisor = Supervisor()
    supervisor.start()
    yield supervisor
    for vm in VM.objects.all():
        lifecycle.outcomes.end_vmm(vm)
    supervisor.stop()


@pytest.fixture
def change_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[[Do], Do]], None]:
    """Put something around what a step of the chain does."""

    def change(name: str, wrap: Callable[[Do], Do]) -> None:
        def changed(operation: Operation) -> Plan:
            return [changed_step(step) for step in chain.plan(operation)]

        def changed_step(step: Step) -> Step:
            return dataclasses.replace(step, do=wrap(step.do)) if step.name == name else step

        kind = operations.Kind(changed, lifecycle.start_failed)
        monkeypatch.setitem(operations._kinds, "vm.from-rootfs", kind)

    return change


def run_chain(name: str = "hello") -> Operation:
    operation = shortcuts.from_rootfs("vm", "alpine", "3.23", name=name, mem_size_mib=256)
    operations.execute(operation.id)
    operation.refresh_from_db()
    return operation


def resume(operation: Operation) -> None:
    """What a new worker does with what a dead one left."""
    Operation.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    operations.execute(operation.id)
    operation.refresh_from_db()


def processes_below(directory: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd().startswith(str(directory)):
                found.append(process)
        except psutil.Error:
            continue
    return found


def assert_files_match_rows(data_dir: Path) -> None:
    """Nothing on the disk without a row, nothing half done."""
    drives = {path.stem for path in (data_dir / "drives").glob("*.img")}
    images = {path.stem for path in (data_dir / "images").glob("*.ext4")}
    assert drives == {drive.ref for drive in Drive.objects.filter(state="ready")}
    assert {image.ref for image in Image.objects.all()} <= images
    left = [path for path in (data_dir / "builds").glob("*") if path.is_dir()]
    assert not left, "a build's workspace"
    parts = list(data_dir.rglob(".*.part"))
    assert not parts, "temporary files"


@pytest.mark.parametrize("name", STEPS)
def test_a_step_that_fails_leaves_nothing_half_done(
    name: str, change_step: Callable[[str, Callable[[Do], Do]], None], data_dir: Path
) -> None:
    def fails_after(do: Do) -> Do:
        def do_and_fail(run: Run) -> str:
            do(run)
            raise Broken("Made to fail.")

        return do_and_fail

    change_step(name, fails_after)
    operation = run_chain()
    assert (operation.state, operation.error["text"]) == ("failed", "Made to fail.")
    vm = VM.objects.first()
    if name in [*BEFORE_VM, "vm"]:
        assert vm is None or vm.state == "created"
        assert not Drive.objects.exists() or name == "vm"
    else:
        assert vm is not None
    if name == "start":
        assert vm.state == "stopped"
    running = processes_below(data_dir / "vms")
    assert bool(running) == (name == "agent"), "a VM whose agent is late goes on"
    assert not Build.objects.filter(state="running").exists()
    assert_files_match_rows(data_dir)


@pytest.mark.parametrize("name", STEPS)
def test_a_chain_cut_short_after_any_step_is_resumed_to_its_end(
    name: str, change_step: Callable[[str, Callable[[Do], Do]], None], data_dir: Path
) -> None:
    dead = False

    def dies_after(do: Do) -> Do:
        def do_and_die(run: Run) -> str | None:
            nonlocal dead
            note = do(run)
            if not dead:
                dead = True
                raise Killed
            return note

        return do_and_die

    change_step(name, dies_after)
    operation = shortcuts.from_rootfs("vm", "alpine", "3.23", name="hello", mem_size_mib=256)
    with pytest.raises(Killed):
        operations.execute(operation.id)
    resume(operation)
    assert operation.state == "succeeded", operation.error
    assert "Resumed after an interruption" in operation.note
    vm = VM.objects.get()
    assert [row.to_state for row in vm.history.all()] == [
        "created", "starting", "running", "ready",
    ]  # fmt: skip
    assert (Drive.objects.count(), Image.objects.count()) == (1, 1)
    assert len(processes_below(data_dir / "vms")) == 2, "one VMM and its monitor"
    assert_files_match_rows(data_dir)
