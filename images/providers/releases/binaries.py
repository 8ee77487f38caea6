"""The programs of a release: of the right machine, started once, and what they say they are."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import re
import struct
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from images.files import copy_sparse, system_errors
from images.providers.releases.base import FIRECRACKER, VERSION
from nexus_site.core.errors import Broken, Invalid, NexusError

MAX_BINARY = 64 << 20  # bytes; firecracker has 3 MB
MODE = 0o555
ANSWER_WITHIN = 20.0  # seconds; it takes a few milliseconds
_MOST_OUTPUT = 4096
_BUSY_FOR = 5.0  # seconds that another thread's child may still hold a file open for writing

_MACHINES = {62: "x86_64", 183: "aarch64"}
_ELF = struct.Struct("<4sBB10xHH")
_ELF64, _LITTLE_ENDIAN = 2, 1
_PROGRAMS = (2, 3)  # at a fixed address, or position-independent
_SAYS = re.compile(rf"(\w+) v({VERSION.pattern})")


def check_program(path: Path, arch: str) -> None:
    """Raise ``Invalid`` unless the file is a program for Linux on ``arch``."""
    with path.open("rb") as file:
        head = file.read(_ELF.size)
    if len(head) < _ELF.size or not head.startswith(b"\x7fELF"):
        raise Invalid(
            f"“{path.name}” is no program: it is not in ELF format.",
            hint="Name the firecracker binary itself, or the directory that it is in.",
            code="release-not-elf",
        )
    _, bits, order, kind, machine = _ELF.unpack(head)
    if (bits, order) != (_ELF64, _LITTLE_ENDIAN) or kind not in _PROGRAMS:
        raise Invalid(f"“{path.name}” is no 64-bit program of Linux.", code="release-not-elf")
    if _MACHINES.get(machine) != arch:
        raise wrong_machine(path.name, _MACHINES.get(machine, f"machine {machine}"), arch)


def version_of(path: Path, program: str = FIRECRACKER) -> str:
    """The version that the program itself says it has, such as ``1.12.1``; starts it once.

    Raises ``Invalid`` where it does not start, does not end, or is not ``program``.
    """
    try:
        said = _first_line(path)
    except OSError as error:
        raise _does_not_start(path, error) from error
    found = _SAYS.fullmatch(said)
    if not found or found[1].lower() != program:
        raise Invalid(
            f"“{path.name}” does not say that it is Firecracker's {program}.",
            detail=f"{path} --version\n{said or '(nothing)'}",
            hint="Name the release's own firecracker; a wrapper script will not do.",
            code="release-says-otherwise",
        )
    return found[2]


def check_version(path: Path, version: str, program: str) -> None:
    """Raise ``Invalid`` unless ``program`` runs here and says that it is of ``version``."""
    if (said := version_of(path, program)) != version:
        raise Invalid(
            f"“{path.name}” says that it is {said}, not {version}.",
            hint="Firecracker and jailer must be of the same release.",
            code="release-says-otherwise",
        )


def write_program(path: Path, pieces: Iterable[tuple[int, bytes]]) -> None:
    """A new executable file from its data as (offset, bytes), bounded in size."""
    with path.open("xb") as file:
        for offset, data in pieces:
            if offset + len(data) > MAX_BINARY:
                raise too_large(path.name)
            file.seek(offset)
            file.write(data)
    path.chmod(MODE)


def copy_program(source: Path, target: Path) -> None:
    """A new executable file with what ``source`` has now."""
    with system_errors():
        if source.stat().st_size > MAX_BINARY:
            raise too_large(source.name)
        target.touch()
        copy_sparse(source, target)
        target.chmod(MODE)


def sha256_if_there(path: Path) -> str:
    """The checksum of a file; empty where there is none."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
    return ""


def too_large(name: str) -> Invalid:
    return Invalid(
        f"“{name}” is larger than the {MAX_BINARY >> 20} MiB that a program may have.",
        code="release-too-large",
    )


def wrong_machine(name: str, found: str, arch: str) -> Invalid:
    return Invalid(
        f"“{name}” is for {found}; this machine is {arch}.",
        hint=f"Take the release for {arch}.",
        code="release-arch",
    )


def _first_line(path: Path) -> str:
    with _started(path) as process:
        assert process.stdout is not None, "asked for"
        output = process.stdout.read(_MOST_OUTPUT)
    return output.decode("utf-8", "replace").partition("\n")[0].strip()


@contextlib.contextmanager
def _started(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """``path --version``, killed when the block ends or it takes too long."""
    process = _start(path)
    timer = threading.Timer(ANSWER_WITHIN, process.kill)
    timer.start()
    try:
        yield process
    finally:
        timer.cancel()
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _start(path: Path) -> subprocess.Popen[bytes]:
    until = time.monotonic() + _BUSY_FOR
    while True:
        try:
            return subprocess.Popen(
                [path, "--version"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={},
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            # A child that another thread has just forked holds our file open until it execs.
            if error.errno != errno.ETXTBSY or time.monotonic() > until:
                raise
            time.sleep(0.05)


def _does_not_start(path: Path, error: OSError) -> NexusError:
    if error.errno == errno.ENOEXEC:
        return Invalid(
            f"“{path.name}” does not start on this machine.",
            detail=f"{path}: {error.strerror}",
            hint="It is damaged, or for another kind of machine.",
            code="release-arch",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return Broken(
            f"“{path.name}” may not be started.",
            detail=f"{path}: {error.strerror}",
            hint="Its file system must not be mounted “noexec”; the file must be executable.",
            code="release-noexec",
        )
    return Invalid(
        f"“{path.name}” does not start: {error.strerror}.", detail=str(path), code="release-arch"
    )
