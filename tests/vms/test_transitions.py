"""The state of a VM: one table, one way to move, a history without gaps."""

from __future__ import annotations

import itertools
import threading

import pytest
from django.db import connection, transaction

from nexus_site.core.errors import NotFound
from nexus_site.core.models import Event
from tests.factories import make_vm
from vms.models import VM, Transition
from vms.states import ALIVE, AT_REST, LOOKS, MOVES, TRANSIENT, WITH_VMM, State
from vms.transitions import IllegalMove, move, try_move

pytestmark = pytest.mark.django_db

PAIRS = [(a, b) for a in State for b in State]


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_only_the_tables_moves_are_possible(before: State, after: State) -> None:
    vm = make_vm(state=before)
    allowed = before in MOVES.get(after, ())
    if allowed:
        row = move(vm, after, "test")
        assert (row.from_state, row.to_state) == (before, after)
        assert VM.objects.get().state == after
    else:
        with pytest.raises(IllegalMove):
            move(vm, after, "test")
        assert VM.objects.get().state == before
    assert Transition.objects.count() == 1 + allowed


def test_every_state_has_a_look_and_a_place_in_the_sets() -> None:
    assert set(LOOKS) == set(State)
    assert set(State) == WITH_VMM | AT_REST
    assert not WITH_VMM & AT_REST
    assert ALIVE | TRANSIENT == WITH_VMM
    assert set(MOVES) == set(State) - {State.CREATED}


def test_a_move_is_in_history_and_event_log_at_once() -> None:
    vm = make_vm()
    move(vm, State.STARTING, "asked for", detail={"by": "test"})
    row = vm.history.last()
    assert row is not None
    assert (row.from_state, row.to_state, row.reason) == ("created", "starting", "asked for")
    assert row.detail == {"by": "test"}
    event = Event.objects.get(kind="vm.moved")
    assert event.data == {"from": "created", "to": "starting", "reason": "asked for"}
    assert (event.subject_id, event.subject_name) == (vm.id, vm.name)


def test_history_has_no_gaps() -> None:
    vm = make_vm()
    for state in (State.STARTING, State.RUNNING, State.READY, State.STOPPING, State.STOPPED):
        move(vm, state, "next")
    rows = list(vm.history.all())
    assert rows[0].from_state == ""
    assert all(b.from_state == a.to_state for a, b in itertools.pairwise(rows))


def test_a_move_that_is_rolled_back_leaves_nothing() -> None:
    vm = make_vm()
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        move(vm, State.STARTING, "asked for")
        raise ZeroDivisionError
    assert VM.objects.get().state == State.CREATED
    assert not Event.objects.filter(kind="vm.moved").exists()


def test_a_deleted_vm_cannot_move() -> None:
    vm = make_vm()
    VM.objects.all().delete()
    with pytest.raises(NotFound, match="is gone"):
        move(vm, State.STARTING, "too late")
    assert try_move(vm, State.STARTING, "too late") is None


@pytest.mark.django_db(transaction=True)
def test_of_many_at_once_exactly_one_wins() -> None:
    vm = make_vm()
    won: list[object] = []
    barrier = threading.Barrier(8)

    def race() -> None:
        mine = VM.objects.get()
        barrier.wait()
        if try_move(mine, State.STARTING, "me") is not None:
            won.append(mine)
        connection.close()

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert vm.history.count() == 2
