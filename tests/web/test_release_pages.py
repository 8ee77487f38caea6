"""The page of Firecracker's releases, and the dialogs that change which there are."""

from __future__ import annotations

import html
import re
import shutil
from collections.abc import Iterator

import pytest
from django.test import Client

from images import services
from images.models import VmmRelease
from images.providers.releases import ReleaseOffer
from images.services import host_arch, releases
from images.services.remembered import ReleaseOffers
from nexus_site.core.models import Operation
from tests.factories import make_release
from tests.web.conftest import htmx

pytestmark = pytest.mark.usefixtures("nudges")

DIALOG = htmx("dialog#dialog")


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    shutil.rmtree(releases.releases_dir())


def _page(client: Client, address: str = "/firecracker/") -> str:
    return html.unescape(client.get(address).content.decode())


def _row(page: str, release: VmmRelease) -> str:
    found = re.search(rf'<tr id="release-{release.ref}">.*?</tr>', page, re.DOTALL)
    assert found, release
    return found[0]


def test_without_a_release_the_page_says_what_to_do(client: Client) -> None:
    page = _page(client)
    assert "No Firecracker yet" in page
    assert page.count('hx-get="/firecracker/download/"') == 2
    assert "GitHub was never asked" in page


def test_releases_say_what_they_are(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(releases, "_users", [lambda: [("1.12.1", "web"), ("1.12.1", "db")]])
    default = make_release("1.12.1", files=True)
    plain = make_release("1.9.0", files=True, jailer_sha256="")
    lost = make_release("1.11.0", provider="local", source="/opt/a b/firecracker")
    page = _page(client)
    assert [row.version for row in (default, lost, plain)] == re.findall(
        r'<th scope="row">(1\.[\d.]+)', page
    )
    assert "default" in _row(page, default)
    assert 'title="db, web">2<' in _row(page, default)
    assert "/use/" not in _row(page, default)
    assert "VMs are not jailed" in _row(page, plain)
    assert f"/firecracker/{plain.ref}/use/" in _row(page, plain)
    assert "its files are gone" in _row(page, lost)
    wish = "provider=local&version=1.11.0&path=/opt/a%20b/firecracker"
    assert f'hx-get="/firecracker/download/?{wish}"' in _row(page, lost)


def test_what_can_be_had_is_shown_unless_it_is_here(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_release("1.12.1", files=True)
    offers = [
        ReleaseOffer(version, host_arch(), "github", "https://example.org/<script>", 5 << 20)
        for version in ("1.12.1", *(f"1.{minor}.0" for minor in range(11, -1, -1)))
    ]
    known = ReleaseOffers(offers, None, "GitHub cannot be reached.")
    monkeypatch.setattr("images.services.list_release_offers", lambda: known)
    page = client.get("/firecracker/").content.decode()
    assert page.count("/firecracker/download/?provider=github&amp;version=") == 10
    assert "version=1.12.1" not in page, "it is here"
    assert "2 older ones" in page
    assert "GitHub cannot be reached." in page
    assert "<script>" not in page.partition("Can be downloaded")[2].partition("</section>")[0]


def test_a_download_is_asked_for_in_a_dialog(client: Client) -> None:
    address = "/firecracker/download/?provider=wheel&version=1.12.1"
    page = html.unescape(client.get(address, headers=DIALOG).content.decode())
    assert 'value="1.12.1"' in page
    assert '<option value="wheel" selected>' in page
    form = {"provider": "local", "version": "", "path": "/usr/local/bin"}
    client.post("/firecracker/download/", form, headers=DIALOG)
    operation = Operation.objects.get()
    assert operation.kind == "firecracker.download"
    assert operation.params == form | {"arch": host_arch()}
    busy = client.post("/firecracker/download/", form, headers=DIALOG)
    assert busy.status_code == 409
    assert "is on its way" in busy.content.decode()


@pytest.mark.parametrize(
    ("form", "field"),
    [
        ({"provider": "local"}, "path"),
        ({"provider": "local", "path": "bin"}, "path"),
        ({"provider": "github", "path": "/usr/local/bin"}, "path"),
        ({"provider": "github", "version": "latest"}, "version"),
        ({"provider": "nope"}, "provider"),
    ],
)
def test_what_is_refused_is_told_at_its_field(
    client: Client, form: dict[str, str], field: str
) -> None:
    response = client.post("/firecracker/download/", form, headers=DIALOG)
    assert response.status_code == 422
    assert f'id="dialog_{field}-error"' in response.content.decode()
    assert not Operation.objects.exists()


def test_another_release_is_used(client: Client) -> None:
    make_release("1.12.1", files=True)
    other = make_release("1.11.0", files=True)
    asked = client.get(f"/firecracker/{other.ref}/use/", headers=DIALOG).content.decode()
    assert "Those that run stay on theirs" in asked
    done = client.post(f"/firecracker/{other.ref}/use/", headers=DIALOG)
    assert "Firecracker 1.11.0 from now on" in done.content.decode()
    other.refresh_from_db()
    assert other.is_default


def test_removing_says_what_follows(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    default = make_release("1.12.1", files=True)
    address = f"/firecracker/{default.ref}/remove/"
    assert "VMs start with QEMU" in _page(client, address)
    other = make_release("1.11.0", files=True)
    assert "Firecracker 1.11.0 takes its place" in _page(client, address)
    assert "not the default" in _page(client, f"/firecracker/{other.ref}/remove/")
    monkeypatch.setattr(releases, "_users", [lambda: [("1.12.1", "web")]])
    assert "<li>web</li>" in _page(client, address)
    refused = client.post(address, headers=DIALOG)
    assert refused.status_code == 409
    assert "is used by VMs that run: web" in refused.content.decode()
    monkeypatch.setattr(releases, "_users", [])
    assert "is removed" in client.post(address, headers=DIALOG).content.decode()
    assert [row.version for row in services.installed_releases()] == ["1.11.0"]


def test_the_publisher_is_asked(client: Client) -> None:
    client.post("/firecracker/refresh/", headers=htmx("form"))
    assert Operation.objects.get().kind == "firecracker.refresh"


def test_who_may_only_look_changes_nothing(onlooker: Client) -> None:
    release = make_release("1.12.1", files=True)
    assert onlooker.get("/firecracker/").status_code == 200
    for address in ("download", "refresh", f"{release.ref}/use", f"{release.ref}/remove"):
        assert onlooker.post(f"/firecracker/{address}/", headers=DIALOG).status_code == 403
    assert onlooker.get(f"/firecracker/{release.ref}/remove/", headers=DIALOG).status_code == 403
    assert VmmRelease.objects.count() == 1


def test_the_admin_uses_and_removes_by_the_same_rules(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    default, other = make_release("1.12.1", files=True), make_release("1.11.0", files=True)
    lists = "/admin/images/vmmrelease/"
    client.post(lists, {"action": "use", "_selected_action": [str(other.pk)]})
    other.refresh_from_db()
    assert other.is_default
    monkeypatch.setattr(releases, "_users", [lambda: [("1.12.1", "web")]])
    form = {"action": "remove_releases", "_selected_action": [str(default.pk)], "confirmed": "yes"}
    page = client.post(lists, form, follow=True).content.decode()
    assert "used by VMs that run: web" in page
    assert VmmRelease.objects.count() == 2
