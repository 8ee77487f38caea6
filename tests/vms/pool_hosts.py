"""What tests of pools do with them: the work of a worker, and a look at what waits."""

from __future__ import annotations

from typing import Any

import pytest
from django.db.models import QuerySet

from drives import services as drive_services
from drives.models import Drive
from images.models import Image
from nexus_site.core.models import Operation
from nexus_site.core.operations import open_operations
from tests.vms.real_drives import carry_out
from tests.vms.warm_hosts import Host, image_with_file, install_host
from vms.models import VM, Pool
from vms.services import refilling
from vms.services.pools import create_pool
from vms.shape import Shape


def install_pool_host(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Host:
    """A host that is never too busy, and whose guests take whatever they are told."""
    monkeypatch.setattr(refilling, "LOAD", 1000.0)
    host = install_host(monkeypatch, settings)
    monkeypatch.setattr(host, "with_agent", lambda vm, call: None)
    return host


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Host:
    return install_pool_host(monkeypatch, settings)


@pytest.fixture
def image(host: Host) -> Image:
    return image_with_file()


@pytest.fixture
def pool(image: Image) -> Pool:
    """One of two, which is full."""
    pool = create_pool("ready", image=image, size=2, shape=Shape(mem_size_mib=128))
    work()
    return pool


def work() -> None:
    """What a worker does, until there is nothing to do but to make warm templates."""
    while (operation := doing().first()) is not None:
        carry_out(operation)


def doing() -> QuerySet[Operation]:
    return open_operations().exclude(kind="warm.make")


def waiting(pool: Pool) -> list[VM]:
    return list(pool.vms.filter(purpose=VM.Purpose.POOL).order_by("created_at"))


def nobodys() -> list[VM]:
    return list(VM.objects.filter(purpose=VM.Purpose.POOL))


def vm_of(operation: Operation) -> VM:
    return VM.objects.get(pk=operation.subject_id)


def assert_nothing_is_left() -> None:
    assert not nobodys()
    assert not Drive.objects.filter(name__startswith="pool-").exists()
    assert not drive_services.check_storage().problems
