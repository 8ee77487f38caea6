"""An apk repository with one package, signed, as ``abuild`` and ``apk index`` would make it.

A package is three gzip streams one after the other: a signature, what is said about the package,
and its files. Together they decompress to one tar, so the first two have no end mark.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import tarfile
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

KEY_NAME = "test-repository.rsa.pub"
_END_MARK = 1024  # bytes of zeros at a tar's end
_TIME = 1_700_000_000


class Repository:
    """Files below ``directory`` for a web server; ``key`` is what guests must trust."""

    def __init__(self, directory: Path, arch: str = "x86_64") -> None:
        self.directory = directory / arch
        self.directory.mkdir(parents=True)
        self._arch = arch
        self._private = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    @property
    def key(self) -> str:
        public = self._private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return public.decode()

    def publish(self, name: str, version: str, files: dict[str, bytes]) -> None:
        """Make a package of executable ``files`` and the index that has it."""
        data = _segment(files, whole=True, payload=True)
        installed = sum(map(len, files.values()))
        about = {
            "pkgname": name,
            "pkgver": version,
            "pkgdesc": "made by a test",
            "url": "https://example.org",
            "builddate": str(_TIME),
            "size": str(installed),
            "arch": self._arch,
            "license": "MIT",
            "datahash": hashlib.sha256(data).hexdigest(),
        }
        info = "".join(f"{key} = {value}\n" for key, value in about.items())
        control = _segment({".PKGINFO": info.encode()})
        package = self._signature(control) + control + data
        (self.directory / f"{name}-{version}.apk").write_bytes(package)
        checksum = base64.b64encode(hashlib.sha1(control).digest()).decode()
        entry = {
            "C": f"Q1{checksum}",
            "P": name,
            "V": version,
            "A": self._arch,
            "S": str(len(package)),
            "I": str(installed),
            "T": "made by a test",
            "U": "https://example.org",
            "L": "MIT",
            "t": str(_TIME),
        }
        lines = "".join(f"{key}:{value}\n" for key, value in entry.items())
        index = _segment(
            {"DESCRIPTION": b"test repository", "APKINDEX": f"{lines}\n".encode()}, whole=True
        )
        (self.directory / "APKINDEX.tar.gz").write_bytes(self._signature(index) + index)

    def _signature(self, segment: bytes) -> bytes:
        signature = self._private.sign(segment, padding.PKCS1v15(), hashes.SHA256())
        return _segment({f".SIGN.RSA256.{KEY_NAME}": signature})


def _segment(files: dict[str, bytes], *, whole: bool = False, payload: bool = False) -> bytes:
    """A gzipped tar of ``files``; with its end mark only if it is ``whole``.

    A ``payload`` has the directories as well, and a checksum for each file.
    """
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in _directories(files) if payload else ():
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode, directory.mtime = tarfile.DIRTYPE, 0o755, _TIME
            tar.addfile(directory)
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime = len(content), _TIME
            entry.mode = 0o755 if payload else 0o644
            entry.uname = entry.gname = "root"
            if payload:
                entry.pax_headers = {"APK-TOOLS.checksum.SHA1": hashlib.sha1(content).hexdigest()}
            tar.addfile(entry, io.BytesIO(content))
        length = tar.offset
    raw = archive.getvalue()[:length]
    return gzip.compress(raw + (bytes(_END_MARK) if whole else b""), mtime=0)


def _directories(files: dict[str, bytes]) -> list[str]:
    """All directories on the way to ``files``, each before what it holds."""
    parents = {str(parent) for name in files for parent in Path(name).parents}
    return sorted(parents - {"."})
