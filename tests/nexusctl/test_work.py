"""Long work: steps as they go, how it ends, exit codes, and what a person can do instead."""

from __future__ import annotations

import json

import pytest

from nexusctl import app
from tests.nexusctl import answers as a

STORAGE = a.step("storage", "Check the drives", "done", note="1 drive", seconds=0.1)
ERROR = {
    "kind": "Broken",
    "code": "vmm-exited",
    "text": "The VMM ended at once.",
    "detail": "qemu: no such machine\nqemu: giving up",
    "hint": "Look at the VMM's log.",
}


def started(*later):
    """The answers of a start: accepted with its first step running, then ``later``."""
    first = a.operation(
        "running",
        a.step("storage", "Check the drives", "running"),
        a.step("launch", "Launch the VMM"),
        a.step("agent", "Wait for the agent"),
    )
    return (202, first), later


def test_steps_are_lines_and_the_thing_is_on_stdout(server, nexusctl):
    accepted, later = started(
        a.operation("running", STORAGE, a.step("launch", "Launch the VMM", "running")),
        a.operation(
            "succeeded",
            STORAGE,
            a.step("launch", "Launch the VMM", "skipped", note="it runs already"),
            a.step("agent", "Wait for the agent", "done", note="hello after 1.9 s", seconds=2.0),
        ),
    )
    server.on("POST", "/vms/hello/start", accepted)
    server.on("GET", "/operations/aaaaaaaaaaaha", *later)
    done = nexusctl("vm", "start", "hello")
    assert done.err == (
        "✓ Check the drives: 1 drive (0.1 s)\n"
        "↷ Launch the VMM: it runs already\n"
        "✓ Wait for the agent: hello after 1.9 s (2.0 s)\n"
        "✓ Start VM hello (3.0 s)\n"
    )
    assert done.out == "hello  aebagbafaydqq\n"
    assert done.code == 0


def test_the_steps_of_a_part_are_indented(server, nexusctl):
    unpack = a.step("unpack", "Unpack the root file system", "done", seconds=1.5)
    child = a.operation("succeeded", unpack, created_at="2026-07-29T11:57:58Z")
    whole = a.operation("succeeded", a.step("build", "Build the image", "done"), children=[child])
    server.on("POST", "/vms/hello/start", (200, whole))
    assert nexusctl("vm", "start", "hello").err.splitlines()[:2] == [
        "✓ Build the image (2.0 s)",
        "  ✓ Unpack the root file system (1.5 s)",
    ]


@pytest.mark.parametrize(
    ("kind", "code"), [("Broken", 1), ("NotFound", 4), ("Conflict", 5), ("Denied", 6)]
)
def test_a_failure_shows_text_detail_and_hint(server, nexusctl, kind, code):
    failed = a.operation(
        "failed",
        STORAGE | {"state": "undone"},
        a.step("launch", "Launch the VMM", "failed"),
        error=ERROR | {"kind": kind},
    )
    accepted, later = started(failed)
    server.on("POST", "/vms/hello/start", accepted)
    server.on("GET", "/operations/aaaaaaaaaaaha", *later)
    done = nexusctl("vm", "start", "hello")
    assert done.err == (
        "↶ Check the drives: 1 drive (undone)\n"
        "✗ Launch the VMM\n"
        "✗ The VMM ended at once.\n"
        "  qemu: no such machine\n"
        "  qemu: giving up\n"
        "hint: Look at the VMM's log.\n"
    )
    assert (done.code, done.out) == (code, "")


def test_json_prints_the_ended_operation_and_nothing_else(server, nexusctl):
    failed = a.operation("failed", error=ERROR)
    accepted, later = started(failed)
    server.on("POST", "/vms/hello/start", accepted)
    server.on("GET", "/operations/aaaaaaaaaaaha", *later)
    done = nexusctl("vm", "start", "hello", "--json")
    assert json.loads(done.out) == failed
    assert done.code == 1
    assert done.err.startswith("✗ The VMM ended at once.")


def test_no_wait_says_how_to_follow(server, nexusctl):
    server.on("POST", "/vms/hello/start", (202, a.operation("queued")))
    done = nexusctl("vm", "start", "hello", "--no-wait")
    assert done.out == "aaaaaaaaaaaha\n"
    assert "Follow it: nexusctl operation wait aaaaaaaaaaaha" in done.err
    assert len(server.seen) == 1


def test_dry_run_prints_the_plan(server, nexusctl):
    plan = {
        "dry_run": True,
        "title": "Delete VM hello",
        "steps": [
            {"name": "end", "title": "End the VMM", "action": "skip", "note": "it is stopped"},
            {"name": "delete", "title": "Delete the VM", "action": "run", "note": ""},
        ],
    }
    server.on("DELETE", "/vms/hello", plan)
    done = nexusctl("vm", "delete", "hello", "--dry-run")
    assert done.out == "Would: Delete VM hello\n  ↷ End the VMM: it is stopped\n  · Delete the VM\n"
    assert server.seen[0].query["dry_run"] == "true"


def test_ctrl_c_leaves_the_operation_running(server, nexusctl, monkeypatch):
    server.on("POST", "/vms/hello/start", (202, a.operation("running")))

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(app.App, "_look", interrupt)
    done = nexusctl("vm", "start", "hello")
    assert done.code == 130
    assert "“Start VM hello” goes on.\n" in done.err
    assert "Follow it: nexusctl operation wait aaaaaaaaaaaha\n" in done.err
    assert all(s.method != "POST" or s.path.endswith("/start") for s in server.seen)


def test_waiting_survives_a_restart_of_the_server(server, nexusctl, monkeypatch):
    monkeypatch.setattr(app.time, "sleep", lambda _: None)
    server.on("POST", "/vms/hello/start", (202, a.operation("running")))
    no_answer = (200, b"<html>starting</html>")
    server.on("GET", "/operations/aaaaaaaaaaaha", no_answer, a.operation("succeeded"))
    assert nexusctl("vm", "start", "hello").code == 0


def test_waiting_gives_up_when_the_server_stays_away(server, nexusctl, monkeypatch):
    monkeypatch.setattr(app, "LOST_CONTACT", 0)
    server.on("POST", "/vms/hello/start", (202, a.operation("running")))
    server.on("GET", "/operations/aaaaaaaaaaaha", (200, b"<html>"))
    done = nexusctl("vm", "start", "hello")
    assert done.code == 3
    assert "hint: Follow it later: nexusctl operation wait aaaaaaaaaaaha\n" in done.err


def test_operation_wait_and_cancel(server, nexusctl):
    server.on("GET", "/operations/o", a.operation("cancelled"))
    done = nexusctl("operation", "wait", "o")
    assert (done.code, done.err) == (1, "✗ Start VM hello: cancelled\n")
    server.on("POST", "/operations/o/cancel", (202, a.operation("running")))
    assert "stops at its next step" in nexusctl("op", "cancel", "o").err


def test_deleting_without_a_terminal_demands_yes(server, nexusctl):
    for thing in ("vm", "drive", "image", "template"):
        done = nexusctl(thing, "delete", "x")
        assert done.code == 2
        assert "Say --yes" in done.err
    assert server.seen == []


def test_deleting_asks_on_a_terminal(server, nexusctl, monkeypatch):
    monkeypatch.setattr(app.sys.stdin, "isatty", lambda: True, raising=False)
    answers = iter(["n", "y"])
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: next(answers))
    server.on("DELETE", "/vms/hello", (200, a.operation("succeeded")))
    assert nexusctl("vm", "delete", "hello").code == 130
    assert server.seen == []
    assert nexusctl("vm", "delete", "hello", "--force").code == 0
    assert server.seen[0].query == {
        "force": "true",
        "keep_drives": "false",
        "with_snapshots": "false",
    }


BODIES = {
    ("vm", "create", "--image", "i", "--memory", "256", "--start"): (
        "/vms",
        {
            "image": "i",
            "drive": "",
            "name": "",
            "vcpu_count": 1,
            "mem_size_mib": 256,
            "kernel": "",
            "start": True,
            "cold": False,
        },
    ),
    ("vm", "from-rootfs", "alpine", "3.23", "--name", "hello", "--vcpus", "2"): (
        "/vms/from-rootfs",
        {
            "distro": "alpine",
            "version": "3.23",
            "provider": "",
            "name": "hello",
            "vcpu_count": 2,
            "mem_size_mib": 512,
            "kernel": "",
            "cold": False,
        },
    ),
    ("vm", "from-template", "t", "--memory", "256"): (
        "/vms/from-template",
        {
            "template": "t",
            "name": "",
            "vcpu_count": 1,
            "mem_size_mib": 256,
            "kernel": "",
            "cold": False,
        },
    ),
    ("vm", "from-image", "i", "--cold"): (
        "/vms/from-image",
        {
            "image": "i",
            "name": "",
            "vcpu_count": 1,
            "mem_size_mib": 512,
            "kernel": "",
            "cold": True,
        },
    ),
    ("drive", "from-rootfs", "debian", "bookworm", "--size", "9000", "--provider", "p"): (
        "/drives/from-rootfs",
        {
            "distro": "debian",
            "version": "bookworm",
            "provider": "p",
            "name": "",
            "size_mib": 9000,
        },
    ),
    ("drive", "from-template", "t"): (
        "/drives/from-template",
        {"template": "t", "name": "", "size_mib": None},
    ),
    ("drive", "from-image", "i", "--name", "d"): (
        "/drives/from-image",
        {"image": "i", "name": "d", "size_mib": None},
    ),
    ("image", "from-rootfs", "alpine", "3.23"): (
        "/images/from-rootfs",
        {"distro": "alpine", "version": "3.23", "provider": "", "name": ""},
    ),
    ("image", "from-template", "t", "--name", "i"): (
        "/images/from-template",
        {"template": "t", "name": "i"},
    ),
    (
        *("vm", "from-image", "i", "--hypervisor", "firecracker", "--disk-limit", "50M"),
        *("--disk-iops", "500", "--network-limit", "1G"),
    ): (
        "/vms/from-image",
        {
            "image": "i",
            "name": "",
            "vcpu_count": 1,
            "mem_size_mib": 512,
            "kernel": "",
            "hypervisor": "firecracker",
            "disk_mib_s": 50,
            "disk_iops": 500,
            "network_mib_s": 1024,
            "cold": False,
        },
    ),
    ("vm", "clone", "hello", "--hypervisor", "qemu"): (
        "/vms/hello/clone",
        {"snapshot": "", "name": "", "start": False, "hypervisor": "qemu"},
    ),
    ("vm", "balloon", "hello", "256M"): ("/vms/hello/balloon", {"mem_size_mib": 256}),
    ("vm", "stop", "hello", "--force"): ("/vms/hello/stop", {"force": True}),
    ("vm", "restart", "hello"): ("/vms/hello/restart", None),
    ("rootfs", "verify", "r"): ("/rootfs/r/verify", None),
    ("provider", "refresh", "mirror"): ("/providers/mirror/refresh", None),
}


@pytest.mark.parametrize(
    ("arguments", "asked"), BODIES.items(), ids=lambda v: " ".join(map(str, v))
)
def test_what_is_asked_of_the_api(server, nexusctl, arguments, asked):
    path, body = asked
    server.on("POST", path, (200, a.operation("succeeded")))
    assert nexusctl(*arguments).code == 0
    assert server.asked("POST", path)[0].body == body


@pytest.mark.parametrize("words", [("download", "alpine", "3.23"), ("import", "alpine", "3.23")])
def test_a_rootfs_that_came_is_printed(server, nexusctl, tmp_path, words):
    (tmp_path / "root.tar").write_bytes(b'"a file"')
    file = [str(tmp_path / "root.tar")] if words[0] == "import" else []
    ended = a.operation("succeeded", result={"rootfs": a.ROOTFS["id"]})
    server.on("POST", "/rootfs", (200, ended))
    server.on("POST", "/rootfs/import", (200, ended))
    server.on("GET", f"/rootfs/{a.ROOTFS['id']}", a.ROOTFS)
    assert nexusctl("rootfs", *words, *file).out == f"alpine 3.23  {a.ROOTFS['id']}\n"
    asked = server.seen[0]
    if words[0] == "download":
        assert asked.body == {"distro": "alpine", "version": "3.23", "provider": ""}
    else:
        assert asked.query == {"distro": "alpine", "version": "3.23", "filename": "root.tar"}


def test_build_trigger_prints_the_image(server, nexusctl):
    ended = a.operation("succeeded", result={"image": a.IMAGE["id"]})
    server.on("POST", "/templates/t/builds", (200, ended))
    server.on("GET", f"/images/{a.IMAGE['id']}", a.IMAGE)
    assert nexusctl("build", "trigger", "t").out == "alpine-3-23  aaaaaaaaaayds\n"


def test_on_a_terminal_the_steps_are_drawn_in_place(server, nexusctl, monkeypatch):
    monkeypatch.setattr(app.output, "is_terminal", lambda *_: True)
    accepted, later = started(
        a.operation("running", STORAGE, a.step("x", "Copy", "running", progress=0.5)),
        a.operation("succeeded", STORAGE, a.step("x", "Copy", "done")),
    )
    server.on("POST", "/vms/hello/start", accepted)
    server.on("GET", "/operations/aaaaaaaaaaaha", *later)
    done = nexusctl("vm", "start", "hello")
    assert done.code == 0
    assert "✓ Check the drives: 1 drive (0.1 s)" in done.err
    assert "✓ Copy (2.0 s)" in done.err


def test_a_vm_is_changed_in_what_is_said_and_nothing_else(server, nexusctl):
    server.on("PATCH", "/vms/hello", a.STOPPED_VM, a.VM)
    done = nexusctl("vm", "update", "hello", "--disk-limit", "none", "--memory", "256")
    assert (done.code, done.err) == (0, "")
    assert server.seen[0].body == {"mem_size_mib": 256, "disk_mib_s": 0}
    runs = nexusctl("vm", "update", "hello", "--hypervisor", "auto")
    assert runs.err == "It takes effect when the VM starts next.\n"
    nothing = nexusctl("vm", "update", "hello")
    assert (nothing.code, "Say what to change" in nothing.err) == (2, True)
