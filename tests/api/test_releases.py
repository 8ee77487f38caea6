"""Releases of Firecracker over HTTP."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from images.providers.releases import ReleaseOffer
from images.services import host_arch, release_dir, releases
from images.services.remembered import ReleaseOffers
from nexus_site.core.models import Operation
from tests.api.conftest import APIClient
from tests.factories import make_release

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("nudges")]


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    shutil.rmtree(releases.releases_dir())


def test_offers_say_what_is_here_and_how_old_they_are(
    reader: APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_release("1.12.1")
    arch = host_arch()
    offers = [ReleaseOffer(version, arch, "github", "x") for version in ("1.13.0", "1.12.1")]
    monkeypatch.setattr(
        "images.services.list_release_offers", lambda: ReleaseOffers(offers, None, "no network")
    )
    found = reader.get("/firecracker/releases").json()
    assert [(row["version"], row["installed"]) for row in found["items"]] == [
        ("1.13.0", False),
        ("1.12.1", True),
    ]
    assert (found["refreshed_at"], found["problem"]) == (None, "no network")


def test_a_release_is_shown_by_id_and_by_version(
    reader: APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = make_release("1.12.1")
    monkeypatch.setattr(releases, "_users", [lambda: [("1.12.1", "web")]])
    shown = reader.get("/firecracker/installed/1.12.1").json()
    assert shown == reader.get(f"/firecracker/installed/{release.ref}").json()
    assert (shown["id"], shown["vms"], shown["is_default"]) == (release.ref, ["web"], True)
    assert reader.get("/firecracker/installed").json()["items"] == [shown]
    missing = reader.get("/firecracker/installed/9.9.9")
    assert (missing.status_code, missing.json()["code"]) == (404, "release-not-found")


def test_a_download_is_an_operation(admin: APIClient) -> None:
    plan = admin.send("POST", "/firecracker/installed?dry_run=1", {"provider": "wheel"}).json()
    assert [step["name"] for step in plan["steps"]] == ["fetch", "install"]
    assert not Operation.objects.exists()
    key = {"Idempotency-Key": "k"}
    body = {"version": "1.12.1", "provider": "wheel"}
    first, again = (
        admin.send("POST", "/firecracker/installed", body, headers=key) for _ in range(2)
    )
    assert first.status_code == 202
    assert first.json()["kind"] == "firecracker.download"
    assert first.json()["id"] == again.json()["id"]
    busy = admin.send("POST", "/firecracker/installed", {"version": "1.11.0"})
    assert (busy.status_code, busy.json()["operation"]) == (409, first.json()["id"])


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"version": "../1"}, "release-version"),
        ({"provider": "nope"}, "release-provider"),
        ({"provider": "local"}, "release-path"),
        ({"provider": "local", "path": "relative"}, "release-path"),
        ({"url": "http://example.org"}, "validation"),
    ],
)
def test_bodies_that_make_no_sense_are_refused(
    admin: APIClient, body: dict[str, str], code: str
) -> None:
    refused = admin.send("POST", "/firecracker/installed", body)
    assert (refused.status_code, refused.json()["code"]) == (422, code)


def test_a_release_is_used_and_removed(
    admin: APIClient, monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks: Any
) -> None:
    default, other = make_release("1.12.1", files=True), make_release("1.11.0", files=True)
    used = admin.post("/firecracker/installed/1.11.0/use")
    assert (used.status_code, used.json()["is_default"]) == (200, True)
    monkeypatch.setattr(releases, "_users", [lambda: [("1.12.1", "web")]])
    refused = admin.delete(f"/firecracker/installed/{default.ref}")
    assert (refused.status_code, refused.json()["vms"]) == (409, ["web"])
    with django_capture_on_commit_callbacks(execute=True):
        assert admin.delete(f"/firecracker/installed/{other.ref}").status_code == 204
    assert not release_dir(other).exists()
    default.refresh_from_db()
    assert default.is_default


def test_who_does_not_administer_changes_nothing(operator: APIClient) -> None:
    make_release("1.12.1", files=True)
    for method, path in (
        ("post", "/firecracker/installed"),
        ("post", "/firecracker/releases/refresh"),
        ("post", "/firecracker/installed/1.12.1/use"),
        ("delete", "/firecracker/installed/1.12.1"),
    ):
        assert getattr(operator, method)(path).status_code == 403
