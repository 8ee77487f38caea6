"""Static files of the npm packages: only those that pages load."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from django.conf import settings
from django.contrib.staticfiles.finders import FileSystemFinder


class ChosenFinder(FileSystemFinder):
    """``STATICFILES_DIRS``, and of those with a prefix only what ``VENDOR_FILES`` names."""

    def list(self, ignore_patterns: Iterable[str] | None) -> Iterator[tuple[str, Any]]:
        for path, storage in super().list(ignore_patterns):
            prefix = getattr(storage, "prefix", None)
            if not prefix or f"{prefix}/{path}" in settings.VENDOR_FILES:
                yield path, storage
