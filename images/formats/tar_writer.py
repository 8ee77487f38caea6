"""Write the headers of a POSIX tar archive: ustar, with PAX records for what that cannot say."""

from __future__ import annotations

from collections.abc import Mapping

from images.entries import DEVICES, Entry, Kind

BLOCK = 512
NAME_SIZE = 100
MAX_SIZE, MAX_ID = 8**11 - 1, 8**7 - 1  # what the fields of a header hold
_PAX = b"x"


def header(entry: Entry, name: bytes, target: bytes, type_: bytes, size: int) -> bytes:
    """A header block; what does not fit into its fields is cut short or 0."""
    major, minor = entry.device if entry.kind in DEVICES else (0, 0)
    parts = [
        name[:NAME_SIZE].ljust(NAME_SIZE, b"\0"),
        b"%07o\0" % entry.mode,
        b"%07o\0" % (entry.uid if entry.uid <= MAX_ID else 0),
        b"%07o\0" % (entry.gid if entry.gid <= MAX_ID else 0),
        b"%011o\0" % (size if size <= MAX_SIZE else 0),
        b"%011o\0" % entry.mtime,
        b" " * 8,
        type_,
        target[:NAME_SIZE].ljust(NAME_SIZE, b"\0"),
        b"ustar\x0000".ljust(72, b"\0"),
        b"%07o\0%07o\0" % (major, minor),
    ]
    block = b"".join(parts).ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def extended(records: Mapping[bytes, bytes], of: bytes) -> bytes:
    """The header block ``of`` behind the records that say what it does not; none: as it is."""
    if not records:
        return of
    lines = b"".join(_record(key, value) for key, value in records.items())
    pax = header(Entry("", Kind.FILE, 0o644), b"./PaxHeaders/pax", b"", _PAX, len(lines))
    return pax + lines + padding(len(lines)) + of


def padding(size: int) -> bytes:
    """What follows so many bytes of data, up to the next block."""
    return bytes(-size % BLOCK)


def _record(key: bytes, value: bytes) -> bytes:
    """``LENGTH KEY=VALUE`` and a newline; the length counts its own digits too."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)
