"""Snapshots of VMs over HTTP: what each endpoint gives and takes."""

from __future__ import annotations

import pytest
from django.db import connection

from drives import services as drive_services
from drives.models import Drive, Snapshot
from nexus_site.core import operations
from nexus_site.core.models import Operation
from tests.factories import make_snapshot, make_vm, make_vm_snapshot
from vms.hypervisors.qemu import Qemu
from vms.models import VM, Attachment, VMSnapshot
from vms.states import State


@pytest.fixture
def snapshot(world):
    """A snapshot of ``hello`` with a root drive and a data drive."""
    Attachment.objects.create(vm=world.vm, drive=world.spare, is_root=False, read_only=True)
    return make_vm_snapshot(world.vm, name="monday", consistency="frozen", held_ms=7)


def refused(response):
    return response.status_code, response.json()["code"]


def test_a_snapshot_is_made_by_an_operation_on_the_vm(world, operator):
    made = operator.send("POST", "/vms/hello/snapshots", {"name": "monday"})
    assert made.status_code == 202
    shown = made.json()
    assert (shown["kind"], shown["subject"]["name"]) == ("vm.snapshot", "hello")
    assert [step["name"] for step in shown["steps"]] == ["copy"]
    assert operator.send("GET", "/vm-snapshots/monday").json()["state"] == "creating"
    assert refused(operator.send("POST", "/vms/hello/snapshots")) == (409, "vm-busy")


def test_a_snapshot_needs_no_body(world, operator):
    assert operator.send("POST", f"/vms/{world.vm.ref}/snapshots").status_code == 202
    assert VMSnapshot.objects.get().name


def test_the_result_of_a_snapshot_names_it(world, operator):
    drive_services.storage().create(world.drive.ref, 1 << 20)
    operation = operator.send("POST", "/vms/hello/snapshots").json()
    operations.execute(operations.decode(operation["id"]))
    ended = operator.send("GET", f"/operations/{operation['id']}").json()
    assert ended["state"] == "succeeded", ended["error"]
    shown = operator.send("GET", f"/vm-snapshots/{ended['result']['vm_snapshot']}").json()
    assert (shown["state"], shown["consistency"], shown["held_ms"]) == ("ready", "at-rest", None)


def test_a_dry_run_makes_no_snapshot(world, operator):
    before = Snapshot.objects.count()
    plan = operator.send("POST", "/vms/hello/snapshots?dry_run=1").json()
    assert [step["action"] for step in plan["steps"]] == ["run"]
    assert not VMSnapshot.objects.exists()
    assert Snapshot.objects.count() == before


def test_what_a_snapshot_shows(world, snapshot, reader):
    shown = reader.send("GET", "/vm-snapshots/monday").json()
    assert reader.send("GET", f"/vm-snapshots/{snapshot.ref}").json() == shown
    assert shown["vm"] == {"id": world.vm.ref, "name": "hello"}
    assert (shown["consistency"], shown["held_ms"], shown["is_head"]) == ("frozen", 7, True)
    assert (shown["vcpu_count"], shown["mem_size_mib"], shown["parent"]) == (1, 128, None)
    root, data = shown["drives"]
    assert root["drive"] == {"id": world.drive.ref, "name": "hello"}
    assert (root["is_root"], data["is_root"], data["read_only"]) == (True, False, True)
    assert data["size_bytes"] == world.spare.size_bytes
    parts = {part.ref for part in snapshot.drives.all()}
    assert {root["id"], data["id"]} == parts


def test_the_snapshots_of_a_vm_are_a_tree_in_few_queries(
    world, snapshot, reader, django_assert_num_queries
):
    make_vm_snapshot(world.vm, name="tuesday")
    make_vm_snapshot(make_vm(name="other"))
    reader.send("GET", "/vms/hello/snapshots")
    with django_assert_num_queries(4):
        rows = reader.send("GET", "/vms/hello/snapshots").json()["items"]
    assert [row["name"] for row in rows] == ["tuesday", "monday"]
    assert rows[0]["parent"]["name"] == "monday"
    assert [row["is_head"] for row in rows] == [True, False]


def test_a_snapshot_is_renamed_and_deleted(world, snapshot, operator):
    renamed = operator.send("PATCH", "/vm-snapshots/monday", {"name": "sunday"})
    assert renamed.json()["name"] == "sunday"
    assert operator.send("PATCH", "/vm-snapshots/sunday", {"name": ""}).status_code == 422
    deleted = operator.send("DELETE", "/vm-snapshots/sunday")
    assert (deleted.status_code, deleted.json()["kind"]) == (202, "vm-snapshot.delete")
    assert refused(operator.send("GET", "/vm-snapshots/nope")) == (404, "vm-snapshot-not-found")


def test_going_back_at_rest(world, snapshot, operator):
    done = operator.send("POST", "/vms/hello/rollback", {"snapshot": "monday"})
    assert (done.status_code, done.json()["kind"]) == (202, "vm.rollback")
    missing = operator.send("POST", "/vms/hello/rollback", {"snapshot": "nope"})
    assert refused(missing) == (404, "vm-snapshot-not-found")
    assert operator.send("POST", "/vms/hello/rollback", {}).status_code == 422


def test_going_back_while_it_runs_needs_a_word(ready, snapshot, operator):
    body = {"snapshot": "monday"}
    assert refused(operator.send("POST", "/vms/hello/rollback", body)) == (409, "vm-runs")
    plan = operator.send("POST", "/vms/hello/rollback?dry_run=1", body | {"stop": True}).json()
    assert [step["name"] for step in plan["steps"]] == [
        "shutdown", "end", "restore", "start", "storage", "kernel", "launch", "agent",
    ]  # fmt: skip
    assert VM.objects.get(name="hello").state == State.READY
    done = operator.send("POST", "/vms/hello/rollback", body | {"stop": True})
    assert done.status_code == 202
    assert VM.objects.get(name="hello").state == State.STOPPING


def test_going_back_without_a_drive_names_it(world, snapshot, operator):
    Attachment.objects.filter(drive=world.spare).delete()
    gone = operator.send("POST", "/vms/hello/rollback", {"snapshot": "monday"})
    assert refused(gone) == (409, "drive-not-attached")
    assert gone.json()["drives"] == ["spare"]


def test_a_drive_goes_back(ready, world, operator):
    make_snapshot(drive=world.drive, name="then")
    body = {"snapshot": "then"}
    assert refused(operator.send("POST", "/drives/hello/rollback", body)) == (409, "vm-runs")
    done = operator.send("POST", "/drives/hello/rollback", body | {"stop": True})
    assert (done.status_code, done.json()["subject"]["kind"]) == (202, "drive")
    other = operator.send("POST", "/drives/spare/rollback", body)
    assert refused(other) == (409, "snapshot-of-another")


def test_a_clone_of_now_and_of_then(world, snapshot, operator):
    now = operator.send("POST", "/vms/hello/clone", {"name": "now", "mem_size_mib": 256})
    assert (now.status_code, now.json()["subject"]["name"]) == (202, "now")
    then = operator.send("POST", "/vms/hello/clone", {"snapshot": "monday", "start": True})
    assert [step["name"] for step in then.json()["steps"]] == ["drives", "start"]
    shown = operator.send("GET", "/vms/now").json()
    assert (shown["mem_size_mib"], shown["source_snapshot"]) == (256, None)
    assert [drive["delete_with_vm"] for drive in shown["drives"]] == [True, True]
    shown = operator.send("GET", f"/vms/{then.json()['subject']['id']}").json()
    assert shown["source_snapshot"]["name"] == "monday"


def test_the_checkpoint_of_a_fork_may_go_while_the_fork_is_read(world, snapshot, reader):
    fork = make_vm(name="fork", source_snapshot=snapshot, resume_from=snapshot, parent=world.vm)

    def gone_once_it_is_read(execute, sql, params, many, context):
        rows = execute(sql, params, many, context)
        if 'FROM "vms_vm"' in sql and VMSnapshot.objects.exists():
            VMSnapshot.objects.all().delete()
        return rows

    with connection.execute_wrapper(gone_once_it_is_read):
        answer = reader.send("GET", "/vms/fork")
    assert answer.status_code == 200, answer.content
    fork.refresh_from_db()
    assert fork.source_snapshot is None
    assert reader.send("GET", "/vms/fork").json()["source_snapshot"] is None


def test_a_dry_run_of_a_clone_makes_nothing(world, operator):
    before = VM.objects.count(), Drive.objects.count()
    plan = operator.send("POST", "/vms/hello/clone?dry_run=1", {"start": True}).json()
    assert [step["name"] for step in plan["steps"]] == ["drives", "start"]
    assert (VM.objects.count(), Drive.objects.count()) == before


def test_a_vm_says_why_drives_cannot_come_and_go(ready, world, operator):
    shown = operator.send("GET", "/vms/hello").json()
    assert "older Nexus" in shown["hotplug_problem"]
    body = {"vm": "hello", "is_root": False}
    refusal = operator.send("POST", "/drives/spare/attach", body)
    assert refused(refusal) == (409, "no-hotplug")
    assert refusal.json()["evidence"] == shown["hotplug_problem"]
    assert "nexusctl vm stop hello" in refusal.json()["hint"]
    VM.objects.update(state=State.STOPPED)
    assert operator.send("GET", "/vms/hello").json()["hotplug_problem"] == ""
    attached = operator.send("POST", "/drives/spare/attach", body | {"delete_with_vm": True})
    assert attached.status_code == 200
    assert Drive.objects.get(name="spare").delete_with_vm


def test_a_vm_with_snapshots_is_deleted_with_them_or_not_at_all(world, snapshot, operator):
    listed = operator.send("DELETE", "/vms/hello")
    assert refused(listed) == (409, "vm-has-snapshots")
    assert listed.json()["snapshots"] == ["monday"]
    assert operator.send("DELETE", "/vms/hello?with_snapshots=1").status_code == 202
    assert Operation.objects.get(kind="vm.delete").params["with_snapshots"] is True


def test_a_running_vm_takes_a_drive_by_an_operation(ready, world, operator, monkeypatch):
    monkeypatch.setattr(Qemu, "hotplug_problem", lambda *_: "")
    made = operator.send("POST", "/drives/spare/attach", {"vm": "hello", "is_root": False})
    assert made.status_code == 202
    shown = made.json()
    assert (shown["kind"], shown["subject"]["name"]) == ("drive.plug", "spare")
    assert [step["name"] for step in shown["steps"]] == ["modules", "plug", "guest"]
    assert operator.send("GET", "/drives/spare").json()["vm"]["name"] == "hello"
    assert refused(operator.send("POST", "/drives/spare/detach")) == (409, "vm-busy")
    Operation.objects.update(state=Operation.State.SUCCEEDED)
    made = operator.send("POST", "/drives/spare/detach")
    assert (made.status_code, made.json()["kind"]) == (202, "drive.unplug")
