"""The page of warm templates, and its dialogs."""

from __future__ import annotations

import html
from typing import Any

import pytest
from django.test import Client

from nexus_site.core.models import Operation
from tests.factories import make_image, make_warm_template
from tests.vms.warm_hosts import switch
from tests.web.conftest import htmx
from vms import warm

pytestmark = pytest.mark.usefixtures("nudges")
ADDRESS = "/warm-templates/"


@pytest.fixture(autouse=True)
def _switched_on(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    switch(settings, warm_templates=True)
    monkeypatch.setattr(warm, "host_tsc_khz", lambda: 2_000_000)


def _page(client: Client, address: str = ADDRESS) -> str:
    return html.unescape(client.get(address, headers=htmx("dialog#dialog")).content.decode())


def test_without_any_the_page_says_when_there_will_be_one(client: Client) -> None:
    page = html.unescape(client.get(ADDRESS).content.decode())
    assert "No warm templates yet" in page
    assert "The 8 used last are kept" in page


def test_they_say_what_they_take_and_what_is_wrong(client: Client) -> None:
    good = make_warm_template(hits=7)
    make_warm_template(state="failed", problem="The disk <is> full.")
    page = client.get(ADDRESS).content.decode()
    assert good.image.name in page
    assert "80 MiB" in page
    assert ">7<" in page
    assert "The disk &lt;is&gt; full." in page


def test_one_is_made_deleted_and_pruned_from_dialogs(client: Client) -> None:
    image, template = make_image(name="alpine"), make_warm_template()
    assert "A VM that nobody sees boots" in _page(client, f"{ADDRESS}make/")
    data = {"image": str(image.pk), "vcpu_count": 1, "mem_size_mib": 128}
    client.post(f"{ADDRESS}make/", data, headers=htmx("dialog#dialog"))
    assert "asked for" in _page(client, f"{ADDRESS}{template.ref}/delete/")
    client.post(f"{ADDRESS}{template.ref}/delete/", headers=htmx("dialog#dialog"))
    assert "Prune" in _page(client, f"{ADDRESS}prune/")
    client.post(f"{ADDRESS}prune/", headers=htmx("dialog#dialog"))
    kinds = sorted(Operation.objects.values_list("kind", flat=True))
    assert kinds == ["warm.delete", "warm.delete", "warm.make"]
