"""Root file systems and their providers over HTTP: uploaded, verified, deleted; edited."""

from __future__ import annotations

import hashlib
import os
from typing import Any

import pytest

from images import services, uploads
from images.models import Provider, Rootfs
from nexus_site.core import operations
from nexus_site.core.ids import NexusID
from nexus_site.core.models import Operation
from tests.api.conftest import APIClient
from tests.images.providers.alpine_mirror import mini_rootfs

CONTENT = mini_rootfs("1")
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def send(client: APIClient, query: str, content: bytes = CONTENT, **headers: str) -> Any:
    path = f"/rootfs/import?{query}"
    return client.post(path, content, content_type="application/octet-stream", headers=headers)


def run(response: Any) -> Operation:
    assert response.status_code == 202, response.content
    operation = Operation.objects.get(pk=NexusID.parse(response.json()["id"]))
    operations.execute(operation.id)
    operation.refresh_from_db()
    return operation


def left() -> list[str]:
    return sorted(path.name for path in uploads.uploads_dir().glob("*"))


@pytest.fixture(autouse=True)
def _nothing_is_left(db: None, nudges: list[str]) -> None:
    for name in left():
        uploads.discard(name)


def test_an_uploaded_file_becomes_a_rootfs(
    operator: APIClient, django_capture_on_commit_callbacks: Any
) -> None:
    operation = run(send(operator, f"distro=Void&version=1&sha256={SHA256}&filename=void.tgz"))
    assert operation.state == "succeeded", operation.error
    rootfs = Rootfs.objects.get(pk=NexusID.parse(operation.result["rootfs"]))
    shown = operator.get(f"/rootfs/{rootfs.ref}").json()
    assert (shown["distro"], shown["version"], shown["format"]) == ("void", "1", "tar.gz")
    assert (shown["provider"], shown["sha256"]) == ("upload", SHA256)
    assert (shown["source"], shown["verification"]) == ("uploaded: void.tgz", "sha256")
    assert services.rootfs_path(rootfs).read_bytes() == CONTENT
    assert left() == []
    again = send(operator, "distro=void&version=1")
    assert (again.status_code, again.json()["code"]) == (409, "rootfs-exists")
    assert left() == []
    assert run(operator.post(f"/rootfs/{rootfs.ref}/verify")).state == "succeeded"
    with django_capture_on_commit_callbacks(execute=True):
        assert operator.delete(f"/rootfs/{rootfs.ref}").status_code == 204
    assert not services.rootfs_path(rootfs).exists()


@pytest.mark.parametrize(
    ("query", "content", "code"),
    [
        (f"distro=void&version=2&sha256={'0' * 64}", CONTENT, "checksum"),
        ("distro=void&version=2", b"", "upload-empty"),
        ("distro=void&version=../2", CONTENT, "rootfs-name"),
        ("distro=v/d&version=2", CONTENT, "rootfs-name"),
        ("distro=void&version=2&format=zip", CONTENT, "format-unknown"),
    ],
)
def test_an_upload_that_breaks_a_rule_is_not_kept(
    operator: APIClient, query: str, content: bytes, code: str
) -> None:
    refused = send(operator, query, content)
    assert (refused.status_code, refused.json()["code"]) == (422, code)
    assert left() == []
    assert not Operation.objects.exists()


@pytest.mark.parametrize("query", ["", "&format=qcow2"])
def test_a_file_that_is_no_root_file_system_fails_and_is_gone(
    operator: APIClient, query: str
) -> None:
    content = CONTENT if query else b"hello"
    operation = run(send(operator, f"distro=void&version=3{query}", content))
    assert (operation.state, operation.error["code"]) == ("failed", "format-unknown")
    assert left() == []
    assert not Rootfs.objects.filter(distro="void").exists()


def test_a_dry_run_keeps_nothing(operator: APIClient) -> None:
    plan = send(operator, "distro=void&version=4&dry_run=1")
    assert [step["name"] for step in plan.json()["steps"]] == ["check", "keep"]
    assert left() == []


def test_the_same_upload_sent_twice_is_one(operator: APIClient) -> None:
    first, second = (
        send(operator, "distro=void&version=5", **{"Idempotency-Key": "k"}) for _ in range(2)
    )
    assert first.json()["id"] == second.json()["id"]
    assert len(left()) == 1
    other = send(operator, "distro=void&version=5", b"other", **{"Idempotency-Key": "k"})
    assert other.json()["code"] == "idempotency-key-reused"
    assert run(first).state == "succeeded"
    assert left() == []


def test_uploads_that_nobody_takes_are_swept_after_a_day(operator: APIClient) -> None:
    waiting = send(operator, "distro=void&version=6")
    (named,) = left()
    (uploads.uploads_dir() / "aaaaaaaaaaaaq").write_bytes(b"forgotten")
    (uploads.uploads_dir() / "aaaaaaaaaaabq").write_bytes(b"new")
    for name in (named, "aaaaaaaaaaaaq"):
        os.utime(uploads.uploads_dir() / name, (0, 0))
    services.sweep_assets()
    assert left() == sorted([named, "aaaaaaaaaaabq"])
    assert run(waiting).state == "succeeded"


def test_a_fetch_may_name_its_provider(operator: APIClient) -> None:
    body = {"distro": "alpine", "version": "3.23", "provider": "alpine"}
    made = operator.send("POST", "/rootfs", body).json()
    assert Operation.objects.get(pk=NexusID.parse(made["id"])).params["provider"] == "alpine"
    refused = operator.send("POST", "/rootfs", body | {"provider": "nobody"})
    assert refused.json()["code"] == "rootfs-not-found"


def test_a_provider_is_made_edited_asked_and_deleted(operator: APIClient) -> None:
    config = {"base_url": "http://127.0.0.1:1/alpine"}
    body = {"name": "mirror", "type": "alpine", "config": config, "position": 1}
    made = operator.send("POST", "/providers", body)
    assert made.status_code == 201
    assert made.json()["config"] == config | {"keyring": ""}
    assert operator.get("/providers").json()["items"][0]["name"] == "mirror"
    changed = operator.send("PATCH", "/providers/mirror", {"enabled": False, "name": "other"})
    assert (changed.json()["enabled"], changed.json()["name"]) == (False, "other")
    assert operator.post("/providers/other/refresh").status_code == 202
    assert operator.delete("/providers/other").status_code == 204
    assert not Provider.objects.filter(type="alpine", position=1).exists()


def test_a_wrong_configuration_names_its_field(operator: APIClient) -> None:
    body = {"name": "mirror", "type": "alpine", "config": {"base_url": "file:///etc"}}
    refused = operator.send("POST", "/providers", body)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == "config.base_url"


def test_the_types_say_what_they_need(reader: APIClient) -> None:
    types = {item["name"]: item for item in reader.get("/provider-types").json()["items"]}
    assert set(types) == set(Provider.Type.values)
    assert [field["name"] for field in types["alpine"]["fields"]] == ["base_url", "keyring"]
