"""``nexusctl warm`` and ``--cold``, and the real API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from images.models import Image
from tests.nexusctl.conftest import Outcome
from tests.vms.warm_hosts import Host, boot_of, image_with_file, install_host
from vms.models import VM, WarmTemplate

Ctl = Callable[..., Outcome]


@pytest.fixture
def image(ctl: Ctl, monkeypatch: pytest.MonkeyPatch, settings: Any) -> Image:
    host = install_host(monkeypatch, settings)
    assert isinstance(host, Host)
    return image_with_file()


def test_one_is_made_listed_used_and_deleted(ctl: Ctl, image: Image) -> None:
    assert "No warm templates" in ctl("warm", "list").out + ctl("warm", "list").err
    plan = ctl("warm", "make", "alpine", "--memory", "128", "--dry-run")
    assert "Save memory and drives" in plan.out
    made = ctl("template", "warm", "alpine", "--memory", "128")
    template = WarmTemplate.objects.get()
    assert made.out.strip() == template.ref
    assert ctl("vm", "from-image", "alpine", "--name", "web", "--memory", "128").code == 0
    assert boot_of(VM.objects.get(name="web")).resumed_from == "warm"
    headings, line = ctl("warm", "list").out.splitlines()
    assert headings.split()[:3] == ["ID", "IMAGE", "STATE"]
    assert line.split()[:3] == [template.ref, "alpine", "ready"]
    assert "Say --yes" in ctl("warm", "delete", template.ref).err
    assert ctl("warm", "delete", template.ref, "--yes").code == 0
    assert not WarmTemplate.objects.exists()


def test_pruning_says_what_it_would_delete(ctl: Ctl, image: Image) -> None:
    assert ctl("warm", "make", "alpine").code == 0
    WarmTemplate.objects.update(kernel=None)
    plan = ctl("warm", "prune", "--dry-run")
    assert "Delete the warm template of alpine: its kernel is gone" in plan.out
    assert WarmTemplate.objects.exists()
    assert ctl("warm", "prune").code == 0
    assert not WarmTemplate.objects.exists()
    assert ctl("warm", "prune").code == 0, "there is nothing to delete"


def test_a_vm_boots_where_it_is_to(ctl: Ctl, image: Image) -> None:
    assert ctl("warm", "make", "alpine").code == 0
    assert ctl("vm", "from-image", "alpine", "--name", "web", "--cold").code == 0
    assert ctl("vm", "create", "--image", "alpine", "--name", "db").code == 0
    assert ctl("vm", "start", "db", "--cold").code == 0
    for name in ("web", "db"):
        assert boot_of(VM.objects.get(name=name)).resumed == "a cold start was asked for"
