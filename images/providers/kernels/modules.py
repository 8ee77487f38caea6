"""Of a distribution's thousands of modules, those that a microVM's guest needs.

What a module needs is written in itself (``depends=``, ``softdep=pre:``), so no depmod is asked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from images import initrd
from images.files import system_errors
from images.formats.archives import opened
from images.formats.compression import chunks
from images.providers.modules import ARCHIVE, write_modules
from nexus_site.core.errors import Invalid

MODULE = re.compile(r"([A-Za-z0-9_+-]{1,80})\.ko(?:\.gz|\.xz|\.zst)?")
BUILTIN = "modules.builtin"
WANTED = (*initrd.ROOT_MODULES, *initrd.EXTRA_MODULES, *initrd.HOTPLUG_MODULES)

_MAX_MODULE = 64 << 20
_DEPENDS = re.compile(rb"\0depends=([\w,-]*)\0")
_BEFORE = re.compile(rb"\0softdep=pre: ([\w -]*?)(?: post:[\w -]*)?\0")
#: An alias that others ask for, and the module that always can.
_GENERIC = "_generic"


def module_files(tree: Path) -> dict[str, Path]:
    """The modules below a directory by name, as the kernel spells them."""
    with system_errors():
        return {
            plain_name(found[1]): path
            for path in tree.rglob("*.ko*")
            if (found := MODULE.fullmatch(path.name)) and path.is_file()
        }


def plain_name(name: str) -> str:
    return name.replace("-", "_")


def put_modules(files: Mapping[str, Path], builtin: str, directory: Path) -> None:
    """Keep what guests need of ``files``, as the modules of the kernel in ``directory``.

    ``builtin``: the text of ``modules.builtin``. Raises ``Invalid`` where a module that guests
    cannot do without is nowhere.
    """
    there = {plain_name(line.rpartition("/")[2].partition(".")[0]) for line in builtin.split()}
    needs: dict[str, list[str]] = {}
    contents: dict[str, bytes] = {}
    waiting = [name for name in WANTED if name not in there and name in files]
    while waiting:
        name = waiting.pop()
        if name not in needs:
            contents[name] = _content(files[name])
            needs[name] = [one for one in _needs(contents[name], files) if one not in there]
            waiting += needs[name]
    listing = "".join(f"{name}.ko: {_line(name, needs)}\n" for name in sorted(needs))
    modules = {f"{name}.ko": contents[name] for name in sorted(contents)}
    tree = {"modules.dep": listing.encode(), BUILTIN: builtin.encode(), **modules}
    initrd.select_modules(tree)
    with system_errors():
        write_modules(directory, tree.items())
        (directory / ARCHIVE).chmod(0o400)


def _needs(module: bytes, files: Mapping[str, Path]) -> list[str]:
    """What has to be loaded before it; an alias means its plain implementation."""
    words: list[str] = []
    if found := _BEFORE.search(module):
        words += found[1].decode().split()
    if found := _DEPENDS.search(module):
        words += [word for word in found[1].decode().split(",") if word]
    names = [plain_name(word) for word in words]
    return [
        known
        for name in names
        if (known := next((one for one in (name, name + _GENERIC) if one in files), None))
    ]


def _line(name: str, needs: Mapping[str, list[str]]) -> str:
    """All that it needs, the deepest last, as depmod writes it."""
    order: dict[str, None] = {}

    def visit(one: str, above: frozenset[str]) -> None:
        for below in needs[one]:
            if below not in above:
                visit(below, above | {below})
                order.setdefault(below)

    visit(name, frozenset({name}))
    return " ".join(f"{one}.ko" for one in reversed(order))


def _content(path: Path) -> bytes:
    with opened(path, _MAX_MODULE) as stream:
        data = b"".join(chunks(stream))
    if len(data) > _MAX_MODULE or not data.startswith(b"\x7fELF"):
        raise Invalid(f"“{path.name}” is no kernel module.", code="kernel-damaged")
    return data
