"""Logs are read in pieces that may cut a character in two."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_site.core.text import decode_piece


@given(st.text(), st.integers(min_value=4, max_value=16))
def test_text_read_in_pieces_is_the_text(text: str, size: int) -> None:
    data, read, at = text.encode(), "", 0
    while at < len(data):
        piece, taken = decode_piece(data[at : at + size])
        assert taken > 0
        read, at = read + piece, at + taken
    assert read == text


@pytest.mark.parametrize("data", [b"\xff\xfe", b"\xe2\x82", b"ok \x80 ok", b""])
def test_what_is_no_utf8_is_replaced_and_passed(data: bytes) -> None:
    text, taken = decode_piece(data)
    assert taken == len(data)
    assert text.isprintable()
