"""What a terminal would show, as plain text: consoles are full of control sequences."""

from __future__ import annotations

import re

# CSI (colours, cursor), OSC (titles, ended by BEL or ST), other strings, short escapes.
_SEQUENCE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]"
    r"|\][^\x07\x1b]*(?:\x07|\x1b\\)"
    r"|[PX^_][^\x1b]*\x1b\\"
    r"|[ -/]*[0-OQ-WYZ\\`-~])"
)
_UNFINISHED = re.compile(
    r"\r*(?:\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]*\x1b?|[PX^_][^\x1b]*\x1b?|[ -/]*))?\Z"
)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_LONGEST = 256  # characters of a sequence that are waited for


def plain_text(text: str) -> str:
    """``text`` without control sequences; lines end in one newline each."""
    text = _SEQUENCE.sub("", text).replace("\r\r\n", "\n").replace("\r\n", "\n")
    return _CONTROL.sub("", text.replace("\r", "\n"))


def split_unfinished(text: str) -> tuple[str, str]:
    """``text`` in two: what can be shown now, and the start of a sequence cut off at its end."""
    found = _UNFINISHED.search(text)
    start = found.start() if found else len(text)
    return (text, "") if len(text) - start > _LONGEST else (text[:start], text[start:])
