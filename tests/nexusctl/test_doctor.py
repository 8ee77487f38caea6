"""``nexusctl doctor``, and the worker in ``nexusctl status``."""

from __future__ import annotations

import json

import pytest

from tests.nexusctl import answers as a
from tests.nexusctl.test_output import text


def test_every_finding_with_its_fix(server, nexusctl):
    server.on("GET", "/doctor", a.DOCTOR)
    done = nexusctl("doctor")
    assert done.code == 0, "limited is no failure"
    assert done.out == text(r"""
        ✓ Worker  Runs (pid 4711) since 2026-07-29 11:00:00 UTC
        ! KVM     There is no /dev/kvm
                  VMs run in emulation.
                  Load the module.
                  $ sudo modprobe kvm_intel \x1b[2J
    """)
    assert done.err == (
        "The worker looked: 2026-07-29T11:59:00.0Z. Look again: nexusctl doctor --again\n"
    )


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_what_is_missing_makes_it_fail(server, nexusctl, words):
    server.on("GET", "/doctor", a.DOCTOR | {"state": "missing", "looked_at": None})
    done = nexusctl("doctor", *words)
    assert done.code == 1
    if words:
        assert json.loads(done.out)["state"] == "missing"
    else:
        assert "The worker looked: never." in done.err


def test_again_waits_for_the_worker_to_look(server, nexusctl):
    server.on("GET", "/status", a.STATUS)
    server.on("POST", "/doctor", a.operation("succeeded"))
    server.on("GET", "/doctor", a.DOCTOR)
    assert nexusctl("doctor", "--again").code == 0
    assert server.asked("POST", "/doctor")[0].query == {"wait": "60"}


def test_again_does_not_wait_for_a_worker_that_is_down(server, nexusctl):
    server.on("GET", "/status", a.STATUS | {"worker": a.NO_WORKER})
    server.on("GET", "/doctor", a.DOCTOR)
    assert nexusctl("doctor", "--again").code == 0
    assert not server.asked("POST", "/doctor")


@pytest.mark.parametrize(
    ("since", "expected"),
    [
        (None, "worker      down, never seen"),
        ("2026-07-29T11:30:00Z", "worker      down, last seen 2026-07-29T11:30:00.0Z"),
    ],
)
def test_the_status_says_that_the_worker_is_down(server, nexusctl, since, expected):
    server.on("GET", "/status", a.STATUS | {"worker": a.NO_WORKER | {"since": since}})
    assert expected in nexusctl("status").out.splitlines()
