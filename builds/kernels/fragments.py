"""Fragments of kernel options: read, given to the kernel's own tools, and checked afterwards.

A fragment is complete: `make allnoconfig` switches off what it does not name. Its first line may
be `# nexus fragment: NAME NUMBER`; the number goes up with every change, so that kernels can be
told apart. A line is `CONFIG_X=value` (`y`, a number or a text in quotes), `# CONFIG_X is not
set`, a comment, or several options with `or` between them, one of which must take: options are
renamed from version to version.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from nexus_site.core.errors import Invalid, NotFound

MAX_FRAGMENT = 256 << 10  # characters
_DIRECTORY = Path(__file__).parent / "fragments"
_HEADER = re.compile(r"# nexus fragment: ([a-z][a-z0-9-]{0,39}) ([1-9][0-9]{0,5})\s*\Z")
_OPTION = re.compile(r"CONFIG_[A-Za-z0-9_]{1,120}=(?:[yn]|-?[0-9]+|0x[0-9A-Fa-f]+|\"[^\"\\\n]*\")")
_OFF = re.compile(r"# (CONFIG_[A-Za-z0-9_]{1,120}) is not set\Z")
_OR = " or "


@dataclass(frozen=True)
class Fragment:
    """What a kernel is to have. ``wishes`` are the lines that a `.config` must have: for each
    wish one of these, or, where it is an option that is off, none that says otherwise."""

    label: str  # "microvm 1"
    text: str
    wishes: tuple[tuple[str, ...], ...]

    @property
    def allconfig(self) -> str:
        """For `KCONFIG_ALLCONFIG`: every line, and of alternatives each; tools pass over those
        that they do not know."""
        return "".join(f"{line}\n" for wish in self.wishes for line in wish)


def default_fragment(arch: str) -> Fragment:
    """The project's own for an architecture; ``NotFound`` where there is none."""
    path = _DIRECTORY / f"microvm-{arch}.config"
    if not path.exists():
        raise NotFound(
            f"Nexus has no kernel options of its own for {arch}.",
            hint="Give a fragment: nexusctl kernel build VERSION --config FRAGMENT",
            code="fragment-not-found",
        )
    return parse(path.read_text())


def parse(text: str) -> Fragment:
    """A fragment from its text. Raises ``Invalid`` (code ``fragment-invalid``) with the line."""
    if len(text) > MAX_FRAGMENT:
        raise _bad(0, f"it has more than {MAX_FRAGMENT} characters")
    lines = text.splitlines()
    header = _HEADER.match(lines[0]) if lines else None
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    label = f"{header[1]} {header[2]}" if header else f"custom-{digest}"
    found = (_wish(number, line.strip()) for number, line in enumerate(lines, 1))
    wishes = tuple(wish for wish in found if wish)
    if not wishes:
        raise _bad(0, "it names no option")
    return Fragment(label, text, wishes)


def require_taken(fragment: Fragment, config: str) -> None:
    """Raise ``Invalid`` (code ``options-not-taken``) naming each wish that `.config` denies."""
    lines = set(config.splitlines())
    named = {line.partition("=")[0] for line in lines if line.startswith("CONFIG_")}
    lost = [wish for wish in fragment.wishes if not any(_holds(one, lines, named) for one in wish)]
    if lost:
        shown = ", ".join(_OR.join(wish) for wish in lost[:5])
        more = f" and {len(lost) - 5} more" if len(lost) > 5 else ""
        raise Invalid(
            f"The kernel's configuration did not take {shown}{more}.",
            detail="\n".join(_OR.join(wish) for wish in lost),
            hint="This version has no such option, or it depends on another that is off.",
            code="options-not-taken",
        )


def _holds(line: str, lines: set[str], named: set[str]) -> bool:
    if off := _OFF.match(line):
        return off[1] not in named
    return line in lines


def _wish(number: int, line: str) -> tuple[str, ...]:
    """The alternatives in a line; none in a comment."""
    if not line or (line.startswith("#") and not _OFF.match(line)):
        return ()
    if _OFF.match(line):
        return (line,)
    parts = tuple(part.strip() for part in line.split(_OR))
    for part in parts:
        if part.endswith("=m"):
            raise _bad(number, "a module; build it in (=y), these kernels have no modules")
        if not _OPTION.fullmatch(part):
            raise _bad(number, "neither an option nor a comment")
    return tuple(_off(part) if part.endswith("=n") else part for part in parts)


def _off(part: str) -> str:
    return f"# {part.removesuffix('=n')} is not set"


def _bad(number: int, reason: str) -> Invalid:
    where = f" Line {number} is {reason}." if number else f" It is none: {reason}."
    return Invalid(
        f"The fragment of kernel options cannot be used.{where}",
        hint="Lines are CONFIG_X=y, CONFIG_X=value, # CONFIG_X is not set, or comments.",
        code="fragment-invalid",
        extra={"line": number} if number else {},
    )
