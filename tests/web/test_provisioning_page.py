"""The page of what a VM is given when it starts."""

from __future__ import annotations

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils import timezone

from tests.factories import make_vm
from tests.web.conftest import htmx, make_ready_vm
from vms.models import VM, Provisioning
from vms.services import provisioning as rules
from vms.services.provisioning import GivenFile
from vms.states import State

SECRET = "correct-horse-battery"
PAGE = "/vms/hello/provisioning/"

pytestmark = pytest.mark.usefixtures("nudges")


def _html(client: Client, address: str = PAGE) -> str:
    return client.get(address).content.decode()


def test_without_any_the_page_offers_all_of_it(client: Client) -> None:
    make_vm(name="hello")
    html = _html(client)
    assert 'aria-current="page">Provisioning' in html
    for text in ("There is no script", "None. Values are kept encrypted", "next start"):
        assert text in html
    assert not Provisioning.objects.exists()


def test_the_form_saves_what_is_in_its_lines(client: Client) -> None:
    make_vm(name="hello")
    form = {
        "env": "COLOUR=deep blue\r\n\r\nEMPTY=\r\n",
        "hosts": "10.0.2.2 db.example  db\r\n",
        "dns": "9.9.9.9, 1.1.1.1",
        "script": "#!/bin/sh\r\necho hi\r\n",
        "on_failure": "fail",
    }
    saved = client.post(PAGE, form, follow=True)
    assert "It takes effect at the next start." in saved.content.decode()
    row = Provisioning.objects.get()
    assert row.env == {"COLOUR": "deep blue", "EMPTY": ""}
    assert row.hosts == {"db.example": "10.0.2.2", "db": "10.0.2.2"}
    assert (row.dns, row.on_failure) == (["9.9.9.9", "1.1.1.1"], "fail")
    assert row.script == "#!/bin/sh\necho hi\n", "guests know no carriage returns"
    assert "COLOUR=deep blue" in _html(client)
    client.post(PAGE, form | {"env": "SIZE=9", "hosts": ""})
    row.refresh_from_db()
    assert (row.env, row.hosts) == ({"SIZE": "9"}, {})


@pytest.mark.parametrize(
    ("field", "text", "said"),
    [
        ("env", "just words", "“just words” is no NAME=VALUE"),
        ("env", "1A=x", "cannot be the name of a variable"),
        ("hosts", "10.0.0.1", "is no address with a name"),
        ("hosts", "nope db", "is no IP address"),
        ("dns", "example.com", "is no IPv4 address"),
    ],
)
def test_what_is_refused_is_said_at_its_field(
    client: Client, field: str, text: str, said: str
) -> None:
    make_vm(name="hello")
    answer = client.post(PAGE, {"on_failure": "warn", field: text})
    assert answer.status_code == 422
    html = answer.content.decode()
    assert f'id="provisioning_{field}-error"' in html
    assert said in html
    assert not Provisioning.objects.exists()


def test_a_secret_goes_in_and_is_never_seen_again(client: Client) -> None:
    make_vm(name="hello")
    where = f"{PAGE}secret/"
    assert 'type="password"' in _html(client, where)
    refused = client.post(where, {"name": "1X", "value": SECRET}, headers=htmx("dialog"))
    assert refused.status_code == 422
    added = client.post(where, {"name": "TOKEN", "value": SECRET}, headers=htmx("dialog"))
    assert rules.secret_env(Provisioning.objects.get()) == {"TOKEN": SECRET}
    page = _html(client)
    assert "<code>TOKEN</code>" in page
    for html in (refused.content.decode(), added.content.decode(), page, _html(client, "/events/")):
        assert SECRET not in html
    client.post(f"{where}TOKEN/remove/", headers=htmx("form"))
    assert Provisioning.objects.get().secret_names == []


def test_files_are_added_and_removed(client: Client) -> None:
    make_vm(name="hello")
    where = f"{PAGE}file/"
    assert 'enctype="multipart/form-data"' in _html(client, where)
    upload = SimpleUploadedFile("key", SECRET.encode())
    refused = client.post(where, {"file": upload, "path": "relative"})
    assert refused.status_code == 422
    assert "cannot be a file" in refused.content.decode()
    upload = SimpleUploadedFile("key", SECRET.encode())
    client.post(where, {"file": upload, "path": "/root/key", "secret": "on", "user": "nobody"})
    file = Provisioning.objects.get().files.get()
    assert (file.path, file.mode, file.user, file.secret) == ("/root/key", 0o600, "nobody", True)
    assert rules.content_of(file) == SECRET.encode()
    html = _html(client)
    assert "21 B, 0600, nobody, secret" in html
    assert SECRET not in html
    client.post(f"{where}{file.ref}/remove/", headers=htmx("form"))
    assert not Provisioning.objects.get().files.exists()


def test_a_file_of_another_vm_is_not_found(client: Client) -> None:
    make_vm(name="hello")
    row = rules.replace_provisioning(make_vm(name="other"), files=[GivenFile("/x", b"")])
    ref = row.files.get().ref
    answer = client.post(f"{PAGE}file/{ref}/remove/", headers=htmx("form"))
    assert answer.status_code == 404
    assert row.files.exists()


def test_the_phase_and_the_log_are_shown_while_the_script_runs(client: Client) -> None:
    vm = make_ready_vm(name="hello")
    rules.replace_provisioning(vm, script="x")
    VM.objects.update(state=State.RUNNING)
    Provisioning.objects.update(phase="script", script_log="so far <b>\nmore\n")
    html = _html(client)
    assert "Under way:" in html
    assert "so far &lt;b&gt;\nmore\n</pre>" in html
    assert "Running the first-boot script" in _html(client, "/vms/hello/")


def test_a_failure_is_told_on_both_pages_and_the_script_can_run_again(client: Client) -> None:
    vm = make_ready_vm(name="hello")
    rules.replace_provisioning(vm, script="exit 3")
    Provisioning.objects.update(
        phase="failed",
        problem="The first-boot script ended with exit code 3.",
        script_exit={"code": 3, "signal": None, "timed_out": False},
        script_ended_at=timezone.now(),
        script_drive=vm.attachments.get().drive_id,
    )
    assert "Provisioning failed." in _html(client, "/vms/hello/")
    html = _html(client)
    assert "Last time it ended with exit code 3," in html
    assert "It has run on this root drive" in html
    assert "Run again" in html
    client.post(f"{PAGE}run-again/", headers=htmx("form"))
    assert "It runs at the next start." in _html(client)


def test_an_onlooker_looks_and_does_not_touch(onlooker: Client) -> None:
    row = rules.replace_provisioning(make_vm(name="hello"), env={"A": "1"}, script="x")
    html = _html(onlooker)
    assert "A=1" in html
    assert "You may look, not change." in html
    for where in ("", "secret/", "secret/X/remove/", "file/", "run-again/"):
        assert onlooker.post(f"{PAGE}{where}", {"on_failure": "warn"}).status_code == 403, where
    row.refresh_from_db()
    assert row.env == {"A": "1"}
