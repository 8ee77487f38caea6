"""What people fill in about images, root file systems and providers."""

from __future__ import annotations

from typing import Any

from django import forms

from images.models import Provider
from images.providers import releases
from images.providers.base import Field, ProviderType
from images.providers.kernels import open_kernel_providers
from nexus_site.core.errors import NexusError
from nexus_site.core.forms import ServiceForm
from nexus_site.core.ids import NAME_RULE

_PLAIN = {"autocomplete": "off", "spellcheck": "false"}


class RenameImageForm(ServiceForm):
    name = forms.CharField(
        max_length=63, label="New name", help_text=NAME_RULE, widget=forms.TextInput(attrs=_PLAIN)
    )


class ImportRootfsForm(ServiceForm):
    """A root file system from a file of one's own."""

    code_fields = ServiceForm.code_fields | {
        "checksum": "sha256",
        "upload-empty": "file",
        "rootfs-exists": "version",
        "rootfs-name": "distro",
    }

    file = forms.FileField(
        label="File",
        max_length=200,
        help_text="A tar archive, a container image in one tar, an ext4 or qcow2 disk image.",
    )
    distro = forms.CharField(
        max_length=40,
        label="Distribution",
        help_text="Such as “alpine”.",
        widget=forms.TextInput(attrs=_PLAIN),
    )
    version = forms.CharField(
        max_length=40,
        label="Version",
        help_text="Such as “3.23”.",
        widget=forms.TextInput(attrs=_PLAIN),
    )
    sha256 = forms.RegexField(
        r"\A[0-9a-fA-F]{64}\Z",
        required=False,
        label="SHA-256",
        help_text="Given, the file is refused unless it has this checksum.",
        error_messages={"invalid": "A SHA-256 has 64 hexadecimal digits."},
        widget=forms.TextInput(attrs=_PLAIN),
    )


class DownloadReleaseForm(ServiceForm):
    """A release of Firecracker to bring here."""

    code_fields = ServiceForm.code_fields | {"release-version": "version", "release-path": "path"}

    provider = forms.ChoiceField(
        label="From",
        choices=[(provider.name, provider.label) for provider in releases.open_providers()],
    )
    version = forms.CharField(
        required=False,
        max_length=40,
        label="Version",
        help_text="Such as “1.12.1”. Empty: the newest.",
        widget=forms.TextInput(attrs=_PLAIN),
    )
    path = forms.CharField(
        required=False,
        max_length=4000,
        label="Path on the server",
        help_text="Of firecracker or its directory; for the package, of a file to take instead.",
        widget=forms.TextInput(attrs=_PLAIN | {"placeholder": "/usr/local/bin"}),
    )


class DownloadKernelForm(ServiceForm):
    """A kernel to bring here."""

    code_fields = ServiceForm.code_fields | {
        "kernel-version": "version",
        "kernel-path": "path",
        "kernel-releases": "provider",
    }

    provider = forms.ChoiceField(
        label="From",
        initial="distro",
        choices=[(provider.name, provider.label) for provider in open_kernel_providers()],
    )
    version = forms.CharField(
        required=False,
        max_length=60,
        label="Version",
        help_text="Such as “6.12.58”. Empty: the newest.",
        widget=forms.TextInput(attrs=_PLAIN),
    )
    path = forms.CharField(
        required=False,
        max_length=4000,
        label="Path on the server",
        help_text="Of a kernel or its directory; for Debian, of a package to take instead.",
        widget=forms.TextInput(attrs=_PLAIN | {"placeholder": "/boot/vmlinuz-VERSION"}),
    )


class ProviderForm(ServiceForm):
    """A provider: its name and place, and the fields that its type has."""

    code_fields = ServiceForm.code_fields | {"position": "position", "name-reserved": "name"}

    name = forms.CharField(
        max_length=40, label="Name", help_text=NAME_RULE, widget=forms.TextInput(attrs=_PLAIN)
    )
    position = forms.IntegerField(
        min_value=0,
        max_value=32767,
        initial=100,
        label="Position",
        help_text="Of several that have a distribution, the lowest is asked.",
    )
    enabled = forms.BooleanField(required=False, initial=True, label="Enabled")

    def __init__(
        self, *args: Any, type_: ProviderType, provider: Provider | None = None, **kwargs: Any
    ) -> None:
        if provider is not None:
            config = {f"config.{name}": value for name, value in provider.config.items()}
            kwargs["initial"] = config | {
                "name": provider.name,
                "position": provider.position,
                "enabled": provider.enabled,
            }
        super().__init__(*args, **kwargs)
        self.type = type_
        self.fields |= {f"config.{field.name}": _form_field(field) for field in type_.fields}

    @property
    def config_fields(self) -> list[forms.BoundField]:
        """The fields of the type's configuration."""
        return [self[name] for name in self.fields if name.startswith("config.")]

    def arguments(self) -> dict[str, Any]:
        """The arguments of ``create_provider`` and ``update_provider``."""
        data = self.cleaned_data
        config = {field.name: data[f"config.{field.name}"] for field in self.type.fields}
        return {name: data[name] for name in ("name", "position", "enabled")} | {"config": config}

    def refuse(self, error: NexusError) -> None:
        """What is wrong in the configuration is told at each field that it names."""
        told = False
        for found in error.extra.get("errors", []):
            if found["field"] in self.fields:
                self.add_error(found["field"], f"{found['message']} {error.hint}".strip())
                told = True
        if not told:
            super().refuse(error)


def _form_field(field: Field) -> forms.Field:
    """A text field; whether the text will do is for the type to say."""
    area = forms.Textarea(attrs=_PLAIN | {"rows": 5, "class": "mono"})
    line = forms.TextInput(attrs=_PLAIN | {"placeholder": field.default})
    return forms.CharField(
        required=field.required,
        label=field.label,
        help_text=field.help,
        widget=area if field.multiline else line,
    )
