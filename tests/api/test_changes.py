"""Changes: dry runs, waiting, idempotency; 202 and Location."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.apps import apps

from nexus_site.core import http, operations
from nexus_site.core.models import Event, Operation
from tests.api.routes import BODIES, ROUTES
from vms.models import VM
from vms.states import State


def snapshot() -> dict[str, list]:
    """Every row of every table of ours, but for when a token was used."""
    labels = ("core", "images", "drives", "builds", "vms")
    models = [m for label in labels for m in apps.get_app_config(label).get_models()]
    return {
        m.__name__: list(m._default_manager.order_by("pk").values())
        for m in models
        if m.__name__ != "Token"
    }


def test_a_start_is_accepted(world, operator, nudges, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        response = operator.send("POST", "/vms/hello/start")
    assert response.status_code == 202
    operation = response.json()
    assert response.headers["Location"] == f"/v1/operations/{operation['id']}"
    assert operation["kind"] == "vm.start"
    assert operation["state"] == "queued"
    assert operation["actor"] == "token:operate"
    assert operation["subject"] == {"kind": "vm", "id": world.vm.ref, "name": "hello"}
    assert [step["state"] for step in operation["steps"]] == ["pending"] * len(operation["steps"])
    assert nudges == [operation["id"]]
    again = operator.send("GET", f"/operations/{operation['id']}").json()
    assert again == operation


#: Changes that fit the world, and the service's own words for each.
CHANGES = {
    ("POST", "/vms"): ({"image": "alpine-3-23", "name": "fresh"}, "Create VM fresh"),
    ("PATCH", "/vms/hello"): ({"name": "renamed", "vcpu_count": 1}, "renamed"),
    ("DELETE", "/vms/hello"): (None, "Delete VM hello"),
    ("POST", "/vms/hello/start"): (None, "Start VM hello"),
    ("POST", "/drives"): ({"image": "alpine-3-23", "name": "fresh"}, "Create drive fresh"),
    ("PATCH", "/drives/spare"): ({"name": "renamed", "delete_with_vm": True}, "renamed"),
    ("POST", "/drives/spare/resize"): ({"size_mib": 9000}, "Resize drive spare"),
    ("POST", "/drives/hello/snapshots"): ({"name": "now"}, "Snapshot drive hello"),
    ("PATCH", "/snapshots/before"): ({"name": "renamed"}, "renamed"),
    ("DELETE", "/snapshots/before"): (None, "Delete snapshot before"),
    ("DELETE", "/drives/spare"): (None, "Delete drive spare"),
    ("POST", "/drives/spare/attach"): ({"vm": "hello", "is_root": False}, "spare"),
    ("POST", "/drives/hello/detach"): (None, "hello"),
    ("POST", "/templates"): ({"rootfs": "<rootfs>", "name": "fresh"}, "fresh"),
}


@pytest.mark.parametrize(("method", "path"), CHANGES)
def test_a_dry_run_says_what_it_would_do_and_does_nothing(method, path, world, operator, nudges):
    body, title = CHANGES[method, path]
    if body and "rootfs" in body:
        body = body | {"rootfs": world.rootfs.ref}
    before = snapshot()
    response = operator.send(method, f"{path}?dry_run=1", body)
    assert response.status_code == 200, response.content
    plan = response.json()
    assert plan["dry_run"] is True
    assert plan["title"] == title
    assert all(set(step) == {"name", "title", "action", "note"} for step in plan["steps"])
    assert snapshot() == before
    assert nudges == []
    done = operator.send(method, path, body)
    assert done.status_code in (200, 201, 202), "what was rehearsed is possible"
    assert snapshot() != before


def test_a_dry_run_knows_the_rules(ready, operator):
    response = operator.send("POST", "/vms/hello/start?dry_run=1")
    assert response.status_code == 409


def test_every_change_takes_a_dry_run():
    from nexus_site.api import api

    document = api.get_openapi_schema(path_prefix="")
    without = {
        route.name
        for route in ROUTES
        if route.unsafe
        and "dry_run"
        not in [p["name"] for p in document["paths"][route.path][route.method]["parameters"]]
    }
    at_once = {"cancel_operation", "create_token", "revoke_token", "create_sign_in_link"}
    programs = {"exec_program", "start_session", "signal_session", "type_into_session"}
    programs |= {"forget_session"}
    files = {"remove_vm_file", "write_vm_file", "write_vm_archive", "make_vm_directory"}
    files |= {"move_vm_file"}
    assert without == at_once | programs | files, "nobody can foretell what a guest will say"


class Worker:
    """Ends the operation that is waited for at the third look at it."""

    def __init__(self, end: Callable[[], None]) -> None:
        self.looks = 0
        self.end = end

    def sleep(self, seconds: float) -> None:
        self.looks += 1
        if self.looks == 3:
            self.end()


@pytest.mark.parametrize("state", ["succeeded", "failed"])
def test_waiting_ends_with_the_operation(state, world, operator, monkeypatch):
    error = {"kind": "Broken", "code": "x", "text": "No.", "detail": "", "hint": ""}

    def end() -> None:
        Operation.objects.filter(kind="vm.start").update(
            state=state, error=error if state == "failed" else {}
        )

    worker = Worker(end)
    monkeypatch.setattr(http.time, "sleep", worker.sleep)
    response = operator.send("POST", "/vms/hello/start?wait=60")
    assert worker.looks == 3
    assert response.status_code == 200, "it has ended; how, the operation says"
    assert response.json()["state"] == state
    assert response.json()["error"] == (error if state == "failed" else None)


def test_waiting_ends_with_the_patience(world, operator):
    response = operator.send("POST", "/vms/hello/start?wait=0.05")
    assert response.status_code == 202
    assert response.json()["state"] == "queued"


@pytest.mark.parametrize("wait", ["-1", "61", "long"])
def test_patience_has_bounds(wait, world, operator):
    assert operator.send("POST", f"/vms/hello/start?wait={wait}").status_code == 422


def test_a_key_makes_a_request_idempotent(world, operator):
    headers = {"Idempotency-Key": "k-1"}
    body = {"image": "alpine-3-23", "name": "once"}
    first = operator.send("POST", "/vms", body, headers=headers)
    assert first.status_code == 202
    assert "Idempotency-Replayed" not in first.headers
    again = operator.send("POST", "/vms", body, headers=headers)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.json()["id"] == first.json()["id"]
    assert VM.objects.filter(name="once").count() == 1


def test_a_key_with_another_body_is_refused(world, operator):
    headers = {"Idempotency-Key": "k-1"}
    operator.send("POST", "/vms", {"image": "alpine-3-23", "name": "one"}, headers=headers)
    response = operator.send(
        "POST", "/vms", {"image": "alpine-3-23", "name": "two"}, headers=headers
    )
    assert response.status_code == 409
    assert response.json()["code"] == "idempotency-key-reused"
    assert not VM.objects.filter(name="two").exists()


def test_a_key_belongs_to_its_caller_and_path(world, operator, admin):
    headers = {"Idempotency-Key": "k-1"}
    body = {"image": "alpine-3-23"}
    answers = [
        operator.send("POST", "/vms", body, headers=headers),
        admin.send("POST", "/vms", body, headers=headers),
        operator.send("POST", "/drives", body, headers=headers),
    ]
    assert [answer.status_code for answer in answers] == [202] * 3
    assert len({answer.json()["id"] for answer in answers}) == 3


def test_a_key_of_a_request_that_failed_can_be_used_again(world, operator):
    headers = {"Idempotency-Key": "k-1"}
    refused = operator.send("POST", "/vms", {"image": "nope"}, headers=headers)
    assert refused.status_code == 404
    done = operator.send("POST", "/vms", {"image": "alpine-3-23"}, headers=headers)
    assert done.status_code == 202


def test_of_two_requests_at_once_with_one_key_one_wins(world, operator, monkeypatch):
    """The other one's row appears after we looked: the unique key decides."""
    headers = {"Idempotency-Key": "k-1"}
    body = {"image": "alpine-3-23"}
    first = operator.send("POST", "/vms", body, headers=headers).json()
    real = http._opened_before
    looks = iter([None])
    monkeypatch.setattr(http, "_opened_before", lambda *marks: next(looks, "look") and real(*marks))
    vms = VM.objects.count()
    again = operator.send("POST", "/vms", body, headers=headers)
    assert again.json()["id"] == first["id"]
    assert VM.objects.count() == vms


def test_a_key_has_bounds(world, operator):
    response = operator.send("POST", "/vms/hello/start", headers={"Idempotency-Key": "k" * 201})
    assert response.status_code == 422
    assert Operation.objects.filter(kind="vm.start").count() == 0


def test_an_operation_runs_and_is_seen_to_the_end(world, operator):
    opened = operations.open_operation("test.count", "Count to three")
    operations.execute(opened.pk)
    seen = operator.send("GET", f"/operations/{opened.ref}?wait=1").json()
    assert seen["state"] == "succeeded"
    assert seen["progress"] == 1.0
    assert [(s["name"], s["state"], s["note"]) for s in seen["steps"]] == [
        ("see", "skipped", "all is there"),
        ("count", "done", "three"),
    ]
    assert seen["ended_at"].endswith("Z")
    assert seen["steps"][1]["started_at"].endswith("Z")


def test_cancelling(world, operator):
    opened = operations.open_operation("test.count", "Count to three")
    response = operator.send("POST", f"/operations/{opened.ref}/cancel")
    assert response.status_code == 202
    assert response.json()["cancel_requested"] is True
    operations.execute(opened.pk)
    seen = operator.send("GET", f"/operations/{opened.ref}").json()
    assert seen["state"] == "cancelled"
    assert seen["error"]["code"] == "cancelled"
    again = operator.send("POST", f"/operations/{opened.ref}/cancel")
    assert (again.status_code, again.json()["code"]) == (409, "operation-ended")


def test_the_parts_of_an_operation_come_with_it(world, operator):
    parent = operations.open_operation("test.count", "Count to three")
    child = operations.open_operation("test.count", "Count on", parent=parent)
    seen = operator.send("GET", f"/operations/{parent.ref}").json()
    assert [part["id"] for part in seen["children"]] == [child.ref]
    assert seen["children"][0]["parent_id"] == parent.ref
    assert len(seen["children"][0]["steps"]) == 2


def test_bodies_of_the_matrix_are_of_endpoints_that_exist():
    assert set(BODIES) <= {route.name for route in ROUTES}


def test_a_forced_stop_is_in_the_history_and_the_log(ready, operator):
    assert operator.send("POST", "/vms/hello/stop", {"force": True}).status_code == 202
    ready.refresh_from_db()
    assert ready.state == State.STOPPING
    moved = Event.objects.filter(kind="vm.moved").latest("seq")
    assert moved.actor == "token:operate"
    last = operator.send("GET", "/vms/hello/history").json()["items"][-1]
    assert (last["to_state"], last["reason"]) == ("stopping", "forced stop requested")
    assert last["operation_id"] == Operation.objects.get(kind="vm.stop").ref
