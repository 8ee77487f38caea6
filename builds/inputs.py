"""All that an image is made of, and the identity that follows from it.

The same inputs give the same bytes, so they give the same image: its ID, the ID of "the build
that makes it" inside its metadata and every UUID on it are derived from them. That is what makes
a second build of an unchanged template a look-up, and images of two servers comparable.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import asdict, dataclass, replace
from typing import Any

from nexus_site.core.ids import NexusID

#: Raised when the pipeline or the packing changes what the same inputs give.
FORMAT = 2
_NAMESPACE = uuid.UUID("6e657875-7300-4d69-8372-6f564d730001")


@dataclass(frozen=True)
class Inputs:
    """What goes into a build; ``edition`` counts the builds that were made anew on purpose."""

    name: str
    rootfs: str  # "alpine 3.23 x86_64", for people
    rootfs_sha256: str
    recipe: dict[str, Any]
    size_mib: int
    agent_digest: str
    edition: int = 1
    format: int = FORMAT

    def document(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Inputs:
        return cls(**document)

    def next_edition(self) -> Inputs:
        return replace(self, edition=self.edition + 1)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the inputs in canonical JSON."""
        text = json.dumps(self.document(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def image_id(self) -> NexusID:
        return self._derived("image")

    @property
    def build_key(self) -> NexusID:
        """What the image says as its ``build_id``; builds with these inputs are found by it."""
        return self._derived("build")

    @property
    def fs_uuid(self) -> uuid.UUID:
        return uuid.uuid5(_NAMESPACE, self.digest)

    @property
    def hash_seed(self) -> uuid.UUID:
        return uuid.uuid5(self.fs_uuid, "hash")

    def _derived(self, kind: str) -> NexusID:
        digest = hashlib.sha256(f"nexus-{kind}\0{self.digest}".encode()).digest()
        return NexusID(int.from_bytes(digest[:8], "big") >> 1 or 1)
