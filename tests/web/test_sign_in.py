"""Signing in by password and by link, signing out."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.test import Client

from nexus_site.core import auth
from tests.web.conftest import PASSWORD


def _link(user: User) -> str:
    return auth.sign_in_link("http://testserver", user.username).removeprefix("http://testserver")


def test_name_and_password_lead_to_where_one_wanted_to_go(stranger: Client, operator: User) -> None:
    form = {"username": operator.username, "password": PASSWORD, "next": "/vms/?state=ready"}
    response = stranger.post("/sign-in/", form)
    assert response["Location"] == "/vms/?state=ready"
    assert stranger.get("/vms/").status_code == 200


def test_signing_in_never_leads_to_another_site(stranger: Client, operator: User) -> None:
    form = {"username": operator.username, "password": PASSWORD, "next": "https://evil.example/"}
    assert stranger.post("/sign-in/", form)["Location"] == "/"


def test_a_wrong_password_says_so_and_how_to_get_a_link(stranger: Client, operator: User) -> None:
    response = stranger.post("/sign-in/", {"username": operator.username, "password": "no"})
    html = response.content.decode()
    assert 'role="alert"' in html
    assert "./nexus up" in html
    assert "sign_in_link" in html


def test_looking_at_a_link_does_not_use_it_up(stranger: Client, operator: User) -> None:
    link = _link(operator)
    for _ in range(3):
        assert stranger.get(link).status_code == 200
    assert stranger.get("/vms/").status_code == 302, "looking signs nobody in"
    assert stranger.post(link)["Location"] == "/"
    assert stranger.get("/vms/").status_code == 200


def test_a_link_works_once(stranger: Client, operator: User) -> None:
    link = _link(operator)
    stranger.post(link)
    second = Client()
    response = second.post(link, follow=True)
    assert "was used" in response.content.decode()
    assert second.get("/vms/").status_code == 302


def test_a_forged_link_is_refused(stranger: Client, operator: User) -> None:
    assert stranger.post("/sign-in/abc:def:ghi/")["Location"] == "/sign-in/?used=1"


def test_a_post_without_its_token_is_refused_with_a_page(operator: User) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(operator)
    response = strict.post("/vms/hello/start/")
    assert response.status_code == 403
    assert "Go back, reload the page" in response.content.decode()


def test_signing_out_takes_a_post(client: Client) -> None:
    assert client.get("/sign-out/").status_code == 405
    client.post("/sign-out/")
    assert client.get("/vms/").status_code == 302
