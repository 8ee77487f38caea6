"""The admin: every model is there, found by ID, changed by services alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.db.models import Model
from django.test import Client

from builds.models import Template, TemplateVersion
from images.models import Provider
from nexus_site.core import auth
from nexus_site.core.models import Event, Operation, Token
from tests.factories import (
    make_build,
    make_drive,
    make_image,
    make_kernel,
    make_kernel_build,
    make_pool,
    make_release,
    make_rootfs,
    make_sample,
    make_template,
    make_vm,
    make_vm_snapshot,
    make_warm_template,
)
from tests.web.conftest import make_operation, make_ready_vm
from vms.models import VM, Boot, Pool
from vms.services.provisioning import GivenFile, replace_provisioning
from vms.states import State

#: What operators edit in the admin too; everything else is changed by actions alone.
EDITED = {Provider, Template}
ROOMS = ("core", "images", "drives", "builds", "vms")


def models() -> list[type[Model]]:
    return [model for room in ROOMS for model in apps.get_app_config(room).get_models()]


def list_of(model: type[Model]) -> str:
    return f"/admin/{model._meta.app_label}/{model._meta.model_name}/"


def act(client: Client, model: type[Model], action: str, *rows: Any, **more: str) -> str:
    form = {"action": action, "_selected_action": [str(row.pk) for row in rows]} | more
    return client.post(list_of(model), form, follow=True).content.decode()


@pytest.fixture
def everything(db: None) -> None:
    vm = make_ready_vm(name="hello")
    make_vm_snapshot(vm), make_sample(vm)
    template = make_warm_template()
    Pool.objects.create(name="ready", image=template.image, size=2)
    replace_provisioning(vm, files=[GivenFile("/etc/motd", b"hello")])
    make_kernel_build(kernel=make_kernel())
    make_build(), make_release(), make_operation(), auth.create_token("ci", "read")
    auth.sign_in_link("http://testserver")


def test_every_model_is_registered() -> None:
    assert len(models()) >= 15
    assert not [model for model in models() if not admin.site.is_registered(model)]


@pytest.mark.parametrize("model", models(), ids=lambda model: model.__name__)
def test_every_list_and_every_row_shows_and_few_are_edited(
    client: Client, everything: None, model: type[Model]
) -> None:
    row = model._default_manager.first()
    assert row is not None
    assert client.get(list_of(model)).status_code == 200
    page = client.get(f"{list_of(model)}{row.pk}/change/")
    assert page.status_code == 200
    html = page.content.decode()
    assert ('name="_save"' in html) == (model in EDITED)
    if hasattr(row, "ref"):
        assert row.ref in html
        assert str(int(row.pk)) not in html.replace("&nbsp;", ""), "the integer is not shown"
    assert client.get(f"{list_of(model)}add/").status_code == (200 if model in EDITED else 403)
    assert client.post(f"{list_of(model)}{row.pk}/delete/", {"post": "yes"}).status_code == 403


def test_the_secret_of_a_token_is_nowhere_not_even_its_hash(client: Client) -> None:
    token, _ = auth.create_token("ci", "read")
    html = client.get(f"{list_of(Token)}{token.ref}/change/").content.decode()
    assert token.hash not in html


@pytest.mark.parametrize("make", [make_vm, make_drive, make_image, make_build, make_operation])
def test_rows_are_found_by_their_id(client: Client, make: Callable[[], Any]) -> None:
    wanted, other = make(), make()
    html = client.get(list_of(type(wanted)), {"q": wanted.ref.upper()}).content.decode()
    assert wanted.ref in html
    assert other.ref not in html


def test_boots_and_events_are_found_by_their_vm_s_id(client: Client) -> None:
    vm, other = make_ready_vm(name="wanted"), make_ready_vm(name="other")
    for model in (Boot, Event):
        html = client.get(list_of(model), {"q": vm.ref}).content.decode()
        assert "wanted" in html, model
        assert other.name not in html, model


def test_starting_goes_through_the_service_and_refusals_are_told(
    client: Client, nudges: list[str]
) -> None:
    at_rest, running = make_vm(name="at-rest", mem_size_mib=128), make_ready_vm(name="running")
    html = act(client, VM, "start", at_rest, running)
    assert "Starting: 1." in html
    assert "The VM “running” is ready." in html
    at_rest.refresh_from_db()
    assert at_rest.state == State.STARTING
    assert Operation.objects.get(kind="vm.start").actor == "user:operator"


def test_deleting_asks_first(client: Client, nudges: list[str]) -> None:
    vm = make_vm(name="hello")
    html = act(client, VM, "delete_vms", vm)
    assert "Delete these VMs and their drives?" in html
    assert not Operation.objects.exists()
    assert "Deleting: 1." in act(client, VM, "delete_vms", vm, confirmed="yes")
    assert Operation.objects.filter(kind="vm.delete").count() == 1


def test_a_pool_is_deleted_with_the_vms_that_wait(client: Client, nudges: list[str]) -> None:
    pool = make_pool(name="ready", ready=2)
    assert "and the VMs that wait in them?" in act(client, Pool, "delete_pools", pool)
    assert "Deleting: 1." in act(client, Pool, "delete_pools", pool, confirmed="yes")
    assert Operation.objects.get(kind="pool.clear").title == "Delete pool ready"
    assert not Pool.objects.exists()


def test_operations_are_cancelled_and_tokens_revoked(client: Client, nudges: list[str]) -> None:
    operation = make_operation()
    token, secret = auth.create_token("ci", "read")
    assert "Asked to stop: 1." in act(client, Operation, "cancel", operation)
    assert "Revoked: 1." in act(client, Token, "revoke", token)
    operation.refresh_from_db()
    assert operation.cancel_requested
    assert auth.caller_of_token(secret) is None


def test_a_provider_is_made_and_edited_by_its_service(client: Client, db: None) -> None:
    add, form = f"{list_of(Provider)}add/", {"name": "mine", "type": "embedded", "position": "5"}
    refused = client.post(add, form | {"config": '{"x": "y"}'}).content.decode()
    assert "Embedded has no such field" in refused
    assert not Provider.objects.filter(name="mine").exists()
    assert client.post(add, form | {"config": "{}"}).status_code == 302
    made = Provider.objects.get(name="mine")
    assert not made.enabled
    client.post(f"{list_of(Provider)}{made.pk}/change/", form | {"config": "{}", "enabled": "on"})
    made.refresh_from_db()
    assert made.enabled
    kinds = Event.objects.filter(subject_id=made.pk).order_by("seq").values_list("kind", flat=True)
    assert list(kinds) == ["provider.created", "provider.changed"]
    assert "Deleted: 1." in act(client, Provider, "delete_providers", made, confirmed="yes")


def test_a_template_is_made_and_edited_as_yaml_by_its_services(client: Client, db: None) -> None:
    make_rootfs()
    add, text = f"{list_of(Template)}add/", "name: web\nrootfs: {distro: alpine, version: 3.23}\n"
    refused = client.post(add, {"document": text + "init: x\n"}).content.decode()
    assert "Line 3: init" in refused
    assert client.post(add, {"document": text}).status_code == 302
    template = Template.objects.get(name="web")
    assert "There is a template" in client.post(add, {"document": text}).content.decode()
    change = f"{list_of(Template)}{template.pk}/change/"
    assert "distro: alpine" in client.get(change).content.decode()
    edited = {"document": text + "init: none\n", "expected_version": "1"}
    assert client.post(change, edited).status_code == 302
    assert template.current.recipe == {"init": "none"}
    late = client.post(change, edited | {"document": text}).content.decode()
    assert "this was made from version 1" in late
    kinds = Event.objects.filter(subject_id=template.pk).order_by("seq")
    assert [each.kind for each in kinds] == ["template.created", "template.changed"]


def test_versions_are_read_and_made_current_again(client: Client, db: None) -> None:
    template = make_template(name="web")
    first = template.current
    TemplateVersion.objects.create(
        template=template, number=2, rootfs=first.rootfs, recipe={"packages": ["nginx"]}
    )
    page = client.get(f"{list_of(TemplateVersion)}{template.current.pk}/change/")
    assert "- nginx" in page.content.decode()
    assert "Current again: 1." in act(client, TemplateVersion, "revert", first)
    assert (template.current.number, template.current.recipe) == (3, {})
    assert "Copied: 1." in act(client, Template, "copy", template)
    assert "Deleted: 1." in act(client, Template, "delete_templates", template, confirmed="yes")
    assert Template.objects.count() == 1, "the copy"


def test_the_admin_is_for_staff(onlooker: Client) -> None:
    assert onlooker.get("/admin/").status_code == 302
