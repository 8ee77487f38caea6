"""How the forks of one request come out: for the page of the operation that makes them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from nexus_site.core.ids import NexusID
from nexus_site.core.models import Operation
from vms.models import VM


@dataclass(frozen=True)
class ForkResult:
    """One fork; ``vm`` is None once it is deleted, ``start`` until it is to be started.
    ``error``: a problem's record, empty for none."""

    name: str
    vm: VM | None
    start: Operation | None
    error: dict[str, Any]


def fork_results(operation: Operation, starts: Iterable[Operation]) -> list[ForkResult]:
    """What a ``vm.fork`` has made so far. One query."""
    forks = operation.context.get("forks", [])
    ids = [NexusID.parse(fork["vm"]) for fork in forks]
    vms = {vm.pk: vm for vm in VM.objects.filter(pk__in=ids)}
    by_vm = {start.subject_id: start for start in starts}
    return [
        ForkResult(
            name=vms[pk].name if pk in vms else fork["name"],
            vm=vms.get(pk),
            start=by_vm.get(pk),
            error=fork.get("error") or (by_vm[pk].error if pk in by_vm else {}),
        )
        for fork, pk in zip(forks, ids, strict=True)
    ]
