"""Answers about drives, snapshots and the storage; as ``answers.py`` has the others."""

from __future__ import annotations

from tests.nexusctl.answers import GIB, IMAGE_REF, VM_REF, Row

DRIVE: Row = {
    "id": "aaaaaaaaaaaba",
    "name": "hello",
    "state": "ready",
    "origin": "image",
    "image": IMAGE_REF,
    "source": None,
    "size_bytes": 8 * GIB,
    "delete_with_vm": True,
    "vm": {**VM_REF, "is_root": True, "read_only": False},
    "created_at": "2026-07-29T11:00:00Z",
}
DRIVE_REF = {"id": "aaaaaaaaaaaba", "name": "hello"}
SPARE_REF = {"id": "aaaaaaaaaaabq", "name": "spare"}
SNAPSHOT: Row = {
    "id": "aaaaaaaaaaabi",
    "name": "installed",
    "state": "ready",
    "drive": DRIVE_REF,
    "parent": None,
    "vm_snapshot": None,
    "is_head": False,
    "size_bytes": 8 * GIB,
    "consistency": "frozen",
    "created_at": "2026-07-29T11:10:00Z",
}
LATER: Row = SNAPSHOT | {
    "id": "aaaaaaaaaaabm",
    "name": "configured",
    "parent": {"id": "aaaaaaaaaaabi", "name": "installed"},
    "vm_snapshot": {"id": "aaaaaaaaaaabu", "name": "friday"},
    "is_head": True,
    "consistency": "crash",
    "created_at": "2026-07-29T11:20:00Z",
}
OTHER: Row = SNAPSHOT | {
    "id": "aaaaaaaaaaaby",
    "name": "tried",
    "parent": {"id": "aaaaaaaaaaabi", "name": "installed"},
    "consistency": "at-rest",
    "created_at": "2026-07-29T11:30:00Z",
}
USAGE: Row = {
    "size_bytes": 8 * GIB,
    "used_bytes": 150 * 1024**2,
    "exclusive_bytes": 30 * 1024**2,
    "shared_bytes": 120 * 1024**2,
}
DRIVE_DETAIL: Row = DRIVE | {
    "usage": USAGE,
    "head": {"id": "aaaaaaaaaaabm", "name": "configured"},
    "snapshots": [SNAPSHOT, LATER, OTHER],
    "clones": [SPARE_REF],
}
SNAPSHOT_DETAIL: Row = LATER | {"usage": USAGE, "children": [], "clones": [SPARE_REF]}
STORAGE: Row = {
    "backend": "copy",
    "directory": "/var/lib/nexus/drives",
    "file_system": "ext4",
    "pool": None,
    "quota_groups": False,
    "problems": ["btrfs: This file system is ext4.", "reflink: ext4 does not share blocks."],
    "capacity": {"total_bytes": 100 * GIB, "free_bytes": 40 * GIB},
    "totals": {
        "drives": 1,
        "snapshots": 1,
        "size_bytes": 8 * GIB,
        "used_bytes": 150 * 1024**2,
        "exclusive_bytes": None,
        "memory_bytes": 64 * 1024**2,
    },
    "drives": [DRIVE_REF | {"usage": USAGE}],
    "snapshots": [{"id": "aaaaaaaaaaabi", "name": "installed", "usage": None}],
}
PROBLEM: Row = {
    "kind": "orphan-drive",
    "subject": "aaaaaaaaaaaca",
    "name": "aaaaaaaaaaaca",
    "text": "The file of a drive aaaaaaaaaaaca belongs to no drive that Nexus knows.",
    "repair": "Delete the file",
}
REPORT: Row = {"problems": [PROBLEM], "drives": 2, "snapshots": 1}
