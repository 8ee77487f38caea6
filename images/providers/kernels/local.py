"""A kernel that is on the server's machine, where an administrator says it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from images.files import Progress, copy_sparse, no_progress, system_errors
from images.kernel_elf import MAX_CONFIG_BYTES, release_of
from images.providers.kernels.base import (
    BZIMAGE,
    CONFIG,
    VMLINUX,
    check_allowed,
    check_version_text,
    plain_kernel,
    put_config,
    put_kernel,
    read_bounded,
)
from images.providers.kernels.modules import BUILTIN, module_files, put_modules
from images.providers.modules import ARCHIVE
from images.providers.releases.base import FetchedRelease, ReleaseOffer, check_path
from nexus_site.core.errors import Invalid, NotFound

BOOT, MODULES = Path("/boot"), Path("/lib/modules")


class LocalKernels:
    """A file (vmlinux or bzImage, packed or not), or a directory with one, below ``allowed``.

    Its options (``config``, ``config-VERSION``) and its modules (``modules.zip``,
    ``lib/modules/VERSION``) are taken from beside it; without modules all must be built in.
    """

    name = "local"
    label = "The server's machine"

    def __init__(self, allowed: Sequence[Path] = (Path("/"),)) -> None:
        self._allowed = allowed

    def offers(self, arch: str) -> Sequence[ReleaseOffer]:
        """None: only the operator knows."""
        return ()

    def refresh(self, arch: str) -> Sequence[ReleaseOffer]:
        return ()

    def check(self, version: str, path: str) -> None:
        check_version_text(version)
        if not path:
            raise Invalid(
                "The provider “local” needs a path on the server.",
                hint="Say where the kernel is: --path /boot/vmlinuz-VERSION",
                code="kernel-path",
            )
        check_path(path)
        check_allowed(Path(path), self._allowed)

    def find(self, version: str, arch: str, path: str) -> ReleaseOffer:
        place = self._kernel_at(Path(path), version)
        found = release_of(plain_kernel(read_bounded(place)))
        if version not in ("", found):
            raise Invalid(
                f"{place} is the kernel {found}, not {version}.",
                hint="Leave the version out, or name another path.",
                code="kernel-says-otherwise",
            )
        return ReleaseOffer(found, arch, self.name, str(place), place.stat().st_size)

    def fetch(
        self, offer: ReleaseOffer, path: str, directory: Path, progress: Progress = no_progress
    ) -> FetchedRelease:
        """Nothing to do: it is here."""
        place = Path(offer.source)
        return FetchedRelease(
            offer.version, offer.arch, place, str(place), "as found on the server", ours=False
        )

    def unpack(self, fetched: FetchedRelease, directory: Path) -> None:
        place, version = fetched.path, fetched.version
        put_kernel(read_bounded(place), directory)
        beside = (place.with_name(CONFIG), place.with_name(f"{CONFIG}-{version}"))
        if config := next(filter(Path.is_file, beside), None):
            put_config(read_bounded(config, MAX_CONFIG_BYTES), directory)
        archive = place.with_name(ARCHIVE)
        trees = [place.parent / "lib" / "modules" / version]
        if place.parent == BOOT:
            trees.append(MODULES / version)
        if archive.is_file():
            (directory / ARCHIVE).touch()
            with system_errors():
                copy_sparse(archive, directory / ARCHIVE)
        elif tree := next(filter(Path.is_dir, trees), None):
            builtin = tree / BUILTIN
            text = builtin.read_text(errors="replace") if builtin.is_file() else ""
            put_modules(module_files(tree), text, directory)

    def _kernel_at(self, path: Path, version: str) -> Path:
        """The kernel that ``path`` means, wherever links lead."""
        check_allowed(path, self._allowed)
        with system_errors():
            names = (VMLINUX, BZIMAGE, f"vmlinuz-{version}", "vmlinuz")
            places = [path / name for name in names] if path.is_dir() else [path]
            for place in places:
                if place.is_file():
                    check_allowed(place, self._allowed)
                    return place.resolve()
        raise NotFound(
            f"There is no kernel at {path} on the server.",
            hint="Name the file, or the directory with its vmlinux.",
            code="kernel-not-found",
        )
