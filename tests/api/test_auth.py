"""Who gets in: every endpoint against every kind of caller."""

from __future__ import annotations

import pytest
from django.test import Client

from nexus_site.core import auth
from nexus_site.core.models import Token
from tests.api.conftest import APIClient
from tests.api.routes import ADMIN_ONLY, BODIES, ROUTES, Route

every_route = pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)


def is_problem(response, status: int) -> bool:
    return (
        response.status_code == status
        and response.headers["Content-Type"] == "application/problem+json"
        and response.json()["status"] == status
    )


def test_there_are_routes():
    assert len(ROUTES) > 30
    assert {route.name for route in ROUTES} >= ADMIN_ONLY


@every_route
@pytest.mark.django_db
def test_nobody_gets_in_without_a_token(route: Route):
    response = getattr(Client(), route.method)(f"/v1{route.on('hello')}")
    assert is_problem(response, 401)
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert response.json()["hint"]


@every_route
@pytest.mark.django_db
@pytest.mark.parametrize("header", ["Bearer nxt_wrong", "Bearer", "Basic YTpi"])
def test_nobody_gets_in_with_something_else(route: Route, header: str):
    client = Client(headers={"Authorization": header})
    assert is_problem(getattr(client, route.method)(f"/v1{route.on('hello')}"), 401)


@pytest.mark.parametrize("route", [r for r in ROUTES if r.unsafe], ids=lambda route: route.name)
def test_a_reader_changes_nothing(route: Route, world, reader):
    response = reader.send(route.method, route.on("hello"), BODIES.get(route.name))
    assert is_problem(response, 403)
    assert response.json()["code"] == "scope"


@pytest.mark.parametrize(
    "route", [r for r in ROUTES if r.name in ADMIN_ONLY], ids=lambda route: route.name
)
def test_an_operator_does_not_administer(route: Route, world, operator):
    response = operator.send(route.method, route.on("hello"), BODIES.get(route.name))
    assert is_problem(response, 403)


@pytest.mark.parametrize(
    "route",
    [r for r in ROUTES if not r.unsafe and r.name != "stream_events" and "{" not in r.path],
    ids=lambda route: route.name,
)
def test_a_reader_sees_every_list(route: Route, world, reader, admin):
    client = admin if route.name in ADMIN_ONLY else reader
    assert client.send("GET", route.path).status_code == 200


@pytest.mark.parametrize("ref", ["no-such-thing", "aaaaaaaaaaaaq", "Ä" * 200])
@pytest.mark.parametrize(
    "route",
    [r for r in ROUTES if "{ref}" in r.path and r.name != "revoke_token"],
    ids=lambda route: route.name,
)
def test_what_is_not_there_is_not_found(route: Route, ref: str, world, admin):
    response = admin.send(route.method, route.on(ref), BODIES.get(route.name))
    assert is_problem(response, 404)


@pytest.fixture
def browser(db: None) -> Client:
    """A signed-in browser: a session, and CSRF tokens demanded as in real life."""
    client = Client(enforce_csrf_checks=True)
    client.force_login(auth.ensure_operator())
    return client


def test_a_session_reads(world, browser):
    assert browser.get("/v1/vms").status_code == 200


@pytest.mark.parametrize("route", [r for r in ROUTES if r.unsafe], ids=lambda route: route.name)
def test_a_session_without_the_csrf_token_changes_nothing(route: Route, world, browser):
    call = getattr(browser, route.method)
    response = call(
        f"/v1{route.on('hello')}",
        data=BODIES.get(route.name) or {},
        content_type="application/json",
    )
    assert is_problem(response, 403)
    assert response.json()["code"] == "csrf"


def test_a_session_with_the_csrf_token_changes_things(world, browser):
    token = "a" * 32
    browser.cookies["nexus_csrf"] = token
    response = browser.patch(
        f"/v1/vms/{world.vm.name}",
        data={"name": "renamed"},
        content_type="application/json",
        headers={"X-CSRFToken": token},
    )
    assert response.status_code == 200
    world.vm.refresh_from_db()
    assert world.vm.name == "renamed"
    assert auth.events.Event.objects.filter(kind="vm.renamed").get().actor == "user:operator"


def test_a_revoked_token_is_no_token(world, admin):
    made = admin.send("POST", "/tokens", {"name": "ci", "scope": "read"})
    assert made.status_code == 201
    ci = Client(headers={"Authorization": f"Bearer {made.json()['secret']}"})
    assert ci.get("/v1/vms").status_code == 200
    assert admin.send("DELETE", f"/tokens/{made.json()['id']}").status_code == 204
    assert ci.get("/v1/vms").status_code == 401
    assert admin.send("DELETE", f"/tokens/{made.json()['id']}").status_code == 404


def test_tokens_are_listed_without_their_secrets(db, admin):
    body = admin.send("GET", "/tokens").content.decode()
    token = Token.objects.get()
    assert token.ref in body
    assert "secret" not in body
    assert token.hash not in body


def test_a_token_is_revoked_by_id_only(db, admin):
    response = admin.send("DELETE", "/tokens/admin")
    assert is_problem(response, 422)
    assert Token.objects.get().revoked_at is None


def test_a_sign_in_link_signs_in(db, admin):
    url = admin.send("POST", "/sign-in-link").json()["url"]
    assert url.startswith("http://testserver/sign-in/")
    assert auth.user_of_link(url.rstrip("/").rpartition("/")[2]).username == "operator"


def test_the_actor_is_the_token(world, operator):
    operator.send("PATCH", "/vms/hello", {"name": "renamed"})
    assert auth.events.Event.objects.filter(kind="vm.renamed").get().actor == "token:operate"


@pytest.mark.parametrize("page", ["/docs", "/openapi.json"])
def test_the_explorer_is_for_callers_only(page: str, db):
    assert is_problem(Client().get(f"/v1{page}"), 401)
    response = Client().get(f"/v1{page}", headers={"Accept": "text/html"})
    assert response.status_code == 302
    assert response.headers["Location"].startswith("/sign-in/?next=/v1/")
    assert APIClient("read").get(page).status_code == 200
