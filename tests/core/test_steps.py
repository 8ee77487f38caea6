"""Operations: steps, resuming, undoing, leases."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable
from datetime import timedelta

import psutil
import pytest
from django.utils import timezone

from nexus_site.core import events, operations, steps
from nexus_site.core.errors import Broken, Conflict
from nexus_site.core.models import Event, Operation
from nexus_site.core.steps import Run, Step

pytestmark = pytest.mark.django_db(transaction=True)

Register = Callable[..., None]


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Register:
    """Register a plan as the operation kind ``test``, for one test."""

    def register(*plan: Step, on_failure: object = None) -> None:
        kind = operations.Kind(lambda operation: plan, on_failure)  # type: ignore[arg-type]
        monkeypatch.setitem(operations._kinds, "test", kind)

    return register


def execute(**params: object) -> Operation:
    operation = operations.open_operation("test", "Test", params=dict(params))
    operations.execute(operation.id)
    operation.refresh_from_db()
    return operation


def states(operation: Operation) -> list[str]:
    return [step["state"] for step in operation.steps]


def test_steps_run_in_order_and_pass_on_what_they_made(
    register: Register, nudges: list[str]
) -> None:
    def first(run: Run) -> str:
        run.keep(egg="laid")
        return "an egg"

    def second(run: Run) -> str:
        return f"{run.made['egg']} in {run.params['place']}"

    register(Step("one", "One", first), Step("two", "Two", second))
    operation = execute(place="a nest")
    assert operation.state == "succeeded"
    assert operation.result == {"egg": "laid"}
    assert [step["note"] for step in operation.steps] == ["an egg", "laid in a nest"]
    assert operation.progress == 1.0
    assert nudges == [operation.ref]


def test_a_satisfied_step_is_skipped_and_says_so(register: Register, nudges: list[str]) -> None:
    def never(run: Run) -> str:
        raise AssertionError("a satisfied step must not run")

    register(Step("one", "One", never, done=lambda run: "it is there"))
    operation = execute()
    assert states(operation) == ["skipped"]
    assert operation.steps[0]["note"] == "it is there"


def test_a_failure_undoes_what_was_done_newest_first(register: Register, nudges: list[str]) -> None:
    undone: list[str] = []

    def fail(run: Run) -> str:
        raise Conflict("No room.", hint="Make room.")

    register(
        Step("a", "A", lambda run: None, undo=lambda run: undone.append("a")),
        Step("b", "B", lambda run: None, undo=lambda run: undone.append("b")),
        Step("c", "C", fail, undo=lambda run: undone.append("c")),
    )
    operation = execute()
    assert undone == ["c", "b", "a"]
    assert states(operation) == ["undone", "undone", "failed"]
    assert operation.state == "failed"
    assert operation.error["text"] == "No room."
    assert operation.error["hint"] == "Make room."


def test_nothing_before_a_step_that_keeps_is_undone(register: Register, nudges: list[str]) -> None:
    undone: list[str] = []

    def fail(run: Run) -> str:
        raise Broken("Gone wrong.")

    register(
        Step("a", "A", lambda run: None, undo=lambda run: undone.append("a")),
        Step("b", "B", lambda run: None, keeps=True, undo=lambda run: undone.append("b")),
        Step("c", "C", fail, undo=lambda run: undone.append("c")),
    )
    assert states(execute()) == ["done", "done", "failed"]
    assert undone == ["c"]


def test_what_an_undo_leaves_is_done_and_says_why(register: Register, nudges: list[str]) -> None:
    def fail(run: Run) -> str:
        raise Broken("Gone wrong.")

    register(
        Step("a", "A", lambda run: "an egg", undo=lambda run: "an egg, which stays"),
        Step("b", "B", fail),
    )
    operation = execute()
    assert states(operation) == ["done", "failed"]
    assert operation.steps[0]["note"] == "an egg, which stays"


def test_an_unexpected_error_is_told_without_its_traceback(
    register: Register, nudges: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(run: Run) -> str:
        raise ZeroDivisionError("secret internals")

    register(Step("a", "A", fail))
    operation = execute()
    assert operation.error["code"] == "unexpected"
    assert "Traceback" not in str(operation.error)
    assert "Traceback" in caplog.text


def test_an_undo_that_fails_does_not_stop_the_others(
    register: Register, nudges: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    undone: list[str] = []

    def fail(run: Run) -> None:
        raise Broken("It sticks.")

    register(
        Step("a", "A", lambda run: None, undo=lambda run: undone.append("a")),
        Step("b", "B", lambda run: None, undo=fail),
        Step("c", "C", fail),
    )
    operation = execute()
    assert undone == ["a"]
    assert operation.steps[1]["note"] == "Could not be undone: It sticks."


def test_a_dead_workers_operation_resumes_at_its_first_open_step(
    register: Register, nudges: list[str]
) -> None:
    ran: list[str] = []

    class Killed(BaseException):
        """As good as SIGKILL: nothing of the worker's clean-up runs."""

    def die_once(run: Run) -> str:
        ran.append("b")
        if ran.count("b") == 1:
            raise Killed
        return "at last"

    register(
        Step("a", "A", lambda run: ran.append("a")),
        Step("b", "B", die_once),
    )
    operation = operations.open_operation("test", "Test")
    with pytest.raises(Killed):
        operations.execute(operation.id)
    operations.execute(operation.id)
    assert ran == ["a", "b"], "while the lease lasts nobody else takes it"

    Operation.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    assert operations.sweep() == 1
    assert nudges[-1] == operation.ref
    operations.execute(operation.id)
    operation.refresh_from_db()
    assert ran == ["a", "b", "b"]
    assert operation.state == "succeeded"
    assert operation.note == "Resumed after an interruption (attempt 2)."


def test_a_starting_worker_frees_what_dead_ones_held(register: Register, nudges: list[str]) -> None:
    register(Step("a", "A", lambda run: None))
    operation = operations.open_operation("test", "Test")
    Operation.objects.update(
        state="running",
        lease_owner=f"{socket.gethostname()}:999999999:1.00:1",
        lease_until=timezone.now() + timedelta(hours=1),
    )
    assert operations.sweep() == 0
    assert operations.sweep(everything_is_mine=True) == 1
    operations.execute(operation.id)
    operation.refresh_from_db()
    assert operation.state == "succeeded"


def test_a_worker_that_waits_to_be_reaped_is_dead(register: Register, nudges: list[str]) -> None:
    register(Step("a", "A", lambda run: None))
    with subprocess.Popen(["/bin/sleep", "60"]) as worker:
        owner = f"{socket.gethostname()}:{worker.pid}:{start_of(worker.pid):.2f}:1"
        operations.open_operation("test", "Test")
        later = timezone.now() + timedelta(hours=1)
        Operation.objects.update(state="running", lease_owner=owner, lease_until=later)
        assert operations.sweep(everything_is_mine=True) == 0
        worker.kill()
        os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
        assert operations.sweep(everything_is_mine=True) == 1


def start_of(pid: int) -> float:
    return psutil.Process(pid).create_time()


def test_whoever_lost_the_lease_stops_and_writes_nothing(
    register: Register, nudges: list[str]
) -> None:
    undone: list[str] = []

    def lose(run: Run) -> str:
        Operation.objects.update(lease_owner="somebody else")
        return "done here"

    register(Step("a", "A", lose, undo=lambda run: undone.append("a")))
    operation = execute()
    assert operation.state == "running"
    assert operation.lease_owner == "somebody else"
    assert undone == []


def test_an_operation_that_kills_every_worker_is_given_up_and_undone(
    register: Register, nudges: list[str]
) -> None:
    undone: list[str] = []
    register(Step("a", "A", lambda run: None, undo=lambda run: undone.append("a")))
    operation = operations.open_operation("test", "Test")
    operation.steps[0]["state"] = "running"
    Operation.objects.update(attempt=operations.MAX_ATTEMPTS, steps=operation.steps)
    operations.execute(operation.id)
    operation.refresh_from_db()
    assert operation.state == "failed"
    assert operation.error["code"] == "interrupted"
    assert undone == ["a"]


def test_a_cancelled_operation_stops_at_its_next_report_and_is_undone(
    register: Register, nudges: list[str]
) -> None:
    undone: list[str] = []

    def work(run: Run) -> str:
        operations.cancel(run.operation)
        run.progress(0.5)
        raise AssertionError("it goes on although cancelled")

    register(Step("a", "A", work, undo=lambda run: undone.append("a")))
    operation = execute()
    assert operation.state == "cancelled"
    assert undone == ["a"]


def test_a_queued_operation_can_be_cancelled_before_it_runs(
    register: Register, nudges: list[str]
) -> None:
    register(Step("a", "A", lambda run: None))
    operation = operations.open_operation("test", "Test")
    operations.cancel(operation)
    operations.execute(operation.id)
    operation.refresh_from_db()
    assert (operation.state, states(operation)) == ("cancelled", ["failed"])


def test_an_operation_past_its_deadline_fails(register: Register, nudges: list[str]) -> None:
    register(Step("a", "A", lambda run: None))
    operation = operations.open_operation("test", "Test", deadline=timedelta(seconds=-1))
    operations.execute(operation.id)
    operation.refresh_from_db()
    assert operation.error["code"] == "deadline"


def test_a_child_runs_inside_its_parent_and_once_only(
    register: Register, nudges: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    child_kind = operations.Kind(lambda operation: [Step("c", "C", lambda run: ran.append("c"))])
    monkeypatch.setitem(operations._kinds, "child", child_kind)

    def with_child(run: Run) -> str:
        for _ in range(2):
            operations.run_child(
                run, "child", lambda p: operations.open_operation("child", "C", parent=p)
            )
        return "twice asked"

    register(Step("a", "A", with_child))
    operation = execute()
    assert operation.state == "succeeded", operation.error
    assert ran == ["c"]
    assert [child.state for child in operation.children.all()] == ["succeeded"]
    assert nudges == [operation.ref], "a child is never queued"


def test_a_dry_run_tells_the_plan_and_changes_nothing(
    register: Register, nudges: list[str]
) -> None:
    register(
        Step("a", "A", lambda run: None, done=lambda run: "there"),
        Step("b", "B", lambda run: None),
    )
    before = Event.objects.count()
    plan = operations.rehearse(lambda: operations.open_operation("test", "Do it"))
    assert plan["title"] == "Do it"
    assert [(row["name"], row["action"], row["note"]) for row in plan["steps"]] == [
        ("a", "skip", "there"),
        ("b", "run", ""),
    ]
    assert (Operation.objects.count(), Event.objects.count(), nudges) == (0, before, [])


def test_a_dry_run_hits_the_same_rules(register: Register, nudges: list[str]) -> None:
    def refuse() -> Operation:
        raise Conflict("Not now.")

    with pytest.raises(Conflict, match="Not now"):
        operations.rehearse(refuse)


def test_work_is_put_down_to_whoever_asked(register: Register, nudges: list[str]) -> None:
    register(Step("a", "A", lambda run: events.append("test.done", run.operation) and None))
    with events.acting("user:ada"):
        operation = operations.open_operation("test", "Test")
    operations.execute(operation.id)
    event = Event.objects.get(kind="test.done")
    assert (event.actor, event.operation_id) == ("user:ada", operation.id)


def test_an_event_is_gone_when_its_transaction_is(register: Register, nudges: list[str]) -> None:
    register(Step("a", "A", lambda run: None))
    with pytest.raises(Conflict), steps.transaction.atomic():
        operations.open_operation("test", "Test")
        raise Conflict("Back.")
    assert (Operation.objects.count(), Event.objects.count(), nudges) == (0, 0, [])
