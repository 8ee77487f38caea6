"""Querysets with all that lists and pages show, at a constant number of queries."""

from __future__ import annotations

from django.db.models import Count, OuterRef, Prefetch, QuerySet, Subquery

from builds.models import Template, TemplateVersion


def template_list() -> QuerySet[Template]:
    """Templates with their current versions, without the recipes."""
    return Template.objects.prefetch_related(
        Prefetch("versions", queryset=_newest().defer("recipe"))
    )


def template_detail() -> QuerySet[Template]:
    """Templates with their current versions and the number of their builds."""
    rows = Template.objects.prefetch_related(Prefetch("versions", queryset=_newest()))
    return rows.annotate(build_count=Count("versions__builds"))


def version_list(template: Template) -> QuerySet[TemplateVersion]:
    """A template's versions, the newest first, with the number of their builds."""
    rows = TemplateVersion.objects.filter(template=template).select_related("rootfs")
    return rows.annotate(build_count=Count("builds")).order_by("-number")


def _newest() -> QuerySet[TemplateVersion]:
    siblings = TemplateVersion.objects.filter(template=OuterRef("template"))
    newest = siblings.order_by("-number").values("pk")[:1]
    return TemplateVersion.objects.filter(pk=Subquery(newest)).select_related("rootfs")
