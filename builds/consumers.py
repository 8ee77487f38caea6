"""A build's log over a websocket."""

from __future__ import annotations

from collections.abc import Callable

from builds.models import Build, KernelBuild
from builds.services import LogPage, read_log
from nexus_site.core.consumers import LogConsumer
from nexus_site.core.ids import resolve


class BuildLogConsumer(LogConsumer):
    """``/ws/builds/<ref>/log``."""

    def open_log(self, ref: str) -> Callable[[int], LogPage]:
        build = resolve(Build.objects.all(), ref)
        return lambda offset: read_log(build, offset)


class KernelBuildLogConsumer(LogConsumer):
    """``/ws/kernel-builds/<ref>/log``."""

    def open_log(self, ref: str) -> Callable[[int], LogPage]:
        build = resolve(KernelBuild.objects.all(), ref)
        return lambda offset: read_log(build, offset)
