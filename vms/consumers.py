"""A VM's console over a websocket, and who has sent a heartbeat."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from django.utils import timezone

from nexus_site.core.consumers import LogConsumer
from nexus_site.core.ids import resolve
from vms.console import ConsolePage, read_console
from vms.models import VM


class ConsoleConsumer(LogConsumer):
    """``/ws/vms/<ref>/console``."""

    def open_log(self, ref: str) -> Callable[[int], ConsolePage]:
        vm = resolve(VM.objects.all(), ref)
        return lambda offset: read_console(vm, offset)


class Heartbeats:
    """Says which VMs were heard since it was asked last; heartbeats are no events."""

    def __init__(self) -> None:
        self._asked: datetime = timezone.now()

    def __call__(self) -> list[str]:
        before, self._asked = self._asked, timezone.now()
        heard = VM.objects.filter(heartbeat_at__gt=before).values_list("pk", flat=True)
        return [f"heartbeat:{pk}" for pk in heard]
