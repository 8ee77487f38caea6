"""Where the data of a sparse file in a tar archive belongs: GNU's four ways to say it.

Each is a list of numbers, an offset and a length in turn. Old GNU archives keep it in the
header and blocks behind it; PAX keeps it in records (0.0, 0.1) or before the data (1.0).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from images.formats.compression import damaged

_BLOCK = 512
MAX_PARTS = 100_000
_IN_HEADER, _IN_BLOCK = 4, 21  # pairs of numbers of 12 bytes

Part = tuple[int, int]  # offset in the file, bytes of data


def pairs(numbers: Sequence[int], real_size: int, data_size: int) -> list[Part]:
    """The parts that ``numbers`` say, proven to be in order and to use all of the data."""
    if len(numbers) % 2 or len(numbers) > 2 * MAX_PARTS:
        raise damaged("a sparse file has a map that makes no sense")
    parts = list(zip(numbers[::2], numbers[1::2], strict=True))
    end = 0
    for offset, length in parts:
        if offset < end or length < 0:
            raise damaged("a sparse file has parts that overlap")
        end = offset + length
    if end > real_size or sum(length for _, length in parts) != data_size:
        raise damaged("a sparse file has a map that does not match its data")
    return parts


def old_gnu(
    header: bytes, number: Callable[[bytes], int], read: Callable[[int], bytes]
) -> tuple[list[int], int]:
    """The numbers of an old GNU header and its file's real size; may read more blocks."""
    numbers = _fields(header[386:482], _IN_HEADER, number)
    more = header[482]
    while more:
        block = read(_BLOCK)
        numbers += _fields(block, _IN_BLOCK, number)
        more = block[504]
        if len(numbers) > 2 * MAX_PARTS:
            raise damaged("a sparse file has too many parts")
    return numbers, number(header[483:495])


def _fields(raw: bytes, count: int, number: Callable[[bytes], int]) -> list[int]:
    """Pairs of fields up to the first that is empty."""
    numbers: list[int] = []
    for at in range(0, count * 24, 24):
        if not raw[at]:
            break
        numbers += number(raw[at : at + 12]), number(raw[at + 12 : at + 24])
    return numbers


def from_records(records: Mapping[bytes, bytes]) -> list[int]:
    """The numbers of PAX versions 0.0 and 0.1, which the reader has put into one record."""
    return [integer(word) for word in records[b"GNU.sparse.map"].split(b",") if word]


def before_data(size: int, read: Callable[[int], bytes]) -> tuple[list[int], int]:
    """The numbers of PAX version 1.0, and how many bytes of the data they took."""
    lines: list[bytes] = []
    rest, taken, wanted = b"", 0, 1
    while len(lines) < wanted:
        if taken + _BLOCK > size:
            raise damaged("a sparse file ends inside its map")
        *found, rest = (rest + read(_BLOCK)).split(b"\n")
        taken += _BLOCK
        lines += found
        if len(rest) > _BLOCK:
            raise damaged("a sparse file has a map that makes no sense")
        if lines:
            wanted = 1 + 2 * integer(lines[0])
        if not 1 <= wanted <= 1 + 2 * MAX_PARTS:
            raise damaged("a sparse file has too many parts")
    return [integer(line) for line in lines[1:wanted]], taken


def map_block(parts: Sequence[Part]) -> bytes:
    """The map that stands before the data in PAX version 1.0, padded to whole blocks."""
    lines = [b"%d\n" % len(parts), *(b"%d\n%d\n" % part for part in parts)]
    text = b"".join(lines)
    return text + bytes(-len(text) % _BLOCK)


def integer(text: bytes) -> int:
    """A decimal number, at least zero."""
    if not text.isdigit() or len(text) > 20:
        raise damaged(f"{text[:40]!r} stands in place of a number")
    return int(text)
