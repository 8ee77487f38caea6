"""Hostile archives, as code that makes them.

``REFUSED`` end with an error of the code that is named. ``CONTAINED`` are unpacked into the tree
and nowhere else; what the tree must hold then is named. ``OUTSIDE`` in a name stands for a
directory of this machine, which must never change.
"""

from __future__ import annotations

import struct

from tests.images.formats.archive_files import (
    directory,
    file,
    hard_link,
    header,
    pax,
    symlink,
)

OUTSIDE = b"OUTSIDE"
#: A tar header with the magic of another format in a name, a name with everything odd.
ODD = b"-rf \"'$(x)\\\n\r\t\x1b[31m\x07 \xff\xfe\xc3"

REFUSED: dict[str, tuple[bytes, str]] = {
    "dots at the beginning": (file("../escaped"), "unsafe-entry"),
    "dots in the middle": (file("a/../../escaped"), "unsafe-entry"),
    "dots at the end": (directory("a/.."), "unsafe-entry"),
    "dots behind a slash": (file("/../escaped"), "unsafe-entry"),
    "dots in a long name": (pax({b"path": b"x/../../" + b"y" * 200}) + file("x"), "unsafe-entry"),
    "dots in a hard link": (hard_link("a", "../../etc/shadow"), "unsafe-entry"),
    "a NUL in a name": (pax({b"path": b"a\0/../b"}) + file("x"), "unsafe-entry"),
    "an overlong part": (pax({b"path": b"n" * 256}) + file("x"), "unsafe-entry"),
    "an overlong path": (pax({b"path": b"d/" * 2048 + b"x"}) + file("x"), "unsafe-entry"),
    "an overlong target": (pax({b"linkpath": b"t" * 4096}) + symlink("x", "t"), "unsafe-entry"),
    "a hard link outside": (hard_link("a", "/etc/passwd"), "unsafe-entry"),
    "a hard link before its target": (hard_link("a", "b") + file("b"), "unsafe-entry"),
    "a hard link to itself": (hard_link("a", "a"), "unsafe-entry"),
    "a hard link to a directory": (directory("d") + hard_link("a", "d"), "unsafe-entry"),
    "a hard link to the root": (hard_link("a", "/"), "unsafe-entry"),
    "a hard link in place of its own directory": (
        file("d/f", b"f") + hard_link("d", "d/f"), "unsafe-entry",
    ),
    "a root that is a file": (file("."), "unsafe-entry"),
    "a root that is a link": (symlink("./", OUTSIDE), "unsafe-entry"),
    "a root that is a hard link": (file("f") + hard_link(".", "f"), "unsafe-entry"),
    "a file under a file": (file("a", b"a") + file("a/b", b"b"), "unsafe-entry"),
    "a file under a device": (header("a", type=b"3", device=(1, 3)) + file("a/b"), "unsafe-entry"),
    "links in a circle": (
        symlink("a", "b") + symlink("b", "a") + file("a/x", b"x"), "unsafe-entry",
    ),
    "a link to itself": (symlink("a", "a/b") + file("a/x", b"x"), "unsafe-entry"),
    "a device with a number that is none": (
        header("d", type=b"4", device=(0o7777777, 0)), "unsafe-entry",
    ),
    "an owner below zero": (file("x", uid=b"\xff" * 8), "unsafe-entry"),
    "a size below zero": (header("x", size=b"\xff" * 12), "archive-damaged"),
    "a size beyond all disks": (header("x", size=b"\x80" + b"\x7f" * 11), "unsafe-entry"),
    "a PAX header of 8 GiB": (header("x", type=b"x", size=8**11 - 1), "archive-too-large"),
    "a long name of 8 GiB": (header("x", type=b"L", size=8**11 - 1), "archive-too-large"),
    "headers without end": (pax({b"a": b"b"}) * 5000 + file("x"), "archive-damaged"),
    "a wrong checksum": (file("x", checksum=b"123456\0 "), "archive-damaged"),
    "no archive at all": (b"plain text " * 200, "archive-damaged"),
    "nothing": (b"", "archive-empty"),
}  # fmt: skip

CONTAINED: dict[str, tuple[bytes, dict[str, str]]] = {
    "an absolute path": (file(OUTSIDE + b"/escaped", b"x"), {"OUTSIDE/escaped": "file"}),
    "a link out, then a file through it": (
        symlink("out", OUTSIDE) + file("out/escaped", b"x"),
        {"out": "symlink", "OUTSIDE/escaped": "file"},
    ),
    "a link up, then a file through it": (
        symlink("up", "../../../../..") + file("up/escaped", b"x"),
        {"up": "symlink", "escaped": "file"},
    ),
    "a chain of links out": (
        symlink("a", "b") + symlink("b", OUTSIDE) + directory("a/new") + file("a/new/f", b"x"),
        {"a": "symlink", "OUTSIDE/new/f": "file"},
    ),
    "a link in place of a directory": (
        file("d/f", b"x") + symlink("d", OUTSIDE) + file("d/escaped", b"x"),
        {"d": "symlink", "OUTSIDE/escaped": "file"},
    ),
    "a hard link through a link": (
        symlink("out", OUTSIDE) + file("out/a", b"x") + hard_link("b", "out/a"),
        {"b": "file", "OUTSIDE/a": "file"},
    ),
    "a hard link to a link": (
        symlink("out", "/etc/shadow") + hard_link("again", "out"), {"again": "symlink"},
    ),
    "a file, then a directory": (
        file("a", b"x") + directory("a") + file("a/b", b"y"), {"a": "directory", "a/b": "file"},
    ),
    "a directory, then a file": (file("a/b/c", b"x") + file("a", b"y"), {"a": "file"}),
    "the same file many times": (
        b"".join(file("a", b"%d" % n) for n in range(500)), {"a": "file"},
    ),
    "devices, setuid and FIFOs": (
        header("mem", type=b"3", device=(1, 1), mode=0o666)
        + header("sda", type=b"4", device=(8, 0), mode=0o666)
        + header("pipe", type=b"6") + file("su", b"x", mode=0o6755),
        {"mem": "character-device", "sda": "block-device", "pipe": "fifo", "su": "file"},
    ),
    "names that are no text": (file(ODD, b"x"), {ODD.decode("utf-8", "surrogateescape"): "file"}),
    "a path as deep as it can be": (
        pax({b"path": b"d/" * 2047 + b"x"}) + file("x", b"x"), {"d/d/d": "directory"},
    ),
    "times beyond all calendars": (
        file("a", b"x", mtime=b"\x80" + b"\xff" * 11) + file("b", mtime=b"\xff" * 12),
        {"a": "file", "b": "file"},
    ),
    "an archive in an archive": (file("inner.tar", file("../x")), {"inner.tar": "file"}),
    "another archive behind the end": (
        file("a", b"x") + bytes(1024) + file("../escaped"), {"a": "file"},
    ),
}  # fmt: skip


def many(count: int) -> bytes:
    """``count`` empty files, quickly made: only name and checksum differ."""
    block = bytearray(header("0" * 12))
    base = sum(block[:148]) + sum(block[156:]) + 8 * 32 - 12 * ord("0")
    out = bytearray()
    for number in range(count):
        name = b"%012d" % number
        block[:12] = name
        struct.pack_into("8s", block, 148, b"%06o\0 " % (base + sum(name)))
        out += block
    return bytes(out)
