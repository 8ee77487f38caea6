"""``nexusctl vm provision`` and ``provision-log``, and the real API."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from django.utils import timezone

from tests.factories import make_drive, make_vm
from tests.nexusctl.conftest import Outcome
from vms.models import VM, Provisioning
from vms.services import provisioning as rules

Ctl = Callable[..., Outcome]
SECRET = "correct-horse-battery"


@pytest.fixture
def vm(ctl: Ctl) -> VM:
    return make_vm(name="web")


def test_all_of_it_is_given_and_shown_but_for_secrets(ctl: Ctl, vm: VM, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    (tmp_path / "blob").write_bytes(bytes(range(256)))
    (tmp_path / "script").write_text("#!/bin/sh\necho hi\n")
    done = ctl(
        *("vm", "provision", "web", "--env", "A=1=2", "--env", "B="),
        *("--secret-env", f"TOKEN=@{secret}", "--hosts", "db=10.0.0.1", "--dns", "9.9.9.9"),
        *("--file", f"{tmp_path}/blob:/opt/blob:755", "--secret-file", f"{secret}:/root/t"),
        *("--script", f"{tmp_path}/script", "--on-failure", "fail"),
    )
    assert (done.code, "takes effect when the VM starts next" in done.err) == (0, True)
    row = Provisioning.objects.get()
    assert (row.env, rules.secret_env(row)) == ({"A": "1=2", "B": ""}, {"TOKEN": SECRET})
    blob, token = row.files.all()
    assert (blob.mode, rules.content_of(blob)) == (0o755, bytes(range(256)))
    assert (token.secret, token.mode, rules.content_of(token)) == (True, 0o600, SECRET.encode())
    shown = ctl("vm", "provision", "web", "--show").out
    for text in ("A=1=2", "TOKEN", "10.0.0.1 db", "/opt/blob (256 B, 0755)", "0600, secret"):
        assert text in shown
    assert "2 lines, runs at the next start" in shown
    assert SECRET not in shown + done.out + done.err


def test_some_of_it_is_taken_away_and_at_last_all(ctl: Ctl, vm: VM, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    ctl("vm", "provision", "web", "--env", "A=1", "--env", "B=2", "--hosts", "db=10.0.0.1",
        "--file", f"{tmp_path}/x:/x")  # fmt: skip
    ctl("vm", "provision", "web", "--unset", "A", "--no-host", "db", "--no-file", "/x")
    row = Provisioning.objects.get()
    assert (row.env, row.hosts, row.files.count()) == ({"B": "2"}, {}, 0)
    ctl("vm", "provision", "web", "--clear", "--env", "C=3")
    assert Provisioning.objects.get().env == {"C": "3"}
    ctl("vm", "provision", "web", "--clear")
    assert not Provisioning.objects.exists()


def test_a_secret_is_read_from_the_input_and_never_from_the_line(
    ctl: Ctl, vm: VM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{SECRET}\nsecond\n"))
    ctl("vm", "provision", "web", "--secret-env", "ONE", "--secret-env", "TWO")
    values = {"ONE": SECRET, "TWO": "second"}
    assert rules.secret_env(Provisioning.objects.get()) == values
    refused = ctl("vm", "provision", "web", "--secret-env", f"ONE={SECRET}")
    assert (refused.code, "ONE alone asks for it" in " ".join(refused.err.split())) == (2, True)
    assert SECRET not in refused.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--env", "A"), 2, "is no NAME=VALUE"),
        (("--file", "/nowhere"), 2, "is no LOCAL:/PATH"),
        (("--file", "/nowhere:/x"), 2, "no such file"),
        (("--script", "/nowhere"), 2, "no such file"),
        (("--dns", "x"), 1, "is no IPv4 address"),
        (("--run-again",), 5, "has no first-boot script"),
    ],
)
def test_what_is_wrong_is_said(
    ctl: Ctl, vm: VM, words: tuple[str, ...], code: int, said: str
) -> None:
    refused = ctl("vm", "provision", "web", *words)
    assert refused.code == code
    assert said in " ".join(refused.err.split())


def test_the_log_says_how_the_script_ended(ctl: Ctl, vm: VM) -> None:
    assert "has not run" in ctl("vm", "provision-log", "web").err
    row = rules.replace_provisioning(vm, script="x")
    Provisioning.objects.filter(pk=row.pk).update(
        script_log="said\n",
        script_exit={"code": 3, "signal": None, "timed_out": False},
        script_ended_at=timezone.now(),
    )
    shown = ctl("vm", "provision-log", "web")
    assert shown.out == "said\n"
    assert "The script ended with exit code 3" in shown.err


def test_a_vm_is_made_with_it(ctl: Ctl) -> None:
    make_drive(name="alpine")
    words = ("--drive", "alpine", "--name", "fresh", "--memory", "128", "--env", "A=1")
    made = ctl("vm", "create", *words, "--no-wait")
    assert made.code == 0, made.err
    assert Provisioning.objects.get(vm__name="fresh").env == {"A": "1"}
