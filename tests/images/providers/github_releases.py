"""A server that answers as GitHub does for the releases of Firecracker."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from images.providers.releases.github import REPOSITORY
from tests.images.downloads.server import Mirror

NONE: Mapping[str, Any] = {}


@dataclass
class GitHub:
    """``publish`` makes a release; ``base_url`` is for the setting."""

    mirror: Mirror
    arch: str = "x86_64"
    entries: list[dict[str, Any]] = field(default_factory=list)

    @property
    def base_url(self) -> str:
        return f"{self.mirror.url}/api"

    def publish(
        self,
        version: str,
        archive: bytes,
        *,
        checksum: str = "",
        host: str = "",
        **about: Any,
    ) -> str:
        """A release with this archive, the newest in the list; the path of the archive.

        ``about`` goes into its entry: ``draft``, ``prerelease``… ``checksum`` and ``host`` are
        what it claims in place of the truth.
        """
        name = f"firecracker-v{version}-{self.arch}.tgz"
        place = f"/{REPOSITORY}/releases/download/v{version}"
        sha256 = checksum or hashlib.sha256(archive).hexdigest()
        files = {name: archive, f"{name}.sha256.txt": f"{sha256}  {name}\n".encode()}
        for file, content in files.items():
            self.mirror.add(f"{place}/{file}", content)
        entry = {
            "tag_name": f"v{version}",
            "draft": False,
            "prerelease": False,
            "body": "What is new…",
            "assets": [
                {
                    "name": file,
                    "size": len(content),
                    "browser_download_url": f"{host or self.mirror.url}{place}/{file}",
                }
                for file, content in files.items()
            ],
        } | about
        self.entries.insert(0, entry)
        self.answer("/releases?per_page=30", self.entries)
        self.answer(f"/releases/tags/v{version}", entry)
        return f"{place}/{name}"

    def answer(self, path: str, document: object) -> None:
        """What the API says at ``path`` from now on."""
        self.mirror.add(f"/api/repos/{REPOSITORY}{path}", json.dumps(document).encode())


def release_archive(
    version: str, programs: Mapping[str, bytes], arch: str = "x86_64", *more: tarfile.TarInfo
) -> bytes:
    """A tarball as the project makes it: each program under its long name, and other files."""
    top, tail = f"release-v{version}-{arch}", f"v{version}-{arch}"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        directory = tarfile.TarInfo(top)
        directory.type = tarfile.DIRTYPE
        tar.addfile(directory)
        for name, content in {"SHA256SUMS": b"sums", "LICENSE": b"Apache"}.items():
            _add(tar, f"{top}/{name}", content)
        for info in more:
            tar.addfile(info)
        for name, content in programs.items():
            _add(tar, f"{top}/{name}-{tail}", content)
    return gzip.compress(buffer.getvalue(), 1, mtime=0)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), 0o755
    tar.addfile(info, io.BytesIO(content))
