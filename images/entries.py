"""One entry of a root file system, with the rules that keep it harmless.

Entries come from strangers' archives and disk images. Nothing of a name, an owner or a mode is
ever given to this machine's file system: it lives in an ``Entry`` until an image is packed.
"""

from __future__ import annotations

import base64
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from nexus_site.core.errors import Invalid

MAX_NAME = 255  # bytes; Linux's own limits
MAX_PATH = 4095
MAX_MTIME = 2**31 - 1  # what every version of the ext4 tools writes right
MAX_SIZE = 16 << 40  # what ext4 can hold
MAX_XATTRS = 64 << 10  # bytes of all names and values of one entry

_XATTR_NAME = re.compile(
    r"(?:(?:user|trusted|security)\.[^\0]+|system\.posix_acl_(?:access|default))\Z"
)


class Kind(StrEnum):
    """What an entry is."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    CHARACTER_DEVICE = "character-device"
    BLOCK_DEVICE = "block-device"
    FIFO = "fifo"
    SOCKET = "socket"

    @property
    def bits(self) -> int:
        """The file type bits of ``st_mode``."""
        return _BITS[self]


_BITS = {
    Kind.FILE: stat.S_IFREG,
    Kind.DIRECTORY: stat.S_IFDIR,
    Kind.SYMLINK: stat.S_IFLNK,
    Kind.CHARACTER_DEVICE: stat.S_IFCHR,
    Kind.BLOCK_DEVICE: stat.S_IFBLK,
    Kind.FIFO: stat.S_IFIFO,
    Kind.SOCKET: stat.S_IFSOCK,
}
KIND_OF_BITS = {bits: kind for kind, bits in _BITS.items()}
DEVICES = frozenset({Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE})


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a tree: everything that ``lstat``, ``readlink`` and ``listxattr`` would say.

    ``path`` is relative to the tree's root (``""`` is the root itself) and normal: see
    ``normal_path``. ``mode`` has permission bits only; ``mtime`` is in whole seconds;
    ``device`` is (major, minor). Files with the same ``content`` are hard links to each other.
    Bytes that are not UTF-8 are kept in ``path`` and ``target`` as surrogates.
    """

    path: str
    kind: Kind
    mode: int
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    size: int = 0
    target: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[str, bytes] = field(default_factory=dict)
    content: str = ""

    def __post_init__(self) -> None:
        """Raises ``Invalid``, naming the entry and the rule that it breaks."""
        if self.path != normal_path(self.path):
            raise _broken_rule(self.path, "its path is not normal")
        for name, value, highest in (
            ("mode", self.mode, 0o7777),
            ("uid", self.uid, 2**32 - 1),
            ("gid", self.gid, 2**32 - 1),
            ("mtime", self.mtime, MAX_MTIME),
            ("size", self.size, MAX_SIZE),
            ("major device number", self.device[0], 2**12 - 1),
            ("minor device number", self.device[1], 2**20 - 1),
        ):
            if not 0 <= value <= highest:
                raise _broken_rule(self.path, f"its {name} is {value}, not 0 to {highest}")
        self._check_target()
        self._check_xattrs()

    def _check_target(self) -> None:
        if self.kind is Kind.SYMLINK:
            if not self.target or "\0" in self.target or len(encoded(self.target)) > MAX_PATH:
                raise _broken_rule(self.path, f"its target is not 1 to {MAX_PATH} bytes")
        elif self.target:
            raise _broken_rule(self.path, "only a symbolic link has a target")

    def _check_xattrs(self) -> None:
        size = 0
        for name, value in self.xattrs.items():
            size += len(encoded(name)) + len(value)
            if not _XATTR_NAME.match(name) or len(encoded(name)) > MAX_NAME:
                raise _broken_rule(self.path, f"no extended attribute is called {name!r}")
        if size > MAX_XATTRS:
            raise _broken_rule(self.path, "its extended attributes are too large")

    @property
    def parent(self) -> str:
        return self.path.rpartition("/")[0]

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def st_mode(self) -> int:
        """Type and permission bits together, as in ``stat``."""
        return self.kind.bits | self.mode

    def to_json(self) -> dict[str, Any]:
        """A JSON object; what has its usual value is left out."""
        document: dict[str, Any] = {"path": self.path, "kind": self.kind, "mode": self.mode}
        for name in ("uid", "gid", "mtime", "size", "target", "content"):
            if value := getattr(self, name):
                document[name] = value
        if self.kind in DEVICES:
            document["device"] = list(self.device)
        if self.xattrs:
            document["xattrs"] = {
                name: base64.b64encode(value).decode() for name, value in self.xattrs.items()
            }
        return document

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Entry:
        """The entry that ``to_json`` wrote down; ``Invalid`` where it breaks a rule."""
        values = dict(document)
        major, minor = values.pop("device", (0, 0))
        xattrs = {name: base64.b64decode(value) for name, value in values.pop("xattrs", {}).items()}
        return cls(
            **(values | {"kind": Kind(values["kind"])}), device=(major, minor), xattrs=xattrs
        )


def normal_path(path: str) -> str:
    """A path as entries have it: relative to the root, no empty parts, no ``.``, never ``..``.

    ``/etc//hosts``, ``./etc/hosts`` and ``etc/hosts/`` are all ``etc/hosts``; ``/`` is ``""``.
    Raises ``Invalid`` for ``..``, a NUL, and what is longer than Linux allows.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    normal = "/".join(parts)
    if ".." in parts:
        raise _broken_rule(path, "a path may not contain '..'")
    if "\0" in path:
        raise _broken_rule(path, "a path may not contain a NUL")
    if len(encoded(normal)) > MAX_PATH or any(len(encoded(part)) > MAX_NAME for part in parts):
        raise _broken_rule(path[:80] + "…", f"a name has {MAX_NAME} bytes, a path {MAX_PATH}")
    return normal


def encoded(text: str) -> bytes:
    """The bytes that a path, a target or an attribute's name stands for."""
    return text.encode("utf-8", "surrogateescape")


def decoded(raw: bytes) -> str:
    """The other way; nothing is lost whatever the bytes are."""
    return raw.decode("utf-8", "surrogateescape")


def _broken_rule(path: str, rule: str) -> Invalid:
    shown = encoded(path).decode("utf-8", "backslashreplace")
    return Invalid(f"The entry {shown!r} cannot be taken: {rule}.", code="unsafe-entry")
