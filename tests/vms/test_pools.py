"""Pools: VMs that are ready before anybody asks, and are taken once each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection

from drives import services as drive_services
from guest_agent.messages import Configuration
from images import services as image_services
from images.models import Image
from nexus_site.core.errors import Conflict, Invalid, NexusError
from nexus_site.core.models import Event, Operation
from nexus_site.core.operations import open_operations, rehearse
from tests.factories import make_drive, make_image, make_vm
from tests.vms.pool_hosts import (
    assert_nothing_is_left,
    host,
    image,
    pool,
    vm_of,
    waiting,
    work,
)
from tests.vms.real_drives import carry_out, done
from tests.vms.warm_hosts import Host, boot_of, make_what_is_wanted
from vms import pooling, services, supervision
from vms.models import VM, Attachment, Pool
from vms.services import pools, refilling
from vms.services.pools import create_pool, delete_pool, take_vm, update_pool
from vms.shape import Shape, new_shape
from vms.states import State
from vms.transitions import move

__all__ = ["host", "image", "pool"]  # fixtures

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("nudges")]


# Filled


def test_a_pool_is_filled_one_after_the_other(image: Image) -> None:
    pool = create_pool("ready", image=image, size=3)
    assert [o.kind for o in open_operations()] == ["pool.fill"], "one at a time"
    work()
    assert [vm.state for vm in waiting(pool)] == ["ready"] * 3
    assert {o.actor for o in Operation.objects.filter(kind="pool.fill")} == {"system"}
    pool.refresh_from_db()
    assert (pool.problem, pool.failures) == ("", 0)
    refilling.tend_all()
    assert not open_operations().exclude(kind="warm.make")


def test_its_vms_go_on_from_the_warm_template(host: Host, image: Image) -> None:
    pool = create_pool("ready", image=image, size=1)
    work()
    make_what_is_wanted()
    host.done.clear()
    update_pool(pool, size=3)
    work()
    first, *others = waiting(pool)
    assert boot_of(first).resumed_from == ""
    assert [boot_of(vm).resumed_from for vm in others] == ["warm", "warm"]
    assert host.done == ["restore", "restore"]


def test_nobody_sees_them(pool: Pool) -> None:
    assert not VM.objects.shown()
    assert sum(services.counts_by_state().values()) == 0
    assert not drive_services.drive_list()
    names = [cost.row.name for cost in drive_services.storage_status().drives]
    assert len([name for name in names if name.startswith("pool-")]) == 2, "what they take counts"


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({}, "image-or-template"),
        ({"size": 101, "image": 1}, "pool-size"),
        ({"size": -1, "image": 1}, "pool-size"),
        ({"name": "Not a name", "image": 1}, "name"),
        ({"shape": Shape(mem_size_mib=1), "image": 1}, "memory-size"),
    ],
)
def test_what_cannot_be_is_refused(image: Image, values: dict[str, Any], code: str) -> None:
    given = {"name": "ready"} | values
    if "image" in given:
        given["image"] = image
    with pytest.raises(Invalid) as caught:
        create_pool(given.pop("name"), **given)
    assert code in caught.value.code
    assert not Pool.objects.exists()


def test_names_are_unique(pool: Pool, image: Image) -> None:
    with pytest.raises(Conflict, match="already"):
        create_pool("ready", image=image)
    other = create_pool("other", image=image, size=0)
    with pytest.raises(Conflict, match="already"):
        update_pool(other, name="ready")
    assert update_pool(other, name="third").name == "third"


# Taken


def test_one_is_taken(pool: Pool) -> None:
    oldest = waiting(pool)[0]
    operation = take_vm(pool, name="web")
    vm = vm_of(operation)
    assert vm == oldest
    assert (vm.name, vm.purpose, vm.state) == ("web", "use", "ready")
    assert (vm.desired_state, vm.pool) == ("running", pool)
    assert vm.attachments.get().drive.name == "web"
    assert [v.name for v in VM.objects.shown()] == ["web"]
    last = vm.history.last()
    assert last is not None
    assert (last.reason, last.operation_id) == ("taken from pool ready", operation.pk)
    assert Event.objects.get(kind="vm.taken").data == {"pool": "ready"}
    assert len(waiting(pool)) == 2, "one is being made in its place"
    pool.refresh_from_db()
    assert pool.taken == 1
    work()
    assert [v.state for v in waiting(pool)] == ["ready"] * 2


def test_it_does_by_itself_what_it_is_to_do_once_it_is_taken(image: Image) -> None:
    shape = Shape(restart_policy="always", unreachable_action="stop", idle_suspend_minutes=5)
    pool = create_pool("ready", image=image, shape=shape)
    work()
    (vm,) = waiting(pool)
    assert (vm.restart_policy, vm.unreachable_action) == ("no", "keep")
    assert vm.idle_suspend_minutes is None
    vm = vm_of(take_vm(pool))
    assert (vm.restart_policy, vm.unreachable_action) == ("always", "stop")
    assert vm.idle_suspend_minutes == 5


def test_the_guest_is_told_its_name(
    pool: Pool, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Configuration] = []

    class Agent:
        async def configure(self, configuration: Configuration) -> None:
            told.append(configuration)

    def with_agent(vm: VM, call: Callable[[Any], Awaitable[object]]) -> None:
        if len(asked) == 1:
            asked.append(vm.name)
            raise supervision.no_agent(vm)
        asked.append(vm.name)
        with pytest.raises(StopIteration):
            call(Agent()).__await__().__next__()

    asked = ["first"]
    monkeypatch.setattr(host, "with_agent", with_agent)
    monkeypatch.setattr(pooling, "LOOK", 0)
    done(take_vm(pool, name="web"))
    assert [configuration.hostname for configuration in told] == ["web"]
    assert told[0].identity is None, "it is who it was"


def test_a_guest_that_is_gone_meanwhile_is_told_later(pool: Pool) -> None:
    operation = take_vm(pool, name="web")
    move(vm_of(operation), State.UNREACHABLE, "it is silent")
    done(operation)
    assert (
        operation.steps[0]["note"] == "it is unreachable, and will be told when it is ready again"
    )


def test_an_empty_pool_says_so_or_starts_one(pool: Pool) -> None:
    VM.objects.filter(pool=pool).update(state=State.RUNNING)
    with pytest.raises(Conflict, match="No VM is ready in the pool “ready”") as caught:
        take_vm(pool, name="web")
    assert caught.value.code == "pool-empty"
    assert "--or-start" in caught.value.hint
    operation = take_vm(pool, name="web", or_start=True)
    assert operation.kind == "vm.from-image"
    done(operation)
    vm = VM.objects.get(name="web")
    assert (vm.purpose, vm.mem_size_mib, vm.pool) == ("use", 128, None)


def test_what_is_not_as_the_pool_wants_it_is_not_taken(pool: Pool) -> None:
    Pool.objects.update(image=make_image(name="newer"))
    pool.refresh_from_db()
    with pytest.raises(Conflict, match="No VM is ready"):
        take_vm(pool)


def test_a_name_that_is_taken_is_refused(pool: Pool) -> None:
    make_vm(name="web")
    with pytest.raises(Conflict, match="already"):
        take_vm(pool, name="web")
    assert len(waiting(pool)) == 2


def test_a_rehearsal_takes_none(pool: Pool) -> None:
    plan = rehearse(lambda: take_vm(pool, name="web"))
    assert plan["title"] == "Take VM web from pool ready"
    assert [vm.state for vm in waiting(pool)] == ["ready"] * 2
    assert not VM.objects.shown()


# Deleted


def test_a_pool_goes_with_those_that_wait(pool: Pool) -> None:
    taken = vm_of(take_vm(pool, name="web"))
    work()
    operation = delete_pool(pool)
    assert operation.steps[0]["title"] == "Delete 2 VMs that wait"
    assert not Pool.objects.exists()
    work()
    assert_nothing_is_left()
    taken.refresh_from_db()
    assert (taken.state, taken.pool) == ("ready", None)


def test_and_with_the_one_that_is_being_made(image: Image) -> None:
    pool = create_pool("ready", image=image)
    delete_pool(pool)
    work()
    refilling.tend_all()
    work()
    assert_nothing_is_left()


def test_an_image_that_a_pool_needs_is_not_deleted(pool: Pool, image: Image) -> None:
    with pytest.raises(Conflict, match="used by pools: ready"):
        image_services.delete_image(image)
    done(delete_pool(pool))
    deletion = image_services.delete_image(image)
    create_pool("late", image=image, size=0)
    carry_out(deletion)
    assert (deletion.state, deletion.error["code"]) == ("failed", "image-used")
    assert Image.objects.filter(pk=image.pk).exists()


# Many at once


@pytest.mark.django_db(transaction=True)
def test_twenty_want_one_of_five_at_once(image: Image) -> None:
    pool = create_pool("ready", image=image, size=0)
    Pool.objects.update(size=5)
    for number in range(5):
        vm = make_vm(name=f"pool-{number}", root=False, purpose="pool", pool=pool, state="ready")
        Attachment.objects.create(vm=vm, drive=make_drive(name=f"pool-{number}", image=image))

    def take(number: int) -> str:
        try:
            return vm_of(take_vm(pool, name=f"taken-{number}")).ref
        except NexusError as error:
            return error.code
        finally:
            connection.close()

    with ThreadPoolExecutor(20) as threads:
        found = list(threads.map(take, range(20)))
    taken = [one for one in found if one != "pool-empty"]
    assert (len(taken), len(set(taken))) == (5, 5)
    assert VM.objects.shown().filter(name__startswith="taken-").count() == 5
    pool.refresh_from_db()
    assert pool.taken == 5


def test_one_that_is_thrown_away_is_not_taken_and_one_that_is_taken_not_thrown_away(
    pool: Pool,
) -> None:
    first, second = waiting(pool)
    assert refilling.disown(first)
    assert vm_of(take_vm(pool)) == second
    assert not refilling.disown(second), "somebody has just taken it"
    assert new_shape(Shape()) | {"mem_size_mib": 128} == pool.shape
    assert pools.MOST == 100
