"""People who look at pages, and things to look at."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from nexus_site.core import auth, steps
from nexus_site.core.models import Operation
from tests.factories import make_image, make_vm
from vms.models import VM, Attachment, Boot
from vms.states import State
from vms.transitions import move

PASSWORD = "correct horse battery"
STEP = steps.Step("agent", "Wait for the agent", do=lambda run: None)


@pytest.fixture(autouse=True)
def _static_root(settings: Any) -> None:
    Path(settings.STATIC_ROOT).mkdir(exist_ok=True)


@pytest.fixture
def operator(db: None) -> User:
    user = auth.ensure_operator()
    user.set_password(PASSWORD)
    user.save()
    return user


@pytest.fixture
def client(operator: User) -> Client:
    """The operator's browser."""
    client = Client()
    client.force_login(operator)
    return client


@pytest.fixture
def onlooker(db: None) -> Client:
    """The browser of somebody who may look and nothing else."""
    client = Client()
    client.force_login(User.objects.create_user("onlooker"))
    return client


@pytest.fixture
def stranger() -> Client:
    """A browser that nobody has signed in with."""
    return Client()


def htmx(target: str = "", **headers: str) -> dict[str, str]:
    """The headers of a request that htmx makes for the element ``target`` (``div#id``)."""
    return {"HX-Request": "true", "HX-Target": target} | headers


def make_ready_vm(**values: Any) -> VM:
    """A VM that was started and whose agent has said hello."""
    vm = make_vm(**values)
    launched = timezone.now() - timedelta(minutes=5)
    Boot.objects.create(
        vm=vm,
        number=1,
        hypervisor="qemu",
        accelerator="tcg",
        launched_at=launched,
        hello_at=launched + timedelta(seconds=6),
    )
    for state, reason in (
        (State.STARTING, "start requested"),
        (State.RUNNING, "the VMM runs (pid 7)"),
        (State.READY, "agent 0.1.0 said hello after 6.0 s"),
    ):
        move(vm, state, reason)
    return vm


def make_operation(**values: Any) -> Operation:
    """An operation that is under way."""
    defaults: dict[str, Any] = {
        "kind": "vm.start",
        "title": "Start VM hello",
        "state": Operation.State.RUNNING,
        "actor": "user:operator",
        "deadline": timezone.now() + timedelta(minutes=5),
        "started_at": timezone.now(),
        "steps": steps.outline([STEP]),
    }
    return Operation.objects.create(**defaults | values)


def make_vm_on(image_name: str) -> VM:
    """A VM whose root drive comes from an image of that name."""
    from tests.factories import make_drive

    vm = make_vm(root=False)
    Attachment.objects.create(vm=vm, drive=make_drive(image=make_image(name=image_name)))
    return vm
