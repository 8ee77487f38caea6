"""Which versions the kernel's publisher maintains, as it said last; asked once a day."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone
from django.utils.dateparse import parse_datetime

from images.models import Kernel
from images.providers.base import version_key
from nexus_site.core.models import Setting

KEY = "kernel.news"
EVERY = timedelta(days=1)
#: Distributions number their kernels by themselves.
_OWN_NUMBERS = "distro"
_NUMBERS = re.compile(r"(\d+\.\d+)(?:\.\d+)?")


@dataclass(frozen=True)
class KernelNews:
    """``newer``: the maintained versions that are newer than what is here, newest first;
    ``latest``: the latest stable one, empty where it is not known. ``looked_at`` is None before
    the publisher was asked; ``problem`` says why asking failed last, empty if it did not."""

    newer: list[str]
    latest: str = ""
    looked_at: datetime | None = None
    problem: str = ""


def remember_kernel_news(maintained: Iterable[str], latest: str) -> None:
    """Keep what the publisher said: the versions it maintains, and the latest stable one."""
    _keep({
        "maintained": list(maintained),
        "latest": latest,
        "at": timezone.now().isoformat(),
        "problem": "",
    })  # fmt: skip


def remember_no_kernel_news(problem: str) -> None:
    """Keep why the publisher could not be asked, beside what it said before."""
    _keep({"problem": problem[:500]})


def kernel_news(kernels: Iterable[Kernel]) -> KernelNews:
    """What is newer than ``kernels``: in the series that they are of, and the latest stable."""
    kept = Setting.objects.filter(pk=KEY).first()
    if kept is None:
        return KernelNews([])
    value: dict[str, Any] = kept.value
    here = _newest_by_series(kernels)
    latest = value.get("latest", "")
    newer = [
        version
        for version in value.get("maintained", [])
        if (series := _series(version))
        and (series in here or version == latest)
        and version_key(version) > version_key(here.get(series, ""))
    ]
    newer.sort(key=version_key, reverse=True)
    return KernelNews(newer, latest, parse_datetime(value.get("at", "")), value["problem"])


def kernel_news_are_due() -> bool:
    """Whether it is a day since the publisher was asked, with or without an answer."""
    kept = Setting.objects.filter(pk=KEY).first()
    asked = parse_datetime(kept.value["asked"]) if kept else None
    return asked is None or timezone.now() - asked >= EVERY


def _keep(values: Mapping[str, Any]) -> None:
    before = Setting.objects.filter(pk=KEY).first()
    value = {**(before.value if before else {}), **values, "asked": timezone.now().isoformat()}
    Setting.objects.update_or_create(pk=KEY, defaults={"value": value})


def _newest_by_series(kernels: Iterable[Kernel]) -> dict[str, str]:
    """The newest version here of each series, such as 6.12: without what follows its numbers."""
    found: dict[str, str] = {}
    for kernel in kernels:
        numbers = _NUMBERS.match(kernel.version)
        if numbers is not None and kernel.provider != _OWN_NUMBERS:
            version = max(found.get(numbers[1], ""), numbers[0], key=version_key)
            found[numbers[1]] = version
    return found


def _series(version: str) -> str:
    found = _NUMBERS.fullmatch(version)
    return found[1] if found else ""
