"""What the JSON API of VMs' metrics takes and gives."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from ninja import Field, Schema
from pydantic import AwareDatetime

from nexus_site.core.schemas import ID
from vms.models import VM, Sample
from vms.schemas import VMState
from vms.services import metrics
from vms.services.metrics import MOST_POINTS, Metrics

Share = Annotated[float | None, Field(description="0 to 1, of all the guest's processors.")]
Processors = Annotated[float | None, Field(description="Of the host's: 1.5 is one and a half.")]
Bytes = Annotated[float | None, Field(description="Bytes.")]
Rate = Annotated[float | None, Field(description="Bytes in a second.")]


class MetricsQuery(Schema):
    start: AwareDatetime | None = Field(
        None, alias="from", description="Left out, an hour before `to`."
    )
    end: AwareDatetime | None = Field(None, alias="to", description="Left out, now.")
    points: int = Field(300, ge=2, le=MOST_POINTS, description="How many points at most.")


class SummaryOut(Schema):
    """One column in short; ``now`` is null unless it was measured just now."""

    now: float | None
    avg: float | None
    max: float | None


class MoveOut(Schema):
    """A move of the VM's state."""

    at: datetime
    from_state: str
    to_state: VMState
    reason: str


class MetricsOut(Schema):
    """What a VM used, a list for each column: the n-th values are as of the n-th ``at``.

    Each is the average of ``step_seconds``, for memory the most. Nulls where nothing is known;
    a row of nulls stands where nothing was measured.
    """

    start: datetime = Field(serialization_alias="from")
    end: datetime = Field(serialization_alias="to")
    step_seconds: int
    at: list[datetime]
    cpu: list[Share]
    memory_used: list[Bytes]
    memory_total: list[Bytes]
    disk_read: list[Rate]
    disk_write: list[Rate]
    net_rx: list[Rate]
    net_tx: list[Rate]
    vmm_cpu: list[Processors]
    vmm_memory: list[Bytes]
    summary: dict[str, SummaryOut]
    transitions: list[MoveOut]

    @classmethod
    def of(cls, found: Metrics) -> MetricsOut:
        return cls(**vars(found) | found.columns)


class UsageNow(Schema):
    """What a VM used in the ``seconds`` before ``at``."""

    at: datetime
    seconds: float
    cpu: Share
    memory_used: Bytes
    memory_total: Bytes
    disk_read: Rate
    disk_write: Rate
    net_rx: Rate
    net_tx: Rate
    vmm_cpu: Processors
    vmm_memory: Bytes

    @staticmethod
    def resolve_at(sample: Sample) -> datetime:
        return datetime.fromtimestamp(sample.at, UTC)


class VMUsageOut(Schema):
    """A VM that has a VMM; ``usage`` is null unless it was measured just now."""

    id: ID
    name: str
    state: VMState
    state_since: datetime
    vcpu_count: int
    mem_size_mib: int
    usage: UsageNow | None

    @staticmethod
    def resolve_usage(vm: VM) -> Sample | None:
        return metrics.usage_of(vm)
