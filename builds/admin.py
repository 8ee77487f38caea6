"""Templates and builds in the admin."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from builds import queries, services
from builds.forms import Lines
from builds.models import Build, KernelBuild, Template, TemplateVersion
from builds.template_yaml import TemplateDocument, dump, load
from images.models import Rootfs
from nexus_site.core.admin import ReadOnlyAdmin
from nexus_site.core.errors import NexusError
from nexus_site.core.operations import rehearse


class DocumentForm(forms.ModelForm):  # type: ignore[type-arg]  # not generic at run time
    """A template as YAML; what a service objects to is said at the field."""

    document = Lines(24, label="YAML", required=True, cols="100", wrap="off")
    expected_version = forms.IntegerField(required=False, widget=forms.HiddenInput, label="")

    class Meta:
        model = Template
        fields = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.is_new = self.instance._state.adding
        if not self.is_new:
            current = self.instance.current
            self.initial["document"] = dump(self.instance, current, header=False)
            self.initial["expected_version"] = current.number

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean() or self.cleaned_data
        if "document" in cleaned:
            try:
                self.parsed = load(cleaned["document"])
                rehearse(self.apply)
            except NexusError as error:
                lines = error.detail.splitlines() if "line" in error.extra else []
                self.add_error("document", lines or f"{error.text} {error.hint}".strip())
        return cleaned

    def apply(self) -> Template:
        """Have it made, or made anew."""
        document: TemplateDocument = self.parsed
        if self.is_new:
            return services.import_template(document)
        template = Template.objects.get(pk=self.instance.pk)
        expected = self.cleaned_data["expected_version"]
        return services.edit_template(template, document, expected_version=expected)


@admin.register(Template)
class TemplateAdmin(ReadOnlyAdmin):
    """Edited as YAML, by the services that page and API use as well."""

    form = DocumentForm
    list_display = ("name", "letters", "version", "distribution", "description", "created_at")
    list_filter = ("versions__rootfs__distro", "created_at")
    search_fields = ("name", "description")
    search_ids = ("pk", "versions__pk")
    actions = ("build", "copy", "delete_templates")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Template]:
        return queries.template_list()

    @admin.display
    def version(self, template: Template) -> int:
        return template.current.number

    @admin.display
    def distribution(self, template: Template) -> Rootfs:
        return template.current.rootfs

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.has_operate_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_operate_permission(request)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        edited = ["document", "expected_version"]
        shown = [*self._shown, "version", "distribution"] if obj else []
        return [*(edited if self.has_change_permission(request, obj) else []), *shown]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return [*self._shown, "version", "distribution"]

    def save_model(self, request: HttpRequest, obj: Template, form: Any, change: bool) -> None:
        made = form.apply()
        obj.pk, obj.name = made.pk, made.name

    @admin.action(description="Build an image from selected templates", permissions=["operate"])
    def build(self, request: HttpRequest, rows: QuerySet[Template]) -> None:
        self.call_for_each(request, rows, services.trigger_build, "Building")

    @admin.action(description="Copy selected templates", permissions=["operate"])
    def copy(self, request: HttpRequest, rows: QuerySet[Template]) -> None:
        self.call_for_each(request, rows, services.copy_template, "Copied")

    @admin.action(description="Delete selected templates", permissions=["operate"])
    def delete_templates(
        self, request: HttpRequest, rows: QuerySet[Template]
    ) -> HttpResponse | None:
        if page := self.confirm(request, rows, "delete_templates", "Delete these templates?"):
            return page
        self.call_for_each(request, rows, services.delete_template, "Deleted")
        return None


@admin.register(TemplateVersion)
class TemplateVersionAdmin(ReadOnlyAdmin):
    list_display = ("__str__", "letters", "rootfs", "created_at")
    list_filter = ("rootfs__distro", "created_at")
    list_select_related = ("template", "rootfs")
    search_fields = ("template__name",)
    search_ids = ("pk", "template_id", "rootfs_id")
    hidden = ("recipe",)
    actions = ("revert",)

    @admin.display(description="YAML")
    def document(self, version: TemplateVersion) -> SafeString:
        return format_html("<pre>{}</pre>", dump(version.template, version, header=False))

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return [*self._shown, "document"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return [*self._shown, "document"]

    @admin.action(description="Make selected versions current again", permissions=["operate"])
    def revert(self, request: HttpRequest, rows: QuerySet[TemplateVersion]) -> None:
        self.call_for_each(request, rows, _revert, "Current again")


def _revert(version: TemplateVersion) -> Template:
    return services.revert_template(version.template, version.number)


@admin.register(Build)
class BuildAdmin(ReadOnlyAdmin):
    list_display = ("letters", "image_name", "state", "template_version", "created_at", "ended_at")
    list_filter = ("state",)
    list_select_related = ("template_version__template",)
    search_fields = ("image_name", "template_version__template__name")
    search_ids = ("pk", "operation_id", "image_id")


@admin.register(KernelBuild)
class KernelBuildAdmin(ReadOnlyAdmin):
    list_display = ("letters", "version", "fragment", "state", "kernel", "created_at", "ended_at")
    list_filter = ("state", "fragment")
    list_select_related = ("kernel",)
    search_fields = ("version", "source")
    search_ids = ("pk", "operation_id", "kernel_id")
    hidden = ("fragment_text",)
