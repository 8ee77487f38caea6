"""Where every page is."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import include, path

from nexus_site.api import api
from nexus_site.prometheus import prometheus
from nexus_site.views import account, health, operations, overview, session


def healthz(request: HttpRequest) -> HttpResponse:
    """200 once the web process serves; needs no sign-in and touches nothing."""
    return HttpResponse("ok\n", content_type="text/plain")


urlpatterns = [
    path("", overview.overview, name="overview"),
    path("sign-in/", session.SignIn.as_view(), name="sign-in"),
    path("sign-in/<str:text>/", session.sign_in_by_link, name="sign-in-link"),
    path("sign-out/", session.SignOut.as_view(), name="sign-out"),
    path("account/", account.account, name="account"),
    path("account/password/", account.set_password, name="set-password"),
    path("account/tokens/", account.create_token, name="create-token"),
    path("account/tokens/<str:ref>/revoke/", account.revoke_token, name="revoke-token"),
    path("operations/", operations.operation_list, name="operations"),
    path("operations/activity/", operations.activity, name="activity"),
    path("operations/<str:ref>/", operations.operation_detail, name="operation"),
    path("operations/<str:ref>/toast/", operations.operation_toast, name="operation-toast"),
    path("operations/<str:ref>/cancel/", operations.cancel_operation, name="cancel-operation"),
    path("events/", operations.event_list, name="events"),
    path("health/", health.health, name="health"),
    path("health/look/", health.look_again, name="look-again"),
    path("", include("vms.urls")),
    path("", include("drives.urls")),
    path("", include("images.urls")),
    path("", include("builds.urls")),
    path("v1/", api.urls),
    path("metrics", prometheus, name="prometheus"),
    path("healthz", healthz, name="healthz"),
    path("admin/", admin.site.urls),
]
