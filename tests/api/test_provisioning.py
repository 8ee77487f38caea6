"""What VMs are given when they start, by the API. Secrets go in and never come out."""

from __future__ import annotations

import base64
import logging
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from nexus_site.core.models import Event, Operation
from tests.api.conftest import APIClient, World
from vms.models import VM, Provisioning
from vms.services import provisioning as rules
from vms.states import State

SECRET = "correct-horse-battery"
WHERE = "/vms/hello/provisioning"

ALL: dict[str, Any] = {
    "env": {"COLOUR": "blue"},
    "secret_env": {"TOKEN": SECRET},
    "hosts": {"db.example": "10.1.2.3"},
    "dns": ["9.9.9.9"],
    "files": [
        {"path": "/etc/app.conf", "content": "x = 1\n"},
        {
            "path": "/etc/key",
            "content": base64.b64encode(SECRET.encode()).decode(),
            "encoding": "base64",
            "secret": True,
        },
    ],
    "script": "echo hi\n",
    "on_failure": "fail",
}


def test_without_any_all_is_empty(world: World, reader: APIClient) -> None:
    assert reader.get(WHERE).json() == {
        "env": {},
        "secret_env": [],
        "hosts": {},
        "dns": [],
        "files": [],
        "script": "",
        "on_failure": "warn",
        "phase": "",
        "problem": "",
        "script_done": False,
    }
    log = reader.get(f"{WHERE}/log").json()
    assert log == {"text": "", "running": False, "exit": None, "ended_at": None}
    assert not Provisioning.objects.exists(), "looking makes nothing"


def test_what_is_put_is_there_but_for_secret_values(world: World, operator: APIClient) -> None:
    put = operator.send("PUT", WHERE, ALL)
    assert put.status_code == 200
    assert put.json() == operator.get(WHERE).json()
    answer = put.json()
    assert answer["secret_env"] == ["TOKEN"]
    assert answer["files"] == [
        {"path": "/etc/app.conf", "mode": "0644", "user": "", "secret": False, "size": 6},
        {"path": "/etc/key", "mode": "0600", "user": "", "secret": True, "size": len(SECRET)},
    ]
    assert (answer["hosts"], answer["dns"]) == (ALL["hosts"], ALL["dns"])
    row = Provisioning.objects.get()
    assert rules.secret_env(row) == {"TOKEN": SECRET}
    assert rules.content_of(row.files.get(path="/etc/key")) == SECRET.encode()
    operator.send("PUT", WHERE, {"env": {"A": "1"}})
    answer = operator.get(WHERE).json()
    assert (answer["env"], answer["secret_env"], answer["files"]) == ({"A": "1"}, [], [])


def test_a_patch_changes_what_it_names(world: World, operator: APIClient) -> None:
    operator.send("PUT", WHERE, ALL)
    change = {"env": {"COLOUR": None, "SIZE": "9"}, "secret_env": {"OTHER": "x"}}
    answer = operator.send("PATCH", WHERE, change | {"script": "true\n"}).json()
    assert (answer["env"], answer["secret_env"]) == ({"SIZE": "9"}, ["OTHER", "TOKEN"])
    assert (answer["script"], answer["on_failure"]) == ("true\n", "fail")
    assert len(answer["files"]) == 2


def test_a_dry_run_changes_nothing(world: World, operator: APIClient) -> None:
    assert operator.send("PUT", f"{WHERE}?dry_run=1", ALL).json()["dry_run"] is True
    refused = operator.send("PATCH", f"{WHERE}?dry_run=1", {"dns": ["x"]})
    assert refused.json()["code"] == "bad-dns"
    assert not Provisioning.objects.exists()


def test_files_are_uploaded_as_they_are_and_taken_away(world: World, operator: APIClient) -> None:
    data = bytes(range(256))
    where = f"{WHERE}/files?path=/opt/blob&mode=755&user=nobody"
    answer = operator.put(where, data, content_type="application/octet-stream").json()
    assert answer["files"] == [
        {"path": "/opt/blob", "mode": "0755", "user": "nobody", "secret": False, "size": 256}
    ]
    assert rules.content_of(Provisioning.objects.get().files.get()) == data
    assert operator.delete(f"{WHERE}/files?path=/opt/blob").json()["files"] == []
    gone = operator.delete(f"{WHERE}/files?path=/opt/blob")
    assert (gone.status_code, gone.json()["code"]) == (404, "no-such-file")


def test_a_file_that_is_too_large_is_refused(world: World, operator: APIClient) -> None:
    octets = "application/octet-stream"
    large = bytes((1 << 20) + 1)
    refused = operator.put(f"{WHERE}/files?path=/x", large, content_type=octets)
    assert (refused.status_code, refused.json()["code"]) == (422, "file-too-large")
    assert operator.put(f"{WHERE}/files?path=/x", large[1:], content_type=octets).status_code == 200


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"env": {"A-B": "1"}}, "bad-variable"),
        ({"hosts": {"x": "nope"}}, "bad-hosts"),
        ({"files": [{"path": "relative"}]}, "bad-path"),
        ({"files": [{"path": "/x", "mode": "999"}]}, "bad-mode"),
        ({"files": [{"path": "/x", "content": "*", "encoding": "base64"}]}, "bad-content"),
        ({"on_failure": "panic"}, "validation"),
        ({"colour": "blue"}, "validation"),
    ],
)
def test_what_cannot_be_is_refused(
    world: World, operator: APIClient, body: dict[str, Any], code: str
) -> None:
    refused = operator.send("PUT", WHERE, body)
    assert (refused.status_code, refused.json()["code"]) == (422, code)


def test_clearing_leaves_nothing(world: World, operator: APIClient) -> None:
    operator.send("PUT", WHERE, ALL)
    assert operator.delete(WHERE).status_code == 204
    assert not Provisioning.objects.exists()
    assert operator.delete(WHERE).status_code == 204


def test_the_script_can_be_had_again(world: World, operator: APIClient) -> None:
    assert operator.send("POST", f"{WHERE}/run-again").json()["code"] == "no-script"
    operator.send("PUT", WHERE, ALL)
    Provisioning.objects.update(script_drive=world.drive.pk)
    assert operator.get(WHERE).json()["script_done"] is True
    assert operator.send("POST", f"{WHERE}/run-again").json()["script_done"] is False


def test_the_log_says_how_far_the_script_is(ready: VM, reader: APIClient) -> None:
    Provisioning.objects.create(vm=ready, script="x", phase="script", script_log="so far\n")
    log = reader.get(f"{WHERE}/log").json()
    assert log == {"text": "so far\n", "running": True, "exit": None, "ended_at": None}
    assert reader.get("/vms/hello").json()["phase"] == "running the first-boot script"
    Provisioning.objects.update(
        phase="done",
        script_exit={"code": 3, "signal": None, "timed_out": False},
        script_ended_at=timezone.now(),
    )
    log = reader.get(f"{WHERE}/log").json()
    assert (log["running"], log["exit"]["code"]) == (False, 3)
    assert reader.get("/vms/hello").json()["phase"] == ""


def test_of_a_vm_that_ended_midway_nothing_is_under_way(world: World, reader: APIClient) -> None:
    Provisioning.objects.create(vm=world.vm, phase="script")
    VM.objects.filter(pk=world.vm.pk).update(state=State.CRASHED)
    assert reader.get(WHERE).json()["phase"] == ""
    assert reader.get(f"{WHERE}/log").json()["running"] is False


def test_a_vm_is_made_with_it(world: World, operator: APIClient) -> None:
    body = {"image": world.image.name, "name": "fresh", "mem_size_mib": 128, "provisioning": ALL}
    made = operator.send("POST", "/vms", body)
    assert made.status_code == 202, made.content
    assert Provisioning.objects.get(vm__name="fresh").env == {"COLOUR": "blue"}
    assert SECRET not in str(list(Operation.objects.values()))


def test_a_reader_changes_nothing(world: World, reader: APIClient) -> None:
    assert reader.send("PUT", WHERE, ALL).status_code == 403
    assert reader.put(f"{WHERE}/files?path=/x", b"").status_code == 403


def test_no_secret_is_told_again(
    world: World, operator: APIClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    operator.send("PUT", WHERE, ALL)
    refused = [
        operator.send("PUT", WHERE, ALL | {"secret_env": {"TOKEN": [SECRET]}}),
        operator.send("PUT", WHERE, ALL | {"secret_env": {"TOKEN": SECRET * 4000}}),
        operator.send("PUT", WHERE, ALL | {"secret_env": {"1X": SECRET}}),
        operator.send("PATCH", WHERE, {"secret_env": {"TOKEN": f"{SECRET}\0"}}),
        operator.send("PATCH", WHERE, {"files": [{"path": "/etc/key", "content": [SECRET]}]}),
    ]
    assert {answer.status_code for answer in refused} == {422}
    looked = [operator.get(path) for path in (WHERE, f"{WHERE}/log", "/vms/hello", "/events")]
    for answer in refused + looked:
        assert SECRET not in answer.content.decode()
    assert SECRET not in caplog.text
    assert SECRET not in str(list(Event.objects.values()))


def test_no_page_of_the_admin_has_a_secret(
    world: World, operator: APIClient, admin_client: Client
) -> None:
    operator.send("PUT", WHERE, ALL)
    row = Provisioning.objects.get()
    sealed = row.secret_env
    for path in (
        "/admin/vms/provisioning/",
        f"/admin/vms/provisioning/{row.pk}/change/",
        "/admin/vms/provisionedfile/",
        f"/admin/vms/provisionedfile/{row.files.get(path='/etc/key').pk}/change/",
    ):
        page = admin_client.get(path, follow=True)
        assert page.status_code == 200, path
        text = page.content.decode()
        assert "hello" in text or "/etc/key" in text
        assert SECRET not in text
        assert sealed not in text
