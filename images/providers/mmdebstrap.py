"""Running ``mmdebstrap`` and apt's downloader: watched, cancellable, their errors explained."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from images.programs import run_watched
from nexus_site.core.errors import MAX_DETAIL, Broken, NexusError, NotFound, Retryable

APT_HELPER = "/usr/lib/apt/apt-helper"
INSTALL = "apt-get install -y --no-install-recommends mmdebstrap uidmap debian-archive-keyring"
INSTALL_HINT = f"Run `{INSTALL}` as root, then try again."

_GRACE = 30.0  # for mmdebstrap to take away what it has begun


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
    watch: Callable[[str], None],
    *,
    out: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run a program to its end, with its output in the file ``out``.

    ``watch`` is told what it says, and several times a second also that it says nothing; when
    it raises, the program and its children are ended and the error goes on. Raises what
    ``explained`` makes of a failure.
    """
    said = ""

    def listen(words: bytes) -> None:
        nonlocal said
        said = (said + words.decode(errors="replace"))[-MAX_DETAIL:]
        watch(words.decode(errors="replace"))

    with (out or Path(os.devnull)).open("wb") as output:
        code = run_watched(
            argv,
            listen,
            out=output,
            environment={**os.environ, "LC_ALL": "C", **(environment or {})},
            grace=_GRACE,
        )
    if code:
        raise explained(Path(argv[0]).name, code, said.strip())


def explained(program: str, code: int, words: str) -> NexusError:
    """What a failure means, judged by the program's own words, which are its detail."""
    for meaning in _MEANINGS:
        if meaning.pattern.search(words):
            return meaning.kind(meaning.text, detail=words, hint=meaning.hint, code=meaning.code)
    return Broken(
        f"{program} failed with exit code {code}.", detail=words, code="mmdebstrap-failed"
    )
