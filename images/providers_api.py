"""Providers of root file systems over HTTP."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.http import HttpRequest, HttpResponse
from ninja import Field, Query, Router, Schema

from images import providers, services
from images.models import Provider
from nexus_site.core.http import STARTED, carry_out
from nexus_site.core.ids import resolve
from nexus_site.core.pagination import PageQuery, Slice, paginate
from nexus_site.core.schemas import ID, ChangeQuery, Input, Page

router = Router()


class FieldOut(Schema):
    """One value of a provider's configuration."""

    name: str
    label: str
    help: str
    required: bool
    default: str
    multiline: bool


class ProviderTypeOut(Schema):
    """A way to get root file systems, and what it needs to know."""

    name: str
    label: str
    help: str
    fields: list[FieldOut]


class ProviderOut(Schema):
    """A source of root file systems."""

    id: ID
    name: str
    type: str
    config: dict[str, Any]
    enabled: bool
    position: int = Field(description="Lower is asked first.")
    offer_count: int = Field(description="For this host; see /rootfs/available.")
    problem: str = Field(description="Why asking the publisher failed last; empty if it did not.")
    refreshed_at: datetime | None
    created_at: datetime

    @staticmethod
    def resolve_offer_count(provider: Provider) -> int:
        return len(services.offers_of(provider))


class CreateProvider(Input):
    name: str = Field(min_length=1, max_length=40, examples=["mirror"])
    type: str = Field(max_length=20, examples=["alpine"])
    config: dict[str, str] = Field({}, description="See /provider-types.")
    enabled: bool = True
    position: int = Field(100, ge=0, le=32767)


class UpdateProvider(Input):
    """What is left out stays as it is; ``config`` is replaced as a whole."""

    name: str | None = Field(None, min_length=1, max_length=40)
    config: dict[str, str] | None = None
    enabled: bool | None = None
    position: int | None = Field(None, ge=0, le=32767)


@router.get("/provider-types", response=Page[ProviderTypeOut])
def list_provider_types(request: HttpRequest) -> dict[str, Any]:
    """The types of providers and their fields, all on one page."""
    return {"items": list(providers.TYPES.values()), "next_cursor": None}


@router.get("/providers", response=Page[ProviderOut])
def list_providers(request: HttpRequest, query: Query[PageQuery]) -> Slice:
    return paginate(Provider.objects.all(), query, "position", "name", "-created_at")


@router.post("/providers", response={201: ProviderOut})
def create_provider(
    request: HttpRequest, data: CreateProvider, query: Query[ChangeQuery]
) -> HttpResponse:
    """Add a source of root file systems."""
    return carry_out(
        request,
        query,
        lambda: services.create_provider(**data.model_dump()),
        shown_as=ProviderOut,
        status=201,
    )


@router.get("/providers/{ref}", response=ProviderOut)
def get_provider(request: HttpRequest, ref: str) -> Provider:
    return resolve(Provider.objects.all(), ref)


@router.patch("/providers/{ref}", response=ProviderOut)
def update_provider(
    request: HttpRequest, ref: str, data: UpdateProvider, query: Query[ChangeQuery]
) -> HttpResponse:
    """Change a provider's name, configuration, place in the order, or whether it is used."""
    provider = resolve(Provider.objects.all(), ref)
    changes = {key: value for key, value in data.model_dump().items() if value is not None}
    return carry_out(
        request,
        query,
        lambda: services.update_provider(provider, **changes),
        shown_as=ProviderOut,
    )


@router.delete("/providers/{ref}", response={204: None})
def delete_provider(request: HttpRequest, ref: str, query: Query[ChangeQuery]) -> HttpResponse:
    """Delete a provider; the root file systems that came from it stay."""
    provider = resolve(Provider.objects.all(), ref)
    return carry_out(request, query, lambda: services.delete_provider(provider))


@router.post("/providers/{ref}/refresh", response=STARTED)
def refresh_provider(request: HttpRequest, ref: str, query: Query[ChangeQuery]) -> HttpResponse:
    """Ask the publisher what there is now."""
    provider = resolve(Provider.objects.all(), ref)
    return carry_out(request, query, lambda: services.refresh_provider(provider))
