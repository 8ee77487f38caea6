from __future__ import annotations

import pytest

from nexusctl.formatting import mib, seconds, size, when


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, "-"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (45 * 1024**2, "45.0 MiB"),
        (8 * 1024**3, "8.0 GiB"),
        (3 * 1024**4, "3.0 TiB"),
    ],
)
def test_size(number, text):
    assert size(number) == text


def test_mib():
    assert [mib(n) for n in (512, 1024, 1536)] == ["512 MiB", "1 GiB", "1.5 GiB"]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, "-"),
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (59.9, "59 s"),
        (60, "1 min 0 s"),
        (3599, "59 min 59 s"),
        (7500, "2 h 5 min"),
        (86400 * 4 + 7200, "4 d 2 h"),
    ],
)
def test_seconds(number, text):
    assert seconds(number) == text


def test_when_is_utc():
    assert when("2026-07-29T14:00:01.456+02:00") == "2026-07-29T12:00:01.4Z"
    assert when(None) == "-"
