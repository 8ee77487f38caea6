"""Pieces of logs as text."""

from __future__ import annotations

import codecs


def decode_piece(data: bytes) -> tuple[str, int]:
    """``data`` as text, and how many bytes of it that took.

    A character that is cut off at the end is left for the next piece; what is no UTF-8 is
    replaced. Something is always taken, so that readers get on.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(data)
    pending = len(decoder.getstate()[0])
    if pending == len(data):
        return data.decode("utf-8", "replace"), len(data)
    return text, len(data) - pending


def counted(number: int, noun: str) -> str:
    """``1 file``, ``2 files``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def visible(text: object, keep: str = "") -> str:
    r"""``text`` of strangers so that it shows as what it is: control characters, those that turn
    the direction of writing, and bytes that were no UTF-8 become ``\x1b``, ``\u202e``, ``\xff``.

    ``keep`` are characters that stay, such as newlines.
    """
    return "".join(
        letter if letter.isprintable() or letter in keep else _code(letter) for letter in str(text)
    )


def _code(letter: str) -> str:
    number = ord(letter)
    if 0xDC80 <= number <= 0xDCFF:  # a byte that was no UTF-8, see PEP 383
        number -= 0xDC00
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
