"""The page of pools, and its dialogs."""

from __future__ import annotations

import html

import pytest
from django.test import Client

from nexus_site.core.models import Operation
from tests.factories import make_image, make_pool, make_template
from tests.web.conftest import htmx
from vms.models import VM, Pool
from vms.services import refilling

pytestmark = pytest.mark.usefixtures("nudges")
DIALOG = htmx("dialog#dialog")


@pytest.fixture(autouse=True)
def _room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refilling, "LOAD", 1000.0)


def _page(client: Client, address: str = "/pools/") -> str:
    return html.unescape(client.get(address, headers=DIALOG).content.decode())


def test_without_any_the_page_says_what_they_are_for(client: Client) -> None:
    page = html.unescape(client.get("/pools/").content.decode())
    assert "No pools yet" in page
    assert 'href="/pools/" aria-current="page"' in page


def test_they_say_how_full_they_are_and_what_is_wrong(client: Client) -> None:
    template = make_template(name="web")
    pool = make_pool(name="ready", ready=2, template=template, failures=1)
    Pool.objects.update(size=3, problem="It <does> not start.")
    page = client.get("/pools/").content.decode()
    assert "2 of 3 ready" in page
    assert "It &lt;does&gt; not start. It tries again by itself." in page
    assert f"/templates/{template.ref}/" in page
    for vm in pool.vms.all():
        assert vm.name in page
    fragment = client.get("/pools/", headers=htmx("div#vms-pools")).content.decode()
    assert fragment.lstrip().startswith('<div id="vms-pools"')
    assert 'data-live="pools vms' in fragment


def test_one_is_created_resized_and_deleted_from_dialogs(client: Client) -> None:
    image = make_image(name="alpine")
    assert "So many VMs are ready" in _page(client, "/pools/new/")
    data = {"name": "ready", "size": 1, "vcpu_count": 1, "mem_size_mib": 128}
    data |= {"hypervisor": "auto", "restart_policy": "no", "unreachable_action": "keep"}
    refused = client.post("/pools/new/", data, headers=DIALOG)
    assert refused.status_code == 422
    assert "Give either an image or a template." in refused.content.decode()
    client.post("/pools/new/", data | {"image": str(image.pk)}, headers=DIALOG)
    pool = Pool.objects.get()
    assert (pool.name, pool.image, pool.shape["mem_size_mib"]) == ("ready", image, 128)

    address = f"/pools/{pool.ref}"
    assert "0 empties it" in _page(client, f"{address}/resize/")
    client.post(f"{address}/resize/", {"size": 4}, headers=DIALOG)
    pool.refresh_from_db()
    assert pool.size == 4
    assert "Delete 1 VM that waits" in _page(client, f"{address}/delete/")
    client.post(f"{address}/delete/", headers=DIALOG)
    assert not Pool.objects.exists()
    assert Operation.objects.filter(kind="pool.clear").exists()


def test_a_vm_is_taken_and_its_page_is_next(client: Client) -> None:
    pool = make_pool(name="ready", ready=1)
    address = f"/pools/{pool.ref}/take/"
    assert "Take a VM from ready" in _page(client, address)
    answer = client.post(address, {"name": "web"}, headers=DIALOG)
    vm = VM.objects.get(name="web")
    assert answer.headers["HX-Redirect"] == f"/vms/{vm.ref}/"
    assert "the pool <a" in client.get(f"/vms/{vm.ref}/").content.decode()
    refused = client.post(address, {}, headers=DIALOG)
    assert refused.status_code == 409
    assert "No VM is ready in the pool “ready”." in refused.content.decode()
    client.post(address, {"name": "db", "or_start": "on"}, headers=DIALOG)
    assert Operation.objects.filter(kind="vm.from-image", subject_name="db").exists()


def test_who_may_only_look_takes_none(onlooker: Client) -> None:
    pool = make_pool(ready=1)
    assert onlooker.get("/pools/").status_code == 200
    assert onlooker.get(f"/pools/{pool.ref}/take/").status_code == 403
    assert onlooker.post(f"/pools/{pool.ref}/take/").status_code == 403
