"""Trees to pack, and what must survive of them."""

from __future__ import annotations

import struct
from pathlib import Path
from uuid import UUID

from images.entries import MAX_MTIME, Entry, Kind, decoded
from images.formats.disks import RawDisk
from images.formats.ext4_reader import Ext4
from images.trees import Tree

IDENTITY = {
    "fs_uuid": UUID("11111111-2222-4333-8444-555555555555"),
    "hash_seed": UUID("66666666-7777-4888-8999-aaaaaaaaaaaa"),
    "timestamp": 1_700_000_000,
    "label": "nexus",
}
SIZE = 32

ACCESS_LIST = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, permissions, who)
    for tag, permissions, who in [
        (0x01, 6, 0xFFFFFFFF),
        (0x02, 4, 1234567),
        (0x04, 4, 0xFFFFFFFF),
        (0x08, 7, 42),
        (0x10, 7, 0xFFFFFFFF),
        (0x20, 0, 0xFFFFFFFF),
    ]
)
AWKWARD_NAMES = [
    " ", "a b", "-rf", "--help", "<12>", '"', '""', 'say "hi"', "it's", "back\\slash", "tab\there",
    "new\nline", "cr\r", "#comment", "$HOME", "`id`", "*", "über", "日本語", "\U0001f680",
    ".hidden", "...", "n" * 255, "e\u0301", decoded(b"\xff\xfe not utf-8"), "@123", "cd x", "%s%n",
    "\x01\x7f",
]  # fmt: skip


def fill(tree: Tree) -> None:
    """One of everything that an image may hold."""
    tree.add_directory("/", mode=0o751, uid=7, mtime=5)
    tree.add_file("usr/bin/sudo", b"setuid" * 5000, mode=0o6755, gid=70_000, mtime=1_000_000_000)
    tree.add_file("owned", b"", mode=0, uid=2**32 - 2, gid=2**31 + 5, mtime=0)
    tree.add_file("late", b"late", mtime=MAX_MTIME)
    tree.add_link("usr/bin/alias", "usr/bin/sudo")
    tree.add_link("also", "usr/bin/sudo")
    tree.add_directory("var/tmp", mode=0o1777, uid=33, mtime=77)
    tree.add_symlink("short", "usr/bin", uid=12, gid=13, mtime=99)
    tree.add_symlink("long", "x" * 70 + "/é" * 300, uid=70_001)
    tree.add_file("holes", b"begin" + bytes(3 << 20) + b"end")
    attributes = {
        "security.capability": bytes(range(20)),
        'user.two words and "quotes"': b"line\nbreak\0",
        "user.empty": b"",
        "system.posix_acl_access": ACCESS_LIST,
        "trusted.big": bytes(range(256)) * 8,
    }
    tree.add_file("capable", b"ping", mode=0o755, xattrs=attributes)
    for number, (kind, device) in enumerate(
        [
            (Kind.CHARACTER_DEVICE, (5, 1)),
            (Kind.BLOCK_DEVICE, (8, 255)),
            (Kind.CHARACTER_DEVICE, (300, 3)),
            (Kind.BLOCK_DEVICE, (259, 1_048_575)),
            (Kind.FIFO, (0, 0)),
            (Kind.SOCKET, (0, 0)),
        ]
    ):
        special = Entry(f"dev/s {number}", kind, 0o620, uid=number, device=device, mtime=number)
        tree.add(special)
    for number, name in enumerate(AWKWARD_NAMES):
        tree.add_file(f"awkward/{name}", name.encode("utf-8", "replace"), uid=number)
        tree.add_symlink(f"awkward/{name[:100]}-link", name, uid=number)
        tree.add_directory(f"awkward/{name[:100]}-directory", uid=number)
    for name in AWKWARD_NAMES:
        if "\n" not in name and "\r" not in name:
            tree.add(Entry(f"nodes/{name}", Kind.CHARACTER_DEVICE, 0o600, device=(1, 3), uid=4))


def read_back(image: Path, directory: Path) -> Tree:
    found = Tree.create(directory)
    with RawDisk(image) as disk:
        found.fill(Ext4(disk).items())
    return found


def facts(tree: Tree) -> dict[str, tuple[dict[str, object], bytes]]:
    """What must survive, by path: metadata, data, and which names are one file."""
    first_names: dict[str, str] = {}
    found = {}
    for entry in tree:
        document = entry.to_json()
        data = b""
        if entry.content:
            document["content"] = first_names.setdefault(entry.content, entry.path)
            data = tree.content_path(entry).read_bytes()
        found[entry.path] = (document, data)
    return found
