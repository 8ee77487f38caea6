"""Debian's kernels out of their packages: from a file, or fetched by this system's apt.

apt checks the archive's signature and the package's checksum. It works in directories of its own,
so neither root nor the system's own lists are needed, and nothing is installed.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from images.files import Progress, no_progress, scratch_directory, system_errors
from images.kernel_elf import MAX_CONFIG_BYTES, MAX_VMLINUX_BYTES
from images.providers import mmdebstrap
from images.providers.apt_sources import APT_DIRECTORY
from images.providers.base import version_key
from images.providers.kernels import debs
from images.providers.kernels.base import (
    VERSION,
    check_allowed,
    check_version_text,
    no_kernel,
    put_config,
    put_kernel,
)
from images.providers.kernels.modules import BUILTIN, MODULE, module_files, put_modules
from images.providers.releases.base import FetchedRelease, ReleaseOffer, check_path
from nexus_site.core.errors import Broken, Invalid, NotFound, Retryable

ARCHES = {"x86_64": "amd64"}

_PACKAGE = re.compile(rf"linux-image-(?:unsigned-)?({VERSION.pattern})")
_WANTED = r"^linux-image-[0-9][^ ]*-[0-9]+-(cloud-)?amd64$"
_STANZA = re.compile(r"^(Package|Size|Filename): *(\S+)$", re.MULTILINE)
_CLOUD = "-cloud-"  # for machines without hardware of their own: a third of the size
_MAX_BUILTIN = 1 << 20

Watch = Callable[[str], None]


class DistroProvider:
    """Packages ``linux-image-*`` as the sources below ``apt`` have them, or in a file."""

    name = "distro"
    label = "A Debian kernel package"

    def __init__(self, allowed: Sequence[Path] = (Path("/"),), apt: Path = APT_DIRECTORY) -> None:
        self._allowed, self._apt = allowed, apt

    def offers(self, arch: str) -> Sequence[ReleaseOffer]:
        """None: only the archive knows."""
        return ()

    def refresh(self, arch: str) -> Sequence[ReleaseOffer]:
        """None for an architecture or a host without such packages."""
        if arch not in ARCHES or shutil.which("apt-get") is None:
            return ()
        with tempfile.TemporaryDirectory() as scratch:
            return self._listed(_Apt(self._apt, Path(scratch), _silently), arch)

    def check(self, version: str, path: str) -> None:
        check_version_text(version)
        if path:
            check_path(path)
            check_allowed(Path(path), self._allowed)

    def find(self, version: str, arch: str, path: str) -> ReleaseOffer:
        if arch not in ARCHES:
            raise Invalid(f"Debian's kernels are taken for x86_64, not {arch}.", code="kernel-arch")
        if path:
            return self._in_file(Path(path), version, arch)
        if version:  # ``fetch`` asks the archive, once for both
            return ReleaseOffer(version, arch, self.name, "")
        for offer in self.refresh(arch):
            return offer
        raise no_kernel("", arch, "This system's apt has none. Name a file: --path FILE.deb")

    def fetch(
        self, offer: ReleaseOffer, path: str, directory: Path, progress: Progress = no_progress
    ) -> FetchedRelease:
        """A package is kept beside ``directory``'s others until it is unpacked."""
        if path:
            return FetchedRelease(
                offer.version, offer.arch, Path(path), path, "as found on the server", ours=False
            )
        _require_apt()
        size = offer.size_bytes or 0
        with scratch_directory(directory) as scratch:
            apt = _Apt(self._apt, scratch, lambda _words: progress(0, size))
            listed = {found.version: found for found in self._listed(apt, offer.arch)}
            if offer.version not in listed:
                raise no_kernel(offer.version, offer.arch, _there(listed))
            package = apt.download(f"linux-image-{offer.version}")
            target = directory / f"{offer.version}-{offer.arch}.deb"
            with system_errors():
                package.replace(target)
        source = listed[offer.version].source
        return FetchedRelease(offer.version, offer.arch, target, source, "sha256, OpenPGP by apt")

    def unpack(self, fetched: FetchedRelease, directory: Path) -> None:
        builtin, found = "", False
        with scratch_directory(directory.parent) as modules:
            for item in debs.items(fetched.path, "data.tar"):
                place = PurePosixPath(item.entry.path)
                if place.name.startswith("vmlinuz-") and place.parent.name == "boot":
                    put_kernel(debs.content(item, MAX_VMLINUX_BYTES), directory)
                    found = True
                elif place.name.startswith("config-") and place.parent.name == "boot":
                    put_config(debs.content(item, MAX_CONFIG_BYTES), directory)
                elif place.name == BUILTIN:
                    builtin = debs.content(item, _MAX_BUILTIN).decode(errors="replace")
                elif MODULE.fullmatch(place.name):
                    debs.write(item, modules / place.name)
            if not found:
                raise _no_kernel_in(fetched.path)
            put_modules(module_files(modules), builtin, directory)

    def _in_file(self, path: Path, version: str, arch: str) -> ReleaseOffer:
        check_allowed(path, self._allowed)
        if not path.is_file():
            raise NotFound(f"There is no file {path} on the server.", code="kernel-not-found")
        control = debs.control_of(path)
        package = _PACKAGE.fullmatch(control.get("Package", ""))
        if package is None:
            raise _no_kernel_in(path)
        if control.get("Architecture") != ARCHES[arch]:
            raise Invalid(
                f"“{path.name}” is for {control.get('Architecture')}; this server is {arch}.",
                code="kernel-arch",
            )
        if version not in ("", package[1]):
            raise Invalid(
                f"“{path.name}” is the kernel {package[1]}, not {version}.",
                hint="Leave the version out, or name another file.",
                code="kernel-says-otherwise",
            )
        return ReleaseOffer(package[1], arch, self.name, str(path), path.stat().st_size)

    def _listed(self, apt: _Apt, arch: str) -> list[ReleaseOffer]:
        """Newest first, those for the cloud before the others."""
        apt.update()
        offers = []
        for stanza in apt.show(_WANTED).split("\n\n"):
            fields = dict(_STANZA.findall(stanza))
            package = _PACKAGE.fullmatch(fields.get("Package", ""))
            if package and fields.get("Filename"):
                size = int(fields["Size"]) if fields.get("Size", "").isdecimal() else None
                offers.append(ReleaseOffer(package[1], arch, self.name, fields["Filename"], size))
        offers.sort(key=lambda one: (_CLOUD in one.version, version_key(one.version)), reverse=True)
        return offers


class _Apt:
    """apt with the system's sources and keys, and with state of its own in ``scratch``."""

    def __init__(self, etc: Path, scratch: Path, watch: Watch) -> None:
        self._scratch, self._watch = scratch, watch
        (scratch / "lists" / "partial").mkdir(parents=True)
        (scratch / "cache" / "archives" / "partial").mkdir(parents=True)
        (scratch / "status").touch()
        options = {
            "Dir::Etc": etc,
            "Dir::State::Lists": scratch / "lists",
            "Dir::State::status": scratch / "status",
            "Dir::Cache": scratch / "cache",
            "APT::Architecture": "amd64",
            "APT::Architectures": "amd64",
            "APT::Sandbox::User": "",
            "Acquire::Languages": "none",
        }
        self._options = [f"-o{name}={value}" for name, value in options.items()]

    def update(self) -> None:
        self._run("apt-get", "--error-on=any", "-q", "update")

    def show(self, pattern: str) -> str:
        """The stanzas of the newest of each package whose name matches."""
        names = [line.split()[0] for line in self._said("search", "--names-only", pattern)]
        return "\n".join(self._said("show", "--no-all-versions", *names)) if names else ""

    def download(self, package: str) -> Path:
        """The package's file, checked."""
        place = self._scratch / "download"
        place.mkdir()
        self._run("env", f"--chdir={place}", "apt-get", "-q", "download", package)
        return next(place.glob("*.deb"))

    def _said(self, *words: str) -> list[str]:
        out = self._scratch / "out"
        mmdebstrap.run(["apt-cache", *self._options, *words], self._watch, out=out)
        return out.read_text(errors="replace").splitlines()

    def _run(self, *words: str) -> None:
        try:
            mmdebstrap.run([*words, *self._options], self._watch)
        except Retryable as error:
            if error.code != "mirror-unreachable":
                raise
            raise Retryable(
                "This server's apt cannot reach its sources, or they do not deliver.",
                detail=error.detail,
                hint="Check the network and /etc/apt, then try again; or take a package that is "
                "here: nexusctl kernel download --provider distro --path FILE.deb",
                code=error.code,
            ) from error


def _silently(_words: str) -> None:
    """The watch that has nothing to tell."""


def _require_apt() -> None:
    if shutil.which("apt-get") is None:
        raise Broken(
            "This server has no apt to fetch a Debian kernel with.",
            hint="Fetch the package elsewhere and name the file: "
            "nexusctl kernel download --provider distro --path FILE.deb",
            code="apt-missing",
        )


def _there(listed: dict[str, ReleaseOffer]) -> str:
    return f"There are: {', '.join(list(listed)[:10]) or 'none'}."


def _no_kernel_in(path: Path) -> Invalid:
    return Invalid(
        f"“{path.name}” has no kernel in it.",
        hint="The kernel is in linux-image-VERSION, not in the package linux-image-amd64, which "
        "only names it.",
        code="kernel-package",
    )
