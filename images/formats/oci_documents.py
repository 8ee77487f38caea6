"""The JSON documents of container images: read with doubt, since strangers write them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from images.formats.compression import damaged
from nexus_site.core.errors import Invalid

Document = dict[str, Any]

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}  # as Go names them
_MAX_WORDS, _MAX_TEXT = 1000, 32 << 10


def parsed(data: bytes) -> Any:
    """Any JSON value."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise damaged("a JSON document in it cannot be read") from error


def document(value: Any) -> Document:
    """``value``, proven to be an object."""
    if not isinstance(value, dict):
        raise damaged("a JSON document in it has another shape than it should")
    return value


def documents(value: Any) -> list[Document]:
    """``value``, proven to be a list of objects; none where there is no value."""
    if not isinstance(value, list | None):
        raise damaged("a JSON document in it has another shape than it should")
    return [document(item) for item in value or ()]


def text(value: Any) -> str:
    """``value``, proven to be a text; empty where there is none."""
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > _MAX_TEXT or "\0" in value:
        raise damaged("a JSON document in it has something else in place of a text")
    return value.encode("utf-8", "replace").decode()


def texts(value: Any) -> list[str]:
    """``value``, proven to be a list of texts; empty where there is none."""
    if not isinstance(value, list | None) or len(value or ()) > _MAX_WORDS:
        raise damaged("a JSON document in it has something else in place of a list")
    return [text(item) for item in value or ()]


def pick(descriptors: Sequence[Document], arch: str) -> Document:
    """The descriptor of the manifest (or index) for ``arch`` among those of one index.

    Platforms are not always told; a single descriptor without one is taken, and its
    configuration checked afterwards.
    """
    wanted = ("linux", ARCHITECTURES.get(arch, arch))
    platforms = [(item, document(item.get("platform") or {})) for item in descriptors]
    fitting = [
        (text(platform.get("variant")), item)
        for item, platform in platforms
        if (platform.get("os"), platform.get("architecture")) == wanted
    ]
    if fitting:
        return min(fitting, key=lambda pair: pair[0])[1]  # the plain one before its variants
    untold = {text(item.get("digest")): item for item, platform in platforms if not platform}
    if len(untold) == 1:
        return next(iter(untold.values()))
    if untold:
        raise several(len(untold))
    raise Invalid(
        f"The container image is not made for {arch}.",
        detail="\n".join(
            f"{text(platform.get('os'))}/{text(platform.get('architecture'))}"
            for _, platform in platforms
        ),
        hint=f"Export the image for the platform {'/'.join(wanted)}.",
        code="wrong-architecture",
    )


def several(count: int) -> Invalid:
    return Invalid(
        f"The archive holds {count} container images.",
        hint="Export the one you want alone.",
        code="image-ambiguous",
    )


def check_architecture(config: Document, arch: str) -> None:
    """Raise ``Invalid`` where the configuration names another system."""
    made_for = text(config.get("os")) or "linux", text(config.get("architecture"))
    wanted = "linux", ARCHITECTURES.get(arch, arch)
    if made_for[1] and made_for != wanted:
        raise Invalid(
            f"The container image is made for {'/'.join(made_for)}, not for {'/'.join(wanted)}.",
            code="wrong-architecture",
        )


def configuration(config: Document) -> dict[str, Any]:
    """What Nexus keeps of an image's configuration."""
    values = document(config.get("config") or {})
    pairs = [line.partition("=") for line in texts(values.get("Env"))]
    return {
        "env": {name: value for name, _, value in pairs if name},
        "entrypoint": texts(values.get("Entrypoint")),
        "cmd": texts(values.get("Cmd")),
        "working_dir": text(values.get("WorkingDir")),
        "user": text(values.get("User")),
    }
