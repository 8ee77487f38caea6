"""What all tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from nexus_site.core import operations


@pytest.fixture(autouse=True)
def _fast_and_quiet(settings: Any) -> None:
    """Cheap password hashes, and static files that need no ``collectstatic``."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.STATIC_ROOT.mkdir(exist_ok=True)
    settings.STORAGES = settings.STORAGES | {
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}
    }


@pytest.fixture
def nudges(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The IDs of operations put on the queue, in place of the queue."""
    sent: list[str] = []
    monkeypatch.setattr(operations, "_nudge", sent.append)
    yield sent


@pytest.fixture
def data_dir() -> Path:
    """The data directory of this test process."""
    return Path(settings.NEXUS.data_dir)
