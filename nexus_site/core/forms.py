"""Forms give types; the rules are the services'. What a service objects to is shown in the form."""

from __future__ import annotations

from typing import ClassVar

from django import forms

from nexus_site.core.errors import NexusError


class ServiceForm(forms.Form):
    """A form whose data goes to a service."""

    #: The field that an error is about, by the error's code.
    code_fields: ClassVar[dict[str, str]] = {
        "name-taken": "name",
        "name-rule": "name",
        "name-is-id": "name",
    }

    def refuse(self, error: NexusError) -> None:
        """Show ``error`` at its field, or above the form when it is about none."""
        field = self.code_fields.get(error.code)
        self.add_error(
            field if field in self.fields else None, f"{error.text} {error.hint}".strip()
        )
