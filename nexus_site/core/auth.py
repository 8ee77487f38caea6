"""Who is asking, and what they may do: sessions for browsers, bearer tokens for the rest.

A token is ``nxt_`` and 43 random characters; the database keeps its SHA-256 (fast is fine:
256 random bits cannot be guessed). Scopes: ``read`` sees, ``operate`` changes, ``admin``
also manages tokens and people. Operators who sign in with a password are ``admin``.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import timedelta

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, User
from django.core import signing
from django.db import models, transaction
from django.utils import timezone

from nexus_site.core import events
from nexus_site.core.errors import Denied
from nexus_site.core.models import Setting, Token
from nexus_site.core.prepared import Prepared

PREFIX = "nxt_"
OPERATOR = "operator"
SIGN_IN_LINK_LIFE = timedelta(minutes=15)
_RANK = {Token.Scope.READ: 0, Token.Scope.OPERATE: 1, Token.Scope.ADMIN: 2}
_SALT = "nexus.sign-in-link"


@dataclass(frozen=True)
class Caller:
    """Who asks: ``actor`` as written into history, and the scope that bounds them."""

    actor: str
    scope: str

    def may(self, scope: str) -> bool:
        """Whether the caller's scope covers ``scope``."""
        return _RANK[Token.Scope(self.scope)] >= _RANK[Token.Scope(scope)]

    def require(self, scope: str) -> None:
        """Raise ``Denied`` unless the caller's scope covers ``scope``."""
        if not self.may(scope):
            raise Denied(
                f"This needs the scope “{scope}”; {self.actor} has “{self.scope}”.",
                hint="Use a token with a wider scope.",
                code="scope",
            )


def create_token(name: str, scope: str, life: timedelta | None = None) -> tuple[Token, str]:
    """A new token and its secret text, which is not kept and cannot be shown again."""
    secret = PREFIX + secrets.token_urlsafe(32)
    with transaction.atomic():
        token = Token.objects.create(
            name=name,
            scope=scope,
            hash=_digest(secret),
            prefix=secret[:8],
            expires_at=timezone.now() + life if life else None,
        )
        events.append("token.created", token, scope=scope)
    return token, secret


@transaction.atomic
def revoke_token(token: Token) -> None:
    """Make a token invalid, at once and for good; safe to repeat."""
    if Token.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=timezone.now()):
        events.append("token.revoked", token)


def caller_of_token(secret: str) -> Caller | None:
    """Whoever holds the token; None when it is unknown, expired or revoked."""
    now = timezone.now()
    token = _VALID.find(_digest(secret))
    if token is None:
        return None
    if token.expires_at is not None and token.expires_at <= now:
        return None
    if token.last_used_at is None or now - token.last_used_at > timedelta(minutes=1):
        Token.objects.filter(pk=token.pk).update(last_used_at=now)
    return Caller(f"token:{token.name}", token.scope)


def _valid() -> models.QuerySet[Token]:
    asked = ("name", "scope", "expires_at", "last_used_at")
    return Token.objects.filter(revoked_at=None).only(*asked)


_VALID = Prepared(_valid, "hash", "")


def caller_of_user(user: AbstractBaseUser | AnonymousUser) -> Caller | None:
    """A signed-in person; staff may administer, others may look."""
    if not user.is_authenticated or not user.is_active:
        return None
    staff = bool(getattr(user, "is_staff", False))
    return Caller(f"user:{user.get_username()}", Token.Scope.ADMIN if staff else Token.Scope.READ)


def caller_of_header(authorization: str) -> Caller | None:
    """Whoever an ``Authorization`` header lets in: ``Bearer`` and a token, nothing else."""
    scheme, _, secret = authorization.partition(" ")
    return caller_of_token(secret.strip()) if scheme.lower() == "bearer" else None


def ensure_operator() -> User:
    """The first account: a superuser without a password, who signs in by one-time link."""
    user, created = User.objects.get_or_create(
        username=OPERATOR, defaults={"is_staff": True, "is_superuser": True}
    )
    if created:
        user.set_unusable_password()
        user.save()
    return user


def sign_in_link(base_url: str, username: str = OPERATOR) -> str:
    """A link that signs ``username`` in once, within 15 minutes."""
    nonce = secrets.token_urlsafe(16)
    key = f"sign-in:{_digest(nonce)[:32]}"
    Setting.objects.filter(
        key__startswith="sign-in:", updated_at__lt=timezone.now() - SIGN_IN_LINK_LIFE
    ).delete()
    Setting.objects.create(key=key, value=username)
    return f"{base_url.rstrip('/')}/sign-in/{signing.dumps(nonce, salt=_SALT)}/"


def user_of_link(text: str) -> User | None:
    """The user whom a sign-in link is for; the link is used up. None when it is not valid."""
    try:
        nonce = signing.loads(text, salt=_SALT, max_age=SIGN_IN_LINK_LIFE)
    except signing.BadSignature:
        return None
    row = Setting.objects.filter(key=f"sign-in:{_digest(str(nonce))[:32]}").first()
    if row is None or not Setting.objects.filter(key=row.key).delete()[0]:
        return None
    return User.objects.filter(username=row.value, is_active=True).first()


def ensure_local_token() -> None:
    """Write the token with which ``nexusctl`` on this machine is let in (mode 0600)."""
    path = settings.NEXUS.data_dir / "token"
    if path.exists() and caller_of_token(path.read_text().strip()):
        return
    _, secret = create_token("nexusctl", Token.Scope.ADMIN)
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(secret + "\n")


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def scope_for(method: str) -> str:
    """The scope that an HTTP method needs unless its endpoint says otherwise."""
    return Token.Scope.READ if method in ("GET", "HEAD", "OPTIONS") else Token.Scope.OPERATE
