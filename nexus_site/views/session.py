"""Signing in and out."""

from __future__ import annotations

from django.contrib.auth import login, views
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from nexus_site.core import auth


class SignIn(views.LoginView):
    """By name and password; goes on to where the person wanted to go."""

    template_name = "sign_in.html"
    redirect_authenticated_user = True


class SignOut(views.LogoutView):
    http_method_names = ["post", "options"]


@never_cache
@require_http_methods(["GET", "POST"])
def sign_in_by_link(request: HttpRequest, text: str) -> HttpResponse:
    """A one-time link. Opening it (GET) changes nothing: what looks at links before people
    do (previews, scanners, the browser's own prefetch) would use it up. The page it shows
    posts at once, or at a click where scripts are off.
    """
    if request.method == "GET":
        return render(request, "sign_in_link.html", {"text": text})
    user = auth.user_of_link(text)
    if user is None:
        return redirect(f"{reverse('sign-in')}?used=1")
    login(request, user, backend="django.contrib.auth.backends.ModelBackend")
    return redirect("overview")
