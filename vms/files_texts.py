"""Small texts of guests, to be read and edited in a page."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from guest_agent.files import Files
from nexus_site.core.text import visible
from vms.services.files import MAX_TEXT, version_of


@dataclass(frozen=True)
class TextFile:
    """The text of a file, or ``why`` none is shown.

    ``locked`` says why it cannot be edited, if so; ``text`` is then made visible.
    """

    text: str = ""
    why: str = ""
    locked: str = ""
    version: str = ""
    crlf: bool = False

    @property
    def lines(self) -> int:
        return len(self.text.splitlines())


async def read_text(files: Files, path: str) -> TextFile:
    """The file as a text; it never takes more than ``MAX_TEXT`` bytes and a piece."""
    data = bytearray()
    with await files.read(path, length=MAX_TEXT + 1) as download:
        async for piece in download:
            data += piece
            if len(data) > MAX_TEXT:
                return TextFile(why="It is too large to be shown here.")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return TextFile(why="It is no text.")
    if "\0" in text:
        return TextFile(why="It is no text.")
    locked = _why_not_edited(text, download.info.size)
    if locked:
        return TextFile(visible(text, keep="\n\t"), locked=locked)
    crlf = "\r\n" in text
    version = version_of(download.info)
    return TextFile(text.replace("\r\n", "\n"), version=version, crlf=crlf)


def unwritten(text: str, *, crlf: bool) -> str:
    """The text of a form, whose lines always end in CRLF, with the ends that the file has."""
    plain = text.replace("\r\n", "\n")
    return plain.replace("\n", "\r\n") if crlf else plain


def _why_not_edited(text: str, size: int) -> str:
    """Why a field of a page would not give this text back; empty when it does."""
    if text and not size:
        return "The kernel makes this file as it is read."
    plain = text.replace("\r\n", "")
    if "\r" in plain or ("\r\n" in text and "\n" in plain):
        return "Its lines end in several ways."
    if any(unicodedata.category(c) in ("Cc", "Cf") and c not in "\n\t" for c in plain):
        return "It has control characters."
    return ""
