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
