"""Pages of VMs that stand still and go on: buttons, what a suspended VM says, forks, lineage."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from nexus_site.core.errors import Conflict, NotFound
from nexus_site.core.models import Operation
from tests.factories import make_vm, make_vm_snapshot
from tests.vms.fake_vmm import FakeVmm, install
from tests.vms.real_drives import add_drive, done, make_running
from tests.web.conftest import htmx, make_operation, make_ready_vm
from vms import forking, outcomes, services
from vms.models import VM, VMSnapshot
from vms.states import State
from vms.transitions import move

pytestmark = pytest.mark.usefixtures("nudges")
DIALOG = htmx("dialog#dialog")


@pytest.fixture
def vm(db: None) -> VM:
    """A VM whose drive is really there."""
    vm = make_vm(name="web", root=False, mem_size_mib=128, idle_suspend_minutes=10)
    add_drive(vm, "root", is_root=True)
    return make_running(vm)


@pytest.fixture(autouse=True)
def vmm(vm: VM, monkeypatch: pytest.MonkeyPatch) -> FakeVmm:
    vmm = install(monkeypatch)
    vmm.run(vm)
    monkeypatch.setattr(forking, "AT_ONCE", 1)
    return vmm


def page(client: Client, address: str = "/vms/web/", **headers: str) -> str:
    return html.unescape(client.get(address, headers=headers or None).content.decode())


def press(client: Client, verb: str) -> Operation:
    """Press a button, and do what it asks for."""
    assert client.post(f"/vms/web/{verb}/", headers=htmx("form")).status_code == 200
    operation = Operation.objects.order_by("-created_at").first()
    assert operation is not None
    return done(operation)


def suspended(vm: VM, *, idle: bool = False) -> VM:
    done(services.suspend_vm(vm, words="idle for 10 min" if idle else "suspension requested"))
    vm.refresh_from_db()
    vm.saved_memory["reason"] = "idle" if idle else "request"
    vm.save()
    return vm


# Buttons


def test_pause_and_unpause(client: Client, vm: VM, vmm: FakeVmm) -> None:
    press(client, "pause")
    shown = page(client)
    assert "Its CPUs stand still" in shown
    assert f'action="/vms/{vm.ref}/unpause/"' in shown
    assert "Unpause" in page(client, "/vms/")
    press(client, "unpause")
    assert vmm.how(vm) == "running"
    assert f'action="/vms/{vm.ref}/unpause/"' not in page(client)


def test_what_cannot_be_done_says_why(client: Client) -> None:
    rests = make_vm(name="rests")
    shown = page(client, "/vms/rests/")
    for verb, words in (("suspend", "a ready or paused"), ("pause", "a ready")):
        button = (
            rf'action="/vms/{rests.ref}/{verb}/".*?<button[^>]*title="It is created; only {words}'
        )
        assert re.search(button, shown, re.DOTALL), verb
    refused = client.post("/vms/rests/suspend/", headers=htmx("form"))
    assert refused.status_code == 409


def test_a_suspended_vm_says_since_when_how_large_and_by_whom(client: Client, vm: VM) -> None:
    press(client, "suspend")
    VM.objects.update(saved_memory={**VM.objects.get().saved_memory, "bytes": 84 << 20})
    shown = page(client)
    notice = shown[shown.index('aria-label="Suspended"') :]
    assert "by operator" in notice[:900]
    assert "84 MiB" in notice[:900]
    assert "Resumed, it goes on where it was" in notice
    assert "wakes for whoever needs it" not in shown
    assert f'action="/vms/{vm.ref}/start/"' not in shown, "it is resumed"
    assert "Resume" in page(client, "/vms/")


def test_one_that_was_idle_says_so(client: Client, vm: VM) -> None:
    assert "suspends itself after 10 min without work" in page(client)
    assert "last seen at work" in page(client)
    suspended(vm, idle=True)
    shown = page(client)
    assert "by itself: idle for 10 min" in shown
    assert "wakes for whoever needs it" in shown


def test_it_is_resumed_by_its_button(client: Client, vm: VM) -> None:
    suspended(vm)
    client.post("/vms/web/resume/", headers=htmx("form"))
    operation = Operation.objects.get(kind="vm.start")
    assert operation.params["cold"] is False
    assert client.post("/vms/web/resume/", headers=htmx("form")).status_code == 409


def test_its_memory_is_given_up_only_in_a_dialog(client: Client, vm: VM) -> None:
    suspended(vm)
    address = f"/vms/{vm.ref}/give-up/"
    shown = page(client)
    assert f'hx-get="{address}"' in shown
    dialog = page(client, address, **DIALOG)
    assert "had not written to a drive is lost" in dialog
    assert "Record how it ended" in dialog
    assert VM.objects.get().state == State.SUSPENDED
    client.post(address, headers=DIALOG)
    done(Operation.objects.get(kind="vm.stop"))
    assert VM.objects.get().saved_memory == {}


def test_a_cold_start_says_what_is_lost(client: Client, vm: VM) -> None:
    suspended(vm)
    address = "/vms/web/start-cold/"
    dialog = page(client, address, **DIALOG)
    assert "It gives that memory up." in dialog
    assert "btn-danger" in dialog
    client.post(address, headers=DIALOG)
    assert Operation.objects.get(kind="vm.start").params["cold"] is True
    make_vm(name="rests")
    assert "btn-danger" not in page(client, "/vms/rests/start-cold/", **DIALOG)


def test_a_resume_that_failed_is_told(client: Client, vm: VM) -> None:
    suspended(vm)
    move(vm, State.STARTING, "resume requested")
    error = Conflict("It was saved by <b>QEMU 9</b>.", hint="Start it cold.")
    outcomes.start_failed(vm, error)
    shown = client.get("/vms/web/").content.decode()
    assert "It could not be resumed, and is suspended still" in shown
    assert "saved by &lt;b&gt;QEMU 9" in shown
    assert "by operator" in html.unescape(shown) or "Suspended" in shown


def test_only_operators_may(onlooker: Client, vm: VM) -> None:
    assert onlooker.get("/vms/web/").status_code == 200
    for verb in ("pause", "unpause", "suspend", "resume", "checkpoint", "fork", "give-up"):
        assert onlooker.post(f"/vms/web/{verb}/", headers=DIALOG).status_code == 403, verb
    for verb in ("checkpoint", "fork", "give-up", "start-cold"):
        assert onlooker.get(f"/vms/web/{verb}/", headers=DIALOG).status_code == 403, verb


@pytest.mark.parametrize(("verb", "back"), [("pause", "unpause"), ("suspend", "resume")])
def test_its_files_say_how_they_come_back(client: Client, vm: VM, verb: str, back: str) -> None:
    press(client, verb)
    answer = client.get("/vms/web/files/")
    assert answer.status_code == 200, "it is fetched again when the VM goes on"
    content = answer.content.decode()
    assert f'action="/vms/{vm.ref}/{back}/"' in content[content.index('id="vms-files"') :]


# Checkpoints


def test_a_checkpoint_is_taken_in_a_dialog_and_listed(client: Client, vm: VM) -> None:
    dialog = page(client, "/vms/web/checkpoint/", **DIALOG)
    assert "Save memory and drives" in dialog
    assert not VMSnapshot.objects.exists(), "a preview"
    client.post("/vms/web/checkpoint/", {"name": "monday"}, headers=DIALOG)
    done(Operation.objects.get(kind="vm.snapshot"))
    VMSnapshot.objects.update(memory_bytes=80 << 20, held_ms=41)
    shown = page(client)
    assert "with 80 MiB of memory, stood still 41 ms" in shown
    snapshot = VMSnapshot.objects.get()
    fork = f"/vms/{vm.ref}/fork/?snapshot={snapshot.ref}"
    assert f'hx-get="{fork}"' in shown
    own = page(client, "/vm-snapshots/monday/")
    for words in ("checkpoint", "what was in it is kept", "80 MiB", f'hx-get="{fork}"'):
        assert words in own


def test_a_snapshot_without_memory_offers_no_fork(client: Client, vm: VM) -> None:
    make_vm_snapshot(vm, name="plain")
    for address in ("/vms/web/", "/vm-snapshots/plain/"):
        assert "Fork from it" not in page(client, address)


# Forks


def test_the_buttons_say_what_an_old_agent_cannot_do(client: Client, vm: VM) -> None:
    VM.objects.filter(pk=vm.pk).update(agent={"agent_version": "0.3.1"})
    shown, why = page(client), "Its agent (0.3.1) is too old to make another guest of a copy."
    for verb in ("checkpoint", "fork"):
        button = rf'hx-get="/vms/{vm.ref}/{verb}/"[^>]* title="{re.escape(why)}"'
        assert re.search(button, shown), verb
    assert "too old" in page(client, "/vms/web/fork/", **DIALOG), "who goes there all the same"


def fork_form(**values: object) -> dict[str, object]:
    return {"count": 2, "name": "job", "snapshot": ""} | values


def test_the_dialog_shows_what_a_fork_would_do(client: Client, vm: VM) -> None:
    dialog = page(client, "/vms/web/fork/", **DIALOG)
    for words in ("Save memory and drives", "Make the VMs", "Let them go on", "where it is now"):
        assert words in dialog
    assert 'max="100"' in dialog
    later = page(client, "/vms/web/fork/?count=2&name=job", **DIALOG)
    assert "Let them go on" not in later
    assert 'value="job"' in later
    assert 'name="start" checked' not in later
    assert VM.objects.count() == 1


def test_two_forks_are_made_and_their_operation_tells_of_each(client: Client, vm: VM) -> None:
    answer = client.post("/vms/web/fork/", fork_form(), headers=DIALOG)
    operation = Operation.objects.get(kind="vm.fork")
    assert answer["HX-Redirect"] == f"/operations/{operation.ref}/"
    done(operation)
    one = VM.objects.get(name="job-1")
    shown = page(client, f"/operations/{operation.ref}/")
    assert f'href="/vms/{one.ref}/"' in shown
    assert "job-2" in shown
    assert operation.params["start"] is False
    assert "A fork that waits." in page(client, "/vms/job-1/")


def test_each_fork_says_what_went_wrong_with_it(client: Client, vm: VM) -> None:
    good, bad, gone = make_ready_vm(name="good"), make_vm(name="bad"), make_vm(name="gone")
    error = {"text": "There is <no> room.", "hint": "Free some."}
    forks: list[dict[str, Any]] = [
        {"vm": v.ref, "name": v.name, "state": "created"} for v in (good, bad, gone)
    ]
    forks[1]["error"] = error
    operation = make_operation(kind="vm.fork", title="Fork VM web", context={"forks": forks})
    start = make_operation(
        parent=operation, subject_kind="vm", subject_id=good.pk, subject_name="good"
    )
    gone.delete()
    shown = client.get(f"/operations/{operation.ref}/").content.decode()
    rows = shown[shown.index('id="forks-title"') :]
    assert f'href="/operations/{start.ref}/"' in rows
    assert "There is &lt;no&gt; room." in rows
    assert re.search(r">gone<.*?deleted", rows, re.DOTALL)
    assert f"operation:{start.ref}" in shown, "live"


def test_the_page_of_many_forks_costs_no_more(client: Client) -> None:
    operation = make_operation(kind="vm.fork", title="Fork VM web")
    counts = []
    for _ in range(2):
        made = [make_vm() for _ in range(5)]
        for fork in made:
            make_operation(parent=operation, subject_kind="vm", subject_id=fork.pk)
        forks = operation.context.get("forks", [])
        operation.context = {"forks": forks + [{"vm": v.ref, "name": v.name} for v in made]}
        operation.save()
        with CaptureQueriesContext(connection) as queries:
            client.get(f"/operations/{operation.ref}/")
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_a_fork_is_made_of_a_checkpoint_of_a_vm_at_rest(client: Client, vm: VM) -> None:
    done(services.checkpoint_vm(vm, name="monday"))
    done(services.stop_vm(VM.objects.get()))
    checkpoint = VMSnapshot.objects.get()
    dialog = page(client, f"/vms/web/fork/?snapshot={checkpoint.ref}", **DIALOG)
    assert f'<option value="{checkpoint.ref}" selected>the checkpoint monday' in dialog
    assert "where it is now" not in dialog
    assert "Save memory and drives" not in dialog
    form = fork_form(count=1, snapshot=checkpoint.ref)
    client.post("/vms/web/fork/", form, headers=DIALOG)
    done(Operation.objects.get(kind="vm.fork"))
    assert VM.objects.get(name="job").resume_from == checkpoint
    assert "goes on from the checkpoint" in page(client, "/vms/job/")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"count": 101}, "less than or equal to 100"),
        ({"count": 0}, "greater than or equal to 1"),
        ({"snapshot": "aaaaaaaaaaaac"}, "Select a valid choice"),
        ({"name": "A Name"}, "lower"),
    ],
)
def test_nonsense_is_refused_in_the_dialog(
    client: Client, vm: VM, values: dict[str, object], words: str
) -> None:
    answer = client.post("/vms/web/fork/", fork_form(**values), headers=DIALOG)
    assert answer.status_code == 422
    assert words in html.unescape(answer.content.decode())
    assert VM.objects.count() == 1


def test_checkpoints_of_others_are_not_offered(client: Client, vm: VM) -> None:
    other = make_vm_snapshot(make_vm(), name="theirs", with_memory=True)
    assert "theirs" not in page(client, "/vms/web/fork/", **DIALOG)
    address = f"/vms/web/fork/?snapshot={other.ref}"
    assert client.get(address, headers=DIALOG).status_code == NotFound.status
