"""One root file system that an operator points at: a URL or a file on this machine, with its
SHA-256. Archives, disk images and, as the type ``oci``, container images.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from images import downloads
from images.files import Progress, copy_sparse, no_progress, sha256_of, whole_file
from images.formats.archives import detect
from images.formats.rootfs import FORMATS
from images.providers.base import FetchedRootfs, Field, ProviderType, RootfsOffer, best_offer
from images.providers.fields import (
    check_arch,
    check_distro,
    check_sha256,
    check_url,
    check_word,
)
from nexus_site.core.errors import Broken, Invalid, NotFound, as_nexus_error

OCI_FORMATS = ("oci", "docker")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,120}")


class TarballProvider:
    """The file at ``url`` or ``path``, as the one version of one distribution."""

    def __init__(self, name: str, config: Mapping[str, Any]) -> None:
        self.name = name
        self._config = {key: str(value or "") for key, value in config.items()}

    def offers(self) -> Sequence[RootfsOffer]:
        """The configured one."""
        config = self._config
        return [
            RootfsOffer(
                distro=config["distro"],
                version=config["version"],
                arch=config.get("arch") or platform.machine(),
                provider=self.name,
                filename=_filename(config.get("url") or config["path"]),
                size_bytes=None,
                format=config.get("format", ""),
                source=config.get("url") or config["path"],
            )
        ]

    def refresh(self) -> Sequence[RootfsOffer]:
        """The same: whether it is there is found out by fetching it."""
        return self.offers()

    def serves(self, distro: str) -> bool:
        """Never: what it has is known."""
        return False

    def find(self, distro: str, version: str, arch: str) -> RootfsOffer | None:
        return best_offer([o for o in self.offers() if o.arch == arch], distro, version)

    def fetch(
        self, offer: RootfsOffer, destination_dir: Path, progress: Progress = no_progress
    ) -> FetchedRootfs:
        """Download or copy the file; it is refused unless its checksums hold."""
        config = self._config
        target = destination_dir / _filename(config.get("url") or config["path"])

        def check(path: Path) -> None:
            if content_sha256 := config.get("content_sha256"):
                downloads.check_content(path, content_sha256, progress)
            self._format_of(path)

        if config.get("url"):
            done = downloads.download(
                config["url"],
                target,
                sha256=config.get("sha256", ""),
                check=check,
                progress=progress,
            )
        else:
            done = _copy(Path(config["path"]), target, config.get("sha256", ""), check, progress)
        return FetchedRootfs(
            done.path,
            done.sha256,
            done.size_bytes,
            self._format_of(done.path),
            source=offer.source,
            verification="sha256" if config.get("sha256") else "sha256 of its content",
        )

    def _format_of(self, path: Path) -> str:
        found, configured = detect(path), self._config.get("format")
        if configured and found != configured:
            raise Invalid(
                f"The file is not {configured}, but {found}.",
                hint="Correct the provider's format, or leave it empty.",
                code="format-unknown",
            )
        return found


class OCIProvider(TarballProvider):
    """A container image in one file: an OCI layout or what ``docker save`` writes."""

    def _format_of(self, path: Path) -> str:
        found = super()._format_of(path)
        if found not in OCI_FORMATS:
            raise Invalid(
                f"This is no container image, but {found}.",
                hint="It must be a tar of an OCI layout, or a docker-archive.",
                code="format-unknown",
            )
        return found


def _copy(
    source: Path,
    target: Path,
    sha256: str,
    check: Callable[[Path], None],
    progress: Progress,
) -> downloads.Downloaded:
    """A file of this machine, kept as it is now."""
    try:
        if not source.is_file():
            raise NotFound(f"There is no file {source} on the server.", code="download-not-found")
        with whole_file(target, mode=0o400) as temporary:
            copy_sparse(source, temporary, progress)
            found = sha256_of(temporary)
            if sha256 and found != sha256:
                raise Broken(
                    "The file is not the one that was asked for: its checksum is wrong.",
                    detail=f"{source}\nexpected: sha256 {sha256}\nfound: sha256 {found}",
                    hint="Correct the provider's sha256 if the file is right.",
                    code="checksum",
                )
            check(temporary)
    except OSError as error:
        raise as_nexus_error(error) from error
    return downloads.Downloaded(target, found, target.stat().st_size)


def _filename(source: str) -> str:
    """The last part of a URL or path where that is a plain name."""
    name = unquote(urlsplit(source).path).rpartition("/")[2]
    return name if _NAME.fullmatch(name) else "rootfs"


def _check_path(text: str) -> str:
    if not text.startswith("/") or "\0" in text:
        raise ValueError("This must be an absolute path on the server.")
    return text


def _check_format(allowed: tuple[str, ...]) -> Callable[[str], str]:
    def check(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"This must be one of: {', '.join(allowed)}; or empty.")
        return text

    return check


def _check_all(config: Mapping[str, str]) -> None:
    for either, other, text in (
        ("url", "path", "Give either a URL or a path on the server."),
        ("sha256", "content_sha256", "Give the SHA-256 of the file, or of its content."),
    ):
        both, none = config[either] and config[other], not (config[either] or config[other])
        if none or (both and either == "url"):
            raise Invalid(
                f"config.{either}: {text}",
                code="config-invalid",
                extra={"errors": [{"field": f"config.{either}", "message": text}]},
            )


def _fields(what: str, formats: tuple[str, ...]) -> tuple[Field, ...]:
    return (
        Field("url", "URL", f"Of {what}.", check=check_url),
        Field("path", "Path", "In place of a URL: a file on the server.", check=_check_path),
        Field("sha256", "SHA-256", "Of the file.", check=check_sha256),
        Field(
            "content_sha256",
            "SHA-256 of its content",
            "Of the decompressed file, where the publisher gives only that.",
            check=check_sha256,
        ),
        Field("distro", "Distribution", "Such as void.", required=True, check=check_distro),
        Field("version", "Version", "As people say it.", required=True, check=check_word),
        Field("arch", "Architecture", "Empty: this machine's.", check=check_arch),
        Field(
            "format",
            "Format",
            f"One of {', '.join(formats)}. Empty: found by looking into the file.",
            check=_check_format(formats),
        ),
    )


TYPE = ProviderType(
    "tarball",
    "Archive",
    "One file, at a URL or on the server, with its SHA-256.",
    TarballProvider,
    _fields("a tar archive or a disk image", FORMATS),
    _check_all,
)
OCI_TYPE = ProviderType(
    "oci",
    "Container image",
    "One OCI layout or docker-archive, at a URL or on the server, with its SHA-256.",
    OCIProvider,
    _fields("a container image in one tar", OCI_FORMATS),
    _check_all,
)
