"""Snapshots of VMs on their page and on their own; clones; what goes with a VM and what stays."""

from __future__ import annotations

import html
import re

import pytest
from django.test import Client

from nexus_site.core import events
from nexus_site.core.models import Operation
from tests.factories import make_drive, make_snapshot, make_vm, make_vm_snapshot
from tests.web.conftest import htmx, make_ready_vm
from vms.models import VM, Attachment, VMSnapshot
from vms.states import State
from vms.transitions import move

pytestmark = pytest.mark.usefixtures("nudges")

DIALOG = htmx("dialog#dialog")


def _html(client: Client, address: str, **headers: str) -> str:
    return html.unescape(client.get(address, headers=headers or None).content.decode())


def _button(page: str, address: str) -> str:
    found = re.search(rf'<button [^>]*hx-get="{re.escape(address)}"[^>]*>', page)
    assert found, address
    return found[0]


@pytest.fixture
def vm(db: None) -> VM:
    return make_vm(name="hello", mem_size_mib=128)


# The tree and what can be done with it


def test_the_page_of_a_vm_has_its_snapshots_as_a_tree(client: Client, vm: VM) -> None:
    assert "None yet. A snapshot keeps all its drives" in _html(client, "/vms/hello/")
    first = make_vm_snapshot(vm, name="first")
    make_vm_snapshot(vm, name="second", consistency="frozen")
    make_vm_snapshot(vm, name="third", parent=first)
    page = _html(client, "/vms/hello/")
    names = re.findall(r'href="/vm-snapshots/\w+/">([^<]+)</a>', page)
    assert names == ["first", "second", "third"]
    assert re.findall(r"tree-name tree-(\d)", page) == ["0", "1", "1"]
    assert "frozen by the agent" in page
    assert page.index(">third</a>") < page.index("you are here")


def test_a_snapshot_of_a_vm_is_taken_in_a_dialog(client: Client, vm: VM) -> None:
    refused = client.post("/vms/hello/snapshot/", {"name": "A Name"}, headers=DIALOG)
    assert refused.status_code == 422
    assert not VMSnapshot.objects.exists()
    taken = client.post("/vms/hello/snapshot/", {"name": "first"}, headers=DIALOG)
    assert taken["HX-Retarget"] == "#toasts"
    assert Operation.objects.get(kind="vm.snapshot").subject_id == vm.pk
    assert "first" in _html(client, "/vms/hello/")


def test_what_cannot_be_copied_now_says_why(client: Client, vm: VM) -> None:
    bare = make_vm(name="bare", root=False)
    assert 'title="It has no drive."' in _button(
        _html(client, "/vms/bare/"), f"/vms/{bare.ref}/snapshot/"
    )
    move(vm, State.STARTING, "start requested")
    button = _button(_html(client, "/vms/hello/"), f"/vms/{vm.ref}/clone/")
    assert "It is starting; wait until it runs or is at rest." in button


def test_a_running_vm_is_rolled_back_by_stopping_it_and_the_steps_are_shown(
    client: Client,
) -> None:
    vm = make_ready_vm(name="hello", mem_size_mib=128)
    snapshot = make_vm_snapshot(vm, name="first")
    address = f"/vm-snapshots/{snapshot.ref}/rollback/"
    dialog = _html(client, address, **DIALOG)
    for words in ("Stop, roll back and start", "Shut the guest down", "Wait for the agent"):
        assert words in dialog
    vm.refresh_from_db()
    assert vm.state == State.READY, "a preview"
    refused = client.post(address, {"stop": "False"}, headers=DIALOG)
    assert refused.status_code == 409
    client.post(address, {"stop": "True"}, headers=DIALOG)
    assert Operation.objects.get(kind="vm.rollback").subject_id == vm.pk


def test_a_vm_at_rest_is_rolled_back_without_a_start(client: Client, vm: VM) -> None:
    snapshot = make_vm_snapshot(vm, name="first")
    dialog = _html(client, f"/vm-snapshots/{snapshot.ref}/rollback/", **DIALOG)
    assert 'name="stop" value="False"' in dialog
    assert "Wait for the agent" not in dialog


def test_a_rollback_that_misses_a_drive_is_refused_beforehand(client: Client, vm: VM) -> None:
    snapshot = make_vm_snapshot(vm, name="first")
    drive = vm.attachments.get().drive
    Attachment.objects.all().delete()
    dialog = _html(client, f"/vm-snapshots/{snapshot.ref}/rollback/", **DIALOG)
    assert f"Not all drives of “first” are attached to the VM “hello” any more: {drive.name}" in (
        dialog
    )
    assert 'aria-disabled="true"' in dialog


def test_a_clone_is_made_as_it_was_in_a_snapshot(client: Client, vm: VM) -> None:
    snapshot = make_vm_snapshot(vm, name="first")
    address = f"/vms/{vm.ref}/clone/?snapshot={snapshot.ref}"
    assert address in _html(client, "/vms/hello/")
    dialog = _html(client, address, **DIALOG)
    assert f'<option value="{snapshot.ref}" selected>was in first' in dialog
    form = {"name": "hello-2", "snapshot": snapshot.ref, "vcpu_count": "1", "mem_size_mib": "96"}
    form["hypervisor"] = "qemu"
    answer = client.post(address, form, headers=DIALOG)
    operation = Operation.objects.get(kind="vm.clone")
    assert answer["HX-Redirect"] == f"/operations/{operation.ref}/"
    clone = VM.objects.get(name="hello-2")
    assert (clone.source_snapshot, clone.mem_size_mib) == (snapshot, 96)
    assert operation.params["start"] is False
    assert ">hello-2</a>" in _html(client, "/vm-snapshots/first/")


def test_a_clone_by_a_name_that_is_taken_is_refused_at_the_field(client: Client, vm: VM) -> None:
    form = {"name": "hello", "vcpu_count": "1", "mem_size_mib": "128", "hypervisor": "auto"}
    response = client.post("/vms/hello/clone/", form, headers=DIALOG)
    assert response.status_code == 409
    assert 'id="dialog_name-error"' in response.content.decode()


# A snapshot's own page


def test_a_snapshot_has_a_page_with_its_parts(client: Client, vm: VM) -> None:
    data = make_drive(name="data")
    Attachment.objects.create(vm=vm, drive=data, is_root=False, read_only=True)
    first = make_vm_snapshot(vm, name="first", held_ms=41)
    make_vm_snapshot(vm, name="second")
    page = _html(client, f"/vm-snapshots/{first.ref}/")
    for words in ("41 ms", "taken at rest", "data, read-only", f"/drives/{data.ref}/", ">second<"):
        assert words in page
    part = first.drives.get(drive=data)
    assert f"/snapshots/{part.ref}/" in page


def test_a_snapshot_is_renamed_and_deleted(client: Client, vm: VM) -> None:
    snapshot = make_vm_snapshot(vm, name="first")
    client.post(f"/vm-snapshots/{snapshot.ref}/rename/", {"name": "renamed"}, headers=DIALOG)
    assert client.get("/vm-snapshots/renamed/").status_code == 200
    gone = client.post(f"/vm-snapshots/{snapshot.ref}/delete/", headers=DIALOG)
    assert gone["HX-Redirect"] == f"/vms/{vm.ref}/"
    snapshot.refresh_from_db()
    assert snapshot.state == "deleting"
    rollback = _button(_html(client, "/vms/hello/"), f"/vm-snapshots/{snapshot.ref}/rollback/")
    assert 'title="It is deleting."' in rollback


def test_operations_and_events_lead_to_a_snapshot_of_a_drive(client: Client, vm: VM) -> None:
    part = make_vm_snapshot(vm, name="first").drives.get()
    events.append("snapshot.ready", part, drive_name="hello")
    page = _html(client, "/events/?state=snapshot")
    assert f'href="/snapshots/{part.ref}/"' in page
    assert "was taken of hello" in page


# Drives in a VM


def test_deleting_a_vm_says_which_drives_go_and_which_stay(client: Client, vm: VM) -> None:
    root = vm.attachments.get().drive
    type(root).objects.filter(pk=root.pk).update(name="goes", delete_with_vm=True)
    data = make_drive(name="stays")
    Attachment.objects.create(vm=vm, drive=data, is_root=False)
    make_vm_snapshot(vm, name="first")
    make_snapshot(drive=root, name="alone")
    make_snapshot(drive=data, name="not-this")
    page = _html(client, "/vms/hello/")
    dialog = page[page.index('id="delete-dialog"') :]
    going, staying = dialog.index("Drives that go"), dialog.index("Drives that stay")
    assert going < dialog.index("<li>goes ") < staying < dialog.index("<li>stays ")
    lost = dialog[dialog.index("Snapshots that go") :]
    assert "<li>first</li>" in lost
    assert "<li>alone " in lost
    assert "not-this" not in lost
    form = {"confirm": "hello", "with_snapshots": "1"}
    assert client.post("/vms/hello/delete/", {"confirm": "hello"}).status_code == 409
    client.post("/vms/hello/delete/", form, headers=htmx("form"))
    assert Operation.objects.get(kind="vm.delete").subject_id == vm.pk


def test_a_second_root_drive_is_not_offered(client: Client, vm: VM) -> None:
    make_drive(name="spare")
    page = _html(client, "/vms/hello/")
    assert "It has a root drive already." in page
    assert '<option value="root">' not in page
    make_vm(name="bare", root=False)
    assert '<option value="root">' in _html(client, "/vms/bare/")


def test_a_drive_is_attached_as_data_and_goes_with_the_vm(client: Client, vm: VM) -> None:
    drive = make_drive(name="spare")
    form = {"drive": drive.ref, "role": "data", "read_only": "on", "delete_with_vm": "on"}
    client.post("/vms/hello/attach/", form, headers=htmx("form"))
    attachment = vm.attachments.get(drive=drive)
    assert (attachment.is_root, attachment.read_only) == (False, True)
    drive.refresh_from_db()
    assert drive.delete_with_vm is True
    assert "read-only, deleted with the VM" in _html(client, "/vms/hello/")


def test_a_running_vm_says_why_no_drive_comes_or_goes(client: Client) -> None:
    make_ready_vm(name="hello")
    page = _html(client, "/vms/hello/")
    assert "older Nexus" in page
    assert re.search(r'data-opens="attach-dialog" aria-disabled="true" title="[^"]+"', page)


def test_an_onlooker_may_look_and_not_touch(onlooker: Client, vm: VM) -> None:
    snapshot = make_vm_snapshot(vm, name="first")
    assert onlooker.get("/vm-snapshots/first/").status_code == 200
    addresses = ["/vms/hello/snapshot/", "/vms/hello/clone/"]
    addresses += [f"/vm-snapshots/first/{verb}/" for verb in ("rollback", "rename", "delete")]
    for address in addresses:
        assert onlooker.get(address, headers=DIALOG).status_code == 403, address
        assert onlooker.post(address, headers=DIALOG).status_code == 403, address
    snapshot.refresh_from_db()
    assert snapshot.state == "ready"
