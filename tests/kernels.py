"""The kernel that Nexus builds of Debian's source, made once and kept; see docs/guide/kernels.md.

`python -m tests.kernels` builds it from nothing, in another directory, and compares the two byte
by byte: that is the full check.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from builds.kernels import source_tree, toolchain
from builds.kernels.additions import additions
from builds.kernels.fragments import Fragment, default_fragment
from builds.kernels.making import Say, Workplace
from images.files import sha256_of
from tests.firecracker_release import IN_THE_RIG
from tests.rig.cache import Cache, default_directory, digest

ROOT = Path(__file__).resolve().parents[1]
#: Where the rig is given the kernel; see tests/rig/job.py.
LENT = Path("test-artifacts/kernel/vmlinux")
SOURCES = "linux-source-*.tar.xz"
INSTALL = "apt-get install -y --no-install-recommends linux-source"


def built_kernel() -> Path | None:
    """The kernel's vmlinux; built where it is not in the cache. None in a rig without it."""
    if IN_THE_RIG:
        return ROOT / LENT if (ROOT / LENT).exists() else None
    with _cache().entry(_key(), lambda out: build(source(), out, _say)) as entry:
        return entry / "vmlinux"


def cached_kernel() -> Path | None:
    """The same, where it need not be built for it."""
    if not list(Path("/usr/src").glob(SOURCES)) or toolchain.missing():
        return None
    path = _directory() / _key() / "vmlinux"
    return path if _cache().has(_key()) else None


def source() -> Path:
    """Debian's tarball of the kernel's source, the newest one."""
    found = sorted(Path("/usr/src").glob(SOURCES))
    if not found:
        raise SystemExit(f"There is no source of a kernel in /usr/src. Run: {INSTALL}")
    return found[-1]


def build(tarball: Path, out: Path, say: Say) -> None:
    """Make `vmlinux` and `config` in ``out``, as the steps of a build do."""
    toolchain.require_tools()
    with tempfile.TemporaryDirectory(prefix="nexus-kernel-", dir=_room()) as scratch:
        place = Workplace(Path(scratch))
        source_tree.unpack(tarball, place.source, lambda count: None)
        place.configure(_fragment(), say)
        place.compile(os.cpu_count() or 1, say)
        shutil.copyfile(place.config, out / "config")
        shutil.copyfile(place.vmlinux, out / "vmlinux")


def _fragment() -> Fragment:
    return default_fragment("x86_64")


def _key() -> str:
    added = [f"{name}\n{text}" for name, text in additions().items()]
    return digest(sha256_of(source()), _fragment().text, toolchain.compiler(), *added)


def _directory() -> Path:
    return default_directory().parent / "kernel"


def _cache() -> Cache:
    return Cache(_directory())


def _room() -> Path:
    """Where there is room for the 3 GB of a build."""
    _directory().mkdir(parents=True, exist_ok=True)
    return _directory()


def _say(words: bytes) -> None:
    sys.stderr.write(words.decode(errors="replace"))


def main() -> int:
    kept = built_kernel()
    assert kept is not None, "this is not the rig"
    with tempfile.TemporaryDirectory(prefix="nexus-kernel-", dir=_room()) as scratch:
        build(source(), Path(scratch), _say)
        first, again = sha256_of(kept), sha256_of(Path(scratch, "vmlinux"))
    print(f"{first}  kept\n{again}  built now")
    if first != again:
        print("They differ: the build is not reproducible.", file=sys.stderr)
        return 1
    tests = ["tests/builds/kernels", "tests/conformance/test_built_kernel.py"]
    return subprocess.call([sys.executable, "-m", "pytest", "-p", "no:xdist", *tests], cwd=ROOT)


if __name__ == "__main__":
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "nexus_site.settings")
    django.setup()
    raise SystemExit(main())
