"""Pack a tree into a bootable-sized ext4 file: no root, no mounting, the same bytes each time.

``mke2fs -d`` copies a staging directory that belongs to this user, so what only root could
give a staged file (owners, devices, capabilities) is put right afterwards: the new file system
is read back, compared with the tree, and the differences become one batch for ``debugfs``,
which names inodes by number (names with quotes or newlines never reach its parser). Reading
back once more proves the result, since debugfs exits with 0 whatever fails.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from images.entries import DEVICES, Entry, Kind, encoded
from images.files import scratch_directory, whole_file
from images.formats.disks import RawDisk
from images.formats.e2fsprogs import ToolFailed, check, run_tool
from images.formats.ext4_reader import Ext4, Inode
from images.trees import Tree
from nexus_site.core.errors import Broken, Invalid

DEFAULT_SIZE_MIB = 8192  # sparse: it costs what the data costs
MIN_SIZE_MIB, MAX_SIZE_MIB = 16, 16 << 20
MAX_LABEL = 16

# Named one by one, so that the host's mke2fs.conf changes nothing.
_FEATURES = (
    "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,"
    "large_file,huge_file,dir_nlink,extra_isize,metadata_csum"
)
# A sparse file reads as zeros, so nothing needs writing; unknown before e2fsprogs 1.47.
_PREZEROED = "assume_storage_prezeroed=1"
_LAZY = "lazy_itable_init=1,lazy_journal_init=1"  # the guest's kernel does the rest at leisure

_LOST_AND_FOUND = "lost+found"
_OLD_DEVICE_NUMBERS = 256
_ROUNDS = 2  # of corrections: the first leaves what it made with odd names
_MAX_LATE = 2000  # characters of a link's path and target; debugfs reads lines of 8192 bytes
_TIMES = ("atime", "ctime", "mtime", "crtime")


@dataclass(frozen=True)
class _Identity:
    """What would differ from one run of mke2fs to the next."""

    fs_uuid: UUID
    hash_seed: UUID
    timestamp: int
    label: str

    def environment(self) -> dict[str, str]:
        now = str(self.timestamp)
        return {"E2FSPROGS_FAKE_TIME": now, "SOURCE_DATE_EPOCH": now}


def pack_ext4(
    tree: Tree,
    out: Path,
    size_mib: int = DEFAULT_SIZE_MIB,
    *,
    fs_uuid: UUID,
    hash_seed: UUID,
    timestamp: int,
    label: str = "",
) -> None:
    """Write ``tree`` as an ext4 file system of ``size_mib`` MiB to ``out``, whole or not at all.

    The same tree and arguments give the same bytes (with the same e2fsprogs). ``timestamp``
    (seconds since 1970) stands for now: it is every inode's ctime and crtime. The file is
    sparse and its file system proven clean.

    Raises ``Invalid`` for arguments out of range, a tree too large for the size (code
    ``image-too-small``) or with an entry that ext4 cannot hold; ``Retryable`` (``disk-full``);
    ``Broken`` for tools that are missing or fail.
    """
    identity = _Identity(fs_uuid, hash_seed, timestamp, label)
    _check_arguments(size_mib, identity)
    entries = [entry for entry in tree if not _in_lost_and_found(entry.path)]
    with whole_file(out) as image, scratch_directory(tree.directory) as scratch:
        os.truncate(image, size_mib << 20)
        staged = scratch / "root"
        _stage(tree, entries, staged)
        _make_file_system(image, staged, len(entries), identity)
        with ThreadPoolExecutor(1) as meanwhile:
            meanwhile.submit(shutil.rmtree, staged, ignore_errors=True)
            _restore(image, entries, scratch, identity)


def _check_arguments(size_mib: int, identity: _Identity) -> None:
    if not MIN_SIZE_MIB <= size_mib <= MAX_SIZE_MIB:
        raise Invalid(f"An image has {MIN_SIZE_MIB} to {MAX_SIZE_MIB} MiB, not {size_mib}.")
    if not 1 <= identity.timestamp < 2**31:
        raise Invalid("An image's timestamp lies between 1970 and 2038.")
    if len(identity.label.encode()) > MAX_LABEL or "\0" in identity.label:
        raise Invalid(f"A file system's label has at most {MAX_LABEL} bytes.")


def _in_lost_and_found(path: str) -> bool:
    """Every ext4 file system has its own; one of another file system means nothing in it."""
    return path == _LOST_AND_FOUND or path.startswith(_LOST_AND_FOUND + "/")


def _stage(tree: Tree, entries: Sequence[Entry], staged: Path) -> None:
    """Lay out names and contents for mke2fs, without what comes later (see ``_is_late``).

    A tree's parents are directories, and here they come first: nothing is ever written
    through a symbolic link. Contents are linked, so hard links show as such.
    """
    root, contents, new = os.fsencode(staged), os.fsencode(tree.contents), os.fsencode(f"{staged}~")
    times: list[tuple[bytes, int]] = []
    for entry in entries:
        path = b"/".join((root, encoded(entry.path))) if entry.path else root
        if entry.kind in (Kind.FILE, Kind.DIRECTORY):
            times.append((path, entry.mtime))
        if entry.kind is Kind.FILE:
            os.link(b"/".join((contents, entry.content.encode())), path)
        elif not _is_late(entry):
            # Made in one place and moved: a file system spreads what is made in directories
            # that are far apart, and looking for room there takes ten times as long.
            if entry.kind is Kind.DIRECTORY:
                os.mkdir(new, 0o700)  # noqa: PTH102
            elif entry.kind is Kind.SYMLINK:
                os.symlink(encoded(entry.target), new)  # noqa: PTH211
            else:
                os.mknod(new, entry.kind.bits | 0o600)
            os.rename(new, path)  # noqa: PTH104
    for path, mtime in times:  # what mke2fs takes over needs no correction
        os.utime(path, (mtime, mtime))


def _is_late(entry: Entry) -> bool:
    """Whether debugfs makes the entry: devices would need root, and links cost much to stage.

    Links with unusual names or targets are staged, where no parser sees them.
    """
    link = entry.kind is Kind.SYMLINK
    return entry.kind in DEVICES or (link and _is_plain(entry.path + entry.target))


def _is_plain(text: str) -> bool:
    """Whether debugfs's parser can take it as it is, between quotes."""
    return len(text) < _MAX_LATE and not set(text) & set('\n\r"')


def _make_file_system(image: Path, staged: Path, count: int, identity: _Identity) -> None:
    inodes = max(image.stat().st_size >> 14, 2 * count + 1024)
    arguments: list[str | Path] = ["-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256"]
    arguments += ["-N", str(inodes), "-m", "0", "-O", _FEATURES]
    arguments += ["-U", str(identity.fs_uuid), "-L", identity.label, "-d", staged]
    extended = f"hash_seed={identity.hash_seed},root_owner=0:0,nodiscard"
    try:
        try:
            _mke2fs(arguments, f"{extended},{_PREZEROED}", image, identity)
        except ToolFailed as error:
            if _PREZEROED.partition("=")[0] not in error.detail:
                raise
            _mke2fs(arguments, f"{extended},{_LAZY}", image, identity)
    except ToolFailed as error:
        if "Could not allocate" in error.detail:
            raise Invalid(
                f"The root file system does not fit into {image.stat().st_size >> 20} MiB.",
                detail=error.detail,
                hint="Ask for a larger image; the file is sparse.",
                code="image-too-small",
            ) from error
        raise


def _mke2fs(
    arguments: Sequence[str | Path], extended: str, image: Path, identity: _Identity
) -> None:
    run_tool("mke2fs", [*arguments, "-E", extended, image], environment=identity.environment())


def _restore(image: Path, entries: Sequence[Entry], scratch: Path, identity: _Identity) -> None:
    """Make the file system's metadata what the tree says; prove it, and that it is clean."""
    wanted = {entry.path: entry for entry in entries}
    late = {entry.path: entry for entry in entries if _is_late(entry)}
    staged = {path: entry for path, entry in wanted.items() if path not in late}
    present = _present(image, staged)
    commands = [
        *_late_commands(late.values(), present, identity.timestamp),
        *_corrections(staged, present, scratch, identity.timestamp),
    ]
    for _ in range(_ROUNDS):
        complaints = _debugfs(image, scratch, identity, commands)
        with ThreadPoolExecutor(1) as meanwhile:
            checked = meanwhile.submit(check, image)
            present = _present(image, wanted, complaints)
            commands = list(_corrections(wanted, present, scratch, identity.timestamp))
        if not commands:
            return checked.result()
    raise _not_as_wanted([complaints, *(line.decode(errors="replace") for line in commands)])


def _not_as_wanted(evidence: Sequence[str]) -> Broken | Invalid:
    detail = "\n".join(evidence[:30])
    if "Insufficient space to store extended attribute" in detail:
        return Invalid("An entry has more extended attributes than ext4 can hold.", detail=detail)
    return Broken(
        "debugfs could not make the packed file system what its tree is.",
        detail=detail,
        code="packing-failed",
    )


@dataclass(frozen=True)
class _Present:
    """An inode of the new file system with its attributes."""

    inode: Inode
    xattrs: dict[str, bytes]


def _present(image: Path, wanted: dict[str, Entry], complaints: str = "") -> dict[str, _Present]:
    """What the file system holds: the names that are wanted, or ``Broken``."""
    with RawDisk(image) as disk:
        file_system = Ext4(disk)
        present = {
            path: _Present(inode, file_system.xattrs(inode)) for path, inode in file_system.walk()
        }
    if present.keys() != wanted.keys():
        names = map(repr, sorted(present.keys() ^ wanted.keys()))
        raise _not_as_wanted([complaints, "These names differ:", *names])
    return present


def _late_commands(
    late: Iterable[Entry], present: dict[str, _Present], timestamp: int
) -> Iterator[bytes]:
    """Make links, and device nodes still without their numbers; then what is known to differ.

    Directories with odd names are named by inode; what lies in them is corrected a round later.
    """
    for entry in late:
        plain = _is_plain(entry.parent)
        if plain:
            yield b"cd %s" % _quoted(f"/{entry.parent}")
        else:
            yield b"cd <%d>" % present[entry.parent].inode.number
        if entry.kind is Kind.SYMLINK:
            yield b"symlink %s %s" % (_quoted(entry.name), _quoted(entry.target))
        else:
            letter = b"c" if entry.kind is Kind.CHARACTER_DEVICE else b"b"
            yield b"mknod %s %s 0 0" % (_quoted(entry.name), letter)
        if plain and entry.kind is Kind.SYMLINK:
            path = _quoted(f"/{entry.path}")
            for field, value in _new_link_fields(entry, timestamp):
                yield b"sif %s %s %s" % (path, field.encode(), value.encode())


def _new_link_fields(entry: Entry, timestamp: int) -> Iterator[tuple[str, str]]:
    """What the tree says otherwise of a link that debugfs just made: root's, of now."""
    for owner in ("uid", "gid"):
        if getattr(entry, owner):
            yield owner, str(getattr(entry, owner))
    if entry.mtime != timestamp:
        yield "atime", f"@{entry.mtime}"
        yield "mtime", f"@{entry.mtime}"


def _corrections(
    wanted: dict[str, Entry], present: dict[str, _Present], scratch: Path, timestamp: int
) -> Iterator[bytes]:
    """The debugfs commands that turn what is present into what is wanted; none: it is right."""
    contents: dict[str, int] = {}
    for path, entry in wanted.items():
        there = present[path]
        inode = there.inode
        if inode.kind is not entry.kind or (entry.kind is Kind.FILE and inode.size != entry.size):
            raise Broken(f"/{path} was packed as another file.", code="packing-failed")
        if entry.content and contents.setdefault(entry.content, inode.number) != inode.number:
            raise Broken(f"/{path} lost its hard links.", code="packing-failed")
        for field, value in _wrong_fields(entry, inode, timestamp):
            yield b"sif <%d> %s %s" % (inode.number, field.encode(), value.encode())
        yield from _xattr_commands(entry, there, scratch)


def _wrong_fields(entry: Entry, inode: Inode, timestamp: int) -> Iterator[tuple[str, str]]:
    """Inode fields that differ, with the value they should have."""
    if inode.st_mode != entry.st_mode:
        yield "mode", f"0{entry.st_mode:o}"
    for owner in ("uid", "gid"):
        if getattr(inode, owner) != getattr(entry, owner):
            yield owner, str(getattr(entry, owner))
    for time in _TIMES:
        wanted = timestamp if time in ("ctime", "crtime") else entry.mtime
        if getattr(inode, time) != wanted * 10**9:
            yield time, f"@{wanted}"
            yield f"{time}_extra", "0"  # nanoseconds, and the bits for after 2038
    if entry.kind in DEVICES and inode.device != entry.device:
        old, new = _device_fields(*entry.device)
        yield "block[0]", str(old)
        yield "block[1]", str(new)


def _device_fields(major: int, minor: int) -> tuple[int, int]:
    """The two places for a device's number: small ones go into the old, others the new."""
    if major < _OLD_DEVICE_NUMBERS and minor < _OLD_DEVICE_NUMBERS:
        return major << 8 | minor, 0
    return 0, major << 8 | minor & 0xFF | (minor & ~0xFF) << 12


def _xattr_commands(entry: Entry, there: _Present, scratch: Path) -> Iterator[bytes]:
    """Set the attributes that are missing; remove those that the host gave the staged file."""
    number = there.inode.number
    for name in sorted(there.xattrs.keys() - entry.xattrs.keys()):
        yield b"ea_rm <%d> %s" % (number, _quoted(name))
    for name, value in sorted(entry.xattrs.items()):
        if there.xattrs.get(name) != value:
            file = f"xattr-{number}-{sorted(entry.xattrs).index(name)}"
            (scratch / file).write_bytes(value)
            yield b"ea_set -f %s <%d> %s" % (file.encode(), number, _quoted(name))


def _quoted(name: str) -> bytes:
    """A name for debugfs: quotes are doubled; its commands are lines, so no newlines."""
    if "\n" in name or "\r" in name:
        raise Invalid(
            f"The name {name!r} of a device or attribute has a newline: ext4 tools refuse it.",
            code="unsafe-entry",
        )
    return b'"' + encoded(name).replace(b'"', b'""') + b'"'


def _debugfs(image: Path, scratch: Path, identity: _Identity, commands: Iterable[bytes]) -> str:
    """Run a batch of commands; what debugfs complained about, without its banner."""
    script = scratch / "debugfs-commands"
    script.write_bytes(b"".join(command + b"\n" for command in commands))
    if not script.stat().st_size:
        return ""
    output = run_tool(
        "debugfs",
        ["-w", "-f", script.name, image.absolute()],
        environment=identity.environment(),
        cwd=scratch,
    )
    lines = output.splitlines()
    return "\n".join(line for line in lines if line and not line.startswith("debugfs 1."))
