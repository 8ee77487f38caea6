"""Pools are kept full: what is replaced, when, and what a worker that is killed leaves."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from builds import services as build_services
from images.models import Image
from nexus_site.core import events
from nexus_site.core.errors import Conflict
from nexus_site.core.models import Operation
from nexus_site.core.operations import cancel, open_operations
from tests.factories import make_drive, make_template
from tests.vms.pool_hosts import (
    assert_nothing_is_left,
    doing,
    host,
    image,
    nobodys,
    pool,
    waiting,
    work,
)
from tests.vms.real_drives import Killed, carry_out, resume
from tests.vms.warm_hosts import Host, image_with_file
from vms import hidden
from vms.models import VM, Attachment, Pool
from vms.services import refilling
from vms.services.pools import create_pool, take_vm, update_pool
from vms.states import State
from vms.transitions import move

__all__ = ["host", "image", "pool"]  # fixtures

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("nudges")]


# Kept full


@pytest.mark.parametrize("state", [State.CRASHED, State.UNREACHABLE, State.PAUSED])
def test_what_ends_or_does_not_answer_is_replaced(pool: Pool, state: State) -> None:
    first, second = waiting(pool)
    move(first, state, "the guest panicked")
    refilling.tend_all()
    pool.refresh_from_db()
    assert pool.problem == f"The VM {first.name} is {state}: the guest panicked"
    work()
    assert waiting(pool) == [second]
    assert pool.retry_at is not None, "it waits before it makes another"
    assert not VM.objects.filter(pk=first.pk).exists()

    in_time(pool)
    work()
    pool.refresh_from_db()
    assert [vm.state for vm in waiting(pool)] == ["ready"] * 2
    assert (pool.problem, pool.failures) == ("", 1), "the next failure makes it wait longer"
    Pool.objects.update(retry_at=timezone.now() - timedelta(hours=1))
    refilling.tend_all()
    pool.refresh_from_db()
    assert pool.failures == 0


def in_time(pool: Pool) -> None:
    """The pool has waited long enough."""
    Pool.objects.filter(pk=pool.pk).update(retry_at=timezone.now() - timedelta(seconds=1))
    refilling.tend_all()


def test_what_cannot_be_made_is_tried_later_and_later(
    image: Image, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise Conflict("It does not start.")

    real = host.launch
    monkeypatch.setattr(host, "launch", fail)
    pool, pauses = create_pool("ready", image=image), []
    for _ in range(4):
        work()
        pool.refresh_from_db()
        assert pool.problem == "It does not start."
        assert pool.retry_at is not None
        pauses.append((pool.retry_at - timezone.now()).total_seconds())
        assert_nothing_is_left()
        refilling.tend_all()
        assert not open_operations(), "it is not time yet"
        in_time(pool)
    assert pauses == [pytest.approx(wanted, abs=4) for wanted in (5, 10, 20, 40)]
    assert pauses == sorted(pauses)

    monkeypatch.setattr(host, "launch", real)
    work()
    pool.refresh_from_db()
    assert (len(waiting(pool)), pool.problem) == (1, "")


def test_resizing_tries_again_at_once(image: Image, host: Host) -> None:
    pool = create_pool("ready", image=image)
    operation = open_operations().get()
    refilling.note_failure(pool, "It does not start.")
    cancel(operation)
    work()
    assert_nothing_is_left()
    update_pool(pool, size=1)
    work()
    assert [vm.state for vm in waiting(pool)] == ["ready"]


def test_one_with_another_image_or_an_older_agent_is_replaced(pool: Pool) -> None:
    first, second = waiting(pool)
    VM.objects.filter(pk=first.pk).update(agent={"agent_version": "0.0.1"})
    Attachment.objects.filter(vm=second).update(drive=make_drive(name="other"))
    refilling.tend_all()
    work()
    pool.refresh_from_db()
    assert len(waiting(pool)) == 2
    assert not {first, second} & set(waiting(pool))
    assert (pool.problem, pool.failures) == ("", 0), "that is nobody's fault"


def test_a_pool_follows_its_template(
    image: Image, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = make_template(name="web")
    current: list[Image | None] = [None]
    monkeypatch.setattr(build_services, "current_image", lambda _: current[0])
    with pytest.raises(Conflict, match="has not been built"):
        create_pool("ready", template=template)
    current[0] = image
    pool = create_pool("ready", template=template)
    work()
    old = waiting(pool)
    current[0] = image_with_file("newer")
    refilling.tend_all()
    work()
    (vm,) = waiting(pool)
    assert vm.image is not None
    assert (vm.image.name, vm in old) == ("newer", False)
    current[0] = None
    refilling.tend_all()
    assert waiting(pool) == [vm], "it stays with what there is"
    template.delete()
    refilling.tend_all()
    pool.refresh_from_db()
    assert (pool.template, waiting(pool)) == (None, [vm])


def test_resizing_adds_and_removes(pool: Pool) -> None:
    update_pool(pool, size=3)
    work()
    assert len(waiting(pool)) == 3
    oldest = waiting(pool)[0]
    update_pool(pool, size=1)
    assert waiting(pool) == [oldest], "at once, nobody takes another"
    work()
    assert nobodys() == [oldest]
    update_pool(pool, size=0)
    work()
    assert_nothing_is_left()
    with pytest.raises(Conflict, match="No VM is ready"):
        take_vm(pool)


def test_one_that_is_being_made_is_not_finished_for_a_pool_that_shrinks(image: Image) -> None:
    pool = create_pool("ready", image=image, size=1)
    update_pool(pool, size=0)
    work()
    assert Operation.objects.get(kind="pool.fill").state == "cancelled"
    assert_nothing_is_left()
    pool.refresh_from_db()
    assert (pool.problem, pool.failures) == ("", 0)


# Within the host's capacity


@pytest.mark.parametrize(
    ("limit", "value", "words"),
    [("RESERVE", 1.0, "memory"), ("DRIVE_MIB", 1 << 60, "disk"), ("LOAD", -1.0, "less to do")],
)
def test_it_waits_while_the_host_has_no_room(
    image: Image, monkeypatch: pytest.MonkeyPatch, limit: str, value: float, words: str
) -> None:
    before = getattr(refilling, limit)
    monkeypatch.setattr(refilling, limit, value)
    pool = create_pool("ready", image=image)
    assert words in pool.problem
    assert not open_operations()
    seen = events.last_seq()
    refilling.tend_all()
    assert events.last_seq() == seen, "it says so once"
    monkeypatch.setattr(refilling, limit, before)
    update_pool(pool, size=2)
    carry_out(doing().get())
    pool.refresh_from_db()
    assert (len(waiting(pool)), pool.problem) == (2, ""), "the next is being made"


# Killed workers


@pytest.mark.parametrize("moment", ["launch", "kill"])
def test_a_worker_that_is_killed_leaves_nothing_wrong(
    image: Image, host: Host, moment: str
) -> None:
    pool = create_pool("ready", image=image)
    if moment == "kill":
        work()
        update_pool(pool, size=0)
    operation = doing().get()
    host.dies_at = moment
    with pytest.raises(Killed):
        carry_out(operation)
    host.new_worker()
    refilling.tend_all()
    assert doing().count() == 1, "it is under way"
    resume(operation)
    assert operation.state == "succeeded", operation.error
    work()
    assert [vm.state for vm in nobodys()] == ([] if moment == "kill" else ["ready"])
    if moment == "kill":
        assert_nothing_is_left()


def test_a_worker_that_is_killed_while_it_undoes_leaves_nothing(image: Image, host: Host) -> None:
    pool = create_pool("ready", image=image)
    operation = open_operations().get()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hidden, "discard", _die)
        patch.setattr(host, "launch", _fail)
        with pytest.raises(Killed):
            carry_out(operation)
    update_pool(pool, size=0)
    resume(operation)
    work()
    refilling.tend_all()
    work()
    assert_nothing_is_left()


def _die(_: object) -> None:
    raise Killed


def _fail(_: object) -> None:
    raise Conflict("It does not start.")


def test_a_filling_that_fails_once_its_vm_was_taken_leaves_that_alone(
    image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = create_pool("ready", image=image)
    (operation,) = open_operations()
    real = refilling.tend

    def tend(found: Pool, *, besides: Operation | None = None) -> None:
        if besides is None:
            return real(found)
        take_vm(pool, name="web")
        raise Conflict("The worker stumbles.")

    monkeypatch.setattr(refilling, "tend", tend)
    carry_out(operation)
    assert operation.state == "failed"
    vm = VM.objects.get(name="web")
    assert (vm.state, vm.purpose) == ("ready", "use")


def test_what_cannot_be_deleted_is_tried_again_later(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = waiting(pool)
    real = hidden.discard
    monkeypatch.setattr(hidden, "discard", lambda vm: _fail(vm) if vm == first else real(vm))
    update_pool(pool, size=0)
    work()
    refilling.tend_all()
    assert not doing(), "it is too early"
    assert nobodys() == [first], "the other is gone"
    clearing = Operation.objects.get(kind="pool.clear")
    assert (clearing.state, clearing.error["text"]) == ("failed", "It does not start.")

    monkeypatch.setattr(hidden, "discard", real)
    monkeypatch.setattr(refilling, "AGAIN", timedelta(0))
    refilling.tend_all()
    work()
    assert_nothing_is_left()
    assert not VM.objects.filter(pk=second.pk).exists()
