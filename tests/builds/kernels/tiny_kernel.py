"""A source tree as small as a kernel's can be, whose makefile answers as a kernel's does."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

VERSION = "6.1.5"
FRAGMENT = '# nexus fragment: tiny 1\nCONFIG_PVH=y\nCONFIG_LOCALVERSION="-tiny"\n'

MAKEFILE = """\
# SPDX-License-Identifier: GPL-2.0
VERSION = 6
PATCHLEVEL = 1
SUBLEVEL = 5
EXTRAVERSION =
NAME = Tiny

allnoconfig:
\t@cp $(KCONFIG_ALLCONFIG) $(O)/.config
\t@sed -i /CONFIG_NO_SUCH/d $(O)/.config
olddefconfig:
\t@echo '# configuration written to .config'
vmlinux:
\t@for name in fork exit panic; do echo "  CC      kernel/$$name.o"; done
\t@echo '  LD      vmlinux.o'
\t@BUILD
"""
COMPILE = (
    'gcc -nostdlib -static -Wl,--build-id=none -o $(O)/vmlinux -DBANNER="\\"Linux version $(USER)'
    '@$(KBUILD_BUILD_HOST) $(KBUILD_BUILD_USER) $(KBUILD_BUILD_TIMESTAMP)\\"" init/main.S'
)
NOTE = """\
.section .note.Xen, "a", @note
.align 4
.long 4, 8, 18
.asciz "Xen"
.quad _start
"""
START = """\
.text
.globl _start
_start: ret
.section .rodata
.asciz BANNER
"""


def tree(build: str = COMPILE, *, note: str = NOTE) -> dict[str, str]:
    """The files of a source tree; ``build`` is what making vmlinux runs."""
    return {
        "Makefile": MAKEFILE.replace("BUILD", build),
        "Kconfig": 'mainmenu "Linux"\n',
        "arch/x86/Kconfig": "config X86_64\n",
        "init/main.c": "/* start_kernel */\n",
        "init/main.S": note + START,
    }


def tarball(
    path: Path, files: Mapping[str, str], *, top: str = "linux-6.1.5", mode: str = "w:xz"
) -> Path:
    """A tarball of these files below ``top``."""
    path.write_bytes(packed(files, top=top, mode=mode))
    return path


def packed(files: Mapping[str, str], *, top: str = "linux-6.1.5", mode: str = "w:xz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]
        _add(tar, tarfile.TarInfo(top), None)
        for name, text in files.items():
            _add(tar, tarfile.TarInfo(f"{top}/{name}"), text)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, info: tarfile.TarInfo, text: str | None) -> None:
    if text is None:
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(info)
    elif text.startswith("-> "):
        info.type, info.linkname = tarfile.SYMTYPE, text.removeprefix("-> ")
        tar.addfile(info)
    else:
        info.size = len(text.encode())
        tar.addfile(info, io.BytesIO(text.encode()))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
