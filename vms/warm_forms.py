"""What people fill in to have a warm template made."""

from __future__ import annotations

from django import forms

from images.models import Image
from nexus_site.core.forms import ServiceForm
from vms.shape import DEFAULT_MEMORY_MIB
from vms.shape_forms import SHAPE_CODES, MemoryField


class MakeForm(ServiceForm):
    """The image, and the size of the VMs that go on from it."""

    code_fields = ServiceForm.code_fields | SHAPE_CODES

    image = forms.ModelChoiceField(Image.objects.order_by("name"), label="Image", empty_label=None)
    vcpu_count = forms.IntegerField(min_value=1, initial=1, label="vCPUs")
    mem_size_mib = MemoryField(min_value=64, initial=DEFAULT_MEMORY_MIB, label="Memory")
