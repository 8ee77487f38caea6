"""What host and agent tell each other, as values.

What comes from a guest is checked here, once: numbers lie in their bounds, texts have no control
or formatting characters and are cut to their limits. A field of a wrong type is a
``ProtocolError``; a text that is missing is empty.
"""

from __future__ import annotations

import base64
import ipaddress
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from guest_agent.fields import (
    MAX_PATH,
    MAX_SECONDS,
    Fields,
    bytes_field,
    list_field,
    number_field,
    object_field,
    paths_field,
    text_field,
)
from guest_agent.metrics import CPU, DeviceWork, InterfaceTraffic
from guest_agent.yamux import ProtocolError
from nexus_site.core.errors import Invalid

MAX_DISKS = 64

_BOOT_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_IDENTITY = re.compile(r"[A-Za-z0-9-]{1,64}")
_MAC = re.compile(r"[0-9a-f][02468ace](:[0-9a-f]{2}){5}", re.IGNORECASE)
_HOSTNAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_HOST_NAMES = re.compile(r"[A-Za-z0-9._-]+([ \t]+[A-Za-z0-9._-]+)*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


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
        image, boot = object_field(fields, "image"), object_field(fields, "boot")
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
    """How the guest is: seconds, epoch seconds, load averages, bytes.

    What agents before 0.3 do not tell is 0, None or empty.
    """

    uptime: float
    time: float
    load: tuple[float, ...]
    memory_total: int
    memory_available: int
    disks: tuple[DiskUsage, ...]
    swap_total: int = 0
    swap_free: int = 0
    processes: int = 0
    cpu: CPU | None = None
    network: tuple[InterfaceTraffic, ...] = ()
    io: tuple[DeviceWork, ...] = ()

    @classmethod
    def parse(cls, fields: Fields) -> Heartbeat:
        """The checked heartbeat; ``ProtocolError`` for one that cannot be."""
        memory = object_field(fields, "memory")
        load = dict(enumerate(list_field(fields, "load", 3)))
        return cls(
            uptime=number_field(fields, "uptime", MAX_SECONDS),
            time=number_field(fields, "time", MAX_SECONDS),
            load=tuple(number_field({"load": load.get(i)}, "load", 1e6) for i in range(3)),
            memory_total=bytes_field(memory, "total"),
            memory_available=bytes_field(memory, "available"),
            disks=tuple(_disk(disk) for disk in list_field(fields, "disks", MAX_DISKS)),
            swap_total=bytes_field({"swap_total": 0, **memory}, "swap_total"),
            swap_free=bytes_field({"swap_free": 0, **memory}, "swap_free"),
            processes=bytes_field({"processes": 0, **fields}, "processes"),
            cpu=CPU.parse(fields),
            network=InterfaceTraffic.parse_all(fields),
            io=DeviceWork.parse_all(fields),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        return asdict(self)


def _disk(value: object) -> DiskUsage:
    if not isinstance(value, dict):
        raise ProtocolError("a disk is not an object")
    return DiskUsage(
        text_field(value, "path", MAX_PATH), bytes_field(value, "total"), bytes_field(value, "free")
    )


@dataclass(frozen=True, slots=True)
class Network:
    """A fixed IPv4 address. The defaults are those of QEMU's user-mode network.

    With a ``mac`` the interface gets this one; it has lost its other addresses and routes then.
    """

    address: str = "10.0.2.15/24"
    gateway: str = "10.0.2.2"
    dns: tuple[str, ...] = ("10.0.2.3",)
    interface: str = "eth0"
    mac: str = ""

    def __post_init__(self) -> None:
        if self.mac and not _MAC.fullmatch(self.mac):
            raise Invalid(f"“{self.mac}” cannot be an interface's MAC address.", code="bad-mac")


@dataclass(frozen=True, slots=True)
class Configuration:
    """What the host sets in a guest. None leaves a thing as it is.

    ``hosts`` are lines of ``/etc/hosts``, an address and its names, instead of those given before.
    ``env`` are variables of login shells and of everything that the agent starts.
    ``time`` is in seconds since the epoch. ``entropy`` (1 to 512 bytes) is fresh unless it is
    given: two guests resumed from one memory image must not draw the same random numbers.
    ``identity`` names the guest: one that has another's gets a machine ID and SSH host keys of
    its own. ``boot_id``, a UUID, is what the agent tells from then on in its hellos, until the
    guest boots. Agents before 0.4 know neither of the two, nor ``Network.mac``.
    """

    hostname: str | None = None
    time: float | None = None
    network: Network | None = None
    env: Mapping[str, str] | None = None
    hosts: Sequence[str] | None = None
    identity: str | None = None
    boot_id: str | None = None
    entropy: bytes = field(default_factory=lambda: os.urandom(64), repr=False)

    def __post_init__(self) -> None:
        if self.hostname is not None and not _HOSTNAME.fullmatch(self.hostname):
            raise Invalid(f"“{self.hostname}” cannot be a host name.", code="bad-hostname")
        for name, value in (self.env or {}).items():
            if not _VARIABLE.fullmatch(name) or "\0" in value:
                raise Invalid(f"“{name}” cannot be an environment variable.", code="bad-variable")
        for line in self.hosts or ():
            _check_host_line(line)
        if self.identity is not None and not _IDENTITY.fullmatch(self.identity):
            raise Invalid(f"“{self.identity}” cannot name a guest.", code="bad-identity")
        if self.boot_id is not None and not _BOOT_ID.fullmatch(self.boot_id):
            raise Invalid(f"“{self.boot_id}” is not a UUID.", code="bad-boot-id")

    def to_dict(self) -> dict[str, Any]:
        """The fields of the request; those that are None are left out."""
        request: dict[str, Any] = {
            "hostname": self.hostname,
            "time": self.time,
            "hosts": list(self.hosts) if self.hosts is not None else None,
            "network": asdict(self.network) if self.network else None,
            "env": dict(self.env) if self.env is not None else None,
            "identity": self.identity,
            "boot_id": self.boot_id,
            "entropy": base64.b64encode(self.entropy).decode(),
        }
        return {key: value for key, value in request.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Configured:
    """What the guest is after it was configured; None and empty from agents before 0.4.

    ``time`` is its clock's when it answered, in seconds since the epoch.
    """

    time: float | None = None
    boot_id: str = ""
    identity: str = ""

    @classmethod
    def parse(cls, fields: Fields) -> Configured:
        """The checked answer; ``ProtocolError`` for one that cannot be."""
        boot_id = text_field(fields, "boot_id")
        if boot_id and not _BOOT_ID.fullmatch(boot_id):
            raise ProtocolError("boot_id is not a UUID")
        return cls(_seconds(fields, "time"), boot_id, text_field(fields, "identity"))


def _check_host_line(line: str) -> None:
    """``Invalid`` for what is no address and names."""
    address, _, names = line.replace("\t", " ").partition(" ")
    try:
        ipaddress.ip_address(address)
    except ValueError:
        names = ""
    if "%" in address or not _HOST_NAMES.fullmatch(names.strip()):
        raise Invalid(f"“{line}” is not an address and its names.", code="bad-hosts")
