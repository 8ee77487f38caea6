"""Warm templates over HTTP: what each endpoint gives and takes."""

from __future__ import annotations

import pytest

from tests.factories import make_warm_template
from tests.vms.warm_hosts import switch
from vms import warm
from vms.models import VM, WarmTemplate


@pytest.fixture(autouse=True)
def _switched_on(settings, monkeypatch):
    switch(settings, warm_templates=True)
    monkeypatch.setattr(warm, "host_tsc_khz", lambda: 2_000_000)


def test_they_are_listed_with_what_they_take_and_how_often_they_were_used(world, reader):
    template = make_warm_template(image=world.image, hits=3)
    (shown,) = reader.send("GET", "/warm-templates").json()["items"]
    assert shown == reader.send("GET", f"/warm-templates/{template.ref}").json()
    assert (shown["image"]["name"], shown["state"], shown["hits"]) == (world.image.name, "ready", 3)
    assert (shown["memory_bytes"], shown["disk_bytes"]) == (80 << 20, None)
    assert shown["facts"]["mem_size_mib"] == 512
    assert reader.send("GET", "/warm-templates/aaaaaaaaaaayds").status_code == 404


def test_the_vm_behind_one_is_in_no_list(world, reader):
    template = make_warm_template()
    assert template.vm is not None
    names = [vm["name"] for vm in reader.send("GET", "/vms").json()["items"]]
    assert names == [world.vm.name]
    assert sum(reader.send("GET", "/status").json()["vms"].values()) == 1
    assert template.vm.ref not in reader.send("GET", "/drives").content.decode()
    image = reader.send("GET", f"/images/{template.image.ref}").json()
    assert (image["drives"], image["vms"]) == ([], [])


def test_nobody_does_anything_to_the_vm_behind_one(operator, world):
    vm = make_warm_template().vm
    for method, path in (
        ("POST", "start"),
        ("POST", "stop"),
        ("POST", "snapshots"),
        ("POST", "clone"),
        ("DELETE", ""),
        ("PATCH", ""),
    ):
        body = {"name": "mine"} if method == "PATCH" else None
        answer = operator.send(method, f"/vms/{vm.ref}/{path}".rstrip("/"), body)
        assert answer.status_code == 404, (method, path)
    ran = operator.send("POST", f"/vms/{vm.ref}/exec", {"argv": ["true"]})
    assert ran.status_code == 404
    assert operator.send("GET", f"/vms/{vm.ref}/history").status_code == 200


def test_one_is_made_by_an_operation(world, operator):
    body = {"image": world.image.name, "mem_size_mib": 128}
    plan = operator.send("POST", "/warm-templates?dry_run=1", body).json()
    assert [step["name"] for step in plan["steps"]][:3] == ["kernel", "key", "drive"]
    assert not VM.objects.filter(purpose="warm").exists()
    made = operator.send("POST", "/warm-templates", body)
    assert made.status_code == 202
    assert made.json()["kind"] == "warm.make"
    assert VM.objects.get(purpose="warm").mem_size_mib == 128


def test_none_is_made_where_they_are_switched_off(world, operator, settings):
    switch(settings, warm_templates=False)
    refused = operator.send("POST", "/warm-templates", {"image": world.image.name})
    assert (refused.status_code, refused.json()["code"]) == (409, "warm-templates-off")


def test_one_is_deleted_and_the_useless_are_pruned(operator, world):
    good, bad = make_warm_template(), make_warm_template(image=world.image)
    WarmTemplate.objects.filter(pk=bad.pk).update(image=None)
    plan = operator.send("POST", "/warm-templates/prune?dry_run=1").json()
    assert [step["title"] for step in plan["steps"]] == [
        "Delete the warm template of a deleted image: its image has been deleted"
    ]
    assert operator.send("POST", "/warm-templates/prune").status_code == 202
    deleting = operator.send("DELETE", f"/warm-templates/{good.ref}")
    assert (deleting.status_code, deleting.json()["kind"]) == (202, "warm.delete")


def test_a_start_may_be_cold(world, operator):
    started = operator.send("POST", "/vms/hello/start", {"cold": True})
    assert started.status_code == 202, started.json()
    assert operator.send("POST", "/vms/hello/start", {"warm": True}).status_code == 422
