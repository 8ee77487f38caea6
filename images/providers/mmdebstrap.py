"""Running ``mmdebstrap`` and apt's downloader: watched, cancellable, their errors explained."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nexus_site.core.errors import Broken, NexusError, NotFound, Retryable

APT_HELPER = "/usr/lib/apt/apt-helper"
INSTALL_HINT = (
    "Run `apt-get install -y --no-install-recommends mmdebstrap uidmap debian-archive-keyring` "
    "as root, then try again."
)

_LOOK_EVERY = 0.2  # seconds
_GRACE = 30.0  # for mmdebstrap to take away what it has begun
_MAX_LOG = 16_000  # bytes of the end of a log that are kept as evidence


@dataclass(frozen=True)
class _Meaning:
    """What it means when a tool's words match ``pattern``."""

    pattern: re.Pattern[str]
    kind: type[NexusError]
    code: str
    text: str
    hint: str


def _meaning(pattern: str, kind: type[NexusError], code: str, text: str, hint: str) -> _Meaning:
    return _Meaning(re.compile(pattern, re.IGNORECASE), kind, code, text, hint)


_MEANINGS = (  # the first that matches counts
    _meaning(
        r"No space left on device",
        Retryable,
        "disk-full",
        "The disk became full while the root file system was made.",
        "Free some space in the data directory, then try again.",
    ),
    _meaning(
        r"Release file .* (?:is expired|is not valid yet)",
        Retryable,
        "mirror-outdated",
        "The mirror's package lists are not of this time.",
        "Check this machine's clock, and whether the mirror is kept up to date.",
    ),
    _meaning(
        r"NO_PUBKEY|EXPKEYSIG|BADSIG|REVKEYSIG|is not signed|signatures? (?:couldn't|were)",
        Broken,
        "signature",
        "The mirror's package lists are not signed by a key that is trusted here.",
        "Check the mirror and the keyring in the provider's configuration.",
    ),
    _meaning(
        r"  4\d\d  |does not have a Release file",
        NotFound,
        "not-on-mirror",
        "The mirror does not have what was asked for.",
        "Check the mirror in the provider's configuration; if it is being updated, try again.",
    ),
    _meaning(
        r"Could not (?:resolve|connect)|Temporary failure|Connection (?:failed|timed out|reset)|"
        r"Unable to connect|Cannot initiate|Failed to fetch|Hash Sum mismatch",
        Retryable,
        "mirror-unreachable",
        "The Debian mirror cannot be reached, or does not deliver.",
        "Check the network and the mirror in the provider's configuration, then try again.",
    ),
    _meaning(
        r"unshare|newuidmap|newgidmap|subuid|subgid|cannot mount",
        Broken,
        "no-namespaces",
        "This user may not make the namespaces that mmdebstrap needs.",
        "Install uidmap and give the user a range in /etc/subuid and /etc/subgid.",
    ),
)


def find_program() -> str:
    """Where mmdebstrap is; ``Broken`` with the command that installs it where it is not."""
    for program in ("mmdebstrap", APT_HELPER):
        if shutil.which(program) is None:
            raise Broken(
                f"Making Debian root file systems needs {Path(program).name}, which is not here.",
                hint=INSTALL_HINT,
                code="mmdebstrap-missing",
            )
    return shutil.which("mmdebstrap") or "mmdebstrap"


def run(
    argv: Sequence[str | Path],
    log: Path,
    watch: Callable[[str], None],
    *,
    out: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run a program to its end; its words go to ``log``, its output to ``out``.

    ``watch`` is told what the log has grown by, several times a second and also where that is
    nothing; when it raises, the program and its children are ended and the error goes on.
    Raises what ``explained`` makes of a failure.
    """
    with (
        (out or Path(os.devnull)).open("wb") as output,
        log.open("wb") as words,
        log.open("rb") as read,
    ):
        process = subprocess.Popen(
            [str(word) for word in argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=words,
            env={**os.environ, "LC_ALL": "C", **(environment or {})},
            start_new_session=True,
        )
        try:
            while _is_running(process):
                watch(read.read().decode(errors="replace"))
            watch(read.read().decode(errors="replace"))
        except BaseException:
            _end(process)
            raise
    if process.returncode:
        raise explained(Path(argv[0]).name, process.returncode, _tail(log))


def explained(program: str, code: int, words: str) -> NexusError:
    """What a failure means, judged by the program's own words, which are its detail."""
    for meaning in _MEANINGS:
        if meaning.pattern.search(words):
            return meaning.kind(meaning.text, detail=words, hint=meaning.hint, code=meaning.code)
    return Broken(
        f"{program} failed with exit code {code}.", detail=words, code="mmdebstrap-failed"
    )


def _is_running(process: subprocess.Popen[bytes]) -> bool:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_LOOK_EVERY)
    return process.returncode is None


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the program and its children, and see them gone."""
    for number, patience in ((signal.SIGTERM, _GRACE), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)


def _tail(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _MAX_LOG))
        return file.read().decode(errors="replace").strip()
