"""Files with guests' memories: what they take, and which of them belong to nothing."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings
from django.db.models import Sum

from vms.models import VM, VMSnapshot
from vms.saved_memory import unfinished


def known_memory_bytes() -> int:
    """What checkpoints and suspended VMs take on the disk for their memories."""
    checkpoints = VMSnapshot.objects.aggregate(bytes=Sum("memory_bytes", default=0))["bytes"]
    saved = VM.objects.exclude(saved_memory={}).values_list("saved_memory", flat=True)
    return int(checkpoints) + sum(int(memory.get("bytes") or 0) for memory in saved)


def forgotten_memories() -> list[Path]:
    """Directories beside those of checkpoints. A checkpoint has its row before its directory."""
    directory = Path(settings.NEXUS.data_dir) / "memory"
    there = sorted(directory.iterdir()) if directory.exists() else []
    known = {directory / snapshot.ref for snapshot in VMSnapshot.objects.only("pk")}
    known |= {unfinished(path) for path in known}
    return [path for path in there if path not in known]
