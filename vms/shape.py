"""What a VM is like: its size, what it is to run on, what it may take from the host, and what is
done when it ends or does not answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict, cast

from django.db.models import TextChoices

from nexus_site.core.errors import Invalid
from vms.capacity import check_size
from vms.choice import require_usable
from vms.models import VM


class Shape(TypedDict, total=False):
    """Fields of a VM that people choose; what is left out is as usual, or as it was.

    The limits hold for a second, of each disk or of the network; None, or 0, for none. So for
    the minutes without work after which it is suspended.
    """

    vcpu_count: int
    mem_size_mib: int
    hypervisor: str
    disk_mib_s: int | None
    disk_iops: int | None
    network_mib_s: int | None
    restart_policy: str
    unreachable_action: str
    idle_suspend_minutes: int | None


DEFAULT_MEMORY_MIB = 512
USUAL = Shape(
    vcpu_count=1,
    mem_size_mib=DEFAULT_MEMORY_MIB,
    hypervisor=VM.Hypervisor.AUTO,
    disk_mib_s=None,
    disk_iops=None,
    network_mib_s=None,
    restart_policy=VM.RestartPolicy.NO,
    unreachable_action=VM.UnreachableAction.KEEP,
    idle_suspend_minutes=None,
)
#: What can be changed while the VM runs.
ANY_TIME = frozenset({"hypervisor", "restart_policy", "unreachable_action", "idle_suspend_minutes"})
MOST_IDLE_MINUTES = 365 * 24 * 60
#: Field, what it limits, and the most that is of any use.
LIMITS = (
    ("disk_mib_s", "MiB that a disk moves in a second", 1 << 20),
    ("disk_iops", "operations of a disk in a second", 10_000_000),
    ("network_mib_s", "MiB that go through the network in a second", 1 << 20),
)


def shape_in(values: Mapping[str, Any]) -> Shape:
    """What ``values`` say about the shape of a VM."""
    return cast("Shape", {name: values[name] for name in USUAL if name in values})


def shape_of(vm: VM) -> Shape:
    return cast("Shape", {name: getattr(vm, name) for name in USUAL})


def checked(shape: Shape) -> Shape:
    """``shape``, which is complete, with no limit as None; ``Invalid`` where it cannot be,
    ``Conflict`` for a hypervisor that is known not to work here."""
    check_size(shape["vcpu_count"], shape["mem_size_mib"])
    _check_choice("hypervisor", shape["hypervisor"], VM.Hypervisor)
    _check_choice("restart policy", shape["restart_policy"], VM.RestartPolicy)
    _check_choice("unreachable action", shape["unreachable_action"], VM.UnreachableAction)
    require_usable(shape["hypervisor"])
    found: dict[str, Any] = dict(shape)
    for name, what, most in LIMITS:
        found[name] = found[name] or None
        if found[name] is not None and not 1 <= found[name] <= most:
            raise Invalid(
                f"The limit of {what} is a number from 1 to {most}; {found[name]} was asked for.",
                hint="0 stands for no limit.",
                code="limit-range",
                extra={"field": name},
            )
    found["idle_suspend_minutes"] = found["idle_suspend_minutes"] or None
    if (found["idle_suspend_minutes"] or 1) not in range(1, MOST_IDLE_MINUTES + 1):
        raise Invalid(
            f"A VM is suspended after 1 to {MOST_IDLE_MINUTES} minutes without work.",
            hint="0 stands for never.",
            code="idle-range",
            extra={"field": "idle_suspend_minutes"},
        )
    if found["hypervisor"] == VM.Hypervisor.QEMU and found["network_mib_s"]:
        raise Invalid(
            "QEMU's network knows no limit.",
            hint="Let the VM run on Firecracker, or take the limit away.",
            code="limit-unsupported",
        )
    return cast("Shape", found)


def new_shape(given: Shape) -> Shape:
    """The shape of a new VM: as ``given``, else as usual; ``checked``."""
    return checked(cast("Shape", {**USUAL, **given}))


def _check_choice(what: str, given: str, choices: type[TextChoices]) -> None:
    if given not in choices.values:
        raise Invalid(
            f"There is no {what} “{given[:40]}”.",
            hint=f"There are: {', '.join(choices.values)}.",
            code=f"unknown-{what.replace(' ', '-')}",
        )
