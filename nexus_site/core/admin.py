"""What every model's admin shares, and the admin of operations, events, tokens, settings.

The admin shows everything and edits nothing: rows are changed by services, which its
actions call. IDs are shown, linked and searched as their 13 letters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from django.contrib import admin, messages
from django.db.models import Field, Model, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from nexus_site.core import auth, operations
from nexus_site.core.errors import NexusError
from nexus_site.core.ids import NexusIDField, decode, is_id
from nexus_site.core.models import Event, Operation, Setting, Token

M = TypeVar("M", bound=Model)


class ReadOnlyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # not generic at run time
    """Rows to look at and to search by name and by any ID in ``search_ids``."""

    search_ids: Sequence[str] = ("pk",)
    hidden: Sequence[str] = ()
    list_per_page = 50
    search_help_text = "By name or ID"

    def __init__(self, model: type[Model], site: admin.AdminSite) -> None:
        super().__init__(model, site)
        self._shown = [
            _as_text(field) if isinstance(field, NexusIDField) else field.name
            for field in model._meta.fields
            if field.name not in self.hidden
        ]

    @admin.display(description="ID", ordering="pk")
    def letters(self, row: Model) -> str:
        """The row's ID as people know it."""
        return str(row.pk)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_operate_permission(self, request: HttpRequest) -> bool:
        """Who may run the actions; Django asks because they say ``permissions=["operate"]``."""
        caller: auth.Caller | None = getattr(request, "caller", None)
        return caller is not None and caller.may("operate")

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        return self._shown

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        return self._shown

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        term = search_term.strip()
        if not is_id(term):
            return super().get_search_results(request, queryset, term)
        matching = Q()
        for field in self.search_ids:
            matching |= Q(**{field: decode(term)})
        return queryset.filter(matching), False

    def call_for_each(
        self, request: HttpRequest, rows: Iterable[M], call: Callable[[M], object], done: str
    ) -> None:
        """Call a service for each row; what it refuses is said, row by row."""
        count = 0
        for row in rows:
            try:
                call(row)
            except NexusError as error:
                text = f"{row}: {error.text} {error.hint}".strip()
                self.message_user(request, text, messages.ERROR)
            else:
                count += 1
        if count:
            self.message_user(request, f"{done}: {count}.", messages.SUCCESS)

    def confirm(
        self, request: HttpRequest, rows: QuerySet[Any], action: str, question: str
    ) -> HttpResponse | None:
        """A page that asks before ``action`` is done; None once it was answered with yes."""
        if "confirmed" in request.POST:
            return None
        context = self.admin_site.each_context(request) | {
            "title": question,
            "rows": rows,
            "action": action,
            "opts": self.opts,
        }
        return TemplateResponse(request, "admin/confirm.html", context)


def _as_text(field: Field[Any, Any]) -> Callable[[Model], str]:
    """Shows an ID in letters, where the admin would print the integer."""

    @admin.display(description=str(field.verbose_name))
    def text(row: Model) -> str:
        value = getattr(row, field.attname)
        return "" if value is None else str(value)

    text.__name__ = field.name
    return text


@admin.register(Operation)
class OperationAdmin(ReadOnlyAdmin):
    list_display = ("letters", "title", "state", "kind", "subject_name", "actor", "created_at")
    list_filter = ("state", "kind")
    search_fields = ("title", "kind", "subject_name", "actor")
    search_ids = ("pk", "subject_id", "parent_id")
    date_hierarchy = "created_at"
    actions = ("cancel",)

    @admin.action(description="Cancel selected operations", permissions=["operate"])
    def cancel(self, request: HttpRequest, rows: QuerySet[Operation]) -> None:
        open_ones = [row for row in rows if not row.ended]
        self.call_for_each(request, open_ones, operations.cancel, "Asked to stop")


@admin.register(Event)
class EventAdmin(ReadOnlyAdmin):
    list_display = ("seq", "at", "kind", "subject_kind", "subject", "subject_name", "actor")
    list_filter = ("subject_kind", "kind")
    search_fields = ("kind", "subject_name", "actor")
    search_ids = ("subject_id", "operation_id")
    show_full_result_count = False

    @admin.display(description="subject ID")
    def subject(self, event: Event) -> str:
        return str(event.subject_id or "")


@admin.register(Token)
class TokenAdmin(ReadOnlyAdmin):
    list_display = (
        "letters",
        "name",
        "scope",
        "prefix",
        "last_used_at",
        "expires_at",
        "revoked_at",
    )
    list_filter = ("scope",)
    search_fields = ("name", "prefix")
    hidden = ("hash",)
    actions = ("revoke",)

    @admin.action(description="Revoke selected tokens", permissions=["operate"])
    def revoke(self, request: HttpRequest, rows: QuerySet[Token]) -> None:
        live = rows.filter(revoked_at=None)
        self.call_for_each(request, live, auth.revoke_token, "Revoked")


@admin.register(Setting)
class SettingAdmin(ReadOnlyAdmin):
    list_display = ("key", "value", "updated_at")
    search_fields = ("key",)
    search_ids = ()
    search_help_text = "By key"
