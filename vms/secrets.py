"""Values that people give once and nobody reads again: encrypted in the database.

The key lies beside the database, not in it: a copy of the one without the other tells nothing.
The first line of the key file encrypts, every line decrypts, so that keys can be changed.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings

from nexus_site.core.errors import Broken

KEY_FILE = "encryption_key"


def seal(value: bytes) -> bytes:
    """``value`` encrypted, as printable ASCII; the key is made at the first use."""
    if not _path().exists():
        _make_key()
    return _cipher().encrypt(value)


def unseal(sealed: bytes) -> bytes:
    """What ``seal`` was given. Raises ``Broken`` (``secret-key-lost``) where the key is not the
    one that it was encrypted with, or is gone."""
    try:
        return _cipher().decrypt(sealed)
    except InvalidToken:
        raise _lost() from None


def _path() -> Path:
    return Path(settings.NEXUS.data_dir) / KEY_FILE


def _cipher() -> MultiFernet:
    try:
        lines = _path().read_bytes().split()
        return MultiFernet([Fernet(line) for line in lines])
    except (FileNotFoundError, ValueError):
        raise _lost() from None


def _make_key() -> None:
    """Write a new key, whole or not at all; of two who do so at once one wins."""
    descriptor, temporary = tempfile.mkstemp(dir=_path().parent, prefix=f".{KEY_FILE}-")
    try:
        with os.fdopen(descriptor, "wb") as file:  # mkstemp made it 0600
            file.write(Fernet.generate_key() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(temporary, _path())
    finally:
        Path(temporary).unlink()


def _lost() -> Broken:
    return Broken(
        "The secret values cannot be read: the key that they were encrypted with is not there.",
        hint=f"Put {_path()} back from a backup, or give the secret values again.",
        code="secret-key-lost",
    )
