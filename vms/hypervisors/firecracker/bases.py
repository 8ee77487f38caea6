"""The memory that a VMM counts its guest's changes from: what it loaded, or saved last.

Beside the VM there is another name of that file, since its first one may be gone by the time the
guest is saved, and a record: of which VMM it is, and what the file is like while it is whole and
nobody has written to it. Whoever is in doubt has no base; then all of the memory is saved.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from vms.hypervisors.base import Handle
from vms.hypervisors.records import read_json, write_json

FILE, RECORD = "base-memory", "base.json"


def remember(handle: Handle, memory: Path, whole_at: int | None = None) -> None:
    """From now on this VMM counts from `memory`.

    `whole_at`: the file is still to be made, and has this time of modification (ns) once it is
    whole. Where it cannot have another name, there is no base.
    """
    forget(handle.vm_dir)
    with suppress(OSError):
        (handle.vm_dir / FILE).hardlink_to(memory)
        changed = memory.stat().st_mtime_ns if whole_at is None else whole_at
        write_json(handle.vm_dir / RECORD, _record(handle, changed))


def take(handle: Handle, target: Path, size: int) -> bool:
    """Move the base to `target`; False where there is none, or it is not as it was.

    It is forgotten here in any case: whoever takes it is about to save.
    """
    file = handle.vm_dir / FILE
    try:
        status = file.lstat()
        same = read_json(handle.vm_dir / RECORD) == _record(handle, status.st_mtime_ns)
        if same and status.st_size == size:
            file.rename(target)
            return True
    except (OSError, json.JSONDecodeError):
        pass
    finally:
        forget(handle.vm_dir)
    return False


def forget(vm_dir: Path) -> None:
    """There is no base; safe to repeat."""
    for name in (RECORD, f"{RECORD}.tmp", FILE):
        (vm_dir / name).unlink(missing_ok=True)


def _record(handle: Handle, changed: int) -> dict[str, float]:
    return {"pid": handle.pid, "started": handle.started, "changed": changed}
