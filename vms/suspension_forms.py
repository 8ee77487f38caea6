"""What people fill in to fork a VM."""

from __future__ import annotations

from typing import Any

from django import forms
from django.db.models import QuerySet
from django.urls import reverse

from nexus_site.core.forms import ServiceForm
from vms.models import VM, VMSnapshot
from vms.services import MAX_FORKS


class CheckpointField(forms.ModelChoiceField):  # type: ignore[type-arg]
    def label_from_instance(self, obj: VMSnapshot) -> str:
        return f"the checkpoint {obj.name}"


class ForkForm(ServiceForm):
    """How many VMs, and what they go on from; ``now``: whether the VM can be forked as it is."""

    code_fields = ServiceForm.code_fields | {"fork-count": "count", "no-memory": "snapshot"}

    count = forms.IntegerField(min_value=1, max_value=MAX_FORKS, initial=1, label="How many")
    name = forms.CharField(
        required=False,
        max_length=63,
        label="Name",
        help_text="Several get a number after it. Left empty, they are called after the VM.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )
    snapshot = CheckpointField(
        VMSnapshot.objects.none(), required=False, label="They go on from", empty_label="now"
    )
    start = forms.BooleanField(required=False, initial=True, label="Start them at once")

    def __init__(self, *args: Any, vm: VM, now: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choice = self.fields["snapshot"]
        assert isinstance(choice, forms.ModelChoiceField)
        choice.queryset = checkpoints_of(vm)
        choice.empty_label = "where it is now" if now else None
        choice.required = not now
        for name in ("snapshot", "start"):
            self.fields[name].widget.attrs |= _asks_again(reverse("vms:fork", args=[vm.ref]))


def _asks_again(url: str) -> dict[str, str]:
    """What changes the plan has the dialog fetched again, with what was filled in."""
    fields = ("count", "name", "snapshot", "start")
    return {
        "hx-get": url,
        "hx-trigger": "change",
        "hx-target": "#dialog",
        "hx-swap": "innerMorph",
        "hx-include": ", ".join(f"#dialog_{name}" for name in fields),
    }


def checkpoints_of(vm: VM) -> QuerySet[VMSnapshot]:
    """What VMs can go on from, newest first."""
    return vm.snapshots.filter(
        with_memory=True, for_forks=False, state=VMSnapshot.State.READY
    ).order_by("-created_at")
