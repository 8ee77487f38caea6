"""The page of the host's health, and the line on the overview."""

from __future__ import annotations

import html
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from nexus_site import health
from nexus_site.core import operations
from nexus_site.core.health import Finding
from nexus_site.core.life import write_beat
from nexus_site.core.models import Operation, Setting
from tests.factories import make_vm
from tests.web.conftest import htmx, make_operation
from vms.models import Boot

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("nudges")]

FINE = Finding("qemu", "QEMU", "fine", "9.0, /usr/bin/qemu", fix="nothing to fix here")
LIMITED = Finding("kvm", "KVM", "limited", "no <kvm>", "Slow.", "Load it.", "sudo modprobe kvm")
MISSING = Finding("agent", "Guest agent", "missing", "Not built", "No VM.", "Build.", "./nexus up")


@pytest.fixture(autouse=True)
def _own_data_dir(settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    here = settings.NEXUS.model_copy(update={"data_dir": tmp_path})
    monkeypatch.setattr(settings, "NEXUS", here)


def _found(*findings: Finding) -> None:
    value = {"at": timezone.now().isoformat(), "findings": [asdict(one) for one in findings]}
    Setting.objects.create(key=health.KEY, value=value)


def _page(client: Client, address: str = "/health/") -> str:
    return html.unescape(client.get(address).content.decode())


def test_the_worker_looks_when_its_answers_are_old_or_something_has_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def answers_from(ago: timedelta) -> bool:
        """Whether it looked, with answers as old as that."""
        at = (timezone.now() - ago).isoformat()
        Setting.objects.update_or_create(
            key=health.KEY, defaults={"value": {"at": at, "findings": []}}
        )
        health.look_when_due()
        return str(Setting.objects.get(key=health.KEY).value["at"]) != at

    assert not answers_from(timedelta(minutes=9))
    assert answers_from(timedelta(minutes=10))
    vm = make_vm()
    Boot.objects.create(vm=vm, number=1, hello_at=timezone.now() - timedelta(minutes=2))
    assert answers_from(timedelta(minutes=3)), "it has tried KVM since"
    assert not answers_from(timedelta(minutes=1))
    Boot.objects.create(vm=vm, number=2, hello_at=timezone.now())
    assert not answers_from(timedelta(minutes=1)), "only the first one is news"
    monkeypatch.setattr("vms.choice.has_changed", lambda: True)
    assert answers_from(timedelta(minutes=1)), "VMs may run on another hypervisor now"


def test_each_probe_says_what_it_found_and_what_to_type(client: Client) -> None:
    write_beat()
    _found(FINE, LIMITED)
    page = _page(client)
    assert "Nexus works here, with limits." in page
    assert "The worker looked <time" in page
    for text in ("9.0, /usr/bin/qemu", "Slow.", "Load it.", 'data-copy="sudo modprobe kvm"'):
        assert text in page
    assert "nothing to fix here" not in page, "what is fine needs no fix"
    assert "no &lt;kvm&gt;" in client.get("/health/").content.decode()
    assert 'aria-current="page"' in page
    assert "Something that Nexus needs" not in _page(client, "/")


def test_when_all_is_well_it_says_so(client: Client) -> None:
    write_beat()
    _found(FINE)
    data_dir = next(f for f in health.report().findings if f.key == "data-dir")
    expected = "All is well." if data_dir.state == "fine" else "with limits"
    assert expected in _page(client)


def test_what_is_missing_is_on_the_overview_too(client: Client) -> None:
    write_beat()
    _found(FINE, MISSING)
    assert 'href="#probe-agent"' in _page(client)
    overview = _page(client, "/")
    assert "<strong>Guest agent:</strong> Not built" in overview
    assert 'href="/health/"' in overview


def test_a_worker_that_is_down_is_said_with_its_log(client: Client) -> None:
    page = _page(client)
    assert "Has never run" in page
    assert "run/nexusd.log" in page
    assert "has not looked at this host yet" in page
    assert "<strong>Worker:</strong> Has never run" in _page(client, "/")
    write_beat()
    assert "Has never run" not in _page(client, "/")
    assert "Runs (pid" in _page(client)


def test_look_again_opens_one_operation_that_asks_every_probe(client: Client) -> None:
    write_beat()
    _found(MISSING)
    for _ in range(2):
        assert client.post("/health/look/", headers=htmx()).status_code == 200
    operation = Operation.objects.get(kind="host.probe")
    operations.execute(operation.pk)
    operation.refresh_from_db()
    assert (operation.state, operation.error) == ("succeeded", {})
    page = client.get("/health/", headers={"Nexus-Fragments": "health-report"}).content.decode()
    assert 'hx-target="#health-report"' in page
    for title in ("QEMU", "KVM", "Storage", "e2fsprogs", "mmdebstrap", "gpgv", "Database", "User"):
        assert f"<h2>{title}</h2>" in page
    assert "has looked at this host" in _page(client, "/events/")


def test_what_is_not_fine_says_what_to_do() -> None:
    for finding in health.look():
        assert finding.found
        if finding.state != "fine":
            assert finding.meaning, finding
            assert finding.fix or finding.command, finding


def test_a_probe_that_fails_keeps_no_other_from_being_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> list[Finding]:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(health, "PROBES", (("Drives", fail), ("Other", lambda: [FINE])))
    broken, fine = health.look()
    assert (broken.key, broken.state) == ("drives-probe", "limited")
    assert "The probe failed" in broken.found
    assert fine == FINE


def test_a_long_queue_is_a_limit() -> None:
    assert health.health.queue_finding().found == "Nothing waits"
    operation = make_operation(state=Operation.State.QUEUED)
    assert health.health.queue_finding().state == "fine"
    old = timezone.now() - timedelta(minutes=5)
    Operation.objects.filter(pk=operation.pk).update(created_at=old)
    finding = health.health.queue_finding()
    assert (finding.state, finding.command) == ("limited", "nexusctl operation list")
    assert finding.found.startswith("1 waiting, the oldest for 30")


def test_an_onlooker_looks_but_asks_for_nothing(onlooker: Client) -> None:
    assert onlooker.get("/health/").status_code == 200
    assert onlooker.post("/health/look/").status_code == 403


def test_a_stranger_is_sent_to_sign_in(stranger: Client) -> None:
    assert stranger.get("/health/").status_code == 302
