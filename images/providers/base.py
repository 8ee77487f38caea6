"""What a provider of root file systems or kernels offers and delivers: plain values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from images.files import Progress, no_progress
from nexus_site.core.errors import Invalid

MAX_FIELD = 200_000  # characters; a keyring of a distribution has some ten thousand


@dataclass(frozen=True)
class RootfsOffer:
    """A root file system that a provider can deliver."""

    distro: str  # lower case: alpine
    version: str  # as people say it: 3.23
    arch: str  # x86_64 or aarch64
    provider: str  # the name of its row
    filename: str
    size_bytes: int | None  # None: known only after fetching
    format: str  # one of images.formats.rootfs.FORMATS; empty: known only after fetching
    source: str = ""  # URL, or how it is made
    aliases: tuple[str, ...] = ()  # other ways to say the version: ("12",) for bookworm

    def matches(self, distro: str, version: str) -> bool:
        """Whether this is what people mean by ``distro`` and ``version``."""
        if self.distro != distro.lower():
            return False
        return any(is_version(known, version) for known in (self.version, *self.aliases))


@dataclass(frozen=True)
class FetchedRootfs:
    """A root file system as its publisher ships it, on this machine's disk."""

    path: Path
    sha256: str
    size_bytes: int
    format: str
    source: str = ""
    verification: str = ""  # "sha256", "sha256, OpenPGP 0482D84…", "built here"
    #: What the config of an OCI image says: env, entrypoint, cmd, working_dir, user.
    config: Mapping[str, Any] = field(default_factory=dict)


def is_version(known: str, wish: str) -> bool:
    """Whether the version ``known`` is the wish or, as 3.23.1 for 3.23, a release of it."""
    return known.lower() == wish.lower() or known.lower().startswith(f"{wish.lower()}.")


def version_key(version: str) -> tuple[tuple[int, str], ...]:
    """Sorts versions by their numbers: 3.9 before 3.23, 3.23.0_rc1 before 3.23.0."""
    parts = version.replace("_", ".~").replace("-", ".~").split(".")
    return (
        *((int(part), "") if part.isdecimal() else (-1, part) for part in parts),
        (0, ""),
    )


def best_offer(offers: Sequence[RootfsOffer], distro: str, version: str) -> RootfsOffer | None:
    """The offer of exactly this version or alias, else the newest release of it."""
    matching = [offer for offer in offers if offer.matches(distro, version)]
    exact = [o for o in matching if version.lower() in (o.version.lower(), *o.aliases)]
    return max(exact or matching, key=lambda offer: version_key(offer.version), default=None)


@dataclass(frozen=True)
class KernelOffer:
    """A kernel that a provider can deliver; ``version`` is its release, as ``uname -r`` says."""

    version: str
    arch: str
    provider: str


@dataclass(frozen=True)
class FetchedKernel:
    """A kernel on this machine's disk: a directory with ``vmlinux`` and ``modules.zip``, and
    ``bzImage`` where the kernel came as one.

    ``sha256`` and ``size_bytes`` are those of ``vmlinux``. Read the modules with
    ``images.providers.modules.kernel_modules(directory)``.
    """

    version: str
    arch: str
    directory: Path
    vmlinux: Path
    sha256: str
    size_bytes: int


class RootfsProvider(Protocol):
    """A source of root file systems."""

    name: str  # of its row

    def offers(self) -> Sequence[RootfsOffer]:
        """What it knows it can deliver, for all architectures, without asking anyone: quick."""
        ...

    def refresh(self) -> Sequence[RootfsOffer]:
        """What the publisher has now; ``Retryable`` when it cannot be reached."""
        ...

    def serves(self, distro: str) -> bool:
        """Whether asking the publisher for versions of ``distro`` is worth while."""
        ...

    def find(self, distro: str, version: str, arch: str) -> RootfsOffer | None:
        """The offer of a version; may ask the publisher. None where there is none."""
        ...

    def fetch(
        self, offer: RootfsOffer, destination_dir: Path, progress: Progress = no_progress
    ) -> FetchedRootfs:
        """Put the file into ``destination_dir``, whole or not at all; safe to repeat.

        Raises ``NotFound`` where the offer does not hold any more, ``Retryable``, ``Broken``.
        """
        ...


@dataclass(frozen=True)
class Field:
    """One value of a provider's configuration, as pages, API and command line show and check it.

    ``check`` returns the value as it is kept, or raises ``ValueError`` with what is wrong.
    """

    name: str
    label: str
    help: str = ""
    required: bool = False
    default: str = ""
    multiline: bool = False
    check: Callable[[str], str] = str


@dataclass(frozen=True)
class ProviderType:
    """A way to get root file systems, for any number of rows with their own configuration."""

    name: str
    label: str
    help: str
    open: Callable[[str, Mapping[str, Any]], RootfsProvider]  # the row's name and its config
    fields: tuple[Field, ...] = ()
    #: Rules about several fields at once; raises ``Invalid``.
    check_all: Callable[[Mapping[str, str]], None] = lambda config: None

    def check(self, config: Mapping[str, Any]) -> dict[str, str]:
        """The configuration with every field in it. Raises ``Invalid`` that names the field."""
        known = {field.name: field for field in self.fields}
        for name in config:
            if name not in known:
                hint = f"Known: {', '.join(known)}" if known else "It needs no configuration."
                raise _field_error(name, f"{self.label} has no such field.", hint)
        checked = {name: _checked(field, config.get(name)) for name, field in known.items()}
        self.check_all(checked)
        return checked


def _checked(field: Field, value: object) -> str:
    if value is not None and not isinstance(value, str):
        raise _field_error(field.name, "This must be text.")
    text = (value or "").strip() or field.default
    if not text:
        if field.required:
            raise _field_error(field.name, "This is required.")
        return ""
    if len(text) > MAX_FIELD:
        raise _field_error(field.name, f"This is longer than {MAX_FIELD} characters.")
    try:
        return field.check(text)
    except ValueError as error:
        raise _field_error(field.name, str(error)) from error


def _field_error(name: str, message: str, hint: str = "") -> Invalid:
    return Invalid(
        f"config.{name}: {message}",
        hint=hint,
        code="config-invalid",
        extra={"errors": [{"field": f"config.{name}", "message": message}]},
    )


class KernelProvider(Protocol):
    """A source of kernels."""

    name: str

    def list_kernels(self) -> Sequence[KernelOffer]:
        """What can be fetched now; nothing where it is not installed."""
        ...

    def fetch_kernel(
        self, offer: KernelOffer, destination_dir: Path, progress: Progress = no_progress
    ) -> FetchedKernel:
        """Put the kernel into ``destination_dir``; safe to repeat.

        ``vmlinux`` is written last: where it is, the directory is complete.
        """
        ...
