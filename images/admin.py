"""Images, root file systems and kernels in the admin."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from images import providers, services
from images.models import Image, Kernel, Provider, Rootfs, VmmRelease
from nexus_site.core.admin import ReadOnlyAdmin
from nexus_site.core.errors import NexusError


@admin.register(Image)
class ImageAdmin(ReadOnlyAdmin):
    list_display = (
        "name",
        "letters",
        "os_name",
        "arch",
        "agent_version",
        "used_bytes",
        "created_at",
    )
    list_filter = ("arch", "agent_version")
    search_fields = ("name", "os_name")
    search_ids = ("pk", "rootfs_id")
    actions = ("delete_images",)

    @admin.action(description="Delete selected images", permissions=["operate"])
    def delete_images(self, request: HttpRequest, rows: QuerySet[Image]) -> HttpResponse | None:
        if page := self.confirm(request, rows, "delete_images", "Delete these images?"):
            return page
        self.call_for_each(request, rows, services.delete_image, "Deleting")
        return None


@admin.register(Rootfs)
class RootfsAdmin(ReadOnlyAdmin):
    list_display = ("__str__", "letters", "arch", "provider", "format", "size_bytes", "created_at")
    list_filter = ("distro", "arch", "provider")
    search_fields = ("distro", "version", "filename")


@admin.register(Kernel)
class KernelAdmin(ReadOnlyAdmin):
    list_display = ("name", "letters", "version", "arch", "provider", "is_default", "size_bytes")
    list_filter = ("arch", "provider", "is_default")
    search_fields = ("name", "version")


@admin.register(VmmRelease)
class VmmReleaseAdmin(ReadOnlyAdmin):
    list_display = ("__str__", "letters", "arch", "is_default", "provider", "created_at")
    list_filter = ("arch", "provider", "is_default")
    search_fields = ("version", "source")
    actions = ("use", "remove_releases")

    @admin.action(description="Start VMs with the selected release", permissions=["operate"])
    def use(self, request: HttpRequest, rows: QuerySet[VmmRelease]) -> None:
        self.call_for_each(request, rows, services.use_release, "Used from now on:")

    @admin.action(description="Remove selected releases", permissions=["operate"])
    def remove_releases(
        self, request: HttpRequest, rows: QuerySet[VmmRelease]
    ) -> HttpResponse | None:
        question = "Remove these releases?"
        if page := self.confirm(request, rows, "remove_releases", question):
            return page
        self.call_for_each(request, rows, services.remove_release, "Removed")
        return None


class ProviderForm(forms.ModelForm):  # type: ignore[type-arg]  # not generic at run time
    """A provider's row; what its type says about the configuration is said at the field."""

    class Meta:
        model = Provider
        fields = ("name", "type", "config", "enabled", "position")

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean() or self.cleaned_data
        type_name = cleaned.get("type") or self.instance.type
        if type_name and isinstance(config := cleaned.get("config") or {}, dict):
            try:
                cleaned["config"] = providers.provider_type(type_name).check(config)
            except NexusError as error:
                self.add_error("config", f"{error.text} {error.hint}".strip())
        return cleaned


@admin.register(Provider)
class ProviderAdmin(ReadOnlyAdmin):
    """The one model that is edited here, by the services that page and API use as well."""

    form = ProviderForm
    list_display = ("name", "letters", "type", "enabled", "position", "problem", "refreshed_at")
    list_filter = ("type", "enabled")
    search_fields = ("name", "type")
    actions = ("refresh", "delete_providers")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.has_operate_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_operate_permission(request)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return [*ProviderForm.Meta.fields, *self._looked_at(obj)]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        if not self.has_change_permission(request, obj):
            return self.get_fields(request, obj)
        return ["type", *self._looked_at(obj)] if obj else []

    def save_model(self, request: HttpRequest, obj: Provider, form: Any, change: bool) -> None:
        values = {name: getattr(obj, name) for name in ProviderForm.Meta.fields}
        if change:
            values.pop("type")
            services.update_provider(Provider.objects.get(pk=obj.pk), **values)
        else:
            obj.pk = services.create_provider(**values).pk

    @admin.action(description="Ask the publishers of selected", permissions=["operate"])
    def refresh(self, request: HttpRequest, rows: QuerySet[Provider]) -> None:
        self.call_for_each(request, rows, services.refresh_provider, "Asking")

    @admin.action(description="Delete selected providers", permissions=["operate"])
    def delete_providers(
        self, request: HttpRequest, rows: QuerySet[Provider]
    ) -> HttpResponse | None:
        question = "Delete these providers? What came from them stays."
        if page := self.confirm(request, rows, "delete_providers", question):
            return page
        self.call_for_each(request, rows, services.delete_provider, "Deleted")
        return None

    def _looked_at(self, obj: Any) -> list[Any]:
        """What nobody edits: shown for a provider that is there."""
        edited = ProviderForm.Meta.fields
        return [field for field in self._shown if field not in edited] if obj else []
