"""The pages of providers: forms that their types describe, and what the last question brought."""

from __future__ import annotations

import html
from dataclasses import asdict

import pytest
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from images.models import Provider
from images.providers import TYPES
from images.providers.base import RootfsOffer
from nexus_site.core.models import Operation
from tests.web.conftest import htmx, make_operation

pytestmark = pytest.mark.usefixtures("nudges")

MIRROR = {"name": "mirror", "position": "5", "enabled": "on"}
URL = {"config.base_url": "https://mirror.example.org/alpine"}


def _html(client: Client, address: str) -> str:
    return html.unescape(client.get(address).content.decode())


def _provider(name: str = "mirror", **values: object) -> Provider:
    config = TYPES["alpine"].check({"base_url": "https://mirror.example.org/alpine"})
    defaults = {"type": "alpine", "config": config, "position": 5}
    return Provider.objects.create(name=name, **defaults | values)


def test_the_list_tells_what_each_offers_and_what_went_wrong(client: Client) -> None:
    offers = [
        asdict(RootfsOffer("alpine", f"3.{minor}.0", "x86_64", "mirror", "f", 1, "tar.gz"))
        for minor in range(18, 24)
    ]
    _provider(offers=offers, refreshed_at=timezone.now())
    _provider("broken", problem="No route to host \x1b[2J")
    _provider("idle", enabled=False)
    page = _html(client, "/providers/")
    for words in (
        "Alpine 3.18.0",
        "and 2 more",
        "just now",
        "No route to host \\x1b[2J",
        "disabled",
    ):
        assert words in page
    assert page.index("mirror") < page.index("embedded"), "in the order of their positions"
    assert 'href="/providers/"' in _html(client, "/distributions/")


@pytest.mark.parametrize("name", TYPES)
def test_every_type_has_a_form_with_its_fields(client: Client, name: str) -> None:
    page = _html(client, f"/providers/new/?type={name}")
    assert TYPES[name].help in page
    for field in TYPES[name].fields:
        assert f'name="config.{field.name}"' in page
        assert field.label in page


def test_a_provider_is_made_and_asked(client: Client) -> None:
    response = client.post(
        "/providers/new/?type=alpine", MIRROR | URL, headers=htmx("form#images-provider_form")
    )
    provider = Provider.objects.get(name="mirror")
    assert response["HX-Redirect"] == f"/providers/{provider.ref}/"
    assert provider.config["base_url"] == URL["config.base_url"]
    client.post(f"/providers/{provider.ref}/refresh/", headers=htmx("form"))
    assert Operation.objects.get().kind == "provider.refresh"
    assert "It is being asked." in _html(client, f"/providers/{provider.ref}/")


@pytest.mark.parametrize(
    ("type_name", "changes", "field", "words"),
    [
        ("alpine", {"name": "taken"}, "name", "There is a provider “taken” already."),
        ("alpine", {"name": "upload"}, "name", "stands for what was uploaded"),
        ("alpine", {"position": "99999"}, "position", "less than or equal to 32767"),
        ("alpine", {"config.base_url": "ftp://example.org"}, "config.base_url", ""),
        ("tarball", {"config.distro": ""}, "config.distro", "required"),
        ("tarball", {"config.sha256": "xyz"}, "config.sha256", ""),
    ],
)
def test_what_a_type_refuses_is_said_at_its_field(
    client: Client, type_name: str, changes: dict[str, str], field: str, words: str
) -> None:
    _provider("taken")
    known = Provider.objects.count()
    config = {
        "alpine": URL,
        "tarball": {
            "config.url": "https://example.org/root.tar",
            "config.sha256": "0" * 64,
            "config.distro": "mine",
            "config.version": "1",
        },
    }[type_name]
    response = client.post(
        f"/providers/new/?type={type_name}",
        MIRROR | config | changes,
        headers=htmx("form#images-provider_form"),
    )
    assert response.status_code == 422
    page = response.content.decode()
    assert page.lstrip().startswith("<form"), "the form alone"
    error = page[page.index(f'id="id_{field}-error"') :]
    assert words in html.unescape(error[: error.index("</div>")])
    assert Provider.objects.count() == known


def test_a_provider_is_changed_disabled_and_deleted(client: Client) -> None:
    provider = _provider()
    address = f"/providers/{provider.ref}/"
    assert 'value="https://mirror.example.org/alpine"' in _html(client, address)
    form = MIRROR | URL | {"name": "closer", "position": "1"}
    client.post(address, form, headers=htmx("form#images-provider_form"))
    provider.refresh_from_db()
    assert (provider.name, provider.position, provider.enabled) == ("closer", 1, True)
    client.post(f"{address}enable/", {"enabled": ""}, headers=htmx("form"))
    provider.refresh_from_db()
    assert not provider.enabled
    client.post(f"{address}enable/", {"enabled": "1"}, headers=htmx("form"))
    provider.refresh_from_db()
    assert provider.enabled
    response = client.post(f"{address}delete/", headers=htmx("form"))
    assert response["HX-Redirect"] == "/providers/"
    assert not Provider.objects.filter(pk=provider.pk).exists()


def test_a_refused_change_shows_the_form_and_keeps_the_name_in_the_headline(
    client: Client,
) -> None:
    provider = _provider()
    response = client.post(f"/providers/{provider.ref}/", MIRROR | {"name": "embedded"} | URL)
    assert response.status_code == 422
    page = html.unescape(response.content.decode())
    assert "There is a provider “embedded” already." in page
    assert "<h1>mirror" in page


def test_a_provider_of_another_version_of_nexus_does_not_break_the_list(client: Client) -> None:
    _provider("strange", type="floppy", config={"drive": "a"})
    page = _html(client, "/providers/")
    assert "floppy" in page
    ref = Provider.objects.get(name="strange").ref
    assert "does not know this type" in _html(client, f"/providers/{ref}/")
    assert client.get("/distributions/").status_code == 200


def test_onlookers_change_nothing(onlooker: Client) -> None:
    provider = _provider()
    assert onlooker.get(f"/providers/{provider.ref}/").status_code == 200
    assert onlooker.get("/providers/new/").status_code == 403
    for address in ("", "enable/", "refresh/", "delete/"):
        assert onlooker.post(f"/providers/{provider.ref}/{address}").status_code == 403
    assert onlooker.post("/distributions/fetch/", {"distro": "alpine"}).status_code == 403


def test_more_providers_cost_no_more_queries(
    client: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for number in range(20):
        _provider(f"mirror-{number}")
    make_operation()
    for address in ("/providers/", "/distributions/"):
        with django_assert_max_num_queries(7):
            assert client.get(address).status_code == 200
