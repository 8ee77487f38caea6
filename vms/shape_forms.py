"""What people fill in about what a VM is like."""

from __future__ import annotations

from typing import Any

from django import forms

from images.models import Kernel
from nexus_site.core.forms import ServiceForm
from vms.choice import expectation, label
from vms.models import VM
from vms.shape import ANY_TIME, MOST_IDLE_MINUTES
from vms.states import AT_REST

SHAPE_CODES = {
    "too-many-cpus": "vcpu_count",
    "memory-size": "mem_size_mib",
    "hypervisor-unusable": "hypervisor",
    "limit-unsupported": "network_mib_s",
}
#: What goes without saying.
UNNAMED = {
    "hypervisor": VM.Hypervisor.AUTO,
    "restart_policy": VM.RestartPolicy.NO,
    "unreachable_action": VM.UnreachableAction.KEEP,
}


class MemoryField(forms.IntegerField):
    """An amount of memory in MiB."""

    unit = "MiB"


class LimitField(forms.IntegerField):
    """What a VM may take in a second; empty for no limit."""

    def __init__(self, label: str, unit: str) -> None:
        widget = forms.NumberInput(attrs={"placeholder": "no limit"})
        super().__init__(required=False, min_value=1, label=label, widget=widget)
        self.unit = unit


def shape_fields() -> dict[str, forms.Field]:
    """What a VM runs on, its limits, and what is done when it ends or does not answer."""
    name, reason = expectation(VM.Hypervisor.AUTO)
    automatic = f"Automatic is {label(name)} here: {reason}." if name else reason
    hypervisor = forms.ChoiceField(
        choices=VM.Hypervisor.choices,
        initial=VM.Hypervisor.AUTO,
        label="Hypervisor",
        help_text=automatic,
    )
    limits = {
        "disk_mib_s": LimitField("Disk limit", "MiB/s"),
        "disk_iops": LimitField("Disk operations", "IOPS"),
        "network_mib_s": LimitField("Network limit", "MiB/s"),
    }
    return {"hypervisor": hypervisor, **limits, **_policy_fields()}


def kernel_field(pinned: Kernel | None = None) -> forms.Field:
    """Which kernel it starts with, by name; those that did not boot are left out, but for the one
    that it is pinned to."""
    rows = Kernel.objects.exclude(state=Kernel.State.BAD)
    kept = {*rows.values_list("name", flat=True), *([pinned.name] if pinned else [])}
    names = [(name, name) for name in sorted(kept)]
    return forms.ChoiceField(
        required=False, choices=[("", "The default one"), *names], label="Kernel"
    )


def _policy_fields() -> dict[str, forms.Field]:
    restart = forms.ChoiceField(
        choices=VM.RestartPolicy.choices,
        initial=VM.RestartPolicy.NO,
        label="Start it again",
        help_text="After 1 s, then later and later, up to 5 minutes.",
    )
    unreachable = forms.ChoiceField(
        choices=VM.UnreachableAction.choices,
        initial=VM.UnreachableAction.KEEP,
        label="When its agent does not answer",
    )
    idle = forms.IntegerField(
        required=False,
        min_value=1,
        max_value=MOST_IDLE_MINUTES,
        label="Suspend it when idle for",
        help_text="Minutes. Whoever needs it wakes it.",
        widget=forms.NumberInput(attrs={"placeholder": "never"}),
    )
    return {
        "restart_policy": restart,
        "unreachable_action": unreachable,
        "idle_suspend_minutes": idle,
    }


class ChangeForm(ServiceForm):
    """What a VM is like; of one that runs only what can be changed at any time."""

    code_fields = ServiceForm.code_fields | SHAPE_CODES

    vcpu_count = forms.IntegerField(min_value=1, label="vCPUs")
    mem_size_mib = MemoryField(min_value=64, label="Memory")

    def __init__(self, *args: Any, vm: VM, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields |= {**shape_fields(), "kernel": kernel_field(vm.kernel)}
        if vm.state not in AT_REST:
            for name in set(self.fields) - ANY_TIME:
                self.fields[name].disabled = True
