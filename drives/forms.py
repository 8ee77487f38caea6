"""What people fill in about drives and snapshots."""

from __future__ import annotations

from typing import Any

from django import forms

from nexus_site.core.forms import ServiceForm
from nexus_site.core.ids import NAME_RULE

PLAIN = {"autocomplete": "off", "spellcheck": "false"}
MIB = 1024 * 1024


class SizeField(forms.IntegerField):
    """A size in MiB."""

    unit = "MiB"

    def __init__(self, **options: Any) -> None:
        super().__init__(min_value=1, max_value=64 << 20, **options)


class RenameForm(ServiceForm):
    name = forms.CharField(
        max_length=63, label="New name", help_text=NAME_RULE, widget=forms.TextInput(attrs=PLAIN)
    )


class NewNameForm(ServiceForm):
    name = forms.CharField(
        required=False,
        max_length=63,
        label="Name",
        help_text="Left empty, Nexus chooses one.",
        widget=forms.TextInput(attrs=PLAIN),
    )


class ResizeDriveForm(ServiceForm):
    code_fields = {"drive-too-small": "size_mib", "drive-too-big": "size_mib"}

    size_mib = SizeField(label="New size", help_text="It can only grow.")


class ImportDriveForm(NewNameForm):
    """A drive from a file of one's own."""

    code_fields = ServiceForm.code_fields | {
        "checksum": "sha256",
        "upload-empty": "file",
        "drive-too-small": "size_mib",
    }

    file = forms.FileField(
        label="File",
        max_length=200,
        allow_empty_file=False,
        help_text="What Export gives (.tar.zst), or a raw or qcow2 disk; compressed ones too.",
    )
    sha256 = forms.RegexField(
        r"\A[0-9a-fA-F]{64}\Z",
        required=False,
        label="SHA-256",
        help_text="Given, the file is refused unless it has this checksum.",
        error_messages={"invalid": "A SHA-256 has 64 hexadecimal digits."},
        widget=forms.TextInput(attrs=PLAIN),
    )
    size_mib = SizeField(
        required=False, label="Size", help_text="Left empty, as large as what is imported."
    )
    field_order = ["file", "name", "size_mib", "sha256"]
