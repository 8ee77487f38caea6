"""The daily look for newer stable versions of the kernel."""

from __future__ import annotations

import logging

from builds.kernels.publisher import publisher
from images.services import kernel_news_are_due, remember_kernel_news, remember_no_kernel_news
from nexus_site.core.errors import NexusError

log = logging.getLogger(__name__)

#: What is worth a notice; not what is being tried out.
KINDS = ("stable", "longterm")


def look_when_due() -> None:
    """Once a day, whenever the server runs."""
    if kernel_news_are_due():
        look()


def look() -> None:
    """Ask the publisher which versions it maintains, and keep the answer, or why there is none."""
    try:
        releases, latest = publisher().releases()
    except NexusError as error:
        log.info("newer kernels: %s", error.text)
        remember_no_kernel_news(error.text)
        return
    found = [one.version for one in releases if one.moniker in KINDS and not one.eol]
    remember_kernel_news(found, latest)
