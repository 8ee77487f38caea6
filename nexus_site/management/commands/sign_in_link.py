"""Print a link that signs an operator in, once."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from nexus_site.core import auth


class Command(BaseCommand):
    help = "Print a one-time sign-in link, good for 15 minutes."

    def add_arguments(self, parser: CommandParser) -> None:
        default = f"http://{settings.NEXUS.host}:{settings.NEXUS.port}"
        parser.add_argument("--base-url", default=default)
        parser.add_argument("--user", default=auth.OPERATOR)

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(auth.sign_in_link(options["base_url"], options["user"]))
