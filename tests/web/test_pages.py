"""Every page: who may open it, that it shows, and that its parts can be fetched alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.conf import settings
from django.test import Client
from django.urls import reverse

from nexus_site.core.htmx import fragment_id
from nexus_site.core.models import Event
from tests.factories import make_build, make_drive, make_kernel, make_vm_snapshot
from tests.web.conftest import htmx, make_operation, make_ready_vm

LISTS = [
    "overview",
    "operations",
    "events",
    "account",
    "vms:list",
    "vms:new",
    "drives:list",
    "vms:new-drive",
    "vms:new-image",
    "vms:import-image",
    "images:list",
    "images:rootfs",
    "images:import-rootfs",
    "images:providers",
    "images:new-provider",
    "images:kernels",
    "drives:import",
    "drives:storage",
    "drives:check-storage",
    "builds:templates",
    "builds:new-template",
    "builds:list",
]


@pytest.fixture
def addresses(db: None) -> dict[str, str]:
    """Every page's address, with a row behind each that needs one."""
    vm = make_ready_vm(name="hello")
    drive, build = make_drive(name="spare"), make_build()
    vm_snapshot = make_vm_snapshot(vm)
    make_kernel()
    operation = make_operation(subject_kind="vm", subject_id=vm.pk, subject_name=vm.name)
    rows = {
        "vms:detail": vm.name,
        "vms:snapshot": vm_snapshot.ref,
        "drives:detail": drive.ref,
        "drives:snapshot": vm_snapshot.drives.get().ref,
        "images:detail": drive.image.name,
        "images:packages": drive.image.name,
        "images:rootfs-detail": drive.image.rootfs.ref,
        "images:provider": "embedded",
        "builds:template": build.template_version.template.ref,
        "builds:detail": build.ref,
        "operation": operation.ref,
    }
    return {name: reverse(name) for name in LISTS} | {
        name: reverse(name, args=[ref]) for name, ref in rows.items()
    }


def test_every_page_shows(client: Client, addresses: dict[str, str]) -> None:
    for name, address in addresses.items():
        response = client.get(address)
        assert response.status_code == 200, name
        html = response.content.decode()
        assert html.count("<h1") == 1, f"{name} has one headline"
        assert 'aria-current="page"' in html or name in ("vms:new",), f"{name} is in the navigation"


def test_strangers_are_sent_to_sign_in_and_come_back(
    stranger: Client, addresses: dict[str, str]
) -> None:
    for name, address in addresses.items():
        response = stranger.get(address)
        assert response.status_code == 302, name
        assert response["Location"].startswith("/sign-in/?next=%2F"), name


def test_a_stranger_s_fragment_sends_the_whole_page_to_sign_in(stranger: Client, db: None) -> None:
    here = htmx("section#vms-table", **{"HX-Current-URL": "http://testserver/vms/?state=ready"})
    response = stranger.get("/vms/", headers=here)
    assert response.status_code == 204
    assert response["HX-Redirect"] == "/sign-in/?next=%2Fvms%2F%3Fstate%3Dready"


def test_live_parts_are_fetched_alone_and_look_as_in_the_page(
    client: Client, addresses: dict[str, str]
) -> None:
    fetched = 0
    for name, address in addresses.items():
        page = client.get(address).content.decode()
        own: list[str] = re.findall(r"<[a-z]+ [^>]*data-live=[^>]*>", page)
        ids = [re.search(r'id="([^"]+)"', tag)[1] for tag in own if "data-live-url" not in tag]
        if not ids:
            continue
        headers = htmx() | {"Nexus-Fragments": " ".join(ids)}
        answer = client.get(address, headers=headers).content.decode()
        for element in ids:
            assert f'<hx-partial hx-target="#{element}" hx-swap="outerMorph">' in answer, name
            assert answer.count(f'id="{element}"') == 1, f"{name}: {element}"
            fetched += 1
        assert "<!doctype" not in answer, f"{name} answers with the parts alone"
    assert fetched > 15


def test_a_fragment_s_element_is_called_after_its_template() -> None:
    directory = Path(settings.BASE_DIR) / "templates"
    live = [path for path in directory.glob("*/_*.html") if "data-live=" in path.read_text()]
    assert len(live) > 15
    for path in live:
        name = str(path.relative_to(directory))
        assert f'id="{fragment_id(name)}"' in path.read_text(), name


def test_a_page_says_up_to_which_event_it_is_true(client: Client) -> None:
    vm = make_ready_vm()
    html = client.get(f"/vms/{vm.ref}/").content.decode()
    last = int(re.search(r'data-seq="(\d+)"', html)[1])
    assert last == Event.objects.latest("seq").seq


def test_what_is_not_there_is_a_page_with_a_way_on(client: Client) -> None:
    response = client.get("/vms/nowhere/")
    assert response.status_code == 404
    html = response.content.decode()
    assert "There is no VM “nowhere”." in html
    assert "nexusctl vm list" in html
    assert "<nav" in html


def test_to_htmx_an_error_is_a_note(client: Client) -> None:
    response = client.post("/vms/nowhere/start/", headers=htmx("form"))
    assert response.status_code == 404
    html = response.content.decode()
    assert html.lstrip().startswith('<div class="note note-red"')


def test_an_unknown_address_looks_like_nexus(client: Client) -> None:
    response = client.get("/nonsense/")
    assert response.status_code == 404
    assert "There is no such page." in response.content.decode()


def test_no_page_has_inline_scripts_or_styles(client: Client, addresses: dict[str, str]) -> None:
    for name, address in addresses.items():
        html = client.get(address).content.decode()
        assert not re.search(r"<script(?![^>]*\bsrc=)", html), name
        assert not re.search(r"<[a-z][^>]*\s(style|on[a-z]+)=", html), name


def test_pages_are_not_kept_by_caches(client: Client, db: None) -> None:
    response = client.get("/vms/")
    assert response["Cache-Control"] == "no-store"
    assert "HX-Target" in response["Vary"]
