"""One's password and one's tokens."""

from __future__ import annotations

import re

from django.contrib.auth.models import User
from django.test import Client

from nexus_site.core import auth
from nexus_site.core.models import Event, Token
from tests.web.conftest import PASSWORD, htmx


def test_who_came_by_link_sets_a_first_password_and_stays_signed_in(db: None) -> None:
    user = auth.ensure_operator()
    client = Client()
    client.force_login(user)
    assert "old_password" not in client.get("/account/").content.decode()
    form = {"new_password1": "a fine long phrase", "new_password2": "a fine long phrase"}
    assert client.post("/account/password/", form)["Location"] == "/account/"
    assert client.get("/account/").status_code == 200
    assert User.objects.get(pk=user.pk).check_password("a fine long phrase")


def test_changing_a_password_takes_the_old_one(client: Client, operator: User) -> None:
    form = {"old_password": "wrong", "new_password1": "another phrase!", "new_password2": "x"}
    response = client.post("/account/password/", form, headers=htmx("form"))
    assert response.status_code == 422
    assert response.content.decode().count("field-error") == 2
    operator.refresh_from_db()
    assert operator.check_password(PASSWORD)


def test_a_token_s_secret_is_shown_once_and_lets_in(client: Client) -> None:
    form = {"name": "ci", "scope": "read", "life": "30"}
    html = client.post("/account/tokens/", form, headers=htmx("section")).content.decode()
    secret = re.search(r"nxt_[\w-]{43}", html)[0]
    caller = auth.caller_of_token(secret)
    assert caller is not None
    assert caller.scope == "read"
    token = Token.objects.get(name="ci")
    assert token.expires_at is not None
    assert secret not in client.get("/account/").content.decode()


def test_a_revoked_token_lets_in_no_more_and_the_log_says_so(client: Client) -> None:
    token, secret = auth.create_token("ci", "operate")
    response = client.post(f"/account/tokens/{token.ref}/revoke/", headers=htmx("form"))
    assert "is revoked" in response.content.decode()
    assert auth.caller_of_token(secret) is None
    event = Event.objects.get(kind="token.revoked")
    assert event.actor == "user:operator"


def test_revoking_twice_is_written_once(db: None) -> None:
    token, _ = auth.create_token("ci", "operate")
    auth.revoke_token(token)
    auth.revoke_token(token)
    assert Event.objects.filter(kind="token.revoked").count() == 1


def test_an_onlooker_makes_no_tokens(onlooker: Client) -> None:
    response = onlooker.post("/account/tokens/", {"name": "x", "scope": "admin"})
    assert response.status_code == 403
    assert not Token.objects.exists()
