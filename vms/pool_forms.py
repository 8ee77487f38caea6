"""What people fill in about pools."""

from __future__ import annotations

from typing import Any

from django import forms

from builds.models import Template
from images.models import Image
from nexus_site.core.forms import ServiceForm
from nexus_site.core.ids import NAME_RULE
from vms.services.pools import MOST
from vms.shape import DEFAULT_MEMORY_MIB
from vms.shape_forms import SHAPE_CODES, MemoryField, shape_fields


def _size(**more: Any) -> forms.IntegerField:
    return forms.IntegerField(min_value=0, max_value=MOST, label="VMs that wait", **more)


class CreatePoolForm(ServiceForm):
    """What its VMs are made of, how many there are, and what they are like."""

    code_fields = ServiceForm.code_fields | {
        **SHAPE_CODES,
        "pool-size": "size",
        "image-or-template": "image",
        "template-not-built": "template",
    }

    name = forms.CharField(max_length=63, label="Name", help_text=NAME_RULE)
    image = forms.ModelChoiceField(
        Image.objects.order_by("name"), required=False, label="Image", empty_label="by template"
    )
    template = forms.ModelChoiceField(
        Template.objects.order_by("name"),
        required=False,
        label="Template",
        empty_label="none",
        help_text="In place of an image: its VMs are replaced when it has been built anew.",
    )
    size = _size(initial=1)
    vcpu_count = forms.IntegerField(min_value=1, initial=1, label="vCPUs")
    mem_size_mib = MemoryField(min_value=64, initial=DEFAULT_MEMORY_MIB, label="Memory")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields |= shape_fields()


class ResizePoolForm(ServiceForm):
    code_fields = ServiceForm.code_fields | {"pool-size": "size"}

    size = _size(help_text="0 empties it.")


class TakeForm(ServiceForm):
    name = forms.CharField(
        required=False, max_length=63, label="Name", help_text="Left out, one is generated."
    )
    or_start = forms.BooleanField(
        required=False, label="Start one if none is ready", help_text="That takes longer."
    )
