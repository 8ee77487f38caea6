"""The worker process: the queue's consumer and the supervisor under one roof."""

from __future__ import annotations

import logging

from django.conf import settings
from huey.consumer_options import ConsumerConfig
from huey.contrib.djhuey import HUEY

from builds import services as build_services
from drives import services as drive_services
from images import services as image_services
from nexus_site import tasks
from nexus_site.core import operations
from nexus_site.core.garbage import spare_what_is_loaded
from nexus_site.core.life import Heartbeat
from vms.supervisor import Supervisor

log = logging.getLogger(__name__)


class Worker:
    """Runs until SIGTERM or SIGINT; operations cut short are resumed at the next start."""

    def __init__(self) -> None:
        self.supervisor = Supervisor()
        self.heartbeat = Heartbeat()

    def run(self) -> None:
        """Repair what the last worker left, then work; returns after a signal."""
        self.heartbeat.start()
        build_services.sweep()
        build_services.sweep_kernel_builds()
        image_services.sweep_assets()
        drive_services.sweep_storage()
        operations.sweep(everything_is_mine=True)
        self.supervisor.start()
        tasks.look_at_host()
        options = ConsumerConfig(**settings.HUEY["consumer"])
        consumer = HUEY.create_consumer(**options.values)
        log.info("the worker is ready: %d job threads", settings.NEXUS.workers)
        spare_what_is_loaded()
        try:
            consumer.run()
        finally:
            self.supervisor.stop()
            self.heartbeat.stop()
