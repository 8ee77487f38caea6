"""One's own account: the password, and the tokens with which programs are let in."""

from __future__ import annotations

from datetime import timedelta

from django import forms
from django.contrib.auth import update_session_auth_hash
from django.contrib.auth.forms import PasswordChangeForm, SetPasswordForm
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST

from nexus_site.core import auth
from nexus_site.core.errors import Denied
from nexus_site.core.htmx import Request, go_to, page, render_page, toast
from nexus_site.core.ids import resolve
from nexus_site.core.models import Token

FRAGMENTS = ("account/_tokens.html", "account/_new_token.html")
LIVES = [("", "never expires"), ("7", "7 days"), ("30", "30 days"), ("365", "a year")]


class TokenForm(forms.Form):
    name = forms.CharField(max_length=63, label="Name", help_text="What it is for, such as “ci”.")
    scope = forms.ChoiceField(
        choices=[
            ("read", "read: look at everything"),
            ("operate", "operate: also create, start, stop, delete"),
            ("admin", "admin: also manage tokens"),
        ],
        initial="operate",
        label="Scope",
    )
    life = forms.ChoiceField(choices=LIVES, required=False, initial="", label="Lifetime")


@require_http_methods(["GET"])
@page()
def account(request: Request) -> HttpResponse:
    context = {
        "area": "account",
        "password_form": password_form(request),
        "token_form": TokenForm(),
        "tokens": Token.objects.order_by("revoked_at", "-created_at"),
    }
    return render_page(request, "account/account.html", context, fragments=FRAGMENTS)


def password_form(request: Request) -> SetPasswordForm[User] | None:
    """The form for a person's password, which asks for the old one if there is one."""
    user = request.user
    if not isinstance(user, User):
        return None
    kind = PasswordChangeForm if user.has_usable_password() else SetPasswordForm
    form = kind(user, request.POST or None)
    for field in form.fields.values():
        field.widget.attrs.pop("autofocus", None)
    return form


@require_POST
@page("read")
def set_password(request: Request) -> HttpResponse:
    form = password_form(request)
    if form is None:
        raise Denied("Only a person who has signed in has a password.", code="no-person")
    if form.is_valid():
        update_session_auth_hash(request, form.save())
        return go_to(request, reverse("account"), "The password is set.")
    context = {"password_form": form}
    return render_page(request, "account/_password.html", context, status=422)


@require_POST
@page("admin")
def create_token(request: Request) -> HttpResponse:
    """Make a token; its secret is in this answer and nowhere else."""
    form = TokenForm(request.POST)
    secret = ""
    if form.is_valid():
        data = form.cleaned_data
        life = timedelta(days=int(data["life"])) if data["life"] else None
        _, secret = auth.create_token(data["name"], data["scope"], life)
        form = TokenForm()
    context = {"token_form": form, "secret": secret}
    status = 200 if secret else 422
    return render_page(request, "account/_new_token.html", context, status=status)


@require_POST
@page("admin")
def revoke_token(request: Request, ref: str) -> HttpResponse:
    token = resolve(Token.objects.filter(revoked_at=None), ref)
    auth.revoke_token(token)
    return toast(request, f"The token {token.name} is revoked.")
