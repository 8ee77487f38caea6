"""The command line and the real API: a real server on a real socket, jobs run at once."""

from __future__ import annotations

import re

from drives.models import Drive
from nexus_site.core import auth
from nexus_site.core.models import Token
from tests.factories import (
    make_build,
    make_drive,
    make_image,
    make_kernel,
    make_snapshot,
    make_vm,
)
from vms.models import VM


def test_every_list_and_every_inspect(ctl):
    make_kernel()
    image = make_image(name="alpine-3-23")
    build = make_build(image=image)
    make_snapshot(name="before", drive=make_drive(name="spare", image=image))
    vm = make_vm(name="hello")
    groups = ("vm", "drive", "snapshot", "image", "template", "build", "kernel")
    for group in (*groups, "operation", "event"):
        done = ctl(group, "list")
        assert (done.code, "Traceback" in done.err) == (0, False)
    assert vm.ref in ctl("vm", "list").out
    assert ctl("rootfs", "installed").out.splitlines()[1].startswith("alpine")
    assert ctl("rootfs", "list").code == 0
    for words in (
        ("vm", "inspect", "hello"),
        ("vm", "inspect", vm.ref),
        ("vm", "history", "hello"),
        ("vm", "logs", "hello"),
        ("drive", "inspect", "spare"),
        ("snapshot", "inspect", "before"),
        ("storage", "status"),
        ("image", "inspect", "alpine-3-23"),
        ("template", "inspect", build.template_version.template.name),
        ("build", "inspect", build.ref),
        ("build", "log", build.ref),
        ("status",),
        ("sign-in-link",),
    ):
        done = ctl(*words)
        assert (done.code, done.err) == (0, ""), words


def test_a_change_from_its_plan_to_its_end(ctl):
    vm = make_vm(name="hello")
    Drive.objects.update(delete_with_vm=True)
    plan = ctl("vm", "delete", "hello", "--dry-run")
    assert plan.out == (
        "Would: Delete VM hello\n"
        "  ↷ End the VMM: it is created\n"
        "  · Record how it ended\n"
        "  · Delete the VM\n"
        "  · Delete its drives\n"
    )
    assert VM.objects.filter(pk=vm.pk).exists()
    done = ctl("vm", "delete", "hello", "--yes")
    assert done.code == 0
    lines = [line.partition(" (")[0] for line in done.err.splitlines()]
    assert lines == [
        "↷ End the VMM: it is created",
        "✓ Record how it ended",
        "✓ Delete the VM",
        "✓ Delete its drives: 1 deleted",
        "✓ Delete VM hello",
    ]
    assert not VM.objects.exists()
    assert ctl("vm", "inspect", "hello").code == 4


def test_renaming_attaching_and_detaching(ctl):
    make_vm(name="hello", root=False)
    make_drive(name="disk")
    assert ctl("drive", "attach", "disk", "hello").code == 0
    assert ctl("drive", "attach", "disk", "hello").code == 5
    assert ctl("vm", "rename", "hello", "goodbye").out.startswith("goodbye  ")
    assert "the root drive of goodbye" in ctl("drive", "inspect", "disk").out
    assert ctl("ws", "detach", "disk").code == 0


def test_the_ways_to_fail(ctl, monkeypatch):
    done = ctl("vm", "start", "nobody")
    assert (done.code, done.out) == (4, "")
    assert done.err.startswith("✗ There is no VM “nobody”.\nhint: ")
    done = ctl("vm", "create", "--name", "Not A Label", "--image", "x")
    assert done.code == 1
    assert "lower-case letters" in done.err
    make_vm(name="hello", root=False)
    done = ctl("vm", "start", "hello")
    assert done.code == 5
    assert "has no root drive" in done.err
    _, secret = auth.create_token("looker", Token.Scope.READ)
    monkeypatch.setenv("NEXUS_TOKEN", secret)
    done = ctl("vm", "start", "hello")
    assert done.code == 6
    assert "needs the scope “operate”" in done.err
    monkeypatch.setenv("NEXUS_TOKEN", "nxt_wrong")
    assert ctl("vm", "list").code == 6


def test_an_operation_that_fails(ctl):
    make_vm(name="hello")
    done = ctl("vm", "start", "hello")
    assert done.code == 1
    assert "✗ Check the drives" in done.err
    assert "is missing." in done.err
    history = ctl("vm", "history", "hello")
    states = re.findall(r"^20\S+ +(?:-|\+[\d.]+ s) +(\w+)", history.out, re.MULTILINE)
    assert states == ["created", "starting", "failed"]


def test_a_drive_from_nothing_to_nothing(ctl, settings, tmp_path):
    """With a storage of its own; each line of it is a command that people type."""
    settings.NEXUS = settings.NEXUS.model_copy(update={"data_dir": tmp_path / "data"})
    for line, code in (
        ("drive create --size 4M --name data", 0),
        ("snapshot create data --name before", 0),
        ("drive clone data --name copy --size 8M", 0),
        ("drive clone before --name old", 0),
        ("drive resize data 3M", 1),
        ("drive resize data 8M", 0),
        ("drive rollback data before --yes", 0),
        ("drive rename data disk", 0),
        ("drive set disk --delete-with-vm", 0),
        ("storage check", 0),
        ("drive delete disk --yes", 5),
        ("drive delete disk --yes --with-snapshots", 0),
        ("snapshot inspect before", 4),
        ("drive delete copy --yes", 0),
        ("drive delete old --yes", 0),
        ("storage check", 0),
    ):
        done = ctl(*line.split())
        assert done.code == code, (line, done.out, done.err)
    assert done.out == "All is well: 0 drives and 0 snapshots on the disk.\n"
