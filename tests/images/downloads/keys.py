"""OpenPGP keys that a test makes, and what they sign."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import pysequoia


class Key:
    """A publisher's key."""

    def __init__(self) -> None:
        self.secret = pysequoia.Tsk.generate(user_id="Publisher <publisher@example.org>")

    @cached_property
    def certificate(self) -> pysequoia.Cert:
        return self.secret.extract_certificate()

    @property
    def armored(self) -> str:
        """The public certificate."""
        return str(self.certificate)

    @property
    def fingerprint(self) -> str:
        return self.certificate.fingerprint.upper()

    def sign(self, path: Path) -> bytes:
        """A detached, armored signature of the file."""
        return self.sign_bytes(path.read_bytes())

    def sign_bytes(self, data: bytes) -> bytes:
        mode = pysequoia.SignatureMode.DETACHED
        return bytes(pysequoia.sign(self.secret.signer(), data, mode=mode))

    def clear_sign(self, text: str) -> bytes:
        """The text, signed within itself."""
        mode = pysequoia.SignatureMode.CLEAR
        return bytes(pysequoia.sign(self.secret.signer(), text.encode(), mode=mode))
