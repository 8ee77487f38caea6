"""What a guest is given at its start, by the real agent in a sandbox; and what is kept of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from guest_agent.connection import AgentConnection
from guest_agent.exec import Program
from guest_agent.sessions import Sessions
from nexus_site.core.errors import Broken
from nexus_site.core.models import Event, Operation
from tests.factories import make_vm
from tests.guest_agent.conftest import AgentProcess, agent, agent_binary, connect, port
from tests.vms.test_watch import Database, Driver, driver, watched
from vms import outcomes, provisioning
from vms import provisioning_records as records
from vms.hypervisors.base import Exit
from vms.models import VM, Boot, Provisioning
from vms.provisioning_records import Phase
from vms.services import provisioning as rules
from vms.services.provisioning import GivenFile
from vms.states import State
from vms.transitions import move

__all__ = ["agent", "agent_binary", "connect", "driver", "port"]  # fixtures

pytestmark = pytest.mark.django_db(transaction=True)

Connect = Callable[[], Awaitable[AgentConnection]]
SECRET = "correct-horse-battery"


@pytest.fixture(autouse=True)
def _places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nudges: list[str]) -> None:
    """Files of a sandbox are in its directory, programs are not: there both find the same."""
    inside = tmp_path / "sandbox" / tmp_path.relative_to("/")
    inside.parent.mkdir(parents=True)
    inside.symlink_to(tmp_path)
    monkeypatch.setattr(provisioning, "SCRIPT", str(tmp_path / "first-boot"))


@pytest.fixture
def vm(transactional_db: None) -> VM:
    """A VM whose guest boots."""
    vm = make_vm(name="web")
    Boot.objects.create(vm=vm, number=1, launched_at=timezone.now())
    move(vm, State.STARTING, "start requested")
    move(vm, State.RUNNING, "the VMM runs")
    return vm


async def greet(vm: VM, agent: AgentConnection) -> None:
    """What the worker does at a hello."""
    database = Database()
    hello = agent.hello.to_dict()
    try:
        work = await database.in_database(lambda: records.begin(vm, hello, timezone.now(), ""))
        if work is not None:
            await provisioning.provision(database, vm, agent, work)
    finally:
        await database.in_database(lambda: connection.close())
        database.thread.shutdown()


async def given(vm: VM, **wanted: Any) -> None:
    await _in_thread(lambda: rules.replace_provisioning(vm, **wanted))


async def _in_thread(call: Callable[[], Any]) -> Any:
    database = Database()
    try:
        return await database.in_database(call)
    finally:
        await database.in_database(lambda: connection.close())
        database.thread.shutdown()


async def _until(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if await _in_thread(condition):
            return
        await asyncio.sleep(0.1)
    raise TimeoutError


async def row_of(vm: VM) -> Provisioning:
    found: Provisioning = await _in_thread(lambda: Provisioning.objects.get(vm=vm))
    return found


async def last_move(vm: VM) -> tuple[str, str, dict[str, Any]]:
    rows = await _in_thread(lambda: list(vm.history.values_list("to_state", "reason", "detail")))
    state, reason, detail = rows[-1]
    return state, reason, detail


# Settings and files


async def test_a_guest_gets_its_variables_host_names_and_files(
    vm: VM, agent: AgentProcess, connect: Connect, tmp_path: Path
) -> None:
    agent.start()
    plain, secret = tmp_path / "deep" / "app.conf", tmp_path / "key"
    await given(
        vm,
        env={"COLOUR": "blue"},
        secret_env={"TOKEN": SECRET},
        hosts={"db.example": "10.1.2.3"},
        files=[
            GivenFile(str(plain), b"x = 1\n", 0o640),
            GivenFile(str(secret), b"\x00\xff" + SECRET.encode(), 0o600, secret=True),
        ],
    )
    await greet(vm, await connect())
    assert agent.read("etc/nexus/env") == f"COLOUR='blue'\nTOKEN='{SECRET}'\n"
    assert "10.1.2.3 db.example" in agent.read("etc/hosts")
    assert (plain.read_bytes(), plain.stat().st_mode & 0o7777) == (b"x = 1\n", 0o640)
    assert secret.read_bytes() == b"\x00\xff" + SECRET.encode()
    assert secret.stat().st_mode & 0o7777 == 0o600
    state, reason, detail = await last_move(vm)
    assert (state, detail) == (State.READY, {})
    assert "said hello after" in reason
    assert (await row_of(vm)).phase == Phase.DONE


async def test_a_guest_that_is_met_again_is_given_nothing_twice(
    vm: VM, agent: AgentProcess, connect: Connect, tmp_path: Path
) -> None:
    agent.start()
    file = tmp_path / "once"
    await given(vm, files=[GivenFile(str(file), b"new")])
    connection = await connect()
    await greet(vm, connection)
    file.write_text("the guest's own")
    await greet(vm, connection)
    assert file.read_text() == "the guest's own"
    connection.hello = replace(connection.hello, boot_id="0" * 8 + connection.hello.boot_id[8:])
    await greet(vm, connection)
    assert file.read_text() == "new", "at the next boot it is written again"


async def test_what_a_running_vm_is_given_waits_for_its_next_start(
    vm: VM, agent: AgentProcess, connect: Connect, tmp_path: Path
) -> None:
    agent.start()
    connection = await connect()
    await greet(vm, connection)
    await given(vm, script="touch never\n", files=[GivenFile(str(tmp_path / "no"), b"")])
    await greet(vm, connection)
    assert not (tmp_path / "no").exists()
    assert (await row_of(vm)).script_drive is None


async def test_a_file_that_cannot_be_written_is_told_by_its_path(
    vm: VM, agent: AgentProcess, connect: Connect, tmp_path: Path
) -> None:
    agent.start()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    await given(vm, files=[GivenFile(str(tmp_path / "full"), b"data")])
    await greet(vm, await connect())
    state, _, detail = await last_move(vm)
    assert state == State.READY
    assert f"Provisioning failed: {tmp_path}/full: " in detail["warning"]
    assert (await row_of(vm)).phase == Phase.FAILED


async def test_an_old_agent_makes_a_warning_that_names_what_is_missing(
    vm: VM, agent: AgentProcess, connect: Connect
) -> None:
    agent.start()
    await given(vm, env={"A": "1"}, script="true\n", on_failure="fail")
    connection = await connect()
    connection.hello = replace(connection.hello, agent_version="0.2.0")
    await greet(vm, connection)
    state, _, detail = await last_move(vm)
    assert state == State.READY
    assert "Agent outdated" in detail["warning"]
    assert "variables, the first-boot script" in detail["warning"]


# The script


async def test_the_script_runs_once_for_each_root_drive(
    vm: VM, agent: AgentProcess, connect: Connect, tmp_path: Path
) -> None:
    agent.start()
    script = f'echo "$COLOUR here"; echo oops >&2; echo x >>{tmp_path}/runs\n'
    await given(vm, env={"COLOUR": "blue"}, script=script)
    connection = await connect()
    await greet(vm, connection)
    row = await row_of(vm)
    assert row.script_log == "blue here\noops\n"
    assert row.script_exit == {"code": 0, "signal": None, "timed_out": False}
    root = await _in_thread(lambda: vm.attachments.get(is_root=True).drive_id)
    assert row.script_drive == root
    await _in_thread(lambda: Provisioning.objects.update(boot_id=""))
    await greet(vm, connection)
    assert (tmp_path / "runs").read_text() == "x\n", "another boot, the same drive"
    await _in_thread(lambda: rules.run_script_again(vm))
    await _in_thread(lambda: Provisioning.objects.update(boot_id=""))
    await greet(vm, connection)
    assert (tmp_path / "runs").read_text() == "x\nx\n"


async def test_a_script_says_itself_what_runs_it(
    vm: VM, agent: AgentProcess, connect: Connect
) -> None:
    agent.start()
    await given(vm, script="#!/usr/bin/env python3\nprint(6 * 7)\n")
    await greet(vm, await connect())
    assert (await row_of(vm)).script_log == "42\n"


async def test_a_failing_script_makes_a_warning_and_does_not_run_again(
    vm: VM, agent: AgentProcess, connect: Connect
) -> None:
    agent.start()
    await given(vm, script="echo before; exit 3\n")
    await greet(vm, await connect())
    state, _, detail = await last_move(vm)
    assert state == State.READY
    assert detail["warning"] == "Provisioning failed: The first-boot script ended with exit code 3."
    assert detail["detail"] == "before\n"
    row = await row_of(vm)
    assert (row.phase, row.script_exit["code"]) == (Phase.FAILED, 3)
    assert row.script_drive is not None


async def test_a_failing_script_stops_a_vm_that_wants_it_so(
    vm: VM, agent: AgentProcess, connect: Connect
) -> None:
    agent.start()
    await given(vm, script="echo before; kill -9 $$\n", on_failure="fail")
    await greet(vm, await connect())
    state, reason, _ = await last_move(vm)
    assert (state, reason) == (
        State.STOPPING,
        "Provisioning failed: The first-boot script was killed by signal 9.",
    )
    assert await _in_thread(lambda: Operation.objects.filter(kind="vm.stop").count()) == 1
    failure = await _in_thread(lambda: records.failure_of(vm))
    assert isinstance(failure, Broken)
    await _in_thread(lambda: outcomes.vmm_ended(vm, Exit(0, None, 1.0)))
    state, reason, detail = await last_move(vm)
    assert (state, detail["detail"]) == (State.FAILED, "before\n")
    assert reason.startswith("Provisioning failed: ")
    assert (await row_of(vm)).script_drive is None, "it runs again at the next start"
    assert (await _in_thread(lambda: records.failure_of(vm))).text == failure.text


async def test_a_script_has_its_time(
    vm: VM, agent: AgentProcess, connect: Connect, settings: Any
) -> None:
    agent.start()
    settings.NEXUS = settings.NEXUS.model_copy(update={"script_timeout": 0.5})
    await given(vm, script="echo begun; sleep 1000\n")
    await greet(vm, await connect())
    row = await row_of(vm)
    assert "did not end within 0.5 s and was killed" in row.problem
    assert (row.script_log, row.script_exit["timed_out"]) == ("begun\n", True)


async def test_a_script_that_outlives_its_worker_is_found_again(
    vm: VM, agent: AgentProcess, connect: Connect, tmp_path: Path
) -> None:
    agent.start()
    await given(vm, script=f"echo begun >>{tmp_path}/runs; cat {tmp_path}/go; echo end\n")
    connection = await connect()
    boot_id = connection.hello.boot_id
    await _in_thread(lambda: Provisioning.objects.update(phase=Phase.SCRIPT, boot_id=boot_id))
    waiting = f"echo begun >>{tmp_path}/runs; until [ -e {tmp_path}/go ]; do sleep 0.05; done"
    program = Program(("/bin/sh", "-c", f"echo first; {waiting}; echo end"), merge=True)
    await Sessions(connection).start(provisioning.SESSION, program)
    (tmp_path / "go").touch()
    await greet(vm, connection)
    row = await row_of(vm)
    assert (row.phase, row.script_log) == (Phase.DONE, "first\nend\n")
    assert (tmp_path / "runs").read_text() == "begun\n"


async def test_phases_are_told_while_they_last(
    vm: VM, agent: AgentProcess, connect: Connect
) -> None:
    agent.start()
    await given(vm, script="true\n")
    await greet(vm, await connect())
    kinds = await _in_thread(
        lambda: [event.data["phase"] for event in Event.objects.filter(kind="vm.provisioning")]
    )
    assert list(reversed(kinds)) == ["files", "script", "done"]


async def test_a_vm_stays_running_while_its_script_does_and_its_agent_answers(
    agent: AgentProcess, driver: Driver, tmp_path: Path, settings: Any
) -> None:
    settings.NEXUS = settings.NEXUS.model_copy(
        update={"agent_ready_timeout": 2.0, "heartbeat_interval": 0.1}
    )
    vm = await _in_thread(lambda: make_vm(state=State.RUNNING, vmm="firecracker"))
    boot = {"number": 1, "handle": driver.handle.to_dict(), "launched_at": timezone.now()}
    await _in_thread(lambda: Boot.objects.create(vm=vm, **boot))
    await given(vm, script=f"until [ -e {tmp_path}/go ]; do sleep 0.1; done\n")
    driver.socket = agent.socket
    agent.start()
    async with watched(vm, driver):
        await _until(lambda: Provisioning.objects.filter(phase=Phase.SCRIPT).exists())
        await asyncio.sleep(4)  # more than it has for its hello, and many heartbeats
        assert (await last_move(vm))[0] == State.CREATED, "no move since"
        (tmp_path / "go").touch()
        await _until(lambda: VM.objects.filter(state=State.READY).exists())
    assert (await row_of(vm)).phase == Phase.DONE


# Secrets


async def test_no_secret_is_kept_or_told_in_the_clear(
    vm: VM, agent: AgentProcess, connect: Connect, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    agent.start()
    key = GivenFile(str(tmp_path / "key"), b"line-one-of-it\n" + SECRET.encode(), secret=True)
    await given(
        vm,
        secret_env={"TOKEN": SECRET},
        files=[key],
        script=f"set -x; echo $TOKEN; cat {tmp_path}/key; exit 1\n",
        on_failure="fail",
    )
    await greet(vm, await connect())
    row = await row_of(vm)
    assert "[secret]" in row.script_log
    dump = await _in_thread(_whole_database)
    for word in (SECRET, "line-one-of-it"):
        assert word not in dump
        assert word not in caplog.text
        assert word not in repr(key)
    assert "TOKEN" in dump


def _whole_database() -> str:
    """Every value of every table, as text."""
    with connection.cursor() as cursor:
        lines = []
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT * FROM "{table}"')
            lines += [repr(row) for row in cursor.fetchall()]
    return "\n".join(lines)


async def test_a_lost_key_is_said_and_the_vm_comes_up_without(
    vm: VM, agent: AgentProcess, connect: Connect, data_dir: Path
) -> None:
    agent.start()
    await given(vm, secret_env={"TOKEN": SECRET})
    (data_dir / "encryption_key").unlink()
    await greet(vm, await connect())
    state, _, detail = await last_move(vm)
    assert state == State.READY
    assert "the key that they were encrypted with is not there" in detail["warning"]
    await _in_thread(
        lambda: rules.change_provisioning(vm, secret_env={"TOKEN": "another"})
    )  # all that there were
    assert rules.secret_env(await row_of(vm)) == {"TOKEN": "another"}


def test_work_has_no_secret_in_its_repr(vm: VM) -> None:
    rules.replace_provisioning(vm, secret_env={"TOKEN": SECRET}, script="x")
    hello = {"boot_id": "b", "agent_version": "0.3.0"}
    work = records.begin(vm, hello, timezone.now(), "")
    assert work is not None
    assert work.env == {"TOKEN": SECRET}
    assert SECRET not in repr(work)
