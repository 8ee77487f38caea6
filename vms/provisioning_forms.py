"""What people fill in about what a VM is given. The rules are the services'."""

from __future__ import annotations

from typing import Any, ClassVar

from django import forms

from nexus_site.core.errors import Invalid
from nexus_site.core.forms import ServiceForm
from vms.models import Provisioning
from vms.provisioning_rules import mode_of
from vms.services.provisioning import Changes, GivenFile

_PLAIN = {"autocomplete": "off", "autocapitalize": "off", "spellcheck": "false"}


def _lines(rows: int, placeholder: str) -> forms.Textarea:
    return forms.Textarea(attrs=_PLAIN | {"rows": rows, "placeholder": placeholder, "wrap": "off"})


class ProvisioningForm(ServiceForm):
    """All but secrets and files."""

    code_fields: ClassVar[dict[str, str]] = {
        "bad-variable": "env",
        "settings-too-large": "env",
        "bad-hosts": "hosts",
        "bad-dns": "dns",
        "bad-script": "script",
        "script-too-large": "script",
    }

    env = forms.CharField(
        required=False,
        label="Variables",
        widget=_lines(3, "COLOUR=blue"),
        help_text="NAME=VALUE, one a line. Login shells and programs have them.",
    )
    hosts = forms.CharField(
        required=False,
        label="Hosts",
        widget=_lines(2, "10.0.2.2 db.example"),
        help_text="An address and its names, as in /etc/hosts.",
    )
    dns = forms.CharField(
        required=False,
        label="Name servers",
        widget=forms.TextInput(attrs=_PLAIN | {"placeholder": "9.9.9.9"}),
        help_text="Left empty, the host's.",
    )
    script = forms.CharField(
        required=False,
        strip=False,
        label="First-boot script",
        widget=_lines(8, "#!/bin/sh\napk add nginx"),
        help_text="Run as root, once for each root drive, when the guest's services have started.",
    )
    on_failure = forms.ChoiceField(label="If it fails", choices=Provisioning.OnFailure.choices)

    @classmethod
    def of(cls, row: Provisioning, data: Any = None) -> ProvisioningForm:
        """The form with what there is."""
        initial = {
            "env": "\n".join(f"{name}={value}" for name, value in row.env.items()),
            "hosts": "\n".join(f"{address} {name}" for name, address in row.hosts.items()),
            "dns": " ".join(row.dns),
            "script": row.script,
            "on_failure": row.on_failure,
        }
        return cls(data, initial=initial, auto_id="provisioning_%s")

    def changes(self, row: Provisioning) -> Changes:
        """What makes of ``row`` what the form says. Raises ``Invalid`` for a line that is none."""
        given = self.cleaned_data
        env: dict[str, str] = {}
        hosts: dict[str, str] = {}
        for line in given["env"].splitlines():
            name, sign, value = line.partition("=")
            if not sign and line.strip():
                raise Invalid(f"“{line[:80]}” is no NAME=VALUE.", code="bad-variable")
            if sign:
                env[name.strip()] = value
        for line in given["hosts"].splitlines():
            address, *names = line.split() or [""]
            if address and not names:
                raise Invalid(f"“{line[:80]}” is no address with a name.", code="bad-hosts")
            hosts |= dict.fromkeys(names, address)
        return Changes(
            env=dict.fromkeys(row.env) | env,
            hosts=dict.fromkeys(row.hosts) | hosts,
            dns=given["dns"].replace(",", " ").split(),
            script=given["script"].replace("\r\n", "\n"),
            on_failure=given["on_failure"],
        )


class SecretForm(ServiceForm):
    """A secret variable. Its value is not shown again, not even where something else is wrong."""

    code_fields: ClassVar[dict[str, str]] = {"bad-variable": "name"}

    name = forms.CharField(
        max_length=200,
        label="Name",
        widget=forms.TextInput(attrs=_PLAIN | {"placeholder": "TOKEN"}),
    )
    value = forms.CharField(
        strip=False,
        label="Value",
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        help_text="It is kept encrypted, and is not shown again.",
    )


class GivenFileForm(ServiceForm):
    code_fields: ClassVar[dict[str, str]] = {
        "bad-path": "path",
        "bad-mode": "mode",
        "bad-user": "user",
        "file-too-large": "file",
        "files-too-large": "file",
        "too-many-files": "file",
    }

    file = forms.FileField(
        label="File", max_length=200, allow_empty_file=True, help_text="At most 1 MiB."
    )
    path = forms.CharField(
        max_length=1000,
        label="Path in the guest",
        widget=forms.TextInput(attrs=_PLAIN | {"placeholder": "/etc/app.conf"}),
        help_text="What is there is replaced at every start.",
    )
    mode = forms.CharField(
        required=False,
        max_length=5,
        label="Mode",
        widget=forms.TextInput(attrs=_PLAIN | {"placeholder": "0644"}),
        help_text="Left empty, 0644; a secret file's 0600.",
    )
    user = forms.CharField(
        required=False,
        max_length=100,
        label="Owner",
        widget=forms.TextInput(attrs=_PLAIN | {"placeholder": "root"}),
        help_text="name, uid or name:group.",
    )
    secret = forms.BooleanField(required=False, label="Secret: kept encrypted, never shown again")

    def given(self) -> GivenFile:
        """Raises ``Invalid`` for a mode that is none."""
        data = self.cleaned_data
        bits = mode_of(data["mode"]) if data["mode"] else (0o600 if data["secret"] else 0o644)
        return GivenFile(data["path"], data["file"].read(), bits, data["user"], data["secret"])
