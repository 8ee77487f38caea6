"""The rules about providers: rows that operators edit, checked by their type."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.utils import timezone

from images import providers
from images.models import Provider
from images.services.offers import open_row, remember
from nexus_site.core import events
from nexus_site.core.errors import Conflict, Invalid, NexusError
from nexus_site.core.ids import NexusID, check_name
from nexus_site.core.models import Operation
from nexus_site.core.operations import open_operation
from nexus_site.core.steps import Plan, Run, Step

#: What rootfs rows say that came from no provider.
UPLOAD = "upload"
_EDITABLE = frozenset({"name", "config", "enabled", "position"})
_MAX_NAME = 40  # rootfs rows carry it
_MAX_POSITION = 32767


@transaction.atomic
def create_provider(
    name: str,
    type: str,
    config: dict[str, Any] | None = None,
    enabled: bool = True,
    position: int = 100,
) -> Provider:
    """A new source of root file systems. Raises ``Invalid`` that names the field, ``Conflict``."""
    _check_name(name)
    _check_position(position)
    provider = Provider.objects.create(
        name=name,
        type=type,
        config=providers.provider_type(type).check(config or {}),
        enabled=enabled,
        position=position,
    )
    events.append("provider.created", provider, type=type)
    return provider


@transaction.atomic
def update_provider(provider: Provider, **changes: Any) -> Provider:
    """Change name, config, enabled or position. What it offered is forgotten with its config."""
    if unknown := set(changes) - _EDITABLE:
        raise Invalid(f"A provider's {', '.join(sorted(unknown))} cannot be changed.")
    changes = {key: value for key, value in changes.items() if getattr(provider, key) != value}
    if "name" in changes:
        _check_name(changes["name"])
    if "position" in changes:
        _check_position(changes["position"])
    if "config" in changes:
        changes["config"] = providers.provider_type(provider.type).check(changes["config"])
        if changes["config"] != provider.config:
            changes |= {"offers": [], "problem": "", "refreshed_at": None}
    if changes:
        for key, value in changes.items():
            setattr(provider, key, value)
        provider.save(update_fields=list(changes))
        events.append("provider.changed", provider, fields=sorted(_EDITABLE & set(changes)))
    return provider


@transaction.atomic
def delete_provider(provider: Provider) -> None:
    """Delete a provider; the root file systems that came from it stay."""
    events.append("provider.deleted", provider)
    Provider.objects.filter(pk=provider.pk).delete()


@transaction.atomic
def refresh_provider(provider: Provider) -> Operation:
    """Ask the publisher what there is now."""
    return open_operation(
        "provider.refresh",
        f"Ask {provider.name} what it offers",
        subject=provider,
        params={"provider": provider.ref},
    )


def _check_name(name: str) -> None:
    check_name(name)
    if name == UPLOAD:
        raise Invalid(
            f"“{UPLOAD}” stands for what was uploaded; choose another name.", code="name-reserved"
        )
    if len(name) > _MAX_NAME:
        raise Invalid(f"A provider's name has at most {_MAX_NAME} characters.", code="name-rule")
    if Provider.objects.filter(name=name).exists():
        raise Conflict(
            f"There is a provider “{name}” already.",
            hint="Choose another name.",
            code="name-taken",
        )


def _check_position(position: int) -> None:
    if not 0 <= position <= _MAX_POSITION:
        raise Invalid(f"A position is a number from 0 to {_MAX_POSITION}.", code="position")


# What workers run


def refresh_plan(operation: Operation) -> Plan:
    return [Step("ask", "Ask the publisher", _refresh)]


def _refresh(run: Run) -> str:
    row = Provider.objects.get(pk=NexusID.parse(run.params["provider"]))
    try:
        offers = list(open_row(row).refresh())
    except NexusError as error:
        Provider.objects.filter(pk=row.pk).update(problem=error.text[:500])
        raise
    with transaction.atomic():
        remember(row, offers, replace=True)
        Provider.objects.filter(pk=row.pk).update(problem="", refreshed_at=timezone.now())
        events.append("provider.refreshed", row, offers=len(offers))
    return f"{len(offers)} offers"
