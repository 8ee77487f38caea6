"""Pools over HTTP: what each endpoint gives and takes."""

from __future__ import annotations

import pytest

from nexus_site.core import auth
from nexus_site.core.models import Operation
from tests.factories import make_pool, make_template
from tests.vms.real_drives import done
from vms import pools_api
from vms.models import VM, Pool
from vms.services import refilling
from vms.states import State


@pytest.fixture(autouse=True)
def _no_worker(monkeypatch):
    monkeypatch.setattr(pools_api, "TELLING", 0)
    monkeypatch.setattr(refilling, "LOAD", 1000.0)


@pytest.fixture
def pool(world):
    return make_pool(name="ready", image=world.image, ready=2)


def test_they_are_listed_with_those_that_wait(pool, reader, world):
    Pool.objects.update(problem="The host is full.", taken=3)
    (shown,) = reader.send("GET", "/pools").json()["items"]
    assert shown == reader.send("GET", "/pools/ready").json()
    assert (shown["image"]["name"], shown["template"]) == (world.image.name, None)
    assert (shown["size"], shown["ready"], shown["taken"]) == (2, 2, 3)
    assert shown["problem"] == "The host is full."
    assert {vm["state"] for vm in shown["vms"]} == {"ready"}
    assert reader.send("GET", "/pools/nope").status_code == 404


def test_one_is_created(operator, world):
    body = {"name": "ready", "image": world.image.name, "size": 2, "mem_size_mib": 128}
    plan = operator.send("POST", "/pools?dry_run=1", body)
    assert (plan.status_code, plan.json()["title"]) == (200, "ready")
    assert not Pool.objects.exists()
    assert not Operation.objects.filter(kind="pool.fill").exists()
    made = operator.send("POST", "/pools", body)
    assert made.status_code == 201, made.json()
    assert (made.json()["ready"], made.json()["shape"]["mem_size_mib"]) == (0, 128)
    assert [vm["state"] for vm in made.json()["vms"]] == ["created"], "the first is being made"
    assert operator.send("POST", "/pools", body).json()["code"] == "name-taken"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "image-or-template"),
        ({"image": "nope"}, "image-not-found"),
        ({"template": "nope"}, "template-not-found"),
        ({"image": "alpine-3-23", "template": "alpine-3-23"}, "image-or-template"),
        ({"image": "alpine-3-23", "size": 101}, "validation"),
        ({"image": "alpine-3-23", "mem_size_mib": 1 << 24}, "memory-size"),
        ({"template": "unbuilt"}, "template-not-built"),
        ({"image": "alpine-3-23", "provisioning": {}}, "validation"),
    ],
)
def test_what_cannot_be_is_refused(operator, world, body, code):
    make_template(name="unbuilt")
    refused = operator.send("POST", "/pools", {"name": "ready"} | body)
    assert (refused.status_code in (404, 409, 422), refused.json()["code"]) == (True, code)
    assert not Pool.objects.exists()


def test_one_is_resized_and_renamed(pool, operator):
    answer = operator.send("PATCH", "/pools/ready", {"size": 1, "name": "spare"})
    assert answer.status_code == 200
    assert (answer.json()["name"], answer.json()["size"], answer.json()["ready"]) == ("spare", 1, 1)
    assert operator.send("PATCH", "/pools/spare", {"size": 101}).status_code == 422
    assert operator.send("PATCH", "/pools/spare?dry_run=1", {"size": 0}).status_code == 200
    pool.refresh_from_db()
    assert pool.size == 1


def test_a_vm_is_taken(pool, operator):
    taken = operator.send("POST", "/pools/ready/take", {"name": "web"})
    assert taken.status_code == 201, taken.json()
    shown = taken.json()
    assert (shown["name"], shown["state"], shown["pool"]["name"]) == ("web", "ready", "ready")
    assert operator.send("GET", "/vms/web").json()["id"] == shown["id"]
    assert [vm["name"] for vm in operator.send("GET", "/vms?name=web").json()["items"]] == ["web"]
    history = operator.send("GET", "/vms/web/history").json()["items"]
    assert history[-1]["reason"] == "taken from pool ready"
    assert history[-1]["actor"] == "token:operate"
    generated = operator.send("POST", "/pools/ready/take")
    assert generated.status_code == 201
    assert generated.json()["name"]


def test_the_same_request_again_gets_the_same_vm(pool, operator):
    headers = {"Idempotency-Key": "k1"}
    first = operator.send("POST", "/pools/ready/take", {"name": "web"}, headers=headers)
    again = operator.send("POST", "/pools/ready/take", {"name": "web"}, headers=headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json()["id"] == first.json()["id"]
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    other = operator.send("POST", "/pools/ready/take", {"name": "db"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency-key-reused")
    pool.refresh_from_db()
    assert pool.taken == 1


def test_an_empty_pool_refuses_or_starts_one(pool, operator, world):
    VM.objects.filter(pool=pool).update(state=State.RUNNING)
    refused = operator.send("POST", "/pools/ready/take", {"name": "web"})
    assert (refused.status_code, refused.json()["code"]) == (409, "pool-empty")
    assert "--or-start" in refused.json()["hint"]
    body, headers = {"name": "web", "or_start": True}, {"Idempotency-Key": "k1"}
    plan = operator.send("POST", "/pools/ready/take?dry_run=1", body).json()
    assert plan["title"] == f"Create VM web from {world.image.name}"
    started = operator.send("POST", "/pools/ready/take", body, headers=headers)
    assert (started.status_code, started.json()["kind"]) == (202, "vm.from-image")
    again = operator.send("POST", "/pools/ready/take", body, headers=headers)
    assert (again.status_code, again.json()["id"]) == (202, started.json()["id"])


def test_nothing_else_can_be_said_of_a_vm_that_is_taken(pool, operator):
    refused = operator.send("POST", "/pools/ready/take", {"provisioning": {"env": {"A": "1"}}})
    assert refused.status_code == 422
    assert operator.send("POST", "/pools/ready/take", {"name": "Not a name"}).status_code == 422


def test_those_that_wait_are_nobodys(pool, operator, world):
    (vm, *_) = VM.objects.filter(pool=pool)
    names = [row["name"] for row in operator.send("GET", "/vms").json()["items"]]
    assert names == [world.vm.name]
    assert sum(operator.send("GET", "/status").json()["vms"].values()) == 1
    assert vm.ref not in operator.send("GET", "/drives").content.decode()
    assert len(operator.send("GET", f"/images/{world.image.ref}").json()["vms"]) == 1
    for method, path in (("POST", "stop"), ("POST", "fork"), ("POST", "clone"), ("DELETE", "")):
        answer = operator.send(method, f"/vms/{vm.ref}/{path}".rstrip("/"))
        assert answer.status_code == 404, (method, path)


def test_one_is_deleted_with_those_that_wait(pool, operator):
    taken = operator.send("POST", "/pools/ready/take", {"name": "web"}).json()
    plan = operator.send("DELETE", "/pools/ready?dry_run=1").json()
    assert plan["title"] == "Delete pool ready"
    deletion = operator.send("DELETE", "/pools/ready")
    assert (deletion.status_code, deletion.json()["kind"]) == (202, "pool.clear")
    assert operator.send("GET", "/pools/ready").status_code == 404
    shown = operator.send("GET", f"/vms/{taken['id']}").json()
    assert (shown["state"], shown["pool"]) == ("ready", None)
    done(Operation.objects.get(kind="pool.clear"))
    assert not VM.objects.filter(purpose="pool", state="ready").exists()


def test_an_image_that_a_pool_makes_vms_of_stays(pool, operator, world):
    refused = operator.send("DELETE", f"/images/{world.image.ref}")
    assert (refused.status_code, refused.json()["code"]) == (409, "image-used")
    assert refused.json()["pools"] == ["ready"]


def test_prometheus_sees_how_full_they_are(pool, client):
    _, secret = auth.create_token("ci", "read")
    page = client.get("/metrics", headers={"Authorization": f"Bearer {secret}"}).content.decode()
    assert 'nexus_pool_ready{pool="ready"} 2.0' in page
    assert 'nexus_pool_size{pool="ready"} 2.0' in page
