"""Kernels of a few bytes: ELF files and Debian packages that say what they are told to say."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import struct
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from images.kernel_boots import BootTry, KernelFiles
from tests.images.downloads.keys import Key
from tests.images.downloads.server import Mirror

PVH = 18


def vmlinux(version: str = "6.12.58", config: str = "", *, notes: bool = True) -> bytes:
    """An ELF kernel with a PVH entry; with ``config``, its options are inside."""
    note = struct.pack("<III", 4, 8, PVH) + b"Xen\0" + bytes(8) if notes else b""
    header = bytearray(64)
    header[:6] = b"\x7fELF\x02\x01"
    struct.pack_into("<HH", header, 16, 2, 62)
    struct.pack_into("<Q", header, 32, 64)
    struct.pack_into("<HH", header, 54, 56, 1)
    program = struct.pack("<IIQQQQQQ", 4, 0, 120, 0, 0, len(note), len(note), 4)
    banner = f"Linux version {version} (b@d) (gcc 12.2.0, GNU ld 2.40) #1 SMP\n".encode()
    inside = b"IKCFG_ST" + gzip.compress(config.encode(), mtime=0) + b"IKCFG_ED" if config else b""
    return bytes(header) + program + note + banner + inside


def bzimage(kernel: bytes) -> bytes:
    """The same as distributions have it, packed with xz."""
    payload = lzma.compress(kernel, check=lzma.CHECK_CRC32) + struct.pack("<I", len(kernel))
    header = bytearray(5 * 512)
    header[0x1F1] = 4
    header[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", header, 0x206, 0x20F)
    struct.pack_into("<II", header, 0x248, 0, len(payload))
    return bytes(header) + payload


def module(depends: Sequence[str] = (), before: str = "") -> bytes:
    """A module that names what it needs."""
    soft = f"softdep=pre: {before}\0" if before else ""
    return b"\x7fELF module\0" + f"depends={','.join(depends)}\0{soft}".encode()


def modules(version: str) -> dict[str, bytes]:
    """What a distribution ships: by path in ``data.tar``."""
    top = f"lib/modules/{version}"
    return {
        f"{top}/modules.builtin": b"kernel/drivers/virtio/virtio.ko\n",
        f"{top}/kernel/drivers/block/virtio_blk.ko": module(["virtio"]),
        f"{top}/kernel/fs/ext4/ext4.ko.xz": lzma.compress(module(["jbd2"], before="crc32c")),
        f"{top}/kernel/fs/jbd2/jbd2.ko": module(),
        f"{top}/kernel/crypto/crc32c_generic.ko": module(),
        f"{top}/kernel/drivers/scsi/virtio_scsi.ko": module(),
        f"{top}/kernel/drivers/scsi/sd_mod.ko": module(),
        f"{top}/kernel/sound/nobody-needs.ko": module(),
    }


def deb(
    version: str,
    files: Mapping[str, bytes] | None = None,
    *,
    package: str = "",
    arch: str = "amd64",
) -> bytes:
    """A package ``linux-image-VERSION`` with the ``files``, by default a kernel with modules."""
    if files is None:
        boot = {
            f"boot/vmlinuz-{version}": bzimage(vmlinux(version)),
            f"boot/config-{version}": b"CONFIG_PVH=y\nCONFIG_EXT4_FS=m\n",
        }
        files = boot | modules(version)
    named = package or f"linux-image-{version}"
    control = f"Package: {named}\nVersion: 1\nArchitecture: {arch}\nMaintainer: x\nDescription: x\n"
    return b"!<arch>\n" + b"".join(
        _member(name, content)
        for name, content in (
            ("debian-binary", b"2.0\n"),
            ("control.tar.xz", lzma.compress(_tar({"control": control.encode()}))),
            ("data.tar.xz", lzma.compress(_tar(files))),
        )
    )


def _member(name: str, content: bytes) -> bytes:
    header = f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
    return header + content + b"\n" * (len(content) % 2)


def _tar(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


class Releases:
    """A server with the layout of Anvil's releases."""

    def __init__(self, mirror: Mirror, directory: Path) -> None:
        self.mirror, self.key = mirror, Key()
        self.url = f"{mirror.url}/kernels"
        self.keyring = directory / "keyring.asc"
        self.keyring.write_text(self.key.armored)
        self.sums: dict[str, str] = {}

    def publish(self, version: str, kernel: bytes | None = None, arch: str = "x86_64") -> str:
        """Release a kernel; its path."""
        content = lzma.compress(vmlinux(version) if kernel is None else kernel)
        name = f"vmlinux-{version}-{arch}.xz"
        self.sums[name] = hashlib.sha256(content).hexdigest()
        self.mirror.add(f"/kernels/{name}", content)
        self.sign(self.key)
        return f"/kernels/{name}"

    def sign(self, key: Key) -> None:
        """Have the list of checksums, as it is now, signed by ``key``."""
        text = "".join(f"{sha256}  {name}\n" for name, sha256 in self.sums.items()).encode()
        self.mirror.add("/kernels/SHA256SUMS", text)
        self.mirror.add("/kernels/SHA256SUMS.asc", key.sign_bytes(text))


class Booter:
    """Boots in no time, or says ``problem``; keeps what it was given."""

    def __init__(self, problem: str = "", vmms: Sequence[str] = ("qemu",)) -> None:
        self.problem, self.vmms = problem, vmms
        self.booted: list[tuple[str, bytes]] = []

    def usable(self) -> Sequence[str]:
        return self.vmms

    def boot(
        self, vmm: str, files: KernelFiles, directory: Path, check: Callable[[], None]
    ) -> BootTry:
        check()
        self.booted.append((vmm, files.vmlinux.read_bytes()))
        return BootTry(vmm, None if self.problem else 0.25, self.problem, "last words")

    def discard(self, directory: Path) -> None:
        """Nothing runs."""
