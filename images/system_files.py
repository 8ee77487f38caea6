"""The small text formats in which a distribution says what it is and what it has installed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

_KEY = re.compile(r"[A-Z][A-Z0-9_]*\Z")
_MAX_SHOWN = 300


def os_release(text: str) -> dict[str, str]:
    """The variables of os-release(5), quotes removed."""
    variables = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and _KEY.match(key):
            variables[key] = shown(_unquoted(value))
    return variables


def dpkg_packages(text: str) -> Iterator[tuple[str, str]]:
    """(name, version) of the packages that dpkg's status file calls installed."""
    for fields in _paragraphs(text, ": "):
        state = fields.get("Status", "installed").split(" ")[-1]
        if state == "installed" and "Package" in fields:
            yield shown(fields["Package"]), shown(fields.get("Version", ""))


def apk_packages(text: str) -> Iterator[tuple[str, str]]:
    """(name, version) of the packages in apk's database."""
    for fields in _paragraphs(text, ":"):
        if "P" in fields:
            yield shown(fields["P"]), shown(fields.get("V", ""))


def shown(text: str) -> str:
    """A stranger's word as it can be shown: short, and nothing that a terminal would obey."""
    return "".join(letter for letter in text.strip()[:_MAX_SHOWN] if letter.isprintable())


def _paragraphs(text: str, separator: str) -> Iterator[dict[str, str]]:
    """Fields by name; what continues a field on the next line is left out."""
    fields: dict[str, str] = {}
    for line in text.split("\n"):
        if not line.strip():
            yield fields
            fields = {}
        elif not line[0].isspace():
            name, _, value = line.partition(separator)
            fields.setdefault(name, value)
    yield fields


def _unquoted(value: str) -> str:
    try:
        return "".join(shlex.split(value))
    except ValueError:  # a quote that nothing closes
        return value.strip("\"'")
