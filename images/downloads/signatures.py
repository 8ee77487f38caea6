"""OpenPGP signatures: whether one of the configured certificates vouches for a file."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO

from images.downloads import openpgp_check
from images.files import Progress, no_progress, scratch_directory
from nexus_site.core.errors import Broken

MAX_SIGNATURE = 64 << 10  # bytes
_STEP = 1 << 20
_ANSWER_WITHIN = 60.0  # seconds after the last byte
_FINGERPRINT = re.compile(r"[0-9a-f]{32,128}")


def check_keyring(text: str) -> str:
    """Armored public certificates, as a configuration has them; ``ValueError`` if not."""
    if "PRIVATE KEY" in text:
        raise ValueError("This is a private key; give the public certificate.")
    try:
        openpgp_check.certificates(text)
    except ValueError as error:
        raise ValueError(f"This is no keyring of armored OpenPGP certificates: {error}") from error
    return text


def verify_detached(
    path: Path, signature: bytes, keyring: str, progress: Progress = no_progress
) -> str:
    """The fingerprint of the certificate in ``keyring`` that signed the file, in capitals.

    Raises ``Broken`` with the code ``signature-invalid`` where none did.
    """
    with scratch_directory(path.parent) as scratch:
        (scratch / "signature").write_bytes(signature)
        (scratch / "keyring").write_text(keyring)
        program = [sys.executable, "-I", openpgp_check.__file__]
        with subprocess.Popen(
            [*program, scratch / "signature", scratch / "keyring"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as process:  # fmt: skip
            try:
                answer = _feed(process, path, progress)
            except BaseException:
                process.kill()
                raise
    if process.returncode or not _FINGERPRINT.fullmatch(answer):
        raise invalid_signature(path.name, answer[-2000:])
    return answer.upper()


def invalid_signature(name: str, detail: str) -> Broken:
    """The error for a signature that is missing or vouches for something else."""
    return Broken(
        "None of the configured OpenPGP certificates vouches for the downloaded file.",
        detail=f"{name}: {detail}",
        hint="The mirror is damaged or not to be trusted, or the provider's keyring is outdated.",
        code="signature-invalid",
    )


def _feed(process: subprocess.Popen[bytes], path: Path, progress: Progress) -> str:
    """Give the process the file's bytes; its answer."""
    assert process.stdin is not None
    size = path.stat().st_size
    with suppress(BrokenPipeError), path.open("rb") as file:  # it may refuse before the end
        _pour(file, process.stdin, size, progress)
    output, _ = process.communicate(timeout=_ANSWER_WITHIN)
    return output.decode(errors="replace").strip()


def _pour(file: IO[bytes], pipe: IO[bytes], size: int, progress: Progress) -> None:
    done = 0
    while data := file.read(_STEP):
        pipe.write(data)
        done += len(data)
        progress(done, size)
