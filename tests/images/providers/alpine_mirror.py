"""A mirror with the layout of Alpine's CDN: small root file systems, real checksums, real keys."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.images.downloads.keys import Key
from tests.images.downloads.server import Mirror

NONE: Mapping[str, object] = {}


@dataclass
class AlpineMirror:
    """``publish`` puts a release where the CDN has it; ``base_url`` is for the configuration."""

    mirror: Mirror
    arch: str = "x86_64"
    key: Key | None = None
    contents: dict[str, bytes] = field(default_factory=dict)

    @property
    def base_url(self) -> str:
        return f"{self.mirror.url}/alpine"

    def publish(self, version: str, *branches: str, lies: Mapping[str, object] = NONE) -> None:
        """A release, as the newest of its own branch and of these; what ``lies`` says is listed."""
        name = f"alpine-minirootfs-{version}-{self.arch}.tar.gz"
        content = self.contents[version] = mini_rootfs(version)
        sha256 = hashlib.sha256(content).hexdigest()
        for branch in (f"v{'.'.join(version.split('.')[:2])}", *branches):
            place = self.place(branch)
            self.mirror.add(f"{place}/{name}", content)
            self.mirror.add(f"{place}/{name}.sha256", f"{sha256}  {name}\n".encode())
            if self.key:
                self.mirror.add(f"{place}/{name}.asc", self.key.sign_bytes(content))
            listed = {
                "branch": branch,
                "arch": self.arch,
                "version": version,
                "flavor": "alpine-minirootfs",
                "file": name,
                "size": len(content),
                "sha256": sha256,
            }
            self.mirror.add(f"{place}/latest-releases.yaml", release_list(listed | dict(lies)))

    def place(self, branch: str) -> str:
        return f"/alpine/{branch}/releases/{self.arch}"


def release_list(entry: dict[str, object]) -> bytes:
    """As the CDN writes it: other flavors first."""
    lines = ["---", "-", '  title: "Standard"', "  flavor: alpine-standard", "  size: 1", "-"]
    lines += [f"  {name}: {value}" for name, value in entry.items()]
    return "\n".join(lines).encode()


def mini_rootfs(version: str) -> bytes:
    """A root file system so small that it only says what it is."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, text in (
            ("etc/os-release", f"ID=alpine\nVERSION_ID={version}\n"),
            ("bin/busybox", "x" * 100_000),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return gzip.compress(buffer.getvalue(), mtime=0)
