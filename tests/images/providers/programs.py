"""Programs of a few bytes for this machine, which say what they are told to say."""

from __future__ import annotations

import platform
import struct

MACHINES = {"x86_64": 62, "aarch64": 183}
ARCH = platform.machine()
OTHER_ARCH = next(arch for arch in MACHINES if arch != ARCH)

_BASE, _HEADERS = 0x400000, 64 + 56


def program(says: str, arch: str = ARCH, *, forever: bool = False) -> bytes:
    """An ELF file that writes ``says`` to its standard output and ends, or begins anew."""
    text = says.encode()
    code = _x86_64(len(text), forever) if arch == "x86_64" else _aarch64(len(text), forever)
    size = _HEADERS + len(code) + len(text)
    ident = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)
    header = ident + struct.pack(
        "<HHIQQQIHHHHHH", 2, MACHINES[arch], 1, _BASE + _HEADERS, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    return header + segment + code + text


def release(version: str, arch: str = ARCH) -> dict[str, bytes]:
    """The programs of a release, by their names; the jailer ends as the real one does."""
    return {
        "firecracker": program(f"Firecracker v{version}\n\nexiting successfully\n", arch),
        "jailer": program(f"Jailer v{version}\n", arch),
    }


def _x86_64(length: int, forever: bool) -> bytes:
    end = b"\xeb\xe6" if forever else b"\xb8\x3c\0\0\0\x31\xff\x0f\x05"  # jmp start | exit(0)
    write = b"\xb8\x01\0\0\0\xbf\x01\0\0\0\x48\x8d\x35"  # write(1, message…
    return (
        write
        + struct.pack("<I", len(end) + 7)
        + b"\xba"
        + struct.pack("<I", length)
        + (b"\x0f\x05" + end)
    )


def _aarch64(length: int, forever: bool) -> bytes:
    def move(register: int, value: int) -> int:
        return 0xD2800000 | value << 5 | register

    call = 0xD4000001  # svc #0
    end = [0x17FFFFFB] if forever else [move(8, 93), move(0, 0), call]  # b start | exit(0)
    distance = 4 * (3 + len(end))  # from adr to the message
    address = 0x10000000 | (distance & 3) << 29 | distance >> 2 << 5 | 1  # adr x1, message
    words = [move(8, 64), move(0, 1), address, move(2, length), call, *end]
    return struct.pack(f"<{len(words)}I", *words)
