"""A process of its own that checks one OpenPGP signature; run by ``signatures.py``.

The data comes through standard input, so that memory stays constant; the library would hold the
interpreter for seconds, and it reads what strangers wrote. Arguments: the files of the signature
and of the keyring. Answers with the fingerprint of the certificate, or ends with 1 and a reason.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pysequoia

ARMOR = re.compile(r"-----BEGIN PGP [A-Z ]+-----.*?-----END PGP [A-Z ]+-----", re.DOTALL)


def certificates(keyring: str) -> list[pysequoia.Cert]:
    """The certificates in armored text. Raises ``ValueError`` where there is none."""
    try:
        found = [
            cert
            for block in ARMOR.findall(keyring)
            for cert in pysequoia.Cert.split_bytes(block.encode())
        ]
    except RuntimeError as error:
        raise ValueError(first_line(error)) from error
    if not found:
        raise ValueError("it holds no armored certificate")
    return found


def first_line(error: BaseException) -> str:
    """The reason without the library's stack."""
    return str(error).partition("\n")[0]


def main(signature: str, keyring: str) -> int:
    try:
        known = certificates(Path(keyring).read_text())
        checked = pysequoia.verify(
            file="/proc/self/fd/0",
            store=lambda _ids: known,
            signature=pysequoia.Sig.from_bytes(Path(signature).read_bytes()),
        )
    except (ValueError, RuntimeError) as error:
        print(first_line(error))
        return 1
    print(checked.valid_sigs[0].certificate)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
