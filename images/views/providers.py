"""The pages of providers: where root file systems come from."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from images import services
from images.forms import ProviderForm
from images.models import Provider
from images.providers import TYPES, open_provider
from images.providers.base import ProviderType
from nexus_site.core.errors import NexusError
from nexus_site.core.htmx import Request, go_to, page, render_page, toast
from nexus_site.core.ids import resolve
from nexus_site.core.models import Operation

FORM = "images/_provider_form.html"


@require_safe
@page()
def provider_list(request: Request) -> HttpResponse:
    """All providers in the order in which they are asked."""
    rows = [
        {
            "provider": provider,
            "type": TYPES.get(provider.type),
            "offers": services.offers_of(provider),
        }
        for provider in Provider.objects.all()
    ]
    context = {"area": "rootfs", "rows": rows}
    fragments = ("images/_providers.html",)
    return render_page(request, "images/providers.html", context, fragments=fragments)


@require_http_methods(["GET", "POST"])
@page("operate")
def new_provider(request: Request) -> HttpResponse:
    """A provider of the type in ``?type=``."""
    type_ = _type(request.GET.get("type", ""))
    form = ProviderForm(request.POST or None, type_=type_)
    if request.method == "POST" and form.is_valid():
        try:
            provider = services.create_provider(type=type_.name, **form.arguments())
        except NexusError as error:
            form.refuse(error)
        else:
            text = f"{provider.name} is there. Ask it for what it offers."
            return go_to(request, reverse("images:provider", args=[provider.ref]), text)
    context = {"form": form, "action": f"{request.path}?type={type_.name}", "tabs": _tabs(type_)}
    return _show_form(request, "images/new_provider.html", context, form)


@require_http_methods(["GET", "POST"])
@page()
def edit_provider(request: Request, ref: str) -> HttpResponse:
    """One provider: what it offers, what the last question brought, its configuration."""
    provider = resolve(Provider.objects.all(), ref)
    form = ProviderForm(request.POST or None, type_=_type_of(provider), provider=provider)
    if request.method == "POST" and form.is_valid():
        try:
            services.update_provider(provider, **form.arguments())
        except NexusError as error:
            form.refuse(error)
            provider.refresh_from_db()
        else:
            address = reverse("images:provider", args=[provider.ref])
            return go_to(request, address, f"{provider.name} is saved.")
    context = {
        "form": form,
        "action": request.path,
        "provider": provider,
        "offers": services.offers_of(provider),
        "asking": _asking(provider),
    }
    return _show_form(request, "images/provider.html", context, form)


def _show_form(
    request: Request, template: str, context: dict[str, Any], form: ProviderForm
) -> HttpResponse:
    return render_page(
        request,
        template,
        {"area": "rootfs"} | context,
        fragments=(FORM, "images/_provider.html"),
        status=422 if form.is_bound else 200,
    )


@require_POST
@page()
def enable_provider(request: Request, ref: str) -> HttpResponse:
    """Takes ``enabled``: empty to disable."""
    provider = resolve(Provider.objects.all(), ref)
    enabled = bool(request.POST.get("enabled"))
    services.update_provider(provider, enabled=enabled)
    return toast(request, f"{provider.name} is {'enabled' if enabled else 'disabled'}.")


@require_POST
@page()
def refresh_provider(request: Request, ref: str) -> HttpResponse:
    operation = services.refresh_provider(resolve(Provider.objects.all(), ref))
    return toast(request, operation.title, operation=operation)


@require_POST
@page()
def delete_provider(request: Request, ref: str) -> HttpResponse:
    provider = resolve(Provider.objects.all(), ref)
    services.delete_provider(provider)
    return go_to(request, reverse("images:providers"), f"{provider.name} is deleted.")


def _asking(provider: Provider) -> Operation | None:
    """The question that is under way."""
    asked = Operation.objects.filter(kind="provider.refresh", subject_id=provider.pk)
    return asked.filter(state__in=("queued", "running")).first()


def _type(name: str) -> ProviderType:
    """The type of this name, else the first that needs to be configured."""
    return TYPES.get(name) or next(type_ for type_ in TYPES.values() if type_.fields)


def _type_of(provider: Provider) -> ProviderType:
    """Its type, or a stand-in for one of another version of Nexus."""
    name = provider.type
    text = "This version of Nexus does not know this type. Its providers are left alone."
    return TYPES.get(name) or ProviderType(
        name, name, text, lambda row, config: open_provider(row, name, config)
    )


def _tabs(current: ProviderType) -> list[dict[str, Any]]:
    return [
        {
            "label": type_.label,
            "url": f"{reverse('images:new-provider')}?type={type_.name}",
            "current": type_ is current,
        }
        for type_ in TYPES.values()
    ]
