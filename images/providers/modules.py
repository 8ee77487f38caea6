"""A kernel's modules in one archive: whole or not there, and read by name without unpacking."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from images.files import whole_file
from nexus_site.core.errors import Broken, NotFound

ARCHIVE = "modules.zip"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the archive is the same for the same modules


class KernelModules(Mapping[str, bytes]):
    """``lib/modules/<release>/`` by relative path; every look-up reads the archive."""

    def __init__(self, archive: Path) -> None:
        self._archive = archive
        with zipfile.ZipFile(archive) as opened:
            self._names = dict.fromkeys(opened.namelist())

    def __getitem__(self, name: str) -> bytes:
        if name not in self._names:
            raise KeyError(name)
        with zipfile.ZipFile(self._archive) as archive:
            return archive.read(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def kernel_modules(directory: Path) -> KernelModules:
    """The modules of a fetched kernel, ready for ``images.initrd.select_modules``."""
    archive = directory / ARCHIVE
    if not archive.is_file():
        raise NotFound(f"The kernel {directory.name} is here without its modules.")
    try:
        return KernelModules(archive)
    except zipfile.BadZipFile as error:
        raise Broken(f"The modules of the kernel {directory.name} are damaged.") from error


def write_modules(directory: Path, modules: Iterable[tuple[str, bytes]]) -> None:
    """Keep (relative path, contents) pairs as the modules of the kernel in ``directory``."""
    with (
        whole_file(directory / ARCHIVE) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
    ):
        for name, contents in modules:
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), contents)
