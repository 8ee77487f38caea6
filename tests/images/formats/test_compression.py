"""Unpacking: every compression in small and large steps, damage and bombs."""

from __future__ import annotations

import gzip
import io
import random

import pytest

from images.formats import compression
from images.formats.compression import HEAD, Unpacked, chunks, compression_of
from nexus_site.core.errors import Invalid
from tests.images.formats.archive_files import PACKERS

NAMES = sorted(PACKERS)
DATA = random.Random(3).randbytes(200_000) + bytes(700_000) + b"end"


def unpacked(data: bytes, name: str, step: int = 1 << 20) -> bytes:
    return b"".join(chunks(Unpacked(io.BytesIO(data), name), step))


@pytest.mark.parametrize("name", NAMES)
def test_what_was_packed_comes_out_in_steps_of_any_size(name: str) -> None:
    packed = PACKERS[name](DATA)
    assert compression_of(packed[:HEAD]) == name
    stream = Unpacked(io.BytesIO(packed), name)
    assert stream.read(1) == DATA[:1]
    assert stream.read(299_999) == DATA[1:300_000]
    assert stream.read(1 << 30) == DATA[300_000:]
    assert stream.read(1) == b""


@pytest.mark.parametrize("name", NAMES)
def test_streams_follow_each_other_and_zeros_the_last(name: str) -> None:
    parts = [PACKERS[name](part) for part in (b"one", b"", b"two" * 50_000)]
    assert unpacked(b"".join(parts) + bytes(900), name) == b"one" + b"two" * 50_000


@pytest.mark.parametrize("name", NAMES)
def test_what_is_cut_off_anywhere_is_damaged(name: str) -> None:
    packed = PACKERS[name](b"some text to pack " * 20)
    for length in range(len(packed)):
        with pytest.raises(Invalid) as refusal:
            unpacked(packed[:length], name)
        assert refusal.value.code == "archive-damaged"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tail", [b"tail", b"\0\0tail" * 30_000])
def test_what_follows_and_is_not_compressed_is_damage(name: str, tail: bytes) -> None:
    with pytest.raises(Invalid) as refusal:
        unpacked(PACKERS[name](b"text") + tail, name)
    assert refusal.value.code == "archive-damaged"


def test_a_wrong_checksum_at_the_end_is_noticed() -> None:
    packed = bytearray(gzip.compress(DATA, 1))
    packed[-6] ^= 1
    with pytest.raises(Invalid, match="does not unpack"):
        unpacked(bytes(packed), "gz")


@pytest.mark.parametrize("name", NAMES)
def test_a_bomb_ends_at_the_free_bytes(name: str) -> None:
    stream = Unpacked(io.BytesIO(PACKERS[name](bytes(30 << 20))), name, free_bytes=1 << 20)
    with pytest.raises(Invalid) as refusal:
        for _ in chunks(stream):
            pass
    assert refusal.value.code == "archive-too-large"


def test_nothing_unpacks_to_more_than_the_limit() -> None:
    stream = Unpacked(io.BytesIO(gzip.compress(DATA, 1)), "gz", max_bytes=600_000)
    with pytest.raises(Invalid, match="600000"):
        list(chunks(stream))


def test_too_many_small_streams_are_a_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "_MAX_STREAMS", 99)
    with pytest.raises(Invalid, match="99"):
        unpacked(gzip.compress(b"") * 101, "gz")


@pytest.mark.parametrize("head", [b"", b"\x1f\x8b", b"BZh9plain te", b"ustar", bytes(10)])
def test_what_is_not_compressed_is_taken_as_it_is(head: bytes) -> None:
    assert compression_of(head) == ""
