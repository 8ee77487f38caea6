"""Values as people read them."""

from __future__ import annotations

from datetime import UTC, datetime

NOTHING = "-"


def size(number: int | None) -> str:
    """Bytes with a binary unit: ``45.3 MiB``."""
    if number is None:
        return NOTHING
    value = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def mib(number: int) -> str:
    """MiB with a binary unit: ``512 MiB``, ``2 GiB``."""
    if number < 1024:
        return f"{number} MiB"
    return f"{number / 1024:.1f}".removesuffix(".0") + " GiB"


def seconds(number: float | None) -> str:
    """A duration: ``0.4 s``, ``3 min 20 s``, ``2 h 5 min``, ``4 d 2 h``."""
    if number is None:
        return NOTHING
    if number < 10:
        return f"{number:.1f} s"
    whole = int(number)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def moment(text: str) -> datetime:
    """A time as the API writes it."""
    return datetime.fromisoformat(text)


def when(text: str | None) -> str:
    """A time in UTC to the tenth of a second: ``2026-07-29T12:00:01.4Z``."""
    if not text:
        return NOTHING
    return moment(text).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-5] + "Z"


def ago(text: str | None) -> str:
    """How long ago a time was."""
    return seconds((now() - moment(text)).total_seconds()) if text else NOTHING


def left(text: str) -> str:
    """How long until a time is; 0 s once it is over."""
    return seconds(max((moment(text) - now()).total_seconds(), 0))


def now() -> datetime:
    return datetime.now(UTC)
