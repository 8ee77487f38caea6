"""What is known about kernels: their options, how two differ, how fast they are ready."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from images.models import Kernel
from images.providers.kernels.base import CONFIG
from images.services.kernels import kernel_dir
from nexus_site.core.errors import NotFound

#: Boots that the scoreboard looks at, newest first.
MOST_BOOTS = 20_000
OFF = "n"

_OPTION = re.compile(r"(CONFIG_\w+)=(.*)|# (CONFIG_\w+) is not set")


@dataclass(frozen=True)
class Difference:
    """An option that two kernels have otherwise; ``n`` stands for off."""

    option: str
    before: str
    after: str


@dataclass(frozen=True)
class KernelDiff:
    """How ``after`` differs from ``before``; no ``options`` where either has none on record."""

    before: Kernel
    after: Kernel
    options: list[Difference] | None


@dataclass(frozen=True)
class Score:
    """How the guests of an image came up with a kernel on a VMM, over their real boots.

    ``p50`` and ``p95`` are seconds from the start of the VMM to the agent's hello, over those
    that came to it; None without any. ``failures`` ended without one.
    """

    kernel: str
    kernel_id: str
    image: str  # empty: one that has been deleted
    hypervisor: str
    accelerator: str
    boots: int
    failures: int
    p50: float | None
    p95: float | None


def kernel_config(kernel: Kernel) -> str:
    """The options that it was built with. Raises ``NotFound`` where they are not known."""
    path = kernel_dir(kernel) / CONFIG
    if not kernel.config_digest or not path.is_file():
        raise NotFound(
            f"The options of the kernel “{kernel.name}” are not known.",
            hint="It came without them, and has none inside (CONFIG_IKCONFIG=y).",
            code="kernel-config-unknown",
        )
    return path.read_text(errors="replace")


def parse_config(text: str) -> dict[str, str]:
    """The options of a ``.config`` that are on, with their values."""
    found = (_OPTION.fullmatch(line.rstrip()) for line in text.splitlines())
    return {option[1]: option[2] for option in found if option and option[1] and option[2] != OFF}


def diff_kernels(before: Kernel, after: Kernel) -> KernelDiff:
    """What differs between two kernels."""
    try:
        old, new = (parse_config(kernel_config(kernel)) for kernel in (before, after))
    except NotFound:
        return KernelDiff(before, after, None)
    options = [
        Difference(name, old.get(name, OFF), new.get(name, OFF))
        for name in sorted(old.keys() | new.keys())
        if old.get(name, OFF) != new.get(name, OFF)
    ]
    return KernelDiff(before, after, options)


def kernel_scores(kernel: Kernel | None = None) -> list[Score]:
    """How fast guests were ready, by kernel, image and VMM; one query.

    Only boots count: a guest that went on from saved memory did not use its kernel's start. One
    that has not ended yet without a hello counts as neither.
    """
    # In one call, so that all of it is about the same boot.
    rows = Kernel.objects.filter(
        boot__resumed_from="",
        boot__launched_at__isnull=False,
        boot__vm__attachments__is_root=True,
    )
    if kernel is not None:
        rows = rows.filter(pk=kernel.pk)
    boots = rows.order_by("-boot__created_at").values_list(
        "pk",
        "name",
        "boot__vm__attachments__drive__image__name",
        "boot__hypervisor",
        "boot__accelerator",
        "boot__launched_at",
        "boot__hello_at",
        "boot__ended_at",
    )[:MOST_BOOTS]
    return _scores(boots)


def _scores(boots: Iterable[tuple[Any, ...]]) -> list[Score]:
    found: dict[tuple[Any, ...], tuple[list[float], list[int]]] = {}
    for pk, name, image, hypervisor, accelerator, launched, hello, ended in boots:
        key = (name, image or "", hypervisor, accelerator, pk)
        seconds, failures = found.setdefault(key, ([], []))
        if hello is not None:
            seconds.append(_seconds(launched, hello))
        elif ended is not None:
            failures.append(1)
    return [
        Score(
            kernel=name,
            kernel_id=str(pk),
            image=image,
            hypervisor=hypervisor,
            accelerator=accelerator,
            boots=len(seconds) + len(failures),
            failures=len(failures),
            p50=_percentile(seconds, 50),
            p95=_percentile(seconds, 95),
        )
        for (name, image, hypervisor, accelerator, pk), (seconds, failures) in sorted(
            found.items(), key=lambda item: item[0][:4]
        )
        if seconds or failures
    ]


def _seconds(launched: datetime, hello: datetime) -> float:
    return max((hello - launched).total_seconds(), 0.0)


def _percentile(values: list[float], percent: int) -> float | None:
    """The smallest value that so many percent of all are not above (nearest rank)."""
    if not values:
        return None
    rank = -(-len(values) * percent // 100)
    return round(sorted(values)[max(rank, 1) - 1], 3)
