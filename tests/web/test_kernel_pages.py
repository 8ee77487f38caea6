"""The pages of kernels, and the dialogs that change which there are."""

from __future__ import annotations

import html
import re
import shutil
from collections.abc import Iterator

import pytest
from django.test import Client

from images import services
from images.models import Kernel
from images.providers.releases import ReleaseOffer
from images.services import host_arch, kernel_shelf
from images.services.kernel_facts import Score
from images.services.remembered import ReleaseOffers
from nexus_site.core.models import Operation
from tests.api.test_kernels import kept
from tests.factories import make_kernel, make_vm
from tests.web.conftest import htmx, make_ready_vm

pytestmark = pytest.mark.usefixtures("nudges")

DIALOG = htmx("dialog#dialog")


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    shutil.rmtree(kernel_shelf.kernels_dir())


def _page(client: Client, address: str = "/kernels/") -> str:
    return html.unescape(client.get(address).content.decode())


def _row(page: str, kernel: Kernel) -> str:
    found = re.search(rf'<tr id="kernel-{kernel.ref}">.*?</tr>', page, re.DOTALL)
    assert found, kernel
    return found[0]


def test_kernels_say_what_they_are(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    boots = {"qemu": {"seconds": 1.2, "at": "2026-01-01T00:00:00Z", "problem": ""}}
    good = kept(name="good-one", state="good", boots=boots, is_default=True)
    bad = {"firecracker": {"seconds": None, "at": "2026-01-01T00:00:00Z", "problem": "<dead>"}}
    other = kept(name="bad-one", state="bad", boots=bad)
    lost = make_kernel(name="lost-one")
    spare = kept(name="spare-one", state="good")
    vm = make_ready_vm(name="web", kernel=other)
    users = [lambda: [(int(good.pk), "db")]]
    monkeypatch.setattr(kernel_shelf, "_users", users)
    page = _page(client)
    assert all(words in _row(page, good) for words in ("default", "qemu 1.2 s", 'title="db"'))
    assert f"/kernels/{good.ref}/use/" not in _row(page, good)
    assert all(words in _row(page, other) for words in ("firecracker failed", "1 pinned"))
    assert f"/kernels/{other.ref}/use/" not in _row(page, other), "it does not boot"
    assert f"/kernels/{spare.ref}/use/" in _row(page, spare)
    assert "its files are gone" in _row(page, lost)
    assert 'href="/builds/kernels/"' in page
    detail = _page(client, "/kernels/bad-one/")
    assert "<dead>" in detail
    assert f"/kernels/{other.ref}/use/" not in detail
    assert f'href="/vms/{vm.name}/"' in detail
    assert "VMs need it." in detail


def test_news_scores_and_offers_are_shown(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = make_kernel(name="new", version="6.12.50")
    services.remember_kernel_news(["6.12.58"], "6.12.58")
    score = Score("new", kernel.ref, "alpine-1", "qemu", "tcg", 7, 2, 1.5, 2.25)
    monkeypatch.setattr("images.services.kernel_scores", lambda kernel=None: [score])
    offers = [ReleaseOffer(f"6.{n}.1", host_arch(), "anvil", "x") for n in range(12)]
    known = ReleaseOffers(offers, None, "kernels cannot be reached")
    monkeypatch.setattr("images.services.list_kernel_offers", lambda: known)
    page = _page(client)
    assert "Newer at kernel.org: 6.12.58" in page
    assert all(words in page for words in ("alpine-1", "1.50 s", "2.25 s"))
    assert page.count("/kernels/fetch/?provider=anvil&version=") == 10
    assert "2 more: nexusctl kernel list" in page
    assert "kernels cannot be reached" in page
    assert "2.25 s" in _page(client, "/kernels/new/")


def test_two_kernels_are_compared_on_the_page(client: Client) -> None:
    for name, option in (
        ("one", "CONFIG_A=y\nCONFIG_B=y\n"),
        ("two", 'CONFIG_A="<b>"\nCONFIG_B=y\n'),
    ):
        kernel = kept(name=name, config_digest="1" * 64)
        (services.kernel_dir(kernel) / "config").write_text(option)
    page = client.get("/kernels/two/?with=one").content.decode()
    assert "1 option differs." in page
    assert "&lt;b&gt;" in page
    assert "CONFIG_A=y\nCONFIG_B=y" in _page(client, "/kernels/one/")


def test_a_download_is_asked_for_and_begun(client: Client) -> None:
    asked = _page(client, "/kernels/fetch/?provider=embedded")
    assert '<option value="embedded" selected>' in asked
    refused = client.post("/kernels/fetch/", {"provider": "local"}, headers=DIALOG)
    assert "needs a path" in html.unescape(refused.content.decode())
    client.post("/kernels/fetch/", {"provider": "embedded"}, headers=DIALOG)
    assert Operation.objects.get().kind == "kernel.download"


def test_a_kernel_is_used_verified_and_removed(client: Client) -> None:
    kernel = kept(name="new")
    refused = client.post("/kernels/new/use/", headers=DIALOG)
    assert refused.status_code == 409
    Kernel.objects.filter(pk=kernel.pk).update(state="good")
    client.post("/kernels/new/use/", headers=DIALOG)
    kernel.refresh_from_db()
    assert kernel.is_default
    assert "use another one first" in _page(client, "/kernels/new/remove/")
    Kernel.objects.update(is_default=False)
    client.post("/kernels/new/verify/", {"boot": "1"}, headers=htmx("form"))
    operation = Operation.objects.get(kind="kernel.verify")
    assert operation.params["boot"] is True
    Operation.objects.all().delete()
    client.post("/kernels/new/remove/", headers=DIALOG)
    assert not Kernel.objects.exists()


def test_publishers_are_asked_now(client: Client) -> None:
    client.post("/kernels/available/", headers=htmx("form"))
    assert Operation.objects.get().kind == "kernel.refresh"


def test_a_vm_is_pinned_and_set_free_on_its_form(client: Client) -> None:
    kernel = make_kernel(name="new")
    vm = make_vm(name="web", mem_size_mib=96)
    dialog = _page(client, "/vms/web/change/")
    assert '<option value="new">' in dialog
    form = {
        "vcpu_count": 1,
        "mem_size_mib": 96,
        "hypervisor": "auto",
        "restart_policy": "no",
        "unreachable_action": "keep",
    }
    answer = client.post("/vms/web/change/", form | {"kernel": "new"}, headers=DIALOG)
    assert answer.status_code == 200, answer.content.decode()
    vm.refresh_from_db()
    assert vm.kernel == kernel
    assert "new" in _page(client, "/vms/web/")
    client.post("/vms/web/change/", form | {"kernel": ""}, headers=DIALOG)
    vm.refresh_from_db()
    assert vm.kernel is None
