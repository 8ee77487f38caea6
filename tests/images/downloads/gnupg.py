"""Keys of GnuPG as it was in 2013, like that of kernel.org's autosigner: SHA-1 vouches for them."""

from __future__ import annotations

import subprocess
from pathlib import Path

_BIRTH = "20130124T000000"


class GnupgKey:
    """A key in a home of its own; ``home`` must be a short path (a socket's is limited)."""

    def __init__(self, home: Path, *, lasts: str = "never") -> None:
        self.home = home
        home.mkdir(mode=0o700)
        birth = ("--faked-system-time", _BIRTH, "--cert-digest-algo", "SHA1")
        user = "Autosigner <autosigner@example.org>"
        self.gpg(*birth, "--quick-gen-key", user, "rsa2048", "sign,cert", lasts)
        listed = self.gpg("--list-keys", "--with-colons").decode()
        found = [line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:")]
        self.fingerprint = found[0]

    @property
    def armored(self) -> str:
        """The public certificate."""
        return self.gpg("--armor", "--export").decode()

    def clear_sign(self, text: str, *options: str, digest: str = "SHA256") -> bytes:
        """The text, signed within itself."""
        return self.gpg("--digest-algo", digest, *options, "--clearsign", said=text.encode())

    def add_signing_subkey(self) -> None:
        """From now on the subkey signs, also what is signed for the certificate."""
        self.gpg("--quick-add-key", self.fingerprint, "rsa2048", "sign", "never")

    def revoke(self) -> None:
        stored = self.home / "openpgp-revocs.d" / f"{self.fingerprint}.rev"
        self.gpg("--import", said=stored.read_text().replace(":-----", "-----").encode())

    def take(self, other: GnupgKey) -> None:
        """Have another one's secret key as well."""
        self.gpg("--import", said=other.gpg("--export-secret-keys"))

    def gpg(self, *options: str, said: bytes = b"") -> bytes:
        quiet = ("--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", "")
        argv = ["gpg", "--homedir", str(self.home), *quiet, "--allow-weak-digest-algos", *options]
        return subprocess.run(argv, input=said, capture_output=True, check=True).stdout

    def close(self) -> None:
        """End the agent that gpg has started."""
        argv = ["gpgconf", "--homedir", str(self.home), "--kill", "all"]
        subprocess.run(argv, capture_output=True, check=True)
