"""What a VM may be given, what becomes of changes, and what a script's log shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from guest_agent.chunks import ExitStatus
from nexus_site.core.errors import NexusError
from tests.factories import make_vm
from vms import provisioning_records as records
from vms import services
from vms.models import VM, Provisioning
from vms.provisioning import ScriptLog
from vms.services import provisioning as rules
from vms.services.provisioning import GivenFile
from vms.states import State

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("nudges")]


@pytest.fixture
def vm(db: None) -> VM:
    return make_vm(name="web", state=State.RUNNING, mem_size_mib=128)


def test_a_log_keeps_its_end_and_drops_a_line_without_its_beginning() -> None:
    log = ScriptLog(records.masked_words([b"hunter22\nshort\n"]))
    log.begins_at(10)
    log.add(b"nter22\nsaid hunter22\x1b[31m\n")
    assert log.text() == "said [secret]\n"
    log.add(b"x" * (1 << 20) + b"\n" + b"y" * 100 + b"\n", lost=5)
    assert log.text() == "y" * 100 + "\n"
    log.add(b"z\n" * (1 << 18))
    assert len(log.text()) <= 64 * 1024


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"env": {"1A": "x"}}, "“1A” cannot be the name of a variable"),
        ({"env": {"A": "x\0"}}, "The value of A is not text"),
        ({"env": {"A": "1"}, "secret_env": {"A": "2"}}, "A is among the variables and among"),
        ({"env": {"A": "x" * 60_000}}, "more than 48 KiB together"),
        ({"secret_env": {"A": "x" * 60_000}}, "more than 48 KiB together"),
        ({"hosts": {"-db": "10.0.0.1"}}, "“-db” cannot be a host name"),
        ({"hosts": {"a b": "10.0.0.1"}}, "“a b” cannot be a host name"),
        ({"hosts": {"db": "10.0.0"}}, "“10.0.0” is no IP address; db needs one"),
        ({"hosts": {"db": "fe80::1%eth0"}}, "is no IP address"),
        ({"dns": ["::1"]}, "“::1” is no IPv4 address"),
        ({"dns": ["1.1.1.1"] * 4}, "at most 3 name servers"),
        ({"script": "x" * 65_537}, "more than 64 KiB"),
        ({"script": "a\0b"}, "not text"),
        ({"on_failure": "panic"}, "to warn or to fail"),
        ({"files": [GivenFile("etc/x", b"")]}, "“etc/x” cannot be a file's path"),
        ({"files": [GivenFile("/etc/../x", b"")]}, "cannot be a file's path"),
        ({"files": [GivenFile("/etc/", b"")]}, "cannot be a file's path"),
        ({"files": [GivenFile("/a\nb", b"")]}, "cannot be a file's path"),
        ({"files": [GivenFile("/x", b"", 0o10000)]}, "cannot have the mode 10000"),
        ({"files": [GivenFile("/x", b"", user="a b")]}, "cannot belong to “a b”"),
        ({"files": [GivenFile("/x", bytes(2**20 + 1))]}, "/x has more than 1 MiB"),
        ({"files": [GivenFile(f"/{n}", bytes(2**20)) for n in range(17)]}, "16 MiB together"),
        ({"files": [GivenFile(f"/{n}", b"") for n in range(201)]}, "at most 200 files"),
    ],
)
def test_what_cannot_be_given_is_refused_in_words(
    vm: VM, wanted: dict[str, Any], said: str
) -> None:
    with pytest.raises(NexusError) as refused:
        rules.replace_provisioning(vm, **wanted)
    assert said in refused.value.text
    assert not Provisioning.objects.exists()


def test_changes_merge_and_none_takes_away(vm: VM) -> None:
    rules.replace_provisioning(
        vm, env={"A": "1", "B": "2"}, secret_env={"S": "x", "T": "y"}, hosts={"db": "10.0.0.1"}
    )
    row = rules.change_provisioning(
        vm, env={"A": None, "C": "3"}, secret_env={"S": None, "U": "z"}, dns=["9.9.9.9"]
    )
    assert row.env == {"B": "2", "C": "3"}
    assert row.secret_names == ["T", "U"]
    assert rules.secret_env(row) == {"T": "y", "U": "z"}
    assert (row.hosts, row.dns) == ({"db": "10.0.0.1"}, ["9.9.9.9"])
    told = records.who(vm)
    assert told is not None
    assert told.configuration.network is not None
    assert told.configuration.network.dns == ("9.9.9.9",)


def test_another_script_has_not_run_yet(vm: VM) -> None:
    row = rules.replace_provisioning(vm, script="one")
    Provisioning.objects.filter(pk=row.pk).update(script_drive=vm.attachments.get().drive_id)
    assert rules.change_provisioning(vm, script="one").script_drive is not None
    assert rules.change_provisioning(vm, script="two").script_drive is None


def test_a_script_that_is_changed_while_it_runs_has_not_run(vm: VM) -> None:
    rules.replace_provisioning(vm, script="one")
    hello = {"boot_id": "b", "agent_version": "0.3.0"}
    work = records.begin(vm, hello, timezone.now(), "")
    assert work is not None
    rules.change_provisioning(vm, script="two")
    records.script_ended(work, ExitStatus(code=0), "")
    assert Provisioning.objects.get(vm=vm).script_drive is None


def test_a_clone_is_given_the_same_and_runs_the_script_itself(vm: VM) -> None:
    row = rules.replace_provisioning(
        vm, secret_env={"S": "x"}, script="one", files=[GivenFile("/k", b"v", secret=True)]
    )
    Provisioning.objects.filter(pk=row.pk).update(script_drive=vm.attachments.get().drive_id)
    VM.objects.filter(pk=vm.pk).update(state=State.STOPPED)
    vm.refresh_from_db()
    services.clone_vm(vm, name="copy")
    copy = Provisioning.objects.get(vm__name="copy")
    assert rules.secret_env(copy) == {"S": "x"}
    assert (copy.script, copy.script_drive) == ("one", None)
    assert rules.content_of(copy.files.get()) == b"v"


def test_the_key_is_made_once_and_for_its_owner_alone(vm: VM, data_dir: Path) -> None:
    key = data_dir / "encryption_key"
    rules.replace_provisioning(vm, secret_env={"S": "x"})
    first = key.read_bytes()
    row = rules.change_provisioning(vm, secret_env={"S": "y"})
    assert (key.read_bytes(), key.stat().st_mode & 0o777) == (first, 0o600)
    assert json.loads(json.dumps(rules.secret_env(row))) == {"S": "y"}
    assert not list(data_dir.glob(".encryption_key*"))
