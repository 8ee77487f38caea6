"""Make the data directory usable: database, static files, operator, local token."""

from __future__ import annotations

import os
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand

from nexus_site.core import auth


class Command(BaseCommand):
    help = "Prepare the data directory; safe to repeat."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        os.umask(0o077)
        for name in ("assets", "images", "drives", "builds", "vms", "run"):
            (settings.NEXUS.data_dir / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        call_command("migrate", interactive=False, verbosity=0)
        call_command("collectstatic", interactive=False, verbosity=0)
        auth.ensure_operator()
        auth.ensure_local_token()
        self.stdout.write(f"Nexus is set up in {settings.NEXUS.data_dir}")
