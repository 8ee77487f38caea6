"""What people fill in about templates. The rules are the services'; forms give types."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, get_args

from django import forms
from django.http import QueryDict

from builds.models import Template, TemplateVersion
from builds.recipe import MAX_SIZE_MIB, MIN_SIZE_MIB, Init, Overlay, parse
from builds.template_yaml import TemplateDocument, load
from images.models import Rootfs
from nexus_site.core.errors import NexusError
from nexus_site.core.forms import ServiceForm

INIT_LABELS = {
    "auto": "Whatever the distribution has",
    "systemd": "systemd",
    "openrc": "OpenRC",
    "busybox": "BusyBox",
    "none": "None: the agent alone",
}
MAX_ROWS = 150  # overlays and commands that the form can hold; YAML holds more


def _textarea(rows: int, **attributes: str) -> forms.Textarea:
    plain = {"rows": str(rows), "spellcheck": "false", "autocapitalize": "off"}
    return forms.Textarea(attrs=plain | attributes)


class Lines(forms.CharField):
    """Text as it was typed, with line ends as Unix has them."""

    def __init__(
        self,
        rows: int = 2,
        *,
        label: str,
        help_text: str = "",
        required: bool = False,
        **attributes: str,
    ) -> None:
        super().__init__(
            required=required,
            strip=False,
            label=label,
            help_text=help_text,
            widget=_textarea(rows, **attributes),
        )

    def to_python(self, value: Any) -> str:
        return str(super().to_python(value)).replace("\r\n", "\n")


class TemplateForm(ServiceForm):
    """All of a template but its overlays and commands."""

    code_fields = ServiceForm.code_fields | {
        "name-reserved": "name",
        "description": "description",
    }

    name = forms.CharField(
        required=False,
        max_length=63,
        label="Name",
        help_text="Left empty, Nexus chooses one.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )
    description = forms.CharField(required=False, max_length=200, label="Description")
    rootfs = forms.ModelChoiceField(
        Rootfs.objects.all(),
        label="Distribution",
        empty_label=None,
        help_text="One that is kept here; fetch others under Distributions.",
    )
    init = forms.ChoiceField(
        required=False,
        label="Init",
        choices=[(name, INIT_LABELS[name]) for name in get_args(Init)],
    )
    size_mib = forms.IntegerField(
        required=False, min_value=MIN_SIZE_MIB, max_value=MAX_SIZE_MIB, label="Size of the image"
    )
    packages = Lines(3, label="Packages", help_text="One a line, as apk or apt call them.")
    env = Lines(
        3, label="Environment", help_text="NAME=value, one a line.", placeholder="TZ=Europe/Berlin"
    )
    expected_version = forms.IntegerField(required=False, widget=forms.HiddenInput)

    def clean_packages(self) -> list[str]:
        return [line.strip() for line in self.cleaned_data["packages"].split("\n") if line.strip()]

    def clean_env(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for number, line in enumerate(self.cleaned_data["env"].split("\n"), 1):
            name, equals, value = line.partition("=")
            if not line.strip():
                continue
            if not equals:
                raise forms.ValidationError(f"Line {number}: there is no = in it.")
            if name.strip() in found:
                raise forms.ValidationError(f"Line {number}: {name.strip()} is there twice.")
            found[name.strip()] = value
        return found


class OverlayForm(forms.Form):
    """One file; ``encoding`` says what its content is written in."""

    path = forms.CharField(
        max_length=4096,
        label="Path",
        widget=forms.TextInput(attrs={"placeholder": "/etc/motd", "spellcheck": "false"}),
    )
    mode = forms.CharField(initial="0644", max_length=4, label="Mode")
    owner = forms.CharField(initial="0:0", max_length=21, label="Owner")
    encoding = forms.ChoiceField(
        initial="text", choices=[("text", "Text"), ("base64", "Base64")], label="Content is"
    )
    content = Lines(4, label="Content")

    def overlay(self) -> dict[str, str]:
        """As recipes have it."""
        data = self.cleaned_data
        name = "content" if data["encoding"] == "text" else "content_base64"
        values = {key: data[key] for key in ("path", "mode", "owner")}
        return values | {name: data["content"]}

    @staticmethod
    def values_of(overlay: Overlay) -> dict[str, str]:
        """What the fields show; what a text field would change is shown as base64."""
        text = overlay.content
        if not overlay.content_base64 and not re.search(r"[\0\r]", text):
            shown = {"encoding": "text", "content": text}
        else:
            shown = {"encoding": "base64", "content": overlay.as_base64()}
        return {"path": overlay.path, "mode": overlay.mode, "owner": overlay.owner} | shown


class CommandForm(forms.Form):
    command = Lines(1, label="Command")


_LISTS: dict[str, type[forms.Form]] = {"overlays": OverlayForm, "commands": CommandForm}
_PLACE = re.compile(r"(?P<field>\w+)(?:\[(?P<number>\d+)\])?(?:\.(?P<part>\w+))?")


class TemplateEditor:
    """The form of a template with its rows of overlays and commands.

    ``asked`` is a button beside a row: ``add-overlays``, ``remove-commands-2``; rows are then
    shown as they were typed, and nothing is checked.
    """

    def __init__(
        self,
        data: QueryDict | None = None,
        *,
        values: Mapping[str, Any] | None = None,
        asked: str = "",
    ) -> None:
        if data is not None and asked:
            values, data = _as_typed(data, asked), None
        shown = dict(values or {})
        rows = {name: shown.pop(name, []) for name in _LISTS}
        self.form = TemplateForm(data, initial=shown)
        self.overlays = _rows("overlays", data, rows["overlays"])
        self.commands = _rows("commands", data, rows["commands"])
        self.is_bound = data is not None
        added = asked.removeprefix("add-")
        if added != asked and added in _LISTS:
            self._focus(getattr(self, added))

    @classmethod
    def of(cls, template: Template, version: TemplateVersion) -> TemplateEditor:
        return cls(values=values_of(template, version))

    def is_valid(self) -> bool:
        """Whether every field is fine and all make a recipe; errors are at their fields."""
        fine = [part.is_valid() for part in (self.form, self.overlays, self.commands)]
        if not all(fine):
            return False
        try:
            self.recipe = parse(self._document())
        except NexusError as error:
            self.refuse(error)
        return not any(part.errors for part in self._forms())

    def arguments(self) -> dict[str, Any]:
        """The arguments of the services, but for ``name`` where it is not asked for."""
        data = self.form.cleaned_data
        names = ("name", "description", "rootfs", "expected_version")
        return {name: data[name] for name in names} | {"recipe": self.recipe}

    def refuse(self, error: NexusError) -> None:
        """Show ``error`` at the fields that it is about."""
        places = error.extra.get("errors", [])
        if not places:
            self.form.refuse(error)
        for place in places:
            self._add_error(place["field"], place["message"])

    def _document(self) -> dict[str, Any]:
        data = self.form.cleaned_data
        commands = [form.cleaned_data.get("command", "") for form in self.commands]
        self._kept = {
            "overlays": [form for form in self.overlays if form.has_changed()],
            "commands": [
                form
                for form, command in zip(self.commands, commands, strict=True)
                if command.strip()
            ],
        }
        return {
            "packages": data["packages"],
            "env": data["env"],
            "init": data["init"] or "auto",
            "size_mib": data["size_mib"],
            "overlays": [form.overlay() for form in self._kept["overlays"]],
            "commands": [command for command in commands if command.strip()],
        }

    def _add_error(self, place: str, message: str) -> None:
        found = _PLACE.match(place)
        field = found["field"] if found else ""
        if found and field in _LISTS and found["number"]:
            form = self._kept[field][int(found["number"]) - 1]
            part = found["part"] or "content" if field == "overlays" else "command"
            form.add_error(part if part in form.fields else "content", message)
        else:
            self.form.add_error(field if field in self.form.fields else None, message)

    @staticmethod
    def _focus(rows: Any) -> None:
        """Let the typing go on in the row that was added."""
        if rows.forms:
            next(iter(rows.forms[-1].fields.values())).widget.attrs["autofocus"] = True

    def _forms(self) -> list[forms.Form]:
        return [self.form, *self.overlays, *self.commands]


class YamlForm(ServiceForm):
    """A template as a document."""

    text = Lines(28, label="Template as YAML", required=True, wrap="off")
    expected_version = forms.IntegerField(required=False, widget=forms.HiddenInput)

    document: TemplateDocument

    def clean_text(self) -> str:
        text: str = self.cleaned_data["text"]
        try:
            self.document = load(text)
        except NexusError as error:
            raise forms.ValidationError(error.detail.splitlines() or [error.text]) from error
        return text


def values_of(template: Template, version: TemplateVersion) -> dict[str, Any]:
    """What the editor shows of a version."""
    recipe = version.parsed
    return {
        "description": template.description,
        "rootfs": version.rootfs_id,
        "init": recipe.init,
        "size_mib": recipe.size_mib,
        "packages": "\n".join(recipe.packages),
        "env": "\n".join(f"{name}={value}" for name, value in recipe.env.items()),
        "overlays": [OverlayForm.values_of(overlay) for overlay in recipe.overlays],
        "commands": [{"command": command} for command in recipe.commands],
        "expected_version": version.number,
    }


def too_large(version: TemplateVersion) -> bool:
    """Whether a recipe has more rows than the form can hold."""
    return (
        len(version.recipe.get("overlays", [])) + len(version.recipe.get("commands", [])) > MAX_ROWS
    )


def _rows(name: str, data: QueryDict | None, initial: list[Any]) -> Any:
    """The formset of a list."""
    factory = forms.formset_factory(
        _LISTS[name], extra=0, max_num=MAX_ROWS, absolute_max=MAX_ROWS, validate_max=True
    )
    if data is None:
        return factory(initial=initial, prefix=name)
    sent = data.copy()
    sent[f"{name}-TOTAL_FORMS"] = str(_count(data, name))
    sent[f"{name}-INITIAL_FORMS"] = "0"  # so that a row may be left empty
    return factory(sent, prefix=name)


def _count(data: QueryDict, name: str) -> int:
    """How many rows of a list were sent."""
    total = data.get(f"{name}-TOTAL_FORMS", "")
    return min(int(total), MAX_ROWS) if total.isdecimal() and len(total) < 9 else 0


def _as_typed(data: QueryDict, asked: str) -> dict[str, Any]:
    """The form's content with a row more or less."""
    values: dict[str, Any] = {name: data.get(name, "") for name in TemplateForm.base_fields}
    for name, form in _LISTS.items():
        values[name] = [
            {field: data.get(f"{name}-{row}-{field}", "") for field in form.base_fields}
            for row in range(_count(data, name))
        ]
    verb, _, what = asked.partition("-")
    name, _, row = what.partition("-")
    if verb == "add" and name in _LISTS and len(values[name]) < MAX_ROWS:
        values[name].append({})
    if verb == "remove" and name in _LISTS and row.isdecimal() and int(row) < len(values[name]):
        del values[name][int(row)]
    return values
