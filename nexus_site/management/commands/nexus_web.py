"""Web: pages, API and websockets, in one process."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand


class Command(BaseCommand):
    help = "Run Nexus's web server: pages, API and websockets."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        from nexus_site.web import serve

        serve()
