"""Whatever goes wrong is a problem document."""

from __future__ import annotations

import pytest
from django.db import IntegrityError

from nexus_site.core.errors import Conflict
from vms import queries
from vms.models import VM


def check(response, status: int, code: str) -> dict:
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.status_code == status
    problem = response.json()
    assert problem["status"] == status
    assert problem["code"] == code
    assert problem["type"] == f"urn:nexus:problem:{code}"
    assert problem["title"]
    assert problem["detail"]
    return problem


def test_json_that_is_none(world, operator):
    response = operator.post("/vms", data="{nope", content_type="application/json")
    problem = check(response, 400, "malformed-json")
    assert problem["detail"] == "The body of the request is not JSON."


def test_fields_are_named(world, operator):
    body = {"distro": "alpine", "vcpu_count": "many", "size": 3}
    problem = check(operator.send("POST", "/vms/from-rootfs", body), 422, "validation")
    assert {(e["field"], e["message"]) for e in problem["errors"]} == {
        ("version", "Field required"),
        ("vcpu_count", "Input should be a valid integer, unable to parse string as an integer"),
        ("size", "Extra inputs are not permitted"),
    }
    assert "version: Field required" in problem["detail"]


def test_query_parameters_are_named(world, reader):
    problem = check(reader.send("GET", "/vms?limit=0&state=happy"), 422, "validation")
    assert {e["field"] for e in problem["errors"]} == {"limit", "state"}


def test_a_missing_body(world, operator):
    problem = check(operator.generic("POST", "/vms"), 422, "validation")
    assert problem["errors"] == [{"field": "body", "message": "Field required"}]


@pytest.mark.parametrize("body", ["[]", '"text"', "null", "17"])
def test_a_body_that_is_no_object(world, operator, body):
    response = operator.post("/vms", data=body, content_type="application/json")
    check(response, 422, "validation")


def test_a_body_that_is_too_large(world, operator, settings):
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 100
    check(operator.send("POST", "/vms", {"image": "x" * 200}), 413, "too-large")


@pytest.mark.parametrize("path", ["/", "/nothing", "/vms/hello/nothing", "/vms/"])
def test_an_endpoint_that_is_not_there(world, operator, path):
    problem = check(operator.send("POST", path, {}), 404, "no-such-endpoint")
    assert "/v1/docs" in problem["hint"]


def test_a_method_that_is_not_there(world, operator):
    response = operator.send("PUT", "/vms/hello", {})
    problem = check(response, 405, "method-not-allowed")
    assert response.headers["Allow"] == "DELETE, GET, PATCH"
    assert problem["detail"] == "PUT is not possible here; DELETE, GET, PATCH is."


def test_a_method_that_is_not_there_on_an_asynchronous_endpoint(world, operator):
    check(operator.send("POST", "/events/stream", {}), 405, "method-not-allowed")


def test_a_bug_is_no_traceback(world, reader, monkeypatch, caplog):
    def break_down() -> None:
        raise RuntimeError("out of cheese")

    monkeypatch.setattr(queries, "vm_list", break_down)
    response = reader.send("GET", "/vms")
    check(response, 500, "unexpected")
    assert "Traceback" not in response.content.decode()
    assert "out of cheese" in caplog.text


def test_a_full_disk_is_said(world, reader, monkeypatch):
    def break_down() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(queries, "vm_list", break_down)
    check(reader.send("GET", "/vms"), 503, "disk-full")


def test_extras_and_evidence_come_along(world, reader, monkeypatch):
    def break_down() -> None:
        raise Conflict("No.", detail="the log", hint="Wait.", code="busy", extra={"operation": "x"})

    monkeypatch.setattr(queries, "vm_list", break_down)
    problem = check(reader.send("GET", "/vms"), 409, "busy")
    assert problem["evidence"] == "the log"
    assert problem["hint"] == "Wait."
    assert problem["operation"] == "x"


def test_two_requests_at_once_are_a_conflict(world, reader, monkeypatch):
    def break_down() -> None:
        raise IntegrityError("UNIQUE constraint failed: vms_vm.name")

    monkeypatch.setattr(queries, "vm_list", break_down)
    problem = check(reader.send("GET", "/vms"), 409, "race")
    assert "UNIQUE" not in problem["detail"]


def test_what_goes_while_it_is_needed_is_a_conflict(world, reader, monkeypatch):
    def break_down() -> None:
        raise VM.DoesNotExist("VM matching query does not exist.")

    monkeypatch.setattr(queries, "vm_list", break_down)
    problem = check(reader.send("GET", "/vms"), 409, "race")
    assert "matching query" not in problem["detail"]
