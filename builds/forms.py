"""What people fill in about templates and builds."""

from __future__ import annotations

from typing import Any

from django import forms

from images.models import Rootfs
from nexus_site.core.forms import ServiceForm


class NewTemplateForm(ServiceForm):
    rootfs = forms.ModelChoiceField(
        Rootfs.objects.all(),
        label="Distribution",
        empty_label=None,
        help_text="One that is kept here; fetch others under Distributions.",
    )
    name = forms.CharField(
        required=False, max_length=63, label="Name", help_text="Left empty, Nexus chooses one."
    )
    description = forms.CharField(required=False, max_length=200, label="Description")

    def arguments(self) -> dict[str, Any]:
        """The arguments of ``create_template``."""
        return dict(self.cleaned_data)
