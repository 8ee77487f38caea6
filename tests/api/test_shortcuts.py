"""Shortcuts over HTTP: what each takes, refuses, plans and opens; images of uploaded files."""

from __future__ import annotations

from typing import Any

import pytest

from images import uploads
from images.models import Image, Rootfs
from nexus_site.core import operations
from nexus_site.core.ids import NexusID
from nexus_site.core.models import Operation
from tests.api.conftest import APIClient
from tests.api.test_changes import snapshot
from tests.factories import make_image
from tests.images.providers.alpine_mirror import mini_rootfs

CONTENT = mini_rootfs("1")
WAYS = [
    (f"/{target}s/from-{source}", body)
    for target in ("image", "drive", "vm")
    for source, body in {
        "rootfs": {"distro": "alpine", "version": "3.23"},
        "template": {"template": "alpine-3-23"},
        "image": {"image": "alpine-3-23"},
    }.items()
    if target != source
]
every_way = pytest.mark.parametrize(("path", "body"), WAYS, ids=lambda value: str(value))


@pytest.fixture(autouse=True)
def _nothing_is_left(db: None, nudges: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builds.services.builds.agent_digest", lambda arch: "3" * 64)
    for name in left():
        uploads.discard(name)


def left() -> list[str]:
    return sorted(path.name for path in uploads.uploads_dir().glob("*"))


@every_way
def test_a_shortcut_is_one_operation_about_what_it_will_make(
    path: str, body: dict[str, str], world: Any, operator: APIClient
) -> None:
    response = operator.send("POST", path, body | {"name": "fresh"})
    assert response.status_code == 202, response.content
    opened = response.json()
    target = path.split("/")[1].removesuffix("s")
    assert opened["kind"] == path.removeprefix("/").replace("s/", ".", 1)
    assert opened["subject"] == {"kind": target, "id": None, "name": "fresh"}
    assert opened["title"].startswith(f"Create {target.replace('vm', 'VM')} fresh from ")
    assert response.headers["Location"] == f"/v1/operations/{opened['id']}"


@every_way
def test_a_dry_run_of_a_shortcut_plans_and_changes_nothing(
    path: str, body: dict[str, str], world: Any, operator: APIClient
) -> None:
    before = snapshot()
    plan = operator.send("POST", f"{path}?dry_run=1", body)
    assert plan.status_code == 200
    assert plan.json()["steps"]
    assert snapshot() == before


@every_way
def test_a_shortcut_with_a_key_is_taken_once(
    path: str, body: dict[str, str], world: Any, operator: APIClient
) -> None:
    headers = {"Idempotency-Key": "k"}
    first, again = (operator.send("POST", path, body, headers=headers) for _ in range(2))
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.json()["id"] == first.json()["id"]
    other = operator.send("POST", path, body | {"name": "other"}, headers=headers)
    assert other.json()["code"] == "idempotency-key-reused"


@every_way
@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"name": "Not A Name"}, 422, "name-rule"),
        ({"name": "x" * 64}, 422, "validation"),
        ({"nothing": "x"}, 422, "validation"),
    ],
)
def test_a_shortcut_refuses_what_it_does_not_know(
    path: str,
    body: dict[str, str],
    changes: dict[str, str],
    status: int,
    code: str,
    world: Any,
    operator: APIClient,
) -> None:
    refused = operator.send("POST", path, body | changes)
    assert (refused.status_code, refused.json()["code"]) == (status, code)
    assert not Operation.objects.filter(kind__contains=".from-").exists()


@every_way
def test_a_shortcut_from_nothing_is_not_found(
    path: str, body: dict[str, str], world: Any, operator: APIClient
) -> None:
    refused = operator.send("POST", path, dict.fromkeys(body, "nope"))
    assert refused.status_code == 404


@every_way
def test_a_shortcut_does_not_take_a_name_that_is_taken(
    path: str, body: dict[str, str], world: Any, operator: APIClient
) -> None:
    taken = {"images": "alpine-3-23", "drives": "spare", "vms": "hello"}[path.split("/")[1]]
    refused = operator.send("POST", path, body | {"name": taken})
    assert (refused.status_code, refused.json()["code"]) == (409, "name-taken")


@pytest.mark.parametrize(
    ("path", "changes", "code"),
    [
        ("/drives/from-image", {"size_mib": 1}, "drive-too-small"),
        ("/drives/from-image", {"size_mib": 0}, "validation"),
        ("/drives/from-image", {"size_mib": 10**12}, "validation"),
        ("/vms/from-image", {"mem_size_mib": 1}, "memory-size"),
        ("/vms/from-image", {"mem_size_mib": 60_000_000}, "memory-size"),
        ("/vms/from-image", {"vcpu_count": 1000}, "too-many-cpus"),
    ],
)
def test_sizes_are_checked_before_anything_is_begun(
    path: str, changes: dict[str, int], code: str, world: Any, operator: APIClient
) -> None:
    refused = operator.send("POST", path, {"image": "alpine-3-23"} | changes)
    assert (refused.status_code, refused.json()["code"]) == (422, code)
    assert not Operation.objects.filter(kind__contains=".from-").exists()


# Images of uploaded files


def send(client: APIClient, query: str = "", content: bytes = CONTENT, **headers: str) -> Any:
    path = f"/images/import?{query}"
    return client.post(path, content, content_type="application/octet-stream", headers=headers)


@pytest.mark.parametrize(
    ("query", "content", "status", "code"),
    [
        (f"sha256={'0' * 64}", CONTENT, 422, "checksum"),
        ("sha256=12", CONTENT, 422, "validation"),
        ("", b"", 422, "upload-empty"),
        ("name=../x", CONTENT, 422, "name-rule"),
        ("name=taken", CONTENT, 409, "name-taken"),
        ("format=zip", CONTENT, 422, "format-unknown"),
    ],
)
def test_an_import_that_breaks_a_rule_keeps_nothing(
    operator: APIClient, query: str, content: bytes, status: int, code: str
) -> None:
    make_image(name="taken")
    before = snapshot()
    refused = send(operator, query, content)
    assert (refused.status_code, refused.json()["code"]) == (status, code)
    assert left() == []
    assert snapshot() == before


def test_a_dry_run_of_an_import_keeps_nothing(operator: APIClient) -> None:
    plan = send(operator, "name=mine&dry_run=1").json()
    assert plan["title"] == "Create image mine from a file"
    assert [step["name"] for step in plan["steps"]] == ["rootfs", "template", "build", "image"]
    assert left() == []
    assert not Operation.objects.exists()


def test_an_import_with_a_key_is_one_for_the_same_file_and_wishes(operator: APIClient) -> None:
    key = {"Idempotency-Key": "k"}
    first, again = (send(operator, "name=mine", **key) for _ in range(2))
    assert first.json()["id"] == again.json()["id"]
    assert len(left()) == 1
    for other in (
        send(operator, "name=mine", b"other", **key),
        send(operator, "name=other", **key),
        send(operator, "name=mine&format=tar", **key),
    ):
        assert (other.status_code, other.json()["code"]) == (409, "idempotency-key-reused")
    assert len(left()) == 1


@pytest.mark.parametrize(("query", "content"), [("", b"hello"), ("format=qcow2", CONTENT)])
def test_a_file_that_is_no_root_file_system_fails_and_is_gone(
    operator: APIClient, query: str, content: bytes
) -> None:
    opened = send(operator, query, content).json()
    operation = Operation.objects.get(pk=NexusID.parse(opened["id"]))
    operations.execute(operation.pk)
    ended = operator.get(f"/operations/{opened['id']}").json()
    assert (ended["state"], ended["error"]["code"]) == ("failed", "format-unknown")
    assert left() == []
    assert not Image.objects.exists()
    assert not Rootfs.objects.exists()
