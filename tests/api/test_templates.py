"""Templates over HTTP: recipes in and out, versions, YAML, two people who edit."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from builds import services
from builds.models import Template
from builds.recipe import parse
from tests.api.conftest import APIClient, World

WEB = "/templates/alpine-3-23"
RECIPE = {
    "packages": ["nginx"],
    "commands": ["rc-update add nginx"],
    "env": {"TZ": "UTC"},
    "overlays": [{"path": "/etc/motd", "content": "hello\n"}],
    "init": "openrc",
    "size_mib": 512,
}
YAML = """\
name: web
rootfs:
  distro: alpine
  version: 3.23
packages:
  - nginx
"""


def send_yaml(client: APIClient, method: str, path: str, text: str | bytes) -> Any:
    return client.generic(method, path, text, "application/yaml")


def test_a_recipe_comes_back_whole(world: World, operator: APIClient) -> None:
    body = {"rootfs": world.rootfs.ref, "name": "web", "recipe": RECIPE}
    made = operator.send("POST", "/templates", body)
    assert made.status_code == 201
    recipe = made.json()["current"]["recipe"]
    assert {name: recipe[name] for name in RECIPE if name != "overlays"} == {
        name: value for name, value in RECIPE.items() if name != "overlays"
    }
    assert recipe["overlays"] == [
        {
            "path": "/etc/motd",
            "content": "hello\n",
            "content_base64": "",
            "mode": "0644",
            "owner": "0:0",
        }
    ]
    assert operator.send("GET", "/templates/web").json() == made.json()
    again = {"recipe": recipe, "expected_version": 1}
    same = operator.send("PATCH", "/templates/web", again).json()
    assert same["current"]["number"] == 1, "what was read can be sent back and changes nothing"


@pytest.mark.parametrize(
    ("recipe", "field"),
    [
        ({"packages": ["--root=/"]}, "packages[1]"),
        ({"overlays": [{"path": "../x"}]}, "overlays[1].path"),
        ({"env": {"A=B": "c"}}, "env.A=B"),
        ({"commands": [""]}, "commands[1]"),
        ({"init": "launchd"}, "init"),
        ({"size_mib": 1}, "size_mib"),
        ({"pakages": []}, "pakages"),
        ("text", ""),
    ],
)
def test_what_is_wrong_with_a_recipe_is_named(
    recipe: Any, field: str, world: World, operator: APIClient
) -> None:
    for method, path in (("POST", "/templates"), ("PATCH", WEB)):
        body = {"rootfs": world.rootfs.ref, "recipe": recipe}
        response = operator.send(method, path, body)
        assert (response.status_code, response.json()["code"]) == (422, "recipe-invalid")
        assert [one["field"] for one in response.json()["errors"]] == [field]
    assert Template.objects.count() == 1


def test_a_change_makes_a_version_and_the_old_one_can_be_read(
    world: World, operator: APIClient
) -> None:
    changed = operator.send("PATCH", WEB, {"recipe": RECIPE, "description": "Our pages"})
    assert changed.status_code == 200
    assert (changed.json()["description"], changed.json()["current"]["number"]) == ("Our pages", 2)
    versions = operator.send("GET", f"{WEB}/versions").json()["items"]
    assert [row["number"] for row in versions] == [2, 1]
    assert "recipe" not in versions[0], "lists stay small"
    old = operator.send("GET", f"{WEB}/versions/1").json()
    assert old["recipe"]["packages"] == []
    missing = operator.send("GET", f"{WEB}/versions/3")
    assert (missing.status_code, missing.json()["code"]) == (404, "template-version-not-found")


def test_the_second_of_two_editors_is_told(world: World, operator: APIClient) -> None:
    body = {"recipe": RECIPE, "expected_version": 1}
    assert operator.send("PATCH", WEB, body).status_code == 200
    late = operator.send("PATCH", WEB, {"recipe": {}, "expected_version": 1})
    assert (late.status_code, late.json()["code"]) == (409, "template-changed")
    assert late.json()["current_version"] == 2
    late = send_yaml(operator, "PUT", f"{WEB}/yaml?expected_version=1", YAML)
    assert (late.status_code, late.json()["code"]) == (409, "template-changed")


def test_renaming_reverting_and_copying(world: World, operator: APIClient) -> None:
    operator.send("PATCH", WEB, {"recipe": RECIPE, "name": "web"})
    reverted = operator.send("POST", "/templates/web/revert", {"version": 1}).json()
    assert (reverted["current"]["number"], reverted["current"]["recipe"]["packages"]) == (3, [])
    body = {"name": "shop", "version": 2}
    copied = operator.send("POST", "/templates/web/copy", body)
    assert copied.status_code == 201
    assert copied.json()["current"]["number"] == 1
    assert copied.json()["current"]["recipe"]["packages"] == ["nginx"]
    taken = operator.send("PATCH", "/templates/web", {"name": "shop"})
    assert (taken.status_code, taken.json()["code"]) == (409, "name-taken")


def test_an_export_is_yaml_that_can_be_put_back(world: World, operator: APIClient) -> None:
    operator.send("PATCH", WEB, {"recipe": RECIPE})
    response = operator.send("GET", f"{WEB}/yaml")
    assert response.headers["Content-Type"] == "application/yaml; charset=utf-8"
    text = response.content.decode()
    assert "version 2" in text
    same = send_yaml(operator, "PUT", f"{WEB}/yaml?expected_version=2", text)
    assert (same.status_code, same.json()["current"]["number"]) == (200, 2)
    first = operator.send("GET", f"{WEB}/yaml?version=1").content
    assert send_yaml(operator, "PUT", f"{WEB}/yaml", first).json()["current"]["number"] == 3


def test_an_import_makes_or_replaces(world: World, operator: APIClient) -> None:
    made = send_yaml(operator, "POST", "/templates/import", YAML)
    assert (made.status_code, made.json()["name"]) == (201, "web")
    taken = send_yaml(operator, "POST", "/templates/import", YAML)
    assert (taken.status_code, taken.json()["code"]) == (409, "name-taken")
    text = YAML + "init: none\n"
    replaced = send_yaml(operator, "POST", "/templates/import?replace=1", text)
    assert replaced.json()["current"]["number"] == 2
    assert replaced.json()["current"]["recipe"]["init"] == "none"


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/templates/import"), ("PUT", f"{WEB}/yaml")],
)
def test_yaml_that_cannot_be_used_says_where(
    method: str, path: str, world: World, operator: APIClient
) -> None:
    for text, code in ((YAML + "init: ]", "yaml-invalid"), (YAML + "init: x", "template-invalid")):
        response = send_yaml(operator, method, path, text)
        assert (response.status_code, response.json()["code"]) == (422, code)
        assert response.json()["line"] == 7
        assert "Line 7" in response.json()["detail"]
    assert send_yaml(operator, method, path, b"").json()["code"] == "yaml-invalid"


@pytest.mark.parametrize(
    ("method", "path", "body", "title"),
    [
        ("PATCH", WEB, {"recipe": RECIPE}, "alpine-3-23"),
        ("POST", f"{WEB}/copy", {"name": "fresh"}, "fresh"),
        ("POST", f"{WEB}/revert", {"version": 1}, "alpine-3-23"),
        ("POST", "/templates/import", YAML, "web"),
        ("PUT", f"{WEB}/yaml", YAML, "web"),
    ],
)
def test_every_change_can_be_rehearsed(
    method: str, path: str, body: Any, title: str, world: World, operator: APIClient
) -> None:
    services.update_template(world.template, recipe=parse({"env": {"A": "b"}}))
    before = list(Template.objects.values("name", "versions__number"))
    send = send_yaml if isinstance(body, str) else APIClient.send
    plan = send(operator, method, f"{path}?dry_run=1", body)
    assert plan.status_code == 200, plan.content
    assert plan.json()["title"] == title
    assert list(Template.objects.values("name", "versions__number")) == before
    assert send(operator, method, path, body).status_code in (200, 201)


def test_a_template_with_many_versions_costs_no_more(world: World, reader: APIClient) -> None:
    paths = (WEB, "/templates", f"{WEB}/versions", f"{WEB}/versions/1", f"{WEB}/yaml")
    _queries(reader, WEB)  # the first one notes that the token was used
    costs = [_queries(reader, path) for path in paths]
    for number in range(10):
        services.update_template(world.template, recipe=parse({"env": {"N": str(number)}}))
    assert [_queries(reader, path) for path in paths] == costs
    assert max(costs) <= 6


def _queries(client: APIClient, path: str) -> int:
    with CaptureQueriesContext(connection) as seen:
        assert client.send("GET", path).status_code == 200
    return len(seen)
