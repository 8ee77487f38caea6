"""What people fill in about drives."""

from __future__ import annotations

from typing import Any

from django import forms

from images.models import Image
from nexus_site.core.forms import ServiceForm


class NewDriveForm(ServiceForm):
    """A drive from an image."""

    code_fields = ServiceForm.code_fields | {"drive-too-small": "size_mib"}

    image = forms.ModelChoiceField(Image.objects.order_by("name"), label="Image", empty_label=None)
    name = forms.CharField(
        required=False, max_length=63, label="Name", help_text="Left empty, Nexus chooses one."
    )
    size_mib = forms.IntegerField(
        required=False, min_value=64, label="Size", help_text="Left empty, the image's size."
    )

    def arguments(self) -> dict[str, Any]:
        """The arguments of ``create_drive`` beside the image."""
        return {"name": self.cleaned_data["name"], "size_mib": self.cleaned_data["size_mib"]}
