"""Make archives for tests: header by header, so that they can be as wrong as a stranger's."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from backports import zstd

END = bytes(1024)
PACKERS = {
    "gz": lambda data: gzip.compress(data, 1, mtime=0),
    "xz": lambda data: lzma.compress(data, preset=0),
    "bz2": bz2.compress,
    "zst": lambda data: zstd.compress(data, 1),
}
LAYER = "application/vnd.oci.image.layer.v1.tar"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


def header(
    name: bytes | str,
    *,
    type: bytes = b"0",
    size: int | bytes = 0,
    link: bytes | str = b"",
    mode: int = 0o644,
    uid: bytes = b"0000000\0",
    mtime: bytes = b"00000000007\0",
    device: tuple[int, int] = (0, 0),
    prefix: bytes = b"",
    checksum: bytes | None = None,
) -> bytes:
    """One header block; numbers may be given as the field's own bytes."""
    name, link = (text.encode() if isinstance(text, str) else text for text in (name, link))
    block = b"".join(
        [
            name.ljust(100, b"\0"),
            b"%07o\0" % mode,
            uid,
            b"0000000\0",
            b"%011o\0" % size if isinstance(size, int) else size,
            mtime,
            b" " * 8,
            type,
            link.ljust(100, b"\0"),
            b"ustar\x0000".ljust(72, b"\0"),
            b"%07o\0%07o\0" % device,
            prefix.ljust(155, b"\0"),
        ]
    ).ljust(512, b"\0")
    return block[:148] + (checksum or b"%06o\0 " % sum(block)) + block[156:]


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def file(name: bytes | str, data: bytes = b"", **fields: Any) -> bytes:
    """A regular file: header and data."""
    return header(name, size=len(data), **fields) + padded(data)


def directory(name: bytes | str, **fields: Any) -> bytes:
    return header(name, type=b"5", **{"mode": 0o755} | fields)


def symlink(name: bytes | str, target: bytes | str) -> bytes:
    return header(name, type=b"2", link=target, mode=0o777)


def hard_link(name: bytes | str, target: bytes | str) -> bytes:
    return header(name, type=b"1", link=target)


def record(key: bytes, value: bytes) -> bytes:
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def pax(records: Mapping[bytes, bytes], type: bytes = b"x") -> bytes:
    """A PAX header for the entry behind it."""
    return file("pax", b"".join(record(key, value) for key, value in records.items()), type=type)


def write_tar(path: Path, *parts: bytes, compression: str = "") -> Path:
    """An archive of these parts, with the mark at its end."""
    data = b"".join(parts) + END
    path.write_bytes(PACKERS[compression](data) if compression else data)
    return path


def layer(*parts: bytes, compression: str = "") -> bytes:
    data = b"".join(parts) + END
    return PACKERS[compression](data) if compression else data


class Layout:
    """An OCI image layout in the making: blobs by digest, changed at will before ``write``."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}

    def blob(self, data: bytes, media_type: str = "", **more: Any) -> dict[str, Any]:
        """Add a blob; returns its descriptor."""
        digest = hashlib.sha256(data).hexdigest()
        self.files[f"blobs/sha256/{digest}"] = data
        return {
            "mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data), **more,
        }  # fmt: skip

    def manifest(
        self, layers: Sequence[bytes], config: Mapping[str, Any] | None = None,
        media_type: str = LAYER, **more: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """Add an image; returns the descriptor of its manifest."""
        document = {
            "schemaVersion": 2,
            "config": self.blob(json.dumps(config or {}).encode()),
            "layers": [self.blob(data, media_type) for data in layers],
        }
        return self.blob(json.dumps(document).encode(), MANIFEST, **more)

    def write(self, path: Path, *descriptors: Mapping[str, Any], compression: str = "") -> Path:
        index = {"schemaVersion": 2, "manifests": list(descriptors)}
        files = self.files | {"index.json": json.dumps(index).encode()}
        return write_tar(path, *(file_of(*pair) for pair in files.items()), compression=compression)


def image(path: Path, *layers: bytes, config: Mapping[str, Any] | None = None) -> Path:
    """An OCI layout with one image."""
    layout = Layout()
    return layout.write(path, layout.manifest(layers, config))


def docker_archive(path: Path, layers: Sequence[bytes], **changes: Any) -> Path:
    """What ``docker save`` wrote before it wrote OCI layouts: each layer in its own directory."""
    diff_ids = [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in layers]
    config = json.dumps({"rootfs": {"diff_ids": diff_ids}} | changes.get("config", {})).encode()
    names = [f"{number:064x}/layer.tar" for number in range(len(layers))]
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": ["a:b"], "Layers": names}]
    files = {config_name: config, **dict(zip(names, layers, strict=True))}
    files["manifest.json"] = json.dumps(changes.get("manifest", manifest)).encode()
    return write_tar(path, *(file_of(*pair) for pair in files.items()))


def file_of(name: str, data: bytes) -> bytes:
    """A file of any name that a container archive has: long ones as PAX."""
    return (pax({b"path": name.encode()}) if len(name) > 100 else b"") + file(name[:100], data)
