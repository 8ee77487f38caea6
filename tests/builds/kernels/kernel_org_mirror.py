"""A server with kernel.org's layout: the list of releases, tarballs, checksums signed inline."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

from tests.images.downloads.keys import Key
from tests.images.downloads.server import Mirror


@dataclass
class KernelOrgMirror:
    """``publish`` puts a version where kernel.org has it; ``announce`` lists it as a release."""

    mirror: Mirror
    key: Key
    tarballs: dict[str, bytes] = field(default_factory=dict)
    releases: list[dict[str, object]] = field(default_factory=list)

    @property
    def sources_url(self) -> str:
        return f"{self.mirror.url}/pub/linux/kernel"

    def announce(self, version: str, moniker: str = "stable", *, eol: bool = False) -> None:
        self.releases.append(
            {
                "iseol": eol,
                "version": version,
                "moniker": moniker,
                "source": f"{self.sources_url}/v6.x/linux-{version}.tar.xz",
                "pgp": f"{self.sources_url}/v6.x/linux-{version}.tar.sign",
                "released": {"timestamp": 1763000000, "isodate": "2025-11-13"},
            }
        )
        stable = [one for one in self.releases if one["moniker"] == "stable"]
        document = {
            "latest_stable": {"version": stable[0]["version"] if stable else ""},
            "releases": self.releases,
        }
        self.mirror.add("/releases.json", json.dumps(document).encode())

    def publish(self, version: str, tarball: bytes) -> None:
        """The tarball, and the list of all checksums signed anew."""
        self.tarballs[version] = tarball
        self.mirror.add(f"/pub/linux/kernel/v6.x/linux-{version}.tar.xz", tarball)
        self.mirror.add("/pub/linux/kernel/v6.x/sha256sums.asc", self.signed(self.checksums()))

    def checksums(self) -> str:
        lines = [
            f"{hashlib.sha256(content).hexdigest()}  linux-{version}.tar.{ending}\n"
            for version, content in self.tarballs.items()
            for ending in ("gz", "xz")
        ]
        return "".join(lines)

    def signed(self, text: str) -> bytes:
        return self.key.clear_sign(text)
