"""Drives that leave and arrive over HTTP."""

from __future__ import annotations

import asyncio
import hashlib
import io
import tracemalloc
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import AsyncClient

from drives.models import Drive, Snapshot
from drives.services import discard, file_of, import_drive, storage
from images import uploads
from nexus_site.core import auth, operations
from nexus_site.core.ids import NexusID
from nexus_site.core.models import Operation
from nexus_site.core.streaming import Download
from tests.api.conftest import APIClient
from tests.drives.transfers.drive_archives import (
    MIB,
    SIZE,
    checksum,
    disk,
    give_back,
    make_disk,
    manifest,
    packed,
    store,
    whole,
)
from tests.factories import make_drive, make_vm
from vms.models import VM, Attachment
from vms.states import State

CONTENT = whole()


def send(client: APIClient, query: str = "", content: bytes = CONTENT, **headers: str) -> Any:
    path = f"/drives/import?{query}"
    return client.post(path, content, content_type="application/octet-stream", headers=headers)


def run(response: Any) -> Operation:
    assert response.status_code == 202, response.content
    operation = Operation.objects.get(pk=NexusID.parse(response.json()["id"]))
    operations.execute(operation.pk)
    operation.refresh_from_db()
    return operation


def left() -> list[str]:
    return sorted(path.name for path in uploads.uploads_dir().glob("*"))


@pytest.fixture(autouse=True)
def _tidy(db: None, nudges: list[str]) -> Iterator[None]:
    for name in left():
        uploads.discard(name)
    yield
    give_back()


@pytest.fixture
def drive() -> Drive:
    """A drive of 64 MiB that is in no VM."""
    drive = make_drive(name="disk", size_bytes=64 * MIB)
    store(drive, 0, 40 * MIB)
    return drive


def content(response: Any) -> bytes:
    assert response.status_code == 200, response.content
    return b"".join(response)


def test_a_drive_leaves_and_comes_back(
    drive: Drive, reader: APIClient, operator: APIClient
) -> None:
    response = reader.get("/drives/disk/export")
    assert isinstance(response, Download)
    assert response.headers["Content-Type"] == "application/octet-stream"
    assert response.headers["Content-Disposition"] == "attachment; filename*=UTF-8''disk.tar.zst"
    archive = content(response)
    sha256 = hashlib.sha256(archive).hexdigest()
    operation = run(send(operator, f"name=again&sha256={sha256}&filename=disk.tar.zst", archive))
    assert operation.state == "succeeded", operation.error
    assert [step["state"] for step in operation.steps] == ["done", "skipped", "done"]
    shown = reader.get("/drives/again").json()
    assert (shown["state"], shown["size_bytes"]) == ("ready", 64 * MIB)
    assert shown["image"] == reader.get("/drives/disk").json()["image"]
    again = Drive.objects.get(name="again")
    assert file_of(again).read_bytes() == file_of(drive).read_bytes()
    assert left() == []


def test_a_snapshot_leaves_though_its_drive_is_in_use(drive: Drive, reader: APIClient) -> None:
    snapshot = Snapshot.objects.create(
        name="before", drive=drive, size_bytes=drive.size_bytes, state=Snapshot.State.READY
    )
    storage().snapshot(drive.ref, snapshot.ref)
    Attachment.objects.create(vm=make_vm(root=False, state=State.READY), drive=drive)
    response = reader.get("/snapshots/before/export")
    assert "before.tar.zst" in response.headers["Content-Disposition"]
    operation = import_drive(uploads.receive(io.BytesIO(content(response))))
    operations.execute(operation.pk)
    again = Drive.objects.get(name="before")
    assert file_of(again).read_bytes() == file_of(drive).read_bytes()
    storage().delete_snapshot(snapshot.ref)
    gone = reader.get("/snapshots/before/export")
    assert (gone.status_code, gone.json()["code"]) == (500, "snapshot-missing")


@pytest.mark.parametrize("state", [State.READY, State.RUNNING, State.STARTING, State.PAUSED])
def test_a_drive_of_a_vm_that_runs_stays(drive: Drive, reader: APIClient, state: State) -> None:
    vm = make_vm(name="web", root=False, state=state)
    Attachment.objects.create(vm=vm, drive=drive)
    refused = reader.get("/drives/disk/export")
    assert refused.status_code == 409
    problem = refused.json()
    assert "web" in problem["detail"]
    assert "nexusctl snapshot create disk" in problem["hint"]
    VM.objects.filter(pk=vm.pk).update(state=State.STOPPED)
    assert content(reader.get("/drives/disk/export"))


def test_a_drive_that_is_not_there_yet_or_no_more(drive: Drive, reader: APIClient) -> None:
    Drive.objects.update(state=Drive.State.CREATING)
    refused = reader.get("/drives/disk/export")
    assert (refused.status_code, refused.json()["code"]) == (409, "drive-busy")
    Drive.objects.update(state=Drive.State.READY)
    storage().delete(drive.ref)
    broken = reader.get("/drives/disk/export")
    assert (broken.status_code, broken.json()["code"]) == (500, "drive-missing")


@pytest.mark.parametrize(
    ("query", "body", "status", "code"),
    [
        (f"sha256={'0' * 64}", CONTENT, 422, "checksum"),
        ("sha256=12", CONTENT, 422, "validation"),
        ("", b"", 422, "upload-empty"),
        ("name=../x", CONTENT, 422, "name-rule"),
        ("name=taken", CONTENT, 409, "name-taken"),
        ("size_mib=1", CONTENT, 422, "drive-too-small"),
        ("size_mib=0", CONTENT, 422, "validation"),
        ("size_mib=99999999999", CONTENT, 422, "validation"),
        ("", b"Dear friend,\n" * 100, 422, "format-unknown"),
        ("", packed(disk(), manifest()), 422, "archive-unexpected"),
    ],
)
def test_an_import_that_breaks_a_rule_keeps_nothing(
    operator: APIClient, query: str, body: bytes, status: int, code: str
) -> None:
    make_drive(name="taken")
    refused = send(operator, query, body)
    assert (refused.status_code, refused.json()["code"]) == (status, code)
    assert left() == []
    assert not Operation.objects.exists()
    assert [drive.name for drive in Drive.objects.all()] == ["taken"]


def test_what_only_shows_later_fails_and_is_gone(operator: APIClient, reader: APIClient) -> None:
    other = packed(manifest(), disk(data=b"x" * 4096), checksum())
    operation = run(send(operator, "", other))
    assert (operation.state, operation.error["code"]) == ("failed", "checksum")
    assert left() == []
    assert not Drive.objects.exists()
    assert reader.get("/drives/travelled").status_code == 404


def test_a_dry_run_keeps_nothing(operator: APIClient) -> None:
    plan = send(operator, "name=mine&dry_run=1").json()
    assert plan["title"] == "Import drive mine"
    assert [step["name"] for step in plan["steps"]] == ["receive", "grow", "keep"]
    assert left() == []
    assert not Drive.objects.exists()


def test_an_import_with_a_key_is_one_for_the_same_file_and_wishes(operator: APIClient) -> None:
    key = {"Idempotency-Key": "k"}
    first, again = (send(operator, "name=mine", **key) for _ in range(2))
    assert first.json()["id"] == again.json()["id"]
    assert len(left()) == 1
    for other in (
        send(operator, "name=mine", CONTENT + bytes(4), **key),
        send(operator, "name=mine&size_mib=64", **key),
        send(operator, "name=mine&delete_with_vm=1", **key),
    ):
        assert (other.status_code, other.json()["code"]) == (409, "idempotency-key-reused")
    assert len(left()) == 1
    discard(Drive.objects.get())


def test_wishes(operator: APIClient) -> None:
    operation = run(send(operator, "name=mine&size_mib=16&delete_with_vm=1"))
    assert operation.state == "succeeded", operation.error
    drive = Drive.objects.get()
    assert (drive.name, drive.size_bytes, drive.delete_with_vm) == ("mine", 16 * MIB, True)
    assert file_of(drive).stat().st_size == 16 * MIB > SIZE


def test_an_export_needs_little_memory(drive: Drive, reader: APIClient) -> None:
    make_disk(file_of(drive), 64 * MIB, 0, 30 * MIB, data=hashlib.sha256(b"x").digest() * MIB)
    tracemalloc.start()
    try:
        assert sum(len(piece) for piece in reader.get("/drives/disk/export"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * MIB


@pytest.mark.django_db(transaction=True)
def test_it_streams_under_asgi(drive: Drive) -> None:
    _, secret = auth.create_token("t", "read")

    async def ask() -> bytes:
        bearer = {"Authorization": f"Bearer {secret}"}
        response = await AsyncClient().get("/v1/drives/disk/export", headers=bearer)
        assert isinstance(response, Download)
        return b"".join([piece async for piece in response])

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert asyncio.run(ask()).startswith(b"\x28\xb5\x2f\xfd")
