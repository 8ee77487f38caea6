"""Tokens, scopes and sign-in links."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.utils import timezone

from nexus_site.core import auth
from nexus_site.core.errors import Denied
from nexus_site.core.models import Setting, Token

pytestmark = pytest.mark.django_db


def test_a_token_lets_in_and_its_secret_is_not_kept() -> None:
    token, secret = auth.create_token("ci", Token.Scope.OPERATE)
    assert secret.startswith("nxt_")
    caller = auth.caller_of_token(secret)
    assert caller == auth.Caller("token:ci", "operate")
    assert secret not in str(Token.objects.values().get())
    token.refresh_from_db()
    assert token.last_used_at is not None


def test_an_unknown_expired_or_revoked_token_lets_nobody_in() -> None:
    assert auth.caller_of_token("nxt_guess") is None
    _, expired = auth.create_token("old", Token.Scope.READ, life=timedelta(seconds=-1))
    assert auth.caller_of_token(expired) is None
    token, revoked = auth.create_token("bad", Token.Scope.READ)
    Token.objects.filter(pk=token.pk).update(revoked_at=timezone.now())
    assert auth.caller_of_token(revoked) is None


@pytest.mark.parametrize(
    ("scope", "may"),
    [
        ("read", {"read"}),
        ("operate", {"read", "operate"}),
        ("admin", {"read", "operate", "admin"}),
    ],
)
def test_a_wider_scope_covers_the_narrower(scope: str, may: set[str]) -> None:
    caller = auth.Caller("token:x", scope)
    assert {wanted for wanted in ("read", "operate", "admin") if caller.may(wanted)} == may


def test_too_narrow_a_scope_is_denied_by_name() -> None:
    with pytest.raises(Denied, match="needs the scope “admin”; token:x has “read”"):
        auth.Caller("token:x", "read").require("admin")


def test_people_have_the_scope_of_their_role() -> None:
    assert auth.caller_of_user(AnonymousUser()) is None
    person = User(username="ada", is_staff=True)
    assert auth.caller_of_user(person) == auth.Caller("user:ada", "admin")
    person.is_staff = False
    assert auth.caller_of_user(person) == auth.Caller("user:ada", "read")
    person.is_active = False
    assert auth.caller_of_user(person) is None


def link_token(link: str) -> str:
    return link.rstrip("/").rpartition("/")[2]


def test_a_sign_in_link_works_once() -> None:
    operator = auth.ensure_operator()
    token = link_token(auth.sign_in_link("http://localhost:9600"))
    assert auth.user_of_link(token) == operator
    assert auth.user_of_link(token) is None


def test_a_forged_or_old_sign_in_link_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    auth.ensure_operator()
    token = link_token(auth.sign_in_link("http://localhost:9600"))
    assert auth.user_of_link(token[:-1] + ("A" if token[-1] != "A" else "B")) is None
    monkeypatch.setattr(auth, "SIGN_IN_LINK_LIFE", timedelta(seconds=-1))
    assert auth.user_of_link(token) is None


def test_old_links_are_forgotten() -> None:
    auth.ensure_operator()
    auth.sign_in_link("http://localhost")
    Setting.objects.update(updated_at=timezone.now() - timedelta(hours=1))
    auth.sign_in_link("http://localhost")
    assert Setting.objects.filter(key__startswith="sign-in:").count() == 1


def test_the_operator_has_no_password_until_one_is_set() -> None:
    operator = auth.ensure_operator()
    assert not operator.has_usable_password()
    assert auth.ensure_operator().pk == operator.pk


def test_the_local_token_is_private_and_renewed_when_it_is_dead(data_dir: Path) -> None:
    path = data_dir / "token"
    path.unlink(missing_ok=True)
    auth.ensure_local_token()
    secret = path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    auth.ensure_local_token()
    assert path.read_text() == secret
    Token.objects.all().delete()
    auth.ensure_local_token()
    assert path.read_text() != secret
    assert auth.caller_of_token(path.read_text().strip()) is not None
