"""The pages of drives and of their snapshots: real, small drives."""

from __future__ import annotations

import html
import json
import re

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.http import StreamingHttpResponse
from django.test import Client

from drives import services
from drives.models import Drive, Snapshot
from nexus_site.core import operations
from nexus_site.core.models import Operation
from tests.factories import make_drive, make_image, make_snapshot, make_vm, make_vm_snapshot
from tests.web.conftest import htmx, make_ready_vm
from vms.hypervisors.qemu import Qemu
from vms.models import Attachment

pytestmark = pytest.mark.usefixtures("nudges")

DIALOG = htmx("dialog#dialog")


def _html(client: Client, address: str, **headers: str) -> str:
    return html.unescape(client.get(address, headers=headers or None).content.decode())


def _lines(page: str) -> list[str]:
    """The names in a tree of snapshots, from top to bottom."""
    return re.findall(r'<a class="main-link" href="/(?:vm-)?snapshots/[^"]+">([^<]+)</a>', page)


def _button(page: str, address: str) -> str:
    """The tag of the button that fetches the dialog at an address."""
    found = re.search(rf'<button [^>]*hx-get="{re.escape(address)}"[^>]*>', page)
    assert found, address
    return found[0]


@pytest.fixture
def data(db: None) -> Drive:
    """An empty drive that is really there."""
    operation = services.create_drive(name="data", size_mib=4)
    operations.execute(operation.pk)
    return Drive.objects.get(name="data")


def run(operation: Operation) -> None:
    operations.execute(operation.pk)
    operation.refresh_from_db()
    assert operation.state == "succeeded", operation.error


# What a drive is


def test_a_drive_says_what_it_takes_and_what_it_is_made_from(client: Client, data: Drive) -> None:
    page = _html(client, "/drives/data/")
    assert "nothing: it began empty" in page
    assert re.search(r"\d of 4 MiB|\d [KM]iB of 4 MiB", page), "used against size"
    assert "come free when it is deleted" in page


def test_every_origin_is_told_with_a_link_or_as_gone(client: Client) -> None:
    image, source = make_image(name="web"), make_drive(name="source")
    snapshot = make_snapshot(drive=source, name="before")
    made = {
        "of-image": ({"image": image}, f'the image <a href="/images/{image.ref}/">web'),
        "of-drive": ({"origin": "drive", "source_drive": source}, f"/drives/{source.ref}/"),
        "of-snapshot": (
            {"origin": "snapshot", "source_snapshot": snapshot},
            f"/snapshots/{snapshot.ref}/",
        ),
        "of-file": ({"origin": "import"}, "a file that was imported"),
        "of-gone-drive": ({"origin": "drive"}, "a drive that is gone"),
        "of-gone-snapshot": ({"origin": "snapshot"}, "a snapshot that is gone"),
    }
    for name, (values, words) in made.items():
        make_drive(name=name, **values)
        assert words in _html(client, f"/drives/{name}/"), name
    page = _html(client, "/drives/source/")
    assert "of-drive" in page, "where it is used"
    assert "from before" in page
    assert "of-snapshot" in _html(client, f"/snapshots/{snapshot.ref}/")


def test_a_drive_of_no_image_is_in_the_list(client: Client, data: Drive) -> None:
    assert ">data</a>" in _html(client, "/drives/")


def test_a_drive_whose_file_is_gone_says_so_and_can_be_deleted(client: Client) -> None:
    drive = make_drive(name="lost", state=Drive.State.MISSING)
    page = _html(client, "/drives/lost/")
    assert "Its file is gone." in page
    assert 'title="It is missing."' in _button(page, f"/drives/{drive.ref}/snapshot/")
    assert "aria-disabled" not in _button(page, f"/drives/{drive.ref}/delete/")


# Snapshots


def test_snapshots_are_a_tree_with_a_mark_where_the_drive_is(client: Client) -> None:
    drive = make_drive(name="disk")
    first = make_snapshot(drive=drive, name="first")
    make_snapshot(drive=drive, name="second")
    make_snapshot(drive=drive, name="third", parent=first)
    page = _html(client, "/drives/disk/")
    assert _lines(page) == ["first", "second", "third"]
    depths = re.findall(r"tree-name tree-(\d)", page)
    assert depths == ["0", "1", "1"]
    assert page.count("you are here") == 1
    assert page.index(">third</a>") < page.index("you are here")
    assert page.count(" after first") == 2
    Drive.objects.update(head=None)
    page = _html(client, "/drives/disk/")
    assert "goes on from none of these" in page


def test_a_snapshot_is_taken_and_refused_in_the_dialog(client: Client, data: Drive) -> None:
    address = f"/drives/{data.ref}/snapshot/"
    asked = client.get(address, headers=DIALOG).content.decode()
    assert asked.lstrip().startswith("<form"), "the dialog alone"
    assert "Take a snapshot of data" in asked
    refused = client.post(address, {"name": "Not A Name"}, headers=DIALOG)
    assert refused.status_code == 422
    assert 'id="dialog_name-error"' in refused.content.decode()
    taken = client.post(address, {"name": "first"}, headers=DIALOG)
    assert taken["HX-Retarget"] == "#toasts"
    run(Operation.objects.get(kind="drive.snapshot"))
    page = _html(client, "/drives/data/")
    assert "taken at rest" in page
    again = client.post(address, {"name": "first"}, headers=DIALOG)
    assert again.status_code == 409
    assert "There is a snapshot “first” already." in html.unescape(again.content.decode())


def test_a_dialog_is_a_page_for_those_without_a_button(client: Client, data: Drive) -> None:
    page = _html(client, f"/drives/{data.ref}/snapshot/")
    assert "<!doctype html>" in page
    assert page.count("<h1") == 1


def test_rolling_back_shows_its_steps_first(client: Client, data: Drive) -> None:
    run(services.take_snapshot(data, name="first"))
    run(services.take_snapshot(data, name="second"))
    snapshot = Snapshot.objects.get(name="first")
    address = f"/snapshots/{snapshot.ref}/rollback/"
    before = Operation.objects.count()
    dialog = _html(client, address, **DIALOG)
    assert "Roll data back to first?" in dialog
    assert "What will happen" in dialog
    assert 'name="stop" value="False"' in dialog
    assert Operation.objects.count() == before, "a preview"
    client.post(address, {"stop": "False"}, headers=DIALOG)
    run(Operation.objects.get(kind="drive.rollback"))
    data.refresh_from_db()
    assert data.head == snapshot


def test_the_drive_of_a_running_vm_is_rolled_back_by_stopping_it(client: Client) -> None:
    vm = make_ready_vm(name="hello")
    snapshot = make_snapshot(drive=vm.attachments.get().drive, name="first")
    dialog = _html(client, f"/snapshots/{snapshot.ref}/rollback/", **DIALOG)
    assert "hello runs: it is stopped for this and started again." in dialog
    assert "Stop, roll back and start" in dialog
    assert 'name="stop" value="True"' in dialog
    refused = client.post(f"/snapshots/{snapshot.ref}/rollback/", {}, headers=DIALOG)
    assert refused.status_code == 409, "without stop"


def test_a_snapshot_is_renamed_and_deleted(client: Client, data: Drive) -> None:
    run(services.take_snapshot(data, name="first"))
    snapshot = Snapshot.objects.get(name="first")
    client.post(f"/snapshots/{snapshot.ref}/rename/", {"name": "renamed"}, headers=DIALOG)
    page = _html(client, "/snapshots/renamed/")
    assert "you are here" in page
    gone = client.post(f"/snapshots/{snapshot.ref}/delete/", headers=DIALOG)
    assert gone["HX-Redirect"] == f"/drives/{data.ref}/"
    assert Operation.objects.get(kind="snapshot.delete").subject_id == snapshot.pk


def test_a_part_of_a_vm_snapshot_says_where_it_is_deleted(client: Client) -> None:
    vm = make_vm(name="hello")
    whole = make_vm_snapshot(vm, name="all-of-it")
    part = whole.drives.get()
    page = _html(client, f"/snapshots/{part.ref}/")
    assert f'href="/vm-snapshots/{whole.ref}/"' in page
    words = "It is part of the VM snapshot all-of-it; delete that."
    assert words in _button(page, f"/snapshots/{part.ref}/delete/")
    assert words in _html(client, f"/drives/{part.drive.ref}/")


# Changing a drive


def test_a_drive_is_renamed_and_grown_but_never_shrunk(client: Client, data: Drive) -> None:
    client.post(f"/drives/{data.ref}/rename/", {"name": "more"}, headers=DIALOG)
    smaller = client.post("/drives/more/resize/", {"size_mib": "1"}, headers=DIALOG)
    assert smaller.status_code == 422
    assert "cannot shrink" in smaller.content.decode()
    client.post("/drives/more/resize/", {"size_mib": "8"}, headers=DIALOG)
    run(Operation.objects.get(kind="drive.resize"))
    data.refresh_from_db()
    assert (data.name, data.size_bytes) == ("more", 8 << 20)


def test_what_needs_rest_says_why_not_while_its_vm_runs(client: Client) -> None:
    vm = make_ready_vm(name="hello")
    drive = vm.attachments.get().drive
    page = _html(client, f"/drives/{drive.ref}/")
    resize = _button(page, f"/drives/{drive.ref}/resize/")
    assert 'aria-disabled="true" title="Its VM runs; stop it first."' in resize
    assert f"/drives/{drive.ref}/export/" not in page, "a link that leads nowhere now"
    assert "It is attached to hello; detach it first." in page
    assert "aria-disabled" not in _button(page, f"/drives/{drive.ref}/snapshot/")


def test_whether_it_goes_with_its_vm_is_a_switch(client: Client, data: Drive) -> None:
    address = f"/drives/{data.ref}/keep/"
    said = client.post(address, {"delete_with_vm": "on"}, headers=htmx("form"))
    assert "is deleted with its VM" in said.content.decode()
    assert "goes when the VM" in _html(client, "/drives/data/")
    client.post(address, headers=htmx("form"))
    data.refresh_from_db()
    assert data.delete_with_vm is False


def test_deleting_lists_the_snapshots_that_go(client: Client, data: Drive) -> None:
    run(services.take_snapshot(data, name="first"))
    address = f"/drives/{data.ref}/delete/"
    dialog = _html(client, address, **DIALOG)
    assert "Its snapshots go too" in dialog
    assert "<li>first</li>" in dialog
    gone = client.post(address, headers=DIALOG)
    assert gone["HX-Redirect"] == "/drives/"
    run(Operation.objects.get(kind="drive.delete"))
    assert not Drive.objects.exists()
    assert not Snapshot.objects.exists()


def test_a_dialog_says_what_would_be_refused(client: Client) -> None:
    vm = make_vm(name="hello")
    part = make_vm_snapshot(vm, name="whole").drives.get()
    Attachment.objects.all().delete()
    dialog = _html(client, f"/drives/{part.drive.ref}/delete/", **DIALOG)
    assert "is a part of the VM snapshot “whole”" in dialog
    assert 'aria-disabled="true"' in dialog


# Coming and going


def test_a_drive_travels_by_export_and_import(client: Client, data: Drive) -> None:
    response = client.get("/drives/data/export/")
    assert isinstance(response, StreamingHttpResponse)
    assert "data.tar.zst" in response["Content-Disposition"]
    sent = SimpleUploadedFile("data.tar.zst", b"".join(response.streaming_content))
    form = {"file": sent, "name": "came-back"}
    taken = client.post("/drives/import/", form, headers=htmx("form#drives-import_form"))
    operation = Operation.objects.get(kind="drive.import")
    assert taken["HX-Redirect"] == f"/operations/{operation.ref}/"
    run(operation)
    assert Drive.objects.get(name="came-back").size_bytes == 4 << 20
    assert "a file that was imported" in _html(client, "/drives/came-back/")


def test_a_snapshot_is_exported_too(client: Client, data: Drive) -> None:
    run(services.take_snapshot(data, name="first"))
    response = client.get("/snapshots/first/export/")
    assert isinstance(response, StreamingHttpResponse)
    assert b"".join(response.streaming_content)[:4] == b"\x28\xb5\x2f\xfd", "zstd"


def test_a_file_with_another_checksum_is_refused_at_the_field(client: Client) -> None:
    sent = SimpleUploadedFile("disk.img", bytes(4096))
    form = {"file": sent, "sha256": "0" * 64}
    response = client.post("/drives/import/", form, headers=htmx("form#drives-import_form"))
    assert response.status_code == 422
    assert 'id="id_sha256-error"' in response.content.decode()
    assert not Drive.objects.exists()


# New ones


@pytest.mark.parametrize(
    ("source", "command"),
    [
        ("empty", "nexusctl drive create --size 8M --name mine"),
        ("drive", "nexusctl drive create --from-drive source --name mine --size 8M"),
        ("snapshot", "nexusctl drive create --from-snapshot before --name mine --size 8M"),
    ],
)
def test_a_new_drive_is_made_from_what_is_here(client: Client, source: str, command: str) -> None:
    drive = make_drive(name="source", image=make_image(size_bytes=4 << 20))
    snapshot = make_snapshot(drive=drive, name="before")
    rows = {"drive": drive.ref, "snapshot": snapshot.ref}
    form = {"name": "mine", "size_mib": "8"} | ({source: rows[source]} if source in rows else {})
    address = f"/drives/new/preview/?from={source}"
    plan = client.post(address, form, headers=htmx("section#vms-plan")).content.decode()
    assert command in html.unescape(plan)
    assert "POST /v1/drives" in plan
    found = re.search(r"<code>(\{.*?\})</code>", html.unescape(plan))
    assert found
    names = {"drive": "source", "snapshot": "before"}
    body = {"name": "mine", "size_mib": 8} | ({source: names[source]} if source in names else {})
    assert json.loads(found[1]) == body, "what the API takes"
    assert not Drive.objects.filter(name="mine").exists()
    client.post(f"/drives/new/?from={source}", form, headers=htmx("form#vms-new_form"))
    made = Drive.objects.get(name="mine")
    assert (made.origin, made.size_bytes) == (source, 8 << 20)


def test_links_choose_a_drive_or_a_snapshot_beforehand(client: Client) -> None:
    make_drive(name="other")
    snapshot = make_snapshot(name="before")
    drive = snapshot.drive
    for name, row in (("drive", drive), ("snapshot", snapshot)):
        page = _html(client, f"/drives/new/?{name}={row.ref}")
        assert f'<option value="{row.ref}" selected>' in page


def test_an_empty_drive_needs_a_size_and_the_others_something_to_copy(client: Client) -> None:
    response = client.post("/drives/new/?from=empty", {"size_mib": ""}, headers=htmx("form"))
    assert response.status_code == 422
    assert "No drive yet" in _html(client, "/drives/new/?from=drive")
    assert "No snapshot yet" in _html(client, "/drives/new/?from=snapshot")


def test_an_onlooker_may_look_and_not_touch(onlooker: Client, data: Drive) -> None:
    run(services.take_snapshot(data, name="first"))
    assert onlooker.get("/drives/data/").status_code == 200
    assert onlooker.get("/snapshots/first/").status_code == 200
    for verb in ("rename", "resize", "snapshot", "delete"):
        for call in (onlooker.get, onlooker.post):
            assert call(f"/drives/data/{verb}/", headers=DIALOG).status_code == 403, verb
    for verb in ("rename", "rollback", "delete"):
        assert onlooker.post(f"/snapshots/first/{verb}/", headers=DIALOG).status_code == 403, verb
    assert onlooker.post("/drives/data/keep/").status_code == 403
    assert onlooker.get("/drives/import/").status_code == 403


def test_a_running_vm_takes_a_drive_and_the_page_shows_the_operation(
    client: Client, data: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = make_ready_vm(name="hello")
    address = f"/vms/{vm.ref}/attach/"
    fields = {"drive": data.ref, "role": "data"}
    refused = client.post(address, fields, headers=htmx("form"))
    assert "cannot take a drive now" in refused.content.decode()
    monkeypatch.setattr(Qemu, "hotplug_problem", lambda *_: "")
    said = client.post(address, fields, headers=htmx("form")).content.decode()
    operation = Operation.objects.get(kind="drive.plug")
    assert "Attach drive data to hello" in said
    assert operation.ref in said
