"""What a guest counts: processors, network interfaces and disks. All counts only grow."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from guest_agent.fields import Fields, bytes_field, list_field, text_field
from guest_agent.yamux import ProtocolError

MAX_INTERFACES = 32
MAX_DEVICES = 64
MAX_NAME = 32


@dataclass(frozen=True, slots=True)
class CPU:
    """What all processors have done since the guest's start, in hundredths of a second.

    ``count`` is how many processors there are.
    """

    user: int
    system: int
    idle: int
    iowait: int
    steal: int
    count: int

    @classmethod
    def parse(cls, heartbeat: Fields) -> CPU | None:
        """The checked counts; None where the heartbeat has none."""
        value = heartbeat.get("cpu")
        return None if value is None else cls(**_counts(cls, value))

    def to_dict(self) -> dict[str, int]:
        """Plain values, fit for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class InterfaceTraffic:
    """What a network interface has received (``rx``) and sent (``tx``)."""

    name: str
    rx_bytes: int
    rx_packets: int
    rx_errors: int
    rx_drops: int
    tx_bytes: int
    tx_packets: int
    tx_errors: int
    tx_drops: int

    @classmethod
    def parse_all(cls, heartbeat: Fields) -> tuple[Self, ...]:
        """The checked counts of all interfaces; none where the heartbeat has none."""
        values = list_field({"network": [], **heartbeat}, "network", MAX_INTERFACES)
        return tuple(cls(**_counts(cls, value, "name")) for value in values)


@dataclass(frozen=True, slots=True)
class DeviceWork:
    """What a disk has read and written: bytes and operations."""

    device: str
    read_bytes: int
    reads: int
    write_bytes: int
    writes: int

    @classmethod
    def parse_all(cls, heartbeat: Fields) -> tuple[Self, ...]:
        """The checked counts of all disks; none where the heartbeat has none."""
        values = list_field({"io": [], **heartbeat}, "io", MAX_DEVICES)
        return tuple(cls(**_counts(cls, value, "device")) for value in values)


def _counts(kind: type[Any], value: object, name: str = "") -> dict[str, Any]:
    """The fields of ``kind``: counts, and the text ``name``."""
    if not isinstance(value, dict):
        raise ProtocolError("counts are not an object")
    return {
        field.name: text_field(value, name, MAX_NAME)
        if field.name == name
        else bytes_field(value, field.name)
        for field in fields(kind)
    }
