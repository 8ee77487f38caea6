"""Kernels over HTTP."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from images.models import Kernel
from images.providers.releases import ReleaseOffer
from images.services import host_arch, kernel_dir, kernel_shelf, remember_kernel_news
from images.services.kernel_facts import Score
from images.services.remembered import ReleaseOffers
from nexus_site.core.models import Operation
from tests.api.conftest import APIClient
from tests.factories import make_kernel
from tests.images.kernels import vmlinux

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("nudges")]


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    shutil.rmtree(kernel_shelf.kernels_dir())


def kept(**values: Any) -> Kernel:
    """A kernel with its files."""
    kernel = make_kernel(**{"arch": host_arch(), "provider": "local"} | values)
    directory = kernel_dir(kernel)
    directory.mkdir(parents=True)
    (directory / "vmlinux").write_bytes(vmlinux())
    return kernel


def test_offers_say_what_is_here_and_how_old_they_are(
    reader: APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_kernel(version="6.12.58")
    offers = [ReleaseOffer(one, host_arch(), "anvil", "x") for one in ("6.18.1", "6.12.58")]
    known = ReleaseOffers(offers, None, "no network")
    monkeypatch.setattr("images.services.list_kernel_offers", lambda: known)
    found = reader.get("/kernels/available").json()
    assert [(row["version"], row["installed"]) for row in found["items"]] == [
        ("6.18.1", False),
        ("6.12.58", True),
    ]
    assert (found["refreshed_at"], found["problem"]) == (None, "no network")
    assert found["news"] == {"newer": [], "latest": "", "looked_at": None, "problem": ""}


def test_offers_say_what_the_daily_look_found(reader: APIClient) -> None:
    make_kernel(version="6.12.50", provider="built")
    remember_kernel_news(["6.12.58", "6.6.90", "7.1.3"], "7.1.3")
    news = reader.get("/kernels/available").json()["news"]
    assert (news["newer"], news["latest"], news["problem"]) == (["7.1.3", "6.12.58"], "7.1.3", "")
    assert news["looked_at"]


def test_a_kernel_says_who_runs_it(reader: APIClient, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = make_kernel(name="old")
    monkeypatch.setattr(kernel_shelf, "_users", [lambda: [(int(kernel.pk), "web")]])
    shown = reader.get("/kernels/old").json()
    assert (shown["running"], shown["pinned"], shown["state"]) == (["web"], [], "unverified")
    assert reader.get("/kernels").json()["items"] == [shown]


def test_a_download_is_an_operation(admin: APIClient) -> None:
    wish = {"provider": "embedded"}
    plan = admin.send("POST", "/kernels?dry_run=1", wish).json()
    assert [step["name"] for step in plan["steps"]] == ["fetch", "install", "boot"]
    assert not Operation.objects.exists()
    answer = admin.send("POST", "/kernels", wish)
    assert (answer.status_code, answer.json()["kind"]) == (202, "kernel.download")
    busy = admin.send("POST", "/kernels", wish)
    assert (busy.status_code, busy.json()["code"]) == (409, "kernel-busy")


def test_only_a_good_kernel_is_used(admin: APIClient) -> None:
    kernel = kept(name="new")
    refused = admin.send("POST", "/kernels/new/use")
    assert (refused.status_code, refused.json()["code"]) == (409, "kernel-not-good")
    assert "kernel verify new --boot" in refused.json()["hint"]
    Kernel.objects.filter(pk=kernel.pk).update(state="good")
    assert admin.send("POST", "/kernels/new/use?dry_run=1").json()["dry_run"] is True
    assert not Kernel.objects.filter(is_default=True).exists()
    assert admin.send("POST", "/kernels/new/use").json()["is_default"] is True
    refused = admin.send("DELETE", "/kernels/new")
    assert (refused.status_code, refused.json()["code"]) == (409, "kernel-default")


def test_a_kernel_is_verified_compared_and_removed(admin: APIClient) -> None:
    kernel, other = kept(name="new"), make_kernel(name="other")
    opened = admin.send("POST", "/kernels/new/verify", {"boot": True}).json()
    assert [step["name"] for step in opened["steps"]] == ["verify", "boot"]
    found = admin.get("/kernels/new/diff/other").json()
    assert (found["before"]["name"], found["after"]["name"]) == ("new", "other")
    assert found["options"] is None
    assert admin.get("/kernels/new/config").json()["code"] == "kernel-config-unknown"
    assert admin.send("DELETE", "/kernels/new").json()["code"] == "kernel-busy"
    assert admin.send("DELETE", "/kernels/other").status_code == 204
    assert list(Kernel.objects.all()) == [kernel]
    assert other.name == "other"


def test_scores_are_of_all_kernels_or_of_one(
    reader: APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = make_kernel(name="new")
    asked: list[Kernel | None] = []

    def scores(kernel: Kernel | None = None) -> list[Score]:
        asked.append(kernel)
        return [Score("new", "aaaaaaaaaaaac", "alpine", "qemu", "tcg", 3, 1, 1.5, 2.5)]

    monkeypatch.setattr("images.services.kernel_scores", scores)
    (row,) = reader.get("/kernel-scores").json()
    assert (row["kernel"], row["p50"]) == ({"id": "aaaaaaaaaaaac", "name": "new"}, 1.5)
    reader.get("/kernel-scores?kernel=new")
    assert asked == [None, kernel]
    assert reader.get("/kernel-scores?kernel=none").status_code == 404
