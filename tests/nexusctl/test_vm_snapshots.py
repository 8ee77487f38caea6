"""``nexusctl vm snapshot``, ``rollback``, ``clone`` and the real API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from drives import services as drive_services
from nexusctl.commands.vm_snapshots import as_tree
from tests.factories import make_vm
from tests.nexusctl.conftest import Outcome
from vms.models import VM, Attachment, VMSnapshot
from vms.states import State

Ctl = Callable[..., Outcome]


@pytest.fixture
def vm(ctl: Ctl) -> VM:
    vm = make_vm(name="web", mem_size_mib=128)
    drive_services.storage().create(Attachment.objects.get(vm=vm).drive.ref, 1 << 20)
    return vm


def test_a_snapshot_from_its_making_to_its_end(ctl: Ctl, vm: VM) -> None:
    assert "Copy the drives" in ctl("vm", "snapshot", "web", "--dry-run").out
    made = ctl("vm", "snapshot", "web", "--name", "monday")
    assert (made.code, made.out.split()[0]) == (0, "monday")
    assert "It was taken at rest." in made.err
    ctl("vm", "snapshot", "web", "--name", "tuesday")
    tree = ctl("vm", "snapshots", "web").out.splitlines()
    assert [line.split()[0] for line in tree] == ["NAME", "monday", "tuesday"]
    assert "tuesday *" in tree[2]
    shown = ctl("vm", "snapshot-inspect", "tuesday").out
    assert "made     taken at rest\n" in shown
    assert "the VM goes on from it" in shown
    assert ctl("vm", "snapshot-rename", "tuesday", "today").out.startswith("today  ")
    assert "Say --yes" in ctl("vm", "snapshot-delete", "today").err
    assert ctl("vm", "snapshot-delete", "today", "--yes").code == 0
    assert ctl("vm", "snapshot-inspect", "today").code == 4
    assert ctl("vm", "delete", "web", "--yes").code == 5
    assert ctl("vm", "delete", "web", "--with-snapshots", "--yes").code == 0
    assert not VMSnapshot.objects.exists()


def test_going_back(ctl: Ctl, vm: VM) -> None:
    ctl("vm", "snapshot", "web", "--name", "monday")
    assert "Say --yes" in ctl("vm", "rollback", "web", "monday").err
    assert ctl("vm", "rollback", "web", "monday", "--yes").code == 0
    assert ctl("vm", "rollback", "web", "nope", "--yes").code == 4
    VM.objects.update(state=State.READY)
    refused = ctl("vm", "rollback", "web", "monday", "--yes")
    assert (refused.code, "--stop" in refused.err) == (5, True)
    plan = ctl("vm", "rollback", "web", "monday", "--stop", "--dry-run")
    assert [line.split(" ", 3)[3] for line in plan.out.splitlines()[1:5]] == [
        "Shut the guest down",
        "Record how it ended",
        "Restore the drives",
        "Start it again",
    ]


def test_clones(ctl: Ctl, vm: VM) -> None:
    made = ctl("vm", "clone", "web", "--name", "copy")
    assert (made.code, made.out.split()[0]) == (0, "copy")
    ctl("vm", "snapshot", "web", "--name", "monday")
    done = ctl(
        *("vm", "clone", "web", "--snapshot", "monday", "--name", "then"),
        *("--memory", "256", "--vcpus", "1"),
    )
    assert done.code == 0
    then = VM.objects.get(name="then")
    assert (then.mem_size_mib, str(then.source_snapshot)) == (256, "monday")
    assert ctl("vm", "clone", "web", "--name", "copy").code == 5
    assert ctl("vm", "snapshots", "copy").err.startswith("No snapshots.")


def row(name: str, parent: str = "") -> dict[str, Any]:
    return {"id": name, "parent": {"id": parent} if parent else None}


def test_the_tree_branches_where_the_vm_went_back() -> None:
    rows = [row("f", "c"), row("e", "d"), row("d", "b"), row("c", "b"), row("b", "a"), row("a")]
    assert [branch + each["id"] for branch, each in as_tree(rows)] == [
        "a",
        "b",
        "├─ c",
        "│  f",
        "└─ d",
        "   e",
    ]
    assert [each["id"] for _, each in as_tree([row("b", "gone"), row("a")])] == ["a", "b"]
