"""The OpenAPI document, the explorer, and the page about the API."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nexus_site.api import api
from tests.api.routes import ROUTES

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def document(reader) -> dict:
    return reader.send("GET", "/openapi.json").json()


def test_every_endpoint_has_a_name_of_its_own_and_says_what_it_does(document):
    assert len({route.name for route in ROUTES}) == len(ROUTES)
    for path, methods in document["paths"].items():
        assert path.startswith("/v1/")
        for endpoint in methods.values():
            assert endpoint["summary"]
            assert endpoint["tags"]
            assert endpoint["security"] == [{"BearerToken": []}]


def test_every_endpoint_can_answer_with_a_problem(document):
    problem = {"$ref": "#/components/schemas/Problem"}
    assert "hint" in document["components"]["schemas"]["Problem"]["properties"]
    for methods in document["paths"].values():
        for endpoint in methods.values():
            content = endpoint["responses"]["default"]["content"]
            assert content == {"application/problem+json": {"schema": problem}}


def test_every_reference_leads_somewhere(document):
    names = set(re.findall(r'"#/components/schemas/([^"]+)"', str(document).replace("'", '"')))
    assert names <= set(document["components"]["schemas"])
    assert {"Page_VMOut_", "OperationOut", "Plan", "Problem"} <= names


def test_no_two_schemas_share_a_name(monkeypatch):
    seen: dict[str, dict] = {}

    def keep(self, definitions: dict) -> None:
        for name, schema in definitions.items():
            properties = schema.get("properties", schema.get("enum"))
            assert seen.setdefault(name, properties) == properties, name
        self.schemas.update(definitions)

    monkeypatch.setattr("ninja.openapi.schema.OpenAPISchema.add_schema_definitions", keep)
    assert api.get_openapi_schema(path_prefix="")["paths"]
    assert seen["DriveOut"]["state"]["enum"] == ["creating", "ready", "deleting", "missing"]


def test_posts_that_open_operations_take_a_key(document):
    start = document["paths"]["/v1/vms/{ref}/start"]["post"]
    assert start["summary"] == "Start VM"
    assert [p["name"] for p in start["parameters"]] == [
        "ref",
        "dry_run",
        "wait",
        "Idempotency-Key",
    ]
    assert set(start["responses"]) == {"200", "202", "default"}


def test_the_explorer_loads_nothing_from_elsewhere(reader):
    page = reader.send("GET", "/docs").content.decode()
    assert "swagger-ui" in page
    assert re.findall(r"(?:https?:)?//[\w.-]+", page) == []


def test_the_page_names_every_endpoint():
    page = (ROOT / "docs/reference/api.md").read_text()
    named = set(re.findall(r"^\| `(GET|POST|PUT|PATCH|DELETE) (/\S+?)`", page, re.MULTILINE))
    assert named == {(route.method.upper(), route.path) for route in ROUTES}
