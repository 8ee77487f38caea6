"""A jail without a jailer: what a VMM could try in its chroot, as its user."""

from __future__ import annotations

import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.forked import start_forked
from vms.hypervisors.firecracker.jail import FIRST_UID

REF, SLOT = "abcdefghijklm", 7
UID = FIRST_UID + SLOT
PATIENCE = 60.0


def as_vmm(root: Path, work: Callable[[], Any], uid: int = UID) -> Any:
    """What `work` returns when the VMM does it; raises the OSError that it raises."""
    process, answer = start_forked(_in_chroot, root, work, uid)
    try:
        assert answer.poll(PATIENCE), "it never ended"
        result = answer.recv()
    finally:
        process.join(PATIENCE)
        answer.close()
    if isinstance(result, OSError):
        raise result
    return result


def _in_chroot(root: Path, work: Callable[[], Any], uid: int, answer: Connection) -> None:
    os.chroot(root)
    os.chdir("/")
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    try:
        answer.send(work())
    except OSError as error:
        answer.send(error)
