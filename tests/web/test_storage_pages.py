"""The page of the storage: what it is, what drives take, the check and the repair."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest
from django.test import Client

from drives import services
from drives.models import Drive
from nexus_site.core import operations
from nexus_site.core.ids import NexusID
from nexus_site.core.models import Operation
from tests.factories import make_drive
from tests.web.conftest import htmx

pytestmark = pytest.mark.usefixtures("nudges")

CHECK = htmx("div#drives-storage_check")


@pytest.fixture(autouse=True)
def _own_data_dir(settings: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of other tests is there to be found."""
    here = settings.NEXUS.model_copy(update={"data_dir": tmp_path})  # type: ignore[attr-defined]
    monkeypatch.setattr(settings, "NEXUS", here)


def _html(client: Client, address: str, **headers: str) -> str:
    return html.unescape(client.get(address, headers=headers or None).content.decode())


def _drive(name: str, size_mib: int) -> Drive:
    operations.execute(services.create_drive(name=name, size_mib=size_mib).pk)
    return Drive.objects.get(name=name, state="ready")


def _order(page: str) -> list[str]:
    return re.findall(r'<tr id="storage-\w+">\s*<th scope="row"><a [^>]*>([^<]+)</a>', page)


def test_it_says_which_backend_and_why_not_a_better_one(client: Client, db: None) -> None:
    page = _html(client, "/storage/")
    found = services.storage().describe()
    assert f"Backend: {found.backend}" in page
    assert str(found.directory) in page
    for problem in found.problems:
        assert problem in page
    if found.backend == "copy":
        assert "nexusctl storage init --loopback" in page, "how to get a better one"
    assert 'aria-label="Disk in use"' in page
    assert "No drive yet" in page


def test_drives_are_sorted_by_what_they_take(client: Client, db: None) -> None:
    _drive("a-large", 64), _drive("b-small", 4)
    make_drive(name="c-missing", state=Drive.State.MISSING)
    assert _order(_html(client, "/storage/?sort=name")) == ["a-large", "b-small", "c-missing"]
    assert _order(_html(client, "/storage/?sort=-name")) == ["c-missing", "b-small", "a-large"]
    by_use = _order(_html(client, "/storage/"))
    assert by_use == ["a-large", "b-small", "c-missing"], "the most first, what is unknown last"
    assert _order(_html(client, "/storage/?sort=used"))[0] == "c-missing"
    assert _order(_html(client, "/storage/?sort=nonsense")) == by_use
    assert _order(_html(client, "/storage/?q=small")) == ["b-small"]


def test_the_check_finds_both_ways_and_the_repair_asks_first(client: Client, db: None) -> None:
    _drive("kept", 4)
    assert "Nothing is wrong: 1 drive" in _html(client, "/storage/check/", **CHECK)
    lost, stray = _drive("lost", 4), str(NexusID.random())
    services.storage().drive_path(lost.ref).unlink()
    services.storage().create(stray, 4 << 20)
    found = _html(client, "/storage/check/", **CHECK)
    assert found.lstrip().startswith('<div id="drives-storage_check"'), "the fragment alone"
    assert "2 problems" in found
    assert "The drive “lost” has lost its file." in found
    assert stray in found
    dialog = _html(client, "/storage/repair/", **htmx("dialog#dialog"))
    assert "<li>lost: Mark it as missing</li>" in dialog
    assert f"<li>{stray}: Delete the file</li>" in dialog
    assert not Operation.objects.filter(kind="storage.repair").exists()
    client.post("/storage/repair/", headers=htmx("dialog#dialog"))
    operations.execute(Operation.objects.get(kind="storage.repair").pk)
    lost.refresh_from_db()
    assert lost.state == Drive.State.MISSING
    assert not services.storage().drive_path(stray).exists()
    assert "Nothing is wrong" in _html(client, "/storage/check/", **CHECK)
    assert "repaired the storage: 2 problems" in _html(client, "/events/")


def test_the_check_is_a_page_for_those_without_the_button(client: Client, db: None) -> None:
    assert "<h1>Storage check</h1>" in _html(client, "/storage/check/")


def test_an_onlooker_checks_and_repairs_nothing(onlooker: Client, db: None) -> None:
    assert onlooker.get("/storage/").status_code == 200
    assert onlooker.get("/storage/check/").status_code == 200
    assert onlooker.get("/storage/repair/").status_code == 403
    assert onlooker.post("/storage/repair/").status_code == 403
