"""nexusctl drive, snapshot and storage: what is asked, what is shown."""

from __future__ import annotations

import textwrap

import click
import pytest

from nexusctl.sizes import SIZE
from tests.nexusctl import answers as a
from tests.nexusctl import drive_answers as d


def text(block: str) -> str:
    return textwrap.dedent(block).lstrip("\n")


DONE = (200, a.operation("succeeded"))
NEW = {
    "image": "",
    "drive": "",
    "snapshot": "",
    "name": "",
    "size_mib": None,
    "delete_with_vm": False,
}
#: What is asked of the API: the method, the path, and the body.
ASKED = {
    "drive create --image i --size 9000": (
        "POST",
        "/drives",
        NEW | {"image": "i", "size_mib": 9000},
    ),
    "drive create --from-drive d --delete-with-vm": (
        "POST",
        "/drives",
        NEW | {"drive": "d", "delete_with_vm": True},
    ),
    "drive create --from-snapshot s --name x": (
        "POST",
        "/drives",
        NEW | {"snapshot": "s", "name": "x"},
    ),
    "drive create --size 20G": ("POST", "/drives", NEW | {"size_mib": 20480}),
    "drive resize d 20GiB": ("POST", "/drives/d/resize", {"size_mib": 20480}),
    "drive rename d e": ("PATCH", "/drives/d", {"name": "e"}),
    "drive set d --delete-with-vm": ("PATCH", "/drives/d", {"delete_with_vm": True}),
    "drive set d --keep": ("PATCH", "/drives/d", {"delete_with_vm": False}),
    "drive rollback d s --yes": ("POST", "/drives/d/rollback", {"snapshot": "s", "stop": False}),
    "drive rollback d s --stop -y": ("POST", "/drives/d/rollback", {"snapshot": "s", "stop": True}),
    "drive attach d hello": (
        "POST",
        "/drives/d/attach",
        {"vm": "hello", "is_root": True, "read_only": False},
    ),
    "drive attach d hello --data --read-only --keep": (
        "POST",
        "/drives/d/attach",
        {"vm": "hello", "is_root": False, "read_only": True, "delete_with_vm": False},
    ),
    "drive delete d --yes": ("DELETE", "/drives/d", None),
    "snap rename s t": ("PATCH", "/snapshots/s", {"name": "t"}),
    "snapshot delete s --yes": ("DELETE", "/snapshots/s", None),
    "storage check --repair --yes": ("POST", "/storage/repair", None),
}


@pytest.mark.parametrize("line", ASKED)
def test_what_is_asked_of_the_api(server, nexusctl, line):
    method, path, body = ASKED[line]
    answer = d.DRIVE if method == "PATCH" or "attach" in path else DONE
    server.on(method, path, answer)
    done = nexusctl(*line.split())
    assert done.code == 0, done.err
    assert server.asked(method, path)[0].body == body


def test_clone_finds_out_what_it_is_to_copy(server, nexusctl):
    server.on("GET", "/drives/d", d.DRIVE_DETAIL)
    server.on("POST", "/drives", DONE)
    assert nexusctl("drive", "clone", "d", "--name", "x").out == "hello  aebagbafaydqq\n"
    assert server.asked("POST", "/drives")[0].body == {
        "drive": "d",
        "name": "x",
        "size_mib": None,
        "delete_with_vm": False,
    }
    server.on("GET", "/drives/s", a.problem(404, "There is no drive “s”."))
    nexusctl("drive", "clone", "s", "--size", "9G")
    assert server.asked("POST", "/drives")[1].body["snapshot"] == "s"
    server.on("GET", "/drives/s", a.problem(403, "No."))
    assert nexusctl("drive", "clone", "s").code == 6, "no guess is made"


def test_deleting_asks_for_snapshots_only_when_told(server, nexusctl):
    server.on("DELETE", "/drives/d", DONE)
    nexusctl("drive", "delete", "d", "--yes", "--with-snapshots")
    nexusctl("drive", "delete", "d", "--yes")
    assert [seen.query for seen in server.seen] == [
        {"with_snapshots": "true"},
        {"with_snapshots": "false"},
    ]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("drive create", "Say what to copy, or a --size"),
        ("drive create --name x", "Say what to copy, or a --size"),
        ("drive create --size 9X", "“9X” is no size"),
        ("drive set d", "Missing option"),
        ("drive resize d", "Missing argument 'SIZE'"),
        ("drive resize d 1.5G", "“1.5G” is no size; write 20G, 512M"),
        ("drive rollback d s", "Say --yes"),
        ("snapshot delete s", "Say --yes"),
        ("storage init", "Missing option '--loopback'"),
        ("storage check --repair", "Say --yes"),
    ],
)
def test_wrong_usage(server, nexusctl, arguments, complaint):
    done = nexusctl(*arguments.split())
    assert (done.code, done.out) == (2, "")
    assert complaint in done.err
    assert server.seen == []


@pytest.mark.parametrize(
    ("written", "mib"),
    [("9000", 9000), ("512M", 512), ("20G", 20480), ("20 GiB", 20480), ("1t", 1 << 20), (7, 7)],
)
def test_sizes(written, mib):
    assert SIZE.convert(written, None, None) == mib


@pytest.mark.parametrize("written", ["", "G", "-1", "1.5G", "1K", "1GB1", "9" * 10])
def test_what_is_no_size(written):
    with pytest.raises(click.BadParameter, match="is no size"):
        SIZE.convert(written, None, None)


def test_drive_list(server, nexusctl):
    empty = d.DRIVE | {"name": "data", "vm": None, "origin": "empty", "image": None}
    clone = d.DRIVE | {"name": "copy", "vm": None, "origin": "drive", "source": d.DRIVE_REF}
    server.on("GET", "/drives", a.page(d.DRIVE, clone, empty))
    assert nexusctl("dr", "list").out == text("""
        NAME   ID             STATE  SIZE     FROM               VM
        hello  aaaaaaaaaaaba  ready  8.0 GiB  image alpine-3-23  hello
        copy   aaaaaaaaaaaba  ready  8.0 GiB  drive hello        -
        data   aaaaaaaaaaaba  ready  8.0 GiB  empty              -
    """)


def test_drive_inspect(server, nexusctl):
    server.on("GET", "/drives/hello", d.DRIVE_DETAIL)
    assert nexusctl("ws", "inspect", "hello").out == text("""
        name         hello
        id           aaaaaaaaaaaba
        state        ready
        size         8.0 GiB
        on disk      150.0 MiB, 30.0 MiB of it alone
        from         image alpine-3-23
        image        alpine-3-23 (aaaaaaaaaayds)
        vm           the root drive of hello (aebagbafaydqq)
        with its vm  deleted
        snapshots    installed
                     ├─ configured *
                     └─ tried
        clones       spare
        created      2026-07-29T11:00:00.0Z
    """)
    lost = {"usage": None, "snapshots": [], "clones": [], "vm": None, "image": None}
    server.on("GET", "/drives/hello", d.DRIVE_DETAIL | lost | {"delete_with_vm": False})
    shown = nexusctl("drive", "inspect", "hello").out
    assert "on disk      its file is missing\n" in shown
    assert "with its vm  kept\n" in shown


def test_what_attach_says(server, nexusctl):
    server.on("POST", "/drives/d/attach", d.DRIVE)
    done = nexusctl("drive", "attach", "d", "hello")
    assert done.out == "hello  aaaaaaaaaaaba\n"
    assert done.err == "It is the root drive of hello (aebagbafaydqq).\n"


def test_taking_a_snapshot_says_how_it_was_made(server, nexusctl):
    made = a.operation("succeeded", result={"snapshot": d.SNAPSHOT["id"]})
    server.on("POST", "/drives/hello/snapshots", (200, made))
    server.on("GET", f"/snapshots/{d.SNAPSHOT['id']}", d.SNAPSHOT_DETAIL | d.SNAPSHOT)
    done = nexusctl("snapshot", "create", "hello", "--name", "installed")
    assert done.out == "installed  aaaaaaaaaaabi\n"
    assert done.err.endswith("It was frozen by the agent.\n")
    assert server.seen[0].body == {"name": "installed"}


def test_snapshots_are_a_list_and_those_of_a_drive_a_tree(server, nexusctl):
    server.on("GET", "/snapshots", a.page(d.OTHER, d.LATER, d.SNAPSHOT))
    assert nexusctl("snapshot", "list").out.splitlines()[1].startswith("tried ")
    assert nexusctl("snapshot", "list", "--drive", "hello").out == text("""
        NAME             ID             STATE  DRIVE  SIZE     MADE                  CREATED
        installed        aaaaaaaaaaabi  ready  hello  8.0 GiB  frozen by the agent   2026-07-29T11:10:00.0Z
        ├─ configured *  aaaaaaaaaaabm  ready  hello  8.0 GiB  as after a power cut  2026-07-29T11:20:00.0Z
        └─ tried         aaaaaaaaaaaby  ready  hello  8.0 GiB  taken at rest         2026-07-29T11:30:00.0Z
    """)  # noqa: E501
    assert server.seen[1].query["drive"] == "hello"


def test_snapshot_inspect(server, nexusctl):
    server.on("GET", "/snapshots/configured", d.SNAPSHOT_DETAIL)
    assert nexusctl("snapshot", "inspect", "configured").out == text("""
        name      configured
        id        aaaaaaaaaaabm
        state     ready
        drive     hello (aaaaaaaaaaaba)
        made      as after a power cut
        part of   friday (aaaaaaaaaaabu)
        parent    installed (aaaaaaaaaaabi)
        children  -
        goes on   the drive goes on from it
        size      8.0 GiB
        on disk   150.0 MiB, 30.0 MiB of it alone
        clones    spare
        created   2026-07-29T11:20:00.0Z
    """)


def test_storage_status(server, nexusctl):
    server.on("GET", "/storage", d.STORAGE)
    assert nexusctl("storage", "status").out == text("""
        backend      copy
        directory    /var/lib/nexus/drives
        file system  ext4
        pool         -
        disk         100.0 GiB, 40.0 GiB free
        drives       1
        snapshots    1
        size         8.0 GiB
        used         150.0 MiB, counting shared data in each
        memories     64.0 MiB, saved by VMs
        better       btrfs: This file system is ext4.
                     reflink: ext4 does not share blocks.

        KIND      NAME       ID             SIZE     ON DISK    ALONE     SHARED
        drive     hello      aaaaaaaaaaaba  8.0 GiB  150.0 MiB  30.0 MiB  120.0 MiB
        snapshot  installed  aaaaaaaaaaabi  -        -          -         -
    """)


def test_storage_init_prints_where_drives_are_now(server, nexusctl):
    made = a.operation("succeeded", result={"pool": "/data/pool", "backend": "btrfs"})
    server.on("POST", "/storage/init", (200, made))
    assert nexusctl("storage", "init", "--loopback", "20G").out == "/data/pool\n"
    assert server.seen[0].body == {"size_mib": 20480}


def test_storage_check_ends_with_1_where_something_is_wrong(server, nexusctl):
    server.on("GET", "/storage/check", d.REPORT)
    done = nexusctl("storage", "check")
    assert done.code == 1
    assert done.out == text("""
        orphan-drive: The file of a drive aaaaaaaaaaaca belongs to no drive that Nexus knows.
          Delete the file.
    """)
    assert "nexusctl storage check --repair" in done.err
    server.on("GET", "/storage/check", d.REPORT | {"problems": []})
    done = nexusctl("storage", "check")
    assert (done.code, done.err) == (0, "")
    assert done.out == "All is well: 2 drives and 1 snapshots on the disk.\n"
