"""Consoles as plain text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_site.core.terminal import plain_text, split_unfinished


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b[1;32mok\x1b[0m\r\n", "ok\n"),
        ("a\r\r\nb\rc", "a\nb\nc"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b[2J\x1b[H\x1b[?25lx", "x"),
        ("bell\x07 back\x08 nul\x00", "bell back nul"),
        ("tab\tstays", "tab\tstays"),
        ("\x1bcreset", "reset"),
    ],
)
def test_control_sequences_are_left_out(raw: str, shown: str) -> None:
    assert plain_text(raw) == shown


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=200))
def test_no_control_character_is_left(raw: str) -> None:
    shown = plain_text(raw)
    assert not [c for c in shown if ord(c) < 32 and c not in "\n\t"]


@given(
    st.lists(
        st.sampled_from(
            ["word ", "\x1b[31m", "\x1b[0m", "\r\n", "\x1b]0;t\x07", "\x1b]0;t\x1b\\", "\x1b(B"]
        ),
        max_size=12,
    ),
    st.integers(min_value=1, max_value=7),
)
def test_cut_into_pieces_the_text_is_the_same(parts: list[str], length: int) -> None:
    raw, rest, shown = "".join(parts), "", ""
    for start in range(0, len(raw), length):
        now, rest = split_unfinished(rest + raw[start : start + length])
        shown += plain_text(now)
    assert shown + plain_text(rest) == plain_text(raw)


def test_a_sequence_that_never_ends_is_not_waited_for() -> None:
    endless = "\x1b[" + "1" * 300
    assert split_unfinished(endless) == (endless, "")
