"""A text that is signed within itself, as kernel.org's checksums are; checked by ``gpgv``.

kernel.org's certificate vouches for itself by SHA-1 alone, which pysequoia refuses whatever the
text is signed with. Here whoever pins a certificate vouches for it, so that only the text's own
signature counts: one, by a key that is neither expired nor revoked, over SHA-256 or better.
gpgv tells all of that, and the rest is judged here: its exit code passes over some of it.
"""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from pathlib import Path

from images.downloads import openpgp_check
from images.downloads.signatures import invalid_signature
from images.files import scratch_directory
from nexus_site.core.errors import Conflict

_ANSWER_WITHIN = 60.0  # seconds
GPGV = "gpgv"
_STATUS = "[GNUPG:] "
#: What gpgv tells of a good signature, and once: there is no second one, whoever made it.
_SIGNED = ("NEWSIG", "GOODSIG", "VALIDSIG")
_DIGEST, _PRIMARY = 8, 10  # words of VALIDSIG
_GOOD_DIGESTS = ("8", "9", "10")  # SHA-256, SHA-384, SHA-512
_REASONS = {
    "REVKEYSIG": "the key that signed it is revoked",
    "EXPKEYSIG": "the key that signed it has expired",
    "EXPSIG": "its signature has expired",
}


def verify_inline(name: str, document: bytes, keyring: str, scratch_in: Path) -> tuple[str, str]:
    """The text that is signed in a document, and the certificate's fingerprint in capitals.

    ``keyring`` holds armored certificates; ``name`` is what errors call the document. Raises
    ``Broken`` (code ``signature-invalid``) and ``Conflict`` (``gpgv-missing``).
    """
    program = _program()
    with scratch_directory(scratch_in) as scratch:
        certificates = openpgp_check.certificates(keyring)
        (scratch / "keyring").write_bytes(b"".join(map(bytes, certificates)))
        (scratch / "document").write_bytes(document)
        ended = subprocess.run(
            [program, "--homedir", scratch, "--keyring", scratch / "keyring", "--status-fd", "1",
             "--output", scratch / "text", scratch / "document"],
            env={"LC_ALL": "C"}, stdin=subprocess.DEVNULL, capture_output=True,
            timeout=_ANSWER_WITHIN, check=False,
        )  # fmt: skip
        signer = _signer(name, ended)
        return (scratch / "text").read_text(errors="replace"), signer


def _signer(name: str, ended: subprocess.CompletedProcess[bytes]) -> str:
    """The fingerprint of the certificate whose key made the one signature, which is good."""
    lines = ended.stdout.decode(errors="replace").splitlines()
    said = [line.removeprefix(_STATUS).split() for line in lines if line.startswith(_STATUS)]
    told = Counter(words[0] for words in said)
    problem = next((reason for kind, reason in _REASONS.items() if told[kind]), "")
    if told["NEWSIG"] > 1:
        problem = "it has more than one signature"
    elif not problem and not ended.returncode and all(told[kind] == 1 for kind in _SIGNED):
        valid = next(words for words in said if words[0] == "VALIDSIG")
        if valid[_DIGEST] in _GOOD_DIGESTS:
            return valid[_PRIMARY]
        problem = "what its signature is made of is no SHA-256, SHA-384 or SHA-512"
    words = ended.stderr.decode(errors="replace").strip()[-2000:]
    raise invalid_signature(name, problem or words)


def _program() -> str:
    found = shutil.which(GPGV)
    if found is None:
        raise Conflict(
            "Checking the signature takes the program gpgv, which this machine does not have.",
            hint="Run as root: apt-get install -y gpgv",
            code="gpgv-missing",
        )
    return found
