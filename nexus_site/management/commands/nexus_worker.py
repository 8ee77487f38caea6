"""The worker: runs operations (Huey) and supervises VMs, in one process."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand


class Command(BaseCommand):
    help = "Run Nexus's worker: jobs from the queue, and the supervisor of the VMs."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        from nexus_site.worker import Worker

        Worker().run()
