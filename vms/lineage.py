"""The family of a VM: what it was cloned or forked from, and what was made of all of these."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import OuterRef, Subquery

from drives.trees import Line, tree
from vms.models import VM, Transition
from vms.models.vms import VMs

HIGHEST = 8  # generations above the VM
MOST = 200  # VMs that are shown


@dataclass(frozen=True)
class Relative:
    """A VM of the family; ``origin`` says how it was made."""

    vm: VM
    origin: str

    @property
    def pk(self) -> int:
        return int(self.vm.pk)

    @property
    def parent_id(self) -> int | None:
        return None if self.vm.parent_id is None else int(self.vm.parent_id)


def lineage(vm: VM) -> list[Line[Relative]]:
    """The family as the lines of a tree; empty for a VM without relatives. A query for each
    generation."""
    above = _ancestors(vm)
    found = {relative.pk: relative for relative in above}
    parents = above[:1]
    while parents and len(found) < MOST:
        children = _rows().filter(parent__in=parents).order_by("created_at")
        parents = list(children[: MOST - len(found)])
        found |= {child.pk: child for child in parents}
    if len(found) == 1:
        return []
    rows = sorted(found.values(), key=lambda row: row.created_at)
    return tree([Relative(row, getattr(row, "origin", "")) for row in rows], vm.pk)


def _ancestors(vm: VM) -> list[VM]:
    """The VM and those above it, the oldest first."""
    chain = [vm]
    while chain[0].parent_id is not None and len(chain) <= HIGHEST:
        parent = _rows().filter(pk=chain[0].parent_id).first()
        if parent is None:
            break  # it is nobody's
        chain.insert(0, parent)
    return chain


def _rows() -> VMs:
    made = Transition.objects.filter(vm=OuterRef("pk"), from_state="").order_by("number")
    return VM.objects.shown().annotate(origin=Subquery(made.values("reason")[:1]))
