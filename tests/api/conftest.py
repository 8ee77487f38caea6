"""Rows to ask about, and clients that ask with tokens of each scope."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from django.test import AsyncClient, Client
from django.utils import timezone

from builds.models import Build, Template
from drives.models import Drive, Snapshot
from images.models import Image, Kernel, Rootfs
from nexus_site.core import auth, operations, steps
from nexus_site.core.models import Operation
from tests.factories import (
    make_build,
    make_drive,
    make_image,
    make_kernel,
    make_rootfs,
    make_snapshot,
    make_template,
    make_vm,
)
from tests.vms.fake_agents import PATIENCE
from tests.vms.real_agents import Agents
from vms.gateway import SOCKET
from vms.models import VM, Attachment
from vms.states import State


@dataclass
class World:
    """One row of each kind, related as the chain relates them."""

    rootfs: Rootfs
    kernel: Kernel
    template: Template
    image: Image
    build: Build
    drive: Drive
    spare: Drive
    snapshot: Snapshot
    vm: VM
    operation: Operation


@pytest.fixture(autouse=True)
def _static_root(settings: Any) -> None:
    Path(settings.STATIC_ROOT).mkdir(exist_ok=True)


@pytest.fixture
def world(db: None, nudges: list[str]) -> World:
    rootfs = make_rootfs()
    template = make_template(name="alpine-3-23", rootfs=rootfs)
    image = make_image(name="alpine-3-23", rootfs=rootfs)
    drive = make_drive(name="hello", image=image)
    vm = make_vm(name="hello", root=False, mem_size_mib=128)
    Attachment.objects.create(vm=vm, drive=drive)
    return World(
        rootfs=rootfs,
        kernel=make_kernel(name="k", is_default=True),
        template=template,
        image=image,
        build=make_build(template=template, image=image, state=Build.State.SUCCEEDED),
        drive=drive,
        spare=make_drive(name="spare", image=image),
        snapshot=make_snapshot(name="before", drive=drive),
        vm=vm,
        operation=make_operation(),
    )


def make_operation(**values: Any) -> Operation:
    defaults = {
        "kind": "test.count",
        "title": "Count to three",
        "actor": "system",
        "deadline": timezone.now() + timedelta(hours=1),
        "state": Operation.State.SUCCEEDED,
        "ended_at": timezone.now(),
    }
    return Operation.objects.create(**defaults | values)


class APIClient(Client):
    """Django's client with a bearer token; ``data`` is sent as JSON."""

    def __init__(self, scope: str) -> None:
        _, secret = auth.create_token(scope, scope)
        headers = {"Authorization": f"Bearer {secret}"}
        super().__init__(headers=headers, raise_request_exception=False)

    def generic(self, method: str, path: str, data: Any = "", *args: Any, **more: Any) -> Any:
        return super().generic(method, f"/v1{path}", data, *args, **more)

    def send(self, method: str, path: str, data: Any = None, **more: Any) -> Any:
        body = {} if data is None else {"data": data}
        return getattr(self, method.lower())(path, **body, content_type="application/json", **more)


@pytest.fixture
def reader(db: None) -> APIClient:
    return APIClient("read")


@pytest.fixture
def operator(db: None) -> APIClient:
    return APIClient("operate")


@pytest.fixture
def admin(db: None) -> APIClient:
    return APIClient("admin")


@pytest.fixture
def ready(world: World) -> VM:
    """A VM that is running and ready."""
    VM.objects.filter(pk=world.vm.pk).update(state=State.READY)
    world.vm.refresh_from_db()
    return world.vm


# Files of a VM: a gateway in a thread, and what is asked of it

Ask = Callable[..., Awaitable[Any]]


@pytest.fixture
def agents(settings: Any) -> Iterator[Agents]:
    with Agents(Path(settings.NEXUS.run_dir) / SOCKET) as agents:
        yield agents


@pytest.fixture
def guest(db: None) -> VM:
    """A ready VM, for an agent of one's choice."""
    return make_vm(name="hello", state=State.READY)


@pytest.fixture
def ask(db: None) -> Ask:
    """Asks for something under the files of the VM ``hello``."""
    secret = auth.create_token("ci", "operate")[1]

    async def ask(
        method: str, what: str = "", data: bytes = b"", headers: Any = None, **query: str
    ) -> Any:
        text = urlencode(query, errors="surrogateescape")
        async with asyncio.timeout(PATIENCE):
            client = AsyncClient(raise_request_exception=False)
            return await client.generic(
                method,
                f"/v1/vms/hello/files{what}?{text}",
                data,
                content_type="application/octet-stream",
                headers={"Authorization": f"Bearer {secret}"} | (headers or {}),
            )

    return ask


async def content(response: Any) -> bytes:
    """The body of an answer, streamed or not."""
    if not response.streaming:
        return bytes(response.content)
    return b"".join([piece async for piece in response.streaming_content])


# A kind of operation that only counts: two steps, the first one satisfied already.
operations.register(
    "test.count",
    lambda operation: [
        steps.Step("see", "Look around", lambda run: None, done=lambda run: "all is there"),
        steps.Step("count", "Count to three", lambda run: "three"),
    ],
)
