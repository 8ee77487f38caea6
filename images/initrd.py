"""Our own initrd: the guest agent as /init and the few modules a distribution's kernel needs.

A distribution's initrd probes hardware for seconds. A microVM's hardware is known, so ours
holds just the agent (`/init`), the kernel modules in load order (`/modules` lists them,
`/lib/modules/` has them) and empty mount points. It is a "newc" cpio archive (see the
kernel's "initramfs buffer format"), not compressed since unpacking costs more than reading,
and byte-identical for identical input.
"""

from __future__ import annotations

import gzip
import os
import stat
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from nexus_site.core.errors import Invalid

# What a root on a virtio disk needs, and what is good to have before the distribution's init.
# The tiny power button turns the ACPI button into a signal to PID 1, without an input daemon.
ROOT_MODULES = ("virtio_blk", "ext4")
EXTRA_MODULES = (
    *("virtio_mmio", "virtio_console"),  # where the devices are found; built in elsewhere
    *("virtio_net", "af_packet", "vmw_vsock_virtio_transport"),
    *("virtio_rng", "virtio_balloon", "tiny_power_button"),
)
# What a guest needs for disks that come while it runs; loaded when the first one does.
HOTPLUG_MODULES = ("virtio_scsi", "sd_mod")

DIRECTORIES = ("dev", "lib", "lib/modules", "newroot", "proc", "sys")
NEWC_MAGIC = b"070701"
TRAILER = "TRAILER!!!"


def build_initrd(out: Path, agent: Path, modules: Sequence[tuple[str, bytes]]) -> None:
    """Write the initrd to `out`, whole or not at all.

    `modules` are (file name, uncompressed contents) in load order, as `select_modules` returns.
    """
    archive = _Archive()
    for directory in DIRECTORIES:
        archive.add(directory, stat.S_IFDIR | 0o755)
    archive.add("init", stat.S_IFREG | 0o755, agent.read_bytes())
    for name, contents in modules:
        archive.add(f"lib/modules/{name}", stat.S_IFREG | 0o644, contents)
    listing = "".join(f"{name}\n" for name, _ in modules)
    archive.add("modules", stat.S_IFREG | 0o644, listing.encode())
    _write_atomically(out, archive.finish())


def select_modules(
    tree: Mapping[str, bytes],
    wanted: Sequence[str] = ROOT_MODULES,
    optional: Sequence[str] = EXTRA_MODULES,
) -> list[tuple[str, bytes]]:
    """The wanted modules and what they depend on, uncompressed, in load order.

    `tree` is a kernel's `lib/modules/<release>/` by relative path: `modules.dep`,
    `modules.builtin` and the module files; only what is needed is looked up, so it may be
    lazy. What is built into the kernel is left out. A `wanted` module that is nowhere is
    Invalid; an `optional` one is skipped.
    """
    dependencies = _dependencies(_text(tree, "modules.dep"))
    builtin = {_module_name(line) for line in _text(tree, "modules.builtin").split()}
    load_order: dict[str, None] = {}
    for name in (*wanted, *optional):
        module = name.replace("-", "_")
        if module in builtin:
            continue
        if module in dependencies:
            path, needs = dependencies[module]
            # modules.dep lists the deepest dependency last.
            load_order.update(dict.fromkeys([*reversed(needs), path]))
        elif name in wanted:
            raise Invalid(
                f"The kernel has no module {name}, neither built in nor beside it.",
                code="kernel-module-missing",
            )
    return [_uncompressed(path, tree) for path in load_order]


def read_cpio(archive: bytes) -> dict[str, bytes]:
    """The regular files of a "newc" cpio archive (such as an initrd, unpacked), by path."""
    files: dict[str, bytes] = {}
    at = 0
    try:
        while archive[at : at + 6] == NEWC_MAGIC:
            fields = [int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
            mode, size, name_size = fields[1], fields[6], fields[11]
            name = archive[at + 110 : at + 110 + name_size - 1].decode()
            data_at = _padded(at + 110 + name_size)
            if name == TRAILER:
                return files
            if stat.S_ISREG(mode):
                files[name] = archive[data_at : data_at + size]
            at = _padded(data_at + size)
    except ValueError:
        pass
    raise Invalid("The initrd is not a whole cpio archive.", code="initrd-damaged")


class _Archive:
    """A cpio archive in the making; all times and owners are 0 and inodes count up."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._inode = 0

    def add(self, name: str, mode: int, contents: bytes = b"") -> None:
        self._inode += 1
        links = 2 if stat.S_ISDIR(mode) else 1
        raw_name = name.encode() + b"\0"
        fields = (self._inode, mode, 0, 0, links, 0, len(contents), 0, 0, 0, 0, len(raw_name), 0)
        header = NEWC_MAGIC + b"".join(b"%08X" % field for field in fields)
        for part in (header + raw_name, contents):
            self._data += part
            self._data += bytes(-len(self._data) % 4)

    def finish(self) -> bytes:
        self.add(TRAILER, 0)
        return bytes(self._data)


def _dependencies(modules_dep: str) -> dict[str, tuple[str, list[str]]]:
    """Module name -> (its path, the paths it needs), from the text of modules.dep."""
    lines = (line.partition(":") for line in modules_dep.splitlines())
    return {_module_name(path): (path, needs.split()) for path, _, needs in lines}


def _module_name(path: str) -> str:
    """virtio_rng for kernel/drivers/char/hw_random/virtio-rng.ko.gz."""
    return PurePosixPath(path).name.partition(".")[0].replace("-", "_")


def _uncompressed(path: str, tree: Mapping[str, bytes]) -> tuple[str, bytes]:
    name = PurePosixPath(path).name
    if path not in tree:
        raise Invalid(f"The kernel's module {name} is listed but not there.", code="kernel-damaged")
    if name.endswith(".ko"):
        return name, tree[path]
    if name.endswith(".ko.gz"):
        return name.removesuffix(".gz"), _gunzip(name, tree[path])
    raise Invalid(
        f"The kernel's module {name} is packed in a way Nexus does not know.",
        hint="Plain .ko and .ko.gz modules are supported.",
        code="kernel-module-compression",
    )


def _gunzip(name: str, packed: bytes) -> bytes:
    try:
        return gzip.decompress(packed)
    except (OSError, EOFError, zlib.error):
        raise Invalid(f"The kernel's module {name} is damaged.", code="kernel-damaged") from None


def _text(tree: Mapping[str, bytes], name: str) -> str:
    if name not in tree:
        raise Invalid(f"The kernel's modules come without {name}.", code="kernel-damaged")
    return tree[name].decode()


def _padded(size: int) -> int:
    return (size + 3) & ~3


def _write_atomically(out: Path, data: bytes) -> None:
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
