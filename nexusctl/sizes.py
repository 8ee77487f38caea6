"""Sizes and times as people write them: ``20G``, ``512M``, ``9000`` (MiB); ``10m``, ``2h``."""

from __future__ import annotations

import re

import click

_UNITS = {"": 1, "M": 1, "G": 1024, "T": 1024 * 1024}
_SIZE = re.compile(r"(\d{1,9})\s*([MGT]?)(?:I?B)?", re.IGNORECASE)


class Size(click.ParamType):  # type: ignore[type-arg]  # not generic in every click
    """A size in whole MiB; ``M``, ``G`` and ``T`` are binary, with or without ``iB``."""

    name = "size"

    def convert(
        self, value: str | int, param: click.Parameter | None, context: click.Context | None
    ) -> int:
        if isinstance(value, int):
            return value
        found = _SIZE.fullmatch(value.strip())
        if found is None:
            self.fail(f"“{value}” is no size; write 20G, 512M, or a number of MiB.", param, context)
        return int(found[1]) * _UNITS[found[2].upper()]


class Limit(Size):
    """A size, or ``none`` for no limit, which is 0."""

    name = "limit"

    def convert(
        self, value: str | int, param: click.Parameter | None, context: click.Context | None
    ) -> int:
        return 0 if value == "none" else super().convert(value, param, context)


class Minutes(click.ParamType):  # type: ignore[type-arg]
    """A time in whole minutes (``10m``, ``2h``, ``10``), or ``never``, which is 0."""

    name = "time"

    def convert(
        self, value: str | int, param: click.Parameter | None, context: click.Context | None
    ) -> int:
        if isinstance(value, int):
            return value
        if value == "never":
            return 0
        found = re.fullmatch(r"(\d{1,6})\s*([mhd]?)", value.strip())
        if found is None:
            self.fail(f"“{value}” is no time; write 10m, 2h, 1d or never.", param, context)
        return int(found[1]) * {"": 1, "m": 1, "h": 60, "d": 24 * 60}[found[2]]


SIZE = Size()
MINUTES = Minutes()
LIMIT = Limit()
