"""What host and agent tell each other, as values.

What comes from a guest is checked here, once: numbers lie in their bounds, texts have no control
or formatting characters and are cut to their limits. A field of a wrong type is a
``ProtocolError``; a text that is missing is empty.
"""

from __future__ import annotations

import base64
import math
import os
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from guest_agent.yamux import ProtocolError
from nexus_site.core.errors import Invalid

MAX_SECONDS = 2.0**40
MAX_BYTES = 2**63 - 1
MAX_DISKS = 64
MAX_FILE_SYSTEMS = 1024
MAX_TEXT, MAX_PATH = 128, 512

_BOOT_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_HOSTNAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

Fields = Mapping[str, Any]


def text_field(fields: Fields, key: str, limit: int = MAX_TEXT) -> str:
    """The text ``key`` without characters that could disturb a page or a terminal."""
    value = fields.get(key) or ""
    if not isinstance(value, str):
        raise ProtocolError(f"{key} is not a text")
    printable = (c for c in value[: 4 * limit] if not unicodedata.category(c).startswith("C"))
    return "".join(printable)[:limit].strip()


def number_field(fields: Fields, key: str, highest: float) -> float:
    """The number ``key``, from 0 to ``highest``."""
    value = fields.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ProtocolError(f"{key} is not a number")
    if not (0 <= value <= highest and math.isfinite(value)):
        raise ProtocolError(f"{key} is out of its bounds")
    return value


def paths_field(fields: Fields, key: str) -> list[str]:
    """The list of paths ``key``, fit to be shown."""
    paths = _list_field(fields, key, MAX_FILE_SYSTEMS)
    return [text_field({key: path}, key, MAX_PATH) for path in paths]


def _object_field(fields: Fields, key: str) -> Fields:
    value = fields.get(key)
    if not isinstance(value, dict):
        raise ProtocolError(f"{key} is not an object")
    return value


def _list_field(fields: Fields, key: str, most: int) -> list[Any]:
    value = fields.get(key)
    if not isinstance(value, list) or len(value) > most:
        raise ProtocolError(f"{key} is not a list of at most {most}")
    return value


@dataclass(frozen=True, slots=True)
class ImageMetadata:
    """What the guest's ``/etc/nexus/image.yaml`` says; empty texts where it has none."""

    image_id: str = ""
    image_name: str = ""
    build_id: str = ""
    built_at: str = ""


@dataclass(frozen=True, slots=True)
class BootTimes:
    """Seconds since the guest's kernel started; None for what was not measured or is not yet."""

    agent_started: float | None = None
    root_mounted: float | None = None
    settled: float | None = None  # the distribution's init had started its services


@dataclass(frozen=True, slots=True)
class Hello:
    """The agent's first words on a connection."""

    protocol: int
    agent_version: str
    arch: str
    kernel: str
    os: str
    init: str  # "systemd", "openrc", "busybox", another program's name, or "none"
    hostname: str
    boot_id: str
    image: ImageMetadata
    boot: BootTimes
    # Whether this boot gave the guest an identity of its own ("new"), it had it ("kept"), or it
    # has none ("none"); "" from agents that know nothing of it.
    identity: str = ""

    @classmethod
    def parse(cls, fields: Fields) -> Hello:
        """The checked hello; ``ProtocolError`` for one that cannot be."""
        boot_id = text_field(fields, "boot_id")
        if not _BOOT_ID.fullmatch(boot_id):
            raise ProtocolError("boot_id is not a UUID")
        image, boot = _object_field(fields, "image"), _object_field(fields, "boot")
        texts = ("agent_version", "arch", "kernel", "os", "init", "hostname", "identity")
        return cls(
            protocol=int(number_field(fields, "protocol", 255)),
            boot_id=boot_id,
            image=ImageMetadata(**{key: text_field(image, key) for key in asdict(ImageMetadata())}),
            boot=BootTimes(**{key: _seconds(boot, key) for key in asdict(BootTimes())}),
            **{key: text_field(fields, key) for key in texts},
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return asdict(self)


def _seconds(fields: Fields, key: str) -> float | None:
    return None if fields.get(key) is None else number_field(fields, key, MAX_SECONDS)


@dataclass(frozen=True, slots=True)
class DiskUsage:
    """One file system of the guest, in bytes; ``free`` is what unprivileged users may write."""

    path: str
    total: int
    free: int


@dataclass(frozen=True, slots=True)
class GuestDisk:
    """A disk that came while the guest ran: "/dev/sda", or "" where the guest has none such.

    ``used_by`` is why it was not given up: mount points, and devices that are made of it.
    """

    device: str
    used_by: tuple[str, ...]

    @classmethod
    def parse(cls, fields: Fields) -> GuestDisk:
        """The checked answer; ``ProtocolError`` for one that cannot be."""
        return cls(text_field(fields, "device"), tuple(paths_field(fields, "used_by")))


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """How the guest is: seconds, epoch seconds, load averages, bytes."""

    uptime: float
    time: float
    load: tuple[float, ...]
    memory_total: int
    memory_available: int
    disks: tuple[DiskUsage, ...]

    @classmethod
    def parse(cls, fields: Fields) -> Heartbeat:
        """The checked heartbeat; ``ProtocolError`` for one that cannot be."""
        memory = _object_field(fields, "memory")
        load = dict(enumerate(_list_field(fields, "load", 3)))
        return cls(
            uptime=number_field(fields, "uptime", MAX_SECONDS),
            time=number_field(fields, "time", MAX_SECONDS),
            load=tuple(number_field({"load": load.get(i)}, "load", 1e6) for i in range(3)),
            memory_total=_bytes(memory, "total"),
            memory_available=_bytes(memory, "available"),
            disks=tuple(_disk(disk) for disk in _list_field(fields, "disks", MAX_DISKS)),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return asdict(self)


def _bytes(fields: Fields, key: str) -> int:
    return int(number_field(fields, key, MAX_BYTES))


def _disk(value: object) -> DiskUsage:
    if not isinstance(value, dict):
        raise ProtocolError("a disk is not an object")
    return DiskUsage(
        text_field(value, "path", MAX_PATH), _bytes(value, "total"), _bytes(value, "free")
    )


@dataclass(frozen=True, slots=True)
class Network:
    """A fixed IPv4 address. The defaults are those of QEMU's user-mode network."""

    address: str = "10.0.2.15/24"
    gateway: str = "10.0.2.2"
    dns: tuple[str, ...] = ("10.0.2.3",)
    interface: str = "eth0"


@dataclass(frozen=True, slots=True)
class Configuration:
    """What the host sets in a guest. None leaves a thing as it is.

    ``time`` is in seconds since the epoch. ``entropy`` (1 to 512 bytes) is fresh unless it is
    given: two guests resumed from one memory image must not draw the same random numbers.
    """

    hostname: str | None = None
    time: float | None = None
    network: Network | None = None
    env: Mapping[str, str] | None = None
    entropy: bytes = field(default_factory=lambda: os.urandom(64), repr=False)

    def __post_init__(self) -> None:
        if self.hostname is not None and not _HOSTNAME.fullmatch(self.hostname):
            raise Invalid(f"“{self.hostname}” cannot be a host name.", code="bad-hostname")
        for name, value in (self.env or {}).items():
            if not _VARIABLE.fullmatch(name) or "\0" in value:
                raise Invalid(f"“{name}” cannot be an environment variable.", code="bad-variable")

    def to_dict(self) -> dict[str, Any]:
        """The fields of the request; those that are None are left out."""
        request: dict[str, Any] = {
            "hostname": self.hostname,
            "time": self.time,
            "network": asdict(self.network) if self.network else None,
            "env": dict(self.env) if self.env is not None else None,
            "entropy": base64.b64encode(self.entropy).decode(),
        }
        return {key: value for key, value in request.items() if value is not None}
