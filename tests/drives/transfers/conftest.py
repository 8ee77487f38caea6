"""Imports that are carried out at once, and that prove what they leave behind."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from drives.models import Drive
from drives.services import discard, import_drive
from images import uploads
from nexus_site.core import operations
from nexus_site.core.errors import NexusError, from_record
from nexus_site.core.models import Operation

BringIn = Callable[..., Drive]


def files_below(directory: Path) -> set[str]:
    return {str(path) for path in directory.rglob("*") if not path.is_dir()}


@pytest.fixture
def bring_in(db: None, nudges: list[str], data_dir: Path) -> Iterator[BringIn]:
    """Upload bytes and import them; raises what the caller is told. A refusal leaves nothing."""

    def bring_in(data: bytes, **wishes: Any) -> Drive:
        upload = uploads.receive(io.BytesIO(data))
        before = files_below(data_dir) - {str(upload.path)}
        rows = Drive.objects.count()
        try:
            operation = import_drive(upload, **wishes)
        except NexusError:
            uploads.discard(upload.ref)
            assert files_below(data_dir) == before
            assert Drive.objects.count() == rows
            raise
        operations.execute(operation.pk)
        operation.refresh_from_db()
        assert not upload.path.exists()
        if operation.state != Operation.State.SUCCEEDED:
            assert files_below(data_dir) == before
            assert Drive.objects.count() == rows
            raise from_record(operation.error)
        return Drive.objects.get(pk=operation.subject_id)

    yield bring_in
    for drive in Drive.objects.all():
        discard(drive)
