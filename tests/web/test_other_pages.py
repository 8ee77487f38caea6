"""Overview, operations, events, drives, images, templates and builds: what they show and do."""

from __future__ import annotations

import pytest
from django.test import Client

from builds.models import Build, Template
from nexus_site.core import events, steps
from nexus_site.core.models import Operation
from tests.factories import make_build, make_drive, make_rootfs, make_template, make_vm
from tests.web.conftest import htmx, make_operation, make_ready_vm

pytestmark = pytest.mark.usefixtures("nudges")


@pytest.fixture(autouse=True)
def _agent(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent's digest without an agent."""
    monkeypatch.setattr("builds.services.builds.agent_digest", lambda arch: "3" * 64)


def _html(client: Client, address: str) -> str:
    return client.get(address).content.decode()


# Overview


def test_the_overview_counts_by_state_and_links_into_the_list(client: Client) -> None:
    make_ready_vm(), make_ready_vm(), make_vm()
    html = _html(client, "/")
    assert 'href="/vms/?state=ready"' in html
    assert 'href="/vms/?state=created"' in html
    assert 'href="/vms/?state=crashed"' not in html
    assert "vCPUs given" in html


def test_the_overview_shows_what_is_under_way_and_what_happened(client: Client) -> None:
    operation = make_operation(title="Create VM calm-otter")
    make_ready_vm(name="hello")
    html = _html(client, "/")
    assert "Create VM calm-otter" in html
    assert f"operation:{operation.ref}" in html
    assert "running → ready" in html


# Operations


def test_an_operation_s_page_shows_steps_errors_and_parts(client: Client) -> None:
    error = {"text": "The disk is full.", "hint": "Free some space.", "detail": "ENOSPC at 42"}
    operation = make_operation(state="failed", error=error, note="Resumed after an interruption.")
    part = make_operation(parent=operation, title="Build image alpine")
    html = _html(client, f"/operations/{operation.ref}/")
    for text in (*error.values(), "Resumed after", "Wait for the agent", "Build image alpine"):
        assert text in html
    assert f"operation:{operation.ref} operation:{part.ref}" in html


def test_a_running_step_shows_its_progress(client: Client) -> None:
    rows = steps.outline([steps.Step("pack", "Pack", do=lambda run: None)])
    rows[0] |= {"state": "running", "progress": 0.42, "note": "1214 of 2902 files"}
    operation = make_operation(steps=rows)
    html = _html(client, f"/operations/{operation.ref}/")
    assert 'value="42" aria-label="Pack"' in html
    assert "1214 of 2902 files" in html


def test_operations_are_filtered_by_state_kind_and_subject(client: Client) -> None:
    vm = make_vm(name="hello")
    make_operation(title="One", kind="vm.start", subject_kind="vm", subject_id=vm.pk)
    make_operation(title="Two", kind="vm.stop", state="failed")
    assert "Two" not in _html(client, "/operations/?kind=vm.start")
    assert "One" not in _html(client, "/operations/?state=failed")
    found = _html(client, f"/operations/?q={vm.ref}")
    assert "One" in found
    assert "Two" not in found


def test_cancelling_asks_the_operation_to_stop_once(client: Client) -> None:
    operation = make_operation()
    client.post(f"/operations/{operation.ref}/cancel/", headers=htmx("form"))
    operation.refresh_from_db()
    assert operation.cancel_requested
    Operation.objects.update(state="succeeded")
    late = client.post(f"/operations/{operation.ref}/cancel/", headers=htmx("form"))
    assert late.status_code == 409


def test_the_note_of_an_operation_goes_when_it_has_succeeded_and_stays_when_not(
    client: Client,
) -> None:
    operation = make_operation()
    address = f"/operations/{operation.ref}/toast/"
    assert "data-dismiss-after" not in _html(client, address)
    Operation.objects.update(state="succeeded")
    assert "data-dismiss-after" in _html(client, address)
    Operation.objects.update(state="failed", error={"text": "It broke."})
    assert "data-dismiss-after" not in _html(client, address)
    assert "It broke." in _html(client, address)


def test_the_navigation_counts_open_operations(client: Client) -> None:
    assert "hidden" in _html(client, "/operations/activity/")
    make_operation()
    html = _html(client, "/operations/activity/")
    assert ">1<" in html
    assert "hidden>" not in html


# Events


def test_events_leave_the_steps_of_operations_out_unless_asked(client: Client) -> None:
    operation = make_operation()
    events.append("operation.progressed", operation)
    make_vm(name="hello")
    assert "went on" not in _html(client, "/events/")
    assert "went on" in _html(client, "/events/?all=1")
    assert "was created" not in _html(client, "/events/?all=1&state=operation")


def test_what_was_deleted_is_named_without_a_link(client: Client) -> None:
    drive = make_drive(name="old-data")
    events.append("drive.deleted", drive)
    assert "<strong>old-data</strong>" in _html(client, "/events/")


# Drives


def test_an_attached_drive_is_not_deleted_and_the_answer_names_its_vm(client: Client) -> None:
    drive = make_vm(name="hello").attachments.get().drive
    response = client.post(f"/drives/{drive.ref}/delete/", headers=htmx("form"))
    assert response.status_code == 409
    assert "attached to the VM “hello”" in response.content.decode()


# Templates and builds


def test_a_template_is_made_and_built(client: Client) -> None:
    rootfs = make_rootfs()
    form = {"rootfs": rootfs.ref, "name": "base", "description": "Plain"}
    template_page = client.post("/templates/new/", form, headers=htmx("form"))["HX-Redirect"]
    template = Template.objects.get(name="base")
    assert template_page == f"/templates/{template.ref}/"
    build_page = client.post(f"{template_page}build/", headers=htmx("form"))["HX-Redirect"]
    assert build_page == f"/builds/{Build.objects.get().ref}/"
    assert client.get(build_page).status_code == 200


def test_a_taken_name_is_refused_at_the_field(client: Client) -> None:
    make_template(name="base")
    form = {"rootfs": make_rootfs().ref, "name": "base"}
    response = client.post("/templates/new/", form, headers=htmx("form#builds-new_form"))
    assert response.status_code == 422
    assert "There is a template “base” already." in response.content.decode()


def test_a_failed_build_says_why(client: Client) -> None:
    build = make_build(state="failed", error={"text": "The disk is full.", "hint": "Free some."})
    html = _html(client, f"/builds/{build.ref}/")
    assert "The disk is full." in html
    assert "Free some." in html
