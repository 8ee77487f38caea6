"""Container images in one file: an OCI image layout, or what ``docker save`` writes, as tar.

The archive is indexed once; blobs are then read at their places in it, never extracted. Each is
compared with its digest before anything in it is believed, as far as the format tells one: the
layers of docker archives are compared with what their configuration says of them, as they go.
"""

from __future__ import annotations

import contextlib
import hashlib
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from images.formats import oci_documents
from images.formats.compression import (
    HEAD,
    Readable,
    Unpacked,
    chunks,
    compression_of,
    damaged,
    too_large,
)
from images.formats.filling import Filler
from images.formats.oci_documents import Document, document, documents, text, texts
from images.formats.tar_reader import TarArchive
from nexus_site.core.errors import Invalid

MAX_FILES = 100_000
MAX_LAYERS = 500  # Docker itself ends at 127
_MAX_DOCUMENT = 4 << 20
_MAX_INDEXES = 8  # an index may name an index
_MAX_LINKS = 8
_DIGEST = re.compile(r"(sha256|sha512):([0-9a-f]{64}|[0-9a-f]{128})\Z")
_DOCKER_CONFIG = re.compile(r"(?:blobs/sha256/)?([0-9a-f]{64})(?:\.json)?\Z")
_LAYER_TYPE = re.compile(
    r"application/vnd\.(?:oci\.image\.layer\.(?:nondistributable\.)?v1\.tar(?:\+gzip|\+zstd)?"
    r"|docker\.image\.rootfs\.(?:foreign\.)?diff\.tar(?:\.gzip|\.zstd)?)\Z"
)
_INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_T = TypeVar("_T")


@dataclass(frozen=True)
class _Blob:
    """A file in the archive: ``size`` bytes at ``offset``."""

    offset: int
    size: int


class ContainerArchive:
    """A container image in an uncompressed tar file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files: dict[str, _Blob] = {}
        self._links: dict[str, str] = {}
        with path.open("rb") as file:
            archive = TarArchive(file)
            for count, item in enumerate(archive):
                if count >= MAX_FILES:
                    raise too_large(f"a container image has at most {MAX_FILES} files")
                entry = item.entry
                if item.link_to is not None:
                    self._links[entry.path] = item.link_to
                elif entry.target:  # docker save names a layer again that two images share
                    beside = posixpath.join(entry.parent, entry.target)
                    self._links[entry.path] = posixpath.normpath(beside)
                else:
                    self._files[entry.path] = _Blob(archive.offset, entry.size)

    def unpack(self, filler: Filler, arch: str) -> dict[str, Any]:
        """Add the layers for ``arch``, lowest first; returns the image's configuration.

        Its keys are env, entrypoint, cmd, working_dir and user, always all of them.
        """
        is_layout = "index.json" in self._files
        config, layers = self._layout(arch) if is_layout else self._docker_archive()
        oci_documents.check_architecture(config, arch)
        kept = oci_documents.configuration(config)
        diff_ids = texts(document(config.get("rootfs") or {}).get("diff_ids"))
        if len(diff_ids) not in (0, len(layers)):
            raise damaged(f"it has {len(layers)} layers, its configuration {len(diff_ids)}")
        for number, layer in enumerate(layers):
            self._add_layer(filler, layer, diff_ids[number] if diff_ids else "")
        return kept

    def _layout(self, arch: str) -> tuple[Document, list[_Blob]]:
        """Configuration and layers of an OCI image layout."""
        manifest = self._manifest(arch)
        config = document(self._read(self._blob(document(manifest.get("config")))))
        layers = []
        for descriptor in _limited(documents(manifest.get("layers"))):
            media_type = text(descriptor.get("mediaType"))
            if not _LAYER_TYPE.match(media_type):
                raise Invalid(
                    f"A layer of the container image is of the unknown type “{media_type[:100]}”.",
                    hint="Nexus reads layers that are tar archives: plain, gzip or zstd.",
                    code="archive-unsupported",
                )
            layers.append(self._blob(descriptor))
        return config, layers

    def _manifest(self, arch: str) -> Document:
        """From the index at the top to the one manifest, through indexes of indexes."""
        found = document(self._read(self._find("index.json")))
        for _ in range(_MAX_INDEXES):
            descriptor = oci_documents.pick(documents(found.get("manifests")), arch)
            found = document(self._read(self._blob(descriptor)))
            if text(descriptor.get("mediaType")) not in _INDEX_TYPES:
                return found
        raise damaged("its indexes name each other in a circle")

    def _docker_archive(self) -> tuple[Document, list[_Blob]]:
        """Configuration and layers of what ``docker save`` wrote, old or new."""
        images = documents(oci_documents.parsed(self._bytes(self._find("manifest.json"))))
        if len(images) != 1:
            raise oci_documents.several(len(images))
        name = text(images[0].get("Config"))
        blob = self._find(name)
        if digest := _DOCKER_CONFIG.match(name):
            self._check(blob, f"sha256:{digest[1]}")
        layers = [self._find(layer) for layer in _limited(texts(images[0].get("Layers")))]
        return document(self._read(blob)), layers

    def _add_layer(self, filler: Filler, blob: _Blob, diff_id: str) -> None:
        with self._opened(blob) as stream:
            compression = compression_of(stream.read(HEAD))
        with self._opened(blob) as stream:
            layer = _Hashed(Unpacked(stream, compression) if compression else stream)
            filler.add_layer(TarArchive(layer, complete=False))
            for _ in chunks(layer):  # what follows the archive's end belongs to the digest
                pass
        if diff_id and f"sha256:{layer.digest.hexdigest()}" != diff_id:
            raise _wrong_digest(diff_id)

    def _blob(self, descriptor: Document) -> _Blob:
        """The blob of a descriptor, proven to have its size and digest."""
        digest = text(descriptor.get("digest"))
        if not (parts := _DIGEST.match(digest)):
            raise damaged(f"“{digest[:100]}” stands in place of a digest")
        blob = self._find(f"blobs/{parts[1]}/{parts[2]}")
        if descriptor.get("size", blob.size) != blob.size:
            raise _wrong_digest(digest)
        self._check(blob, digest)
        return blob

    def _find(self, name: str) -> _Blob:
        path = posixpath.normpath(name)
        for _ in range(_MAX_LINKS):
            if path in self._files:
                return self._files[path]
            path = self._links.get(path, path)
        raise damaged(f"the file “{name[:200]}” that it names is not in it")

    def _check(self, blob: _Blob, digest: str) -> None:
        algorithm, _, wanted = digest.partition(":")
        found = hashlib.new(algorithm)
        with self._opened(blob) as stream:
            for data in chunks(stream):
                found.update(data)
        if found.hexdigest() != wanted:
            raise _wrong_digest(digest)

    def _read(self, blob: _Blob) -> Any:
        return oci_documents.parsed(self._bytes(blob))

    def _bytes(self, blob: _Blob) -> bytes:
        if blob.size > _MAX_DOCUMENT:
            raise too_large(f"a JSON document in it has {blob.size} bytes")
        with self._opened(blob) as stream:
            return stream.read(blob.size)

    @contextlib.contextmanager
    def _opened(self, blob: _Blob) -> Iterator[Readable]:
        with self._path.open("rb") as file:
            file.seek(blob.offset)
            yield _Slice(file, blob.size)


class _Slice:
    """The next ``size`` bytes of a stream as a stream of their own."""

    def __init__(self, stream: Readable, size: int) -> None:
        self._stream, self._left = stream, size

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(min(size, self._left))
        self._left -= len(data)
        return data


class _Hashed:
    """A stream whose bytes are hashed as they are read."""

    def __init__(self, stream: Readable) -> None:
        self._stream, self.digest = stream, hashlib.sha256()

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        self.digest.update(data)
        return data


def _limited(layers: list[_T]) -> list[_T]:
    if len(layers) > MAX_LAYERS:
        raise too_large(f"the container image has {len(layers)} layers, more than {MAX_LAYERS}")
    return layers


def _wrong_digest(digest: str) -> Invalid:
    return Invalid(
        f"A part of the container image is damaged: it does not have its digest {digest}.",
        hint="Export or fetch the image again.",
        code="archive-damaged",
    )
