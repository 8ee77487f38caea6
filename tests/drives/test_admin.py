"""The admin's actions on drives and snapshots go through their services."""

from __future__ import annotations

import pytest
from django.contrib import admin
from django.contrib.messages.storage.base import BaseStorage
from django.test import RequestFactory

from drives.admin import DriveAdmin, SnapshotAdmin
from drives.models import Drive, Snapshot
from nexus_site.core.models import Operation
from tests.factories import make_drive, make_snapshot

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("nudges")]


class Messages(BaseStorage):
    """What people would be told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def add(self, level: int, message: str, extra_tags: str = "") -> None:
        self.said.append(message)


def act(model_admin: admin.ModelAdmin, action: str, *rows: Drive | Snapshot) -> list[str]:
    """What is said after a confirmed action on the rows."""
    request = RequestFactory().post("/", {"confirmed": "yes"})
    request._messages = Messages()
    found = type(rows[0])._default_manager.filter(pk__in=[row.pk for row in rows]).order_by("name")
    assert getattr(model_admin, action)(request, found) is None
    return request._messages.said


def test_snapshots_are_taken_and_refusals_are_told() -> None:
    ready, lost = make_drive(name="a"), make_drive(name="b", state=Drive.State.MISSING)
    said = act(DriveAdmin(Drive, admin.site), "take_snapshots", ready, lost)
    assert said[0].startswith("b: The file of the drive “b” is missing.")
    assert said[1] == "Taking a snapshot: 1."
    assert Operation.objects.get().kind == "drive.snapshot"


def test_deleting() -> None:
    snapshot = make_snapshot(drive=make_drive(name="a"))
    said = act(DriveAdmin(Drive, admin.site), "delete_drives", snapshot.drive)
    assert "has snapshots" in said[0]
    assert act(SnapshotAdmin(Snapshot, admin.site), "delete_snapshots", snapshot) == [
        "Deleting: 1."
    ]
    assert [row.kind for row in Operation.objects.all()] == ["snapshot.delete"]
