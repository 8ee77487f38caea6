"""Starting, adopting and ending VMMs by what their directory tells."""

import json
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nexus_site.core.errors import Broken, Conflict
from vms.hypervisors import monitor, monitored
from vms.hypervisors.base import Exit, Handle

Start = Callable[[str], Handle]
Ended = Callable[[Handle], Exit]
Until = Callable[[Callable[[], object]], None]

UNSEEN = Exit(None, None, None)


def test_start_tells_who_runs(start: Start, vm_dir: Path) -> None:
    handle = start("sleep 60")
    assert handle.vm_dir == vm_dir
    assert handle.accelerator == "tcg"
    assert Path(f"/proc/{handle.pid}/cwd").readlink() == vm_dir
    assert handle.started == monitor.start_time(handle.pid)
    assert handle.monitor_started == monitor.start_time(handle.monitor_pid)


def test_a_handle_survives_json(start: Start) -> None:
    handle = start("sleep 60")
    assert Handle.from_dict(json.loads(json.dumps(handle.to_dict()))) == handle


def test_a_directory_runs_one_vmm(start: Start) -> None:
    start("sleep 60")
    with pytest.raises(Conflict, match="already"):
        start("sleep 60")


def test_a_failed_start_leaves_nothing(vm_dir: Path) -> None:
    with pytest.raises(Broken, match="could not be started") as caught:
        monitored.start(vm_dir, ["/no/such/vmm"], {}, "tcg")
    assert "/no/such/vmm" in caught.value.detail
    assert caught.value.code == "launch-failed"
    assert list(vm_dir.iterdir()) == []


def test_files_stay_open_as_long_as_the_vmm_runs(vm_dir: Path) -> None:
    """In both processes, as a VMM may close them; and no longer: the next one may lock them."""
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as end:
        handle = monitored.start(vm_dir, ["/bin/sleep", "60"], {}, "tcg", files=[writer])
        os.close(writer)
        for pid in (handle.pid, handle.monitor_pid):
            assert Path(f"/proc/{pid}/fd/{writer}").exists()
        os.set_blocking(reader, False)
        assert end.read() is None  # there is a writer still
        monitored.kill(handle)
        assert end.read() == b""


def test_nothing_to_adopt_where_nothing_was_started(vm_dir: Path) -> None:
    assert monitored.adopt(vm_dir) is None
    assert monitored.exit_of(vm_dir) is None


def test_adopts_what_runs(start: Start, vm_dir: Path) -> None:
    handle = start("sleep 60")
    assert monitored.adopt(vm_dir) == handle
    assert monitored.exit_of(vm_dir) is None


def test_adopts_how_it_ended(start: Start, ended: Ended, vm_dir: Path) -> None:
    result = ended(start("exit 3"))
    assert monitored.adopt(vm_dir) == monitored.exit_of(vm_dir) == result
    assert result.describe() == "exited with code 3"


def test_adopts_a_vmm_whose_monitor_was_killed(start: Start, until: Until, vm_dir: Path) -> None:
    handle = start("sleep 60")
    os.kill(handle.monitor_pid, signal.SIGKILL)
    until(lambda: not monitor.runs(handle.monitor_pid, handle.monitor_started))
    assert monitored.adopt(vm_dir) == handle
    assert monitored.kill(handle) == UNSEEN
    assert monitored.adopt(vm_dir) == UNSEEN
    assert UNSEEN.describe() == "ended, nobody saw how"


def test_a_vmm_may_write_when_its_monitor_is_gone(start: Start, until: Until, vm_dir: Path) -> None:
    handle = start(
        "while [ ! -e go ]; do sleep 0.02; done; echo into the void; touch done; sleep 60"
    )
    os.kill(handle.monitor_pid, signal.SIGKILL)
    until(lambda: not monitor.runs(handle.monitor_pid, handle.monitor_started))
    (vm_dir / "go").touch()
    until((vm_dir / "done").exists)
    assert monitored.is_running(handle)


def test_a_new_start_forgets_the_old_exit(start: Start, ended: Ended, vm_dir: Path) -> None:
    ended(start("exit 3"))
    handle = start("sleep 60")
    assert monitored.adopt(vm_dir) == handle


def test_kill_is_exact_and_may_be_repeated(start: Start) -> None:
    handle = start("sleep 60")
    result = monitored.kill(handle)
    assert (result.code, result.signal) == (None, signal.SIGKILL)
    assert result.describe() == "killed by signal 9 (SIGKILL)"
    assert monitored.kill(handle) == result


def test_kill_spares_another_process_of_the_same_pid(start: Start) -> None:
    handle = start("sleep 60")
    stranger = replace(handle, started=handle.started - 1, monitor_started=0)
    assert monitored.kill(stranger) == UNSEEN
    assert monitored.is_running(handle)


def test_an_exit_belongs_to_its_own_vmm(start: Start, ended: Ended, vm_dir: Path) -> None:
    first = start("exit 3")
    ended(first)
    second = start("exit 4")
    assert ended(second).code == 4
    assert monitored.exit_status(first) == UNSEEN


def test_a_recycled_pid_is_not_adopted(start: Start, vm_dir: Path, until: Until) -> None:
    handle = start("sleep 60")
    monitored.kill(handle)
    until(lambda: not monitor.runs(handle.monitor_pid, handle.monitor_started))
    record = json.loads((vm_dir / "monitor.json").read_text())
    (vm_dir / "monitor.json").write_text(json.dumps(record | {"pid": os.getpid()}))
    assert isinstance(monitored.adopt(vm_dir), Exit)


def test_after_a_reboot_of_the_host_nothing_of_before_runs(start: Start, vm_dir: Path) -> None:
    """Even where pid and start time are, by chance, those of a process of today."""
    start("sleep 60")
    record = json.loads((vm_dir / "monitor.json").read_text())
    (vm_dir / "monitor.json").write_text(json.dumps(record | {"boot_id": "an earlier boot"}))
    assert monitored.adopt(vm_dir) == UNSEEN
    (vm_dir / "monitor.json").write_text(json.dumps(record))


def test_waits_for_an_exit_that_is_being_written(start: Start, until: Until, vm_dir: Path) -> None:
    """The monitor is stopped at the VMM's end: its word is waited for, but not for ever."""
    handle = start("sleep 60")
    os.kill(handle.monitor_pid, signal.SIGSTOP)
    os.kill(handle.pid, signal.SIGKILL)
    until(lambda: not monitored.is_running(handle))
    assert monitored.exit_status(handle, timeout=0.05) == UNSEEN
    os.kill(handle.monitor_pid, signal.SIGCONT)
    result = monitored.exit_of(vm_dir)
    assert result is not None
    assert result.signal == signal.SIGKILL


def test_wait_gives_up_while_it_runs(start: Start) -> None:
    assert monitored.wait(start("sleep 60"), timeout=0.05) is None


def test_cleanup_removes_sockets_only(start: Start, ended: Ended, vm_dir: Path) -> None:
    ended(start("echo hello; touch file"))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(vm_dir / "any.sock"))
    monitored.cleanup(vm_dir)
    assert {path.name for path in vm_dir.iterdir()} == {
        *["launch.json", "monitor.json", "exit.json"],
        *["console.log", "vmm.log", "file"],
    }
    monitored.cleanup(vm_dir)
    monitored.cleanup(vm_dir / "none")


def test_last_words_are_the_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert monitored.last_words(log) == ""
    log.write_bytes(b"x" * 100_000 + b"\n" + b"".join(b"line %d\xff\n" % n for n in range(50)))
    lines = monitored.last_words(log).splitlines()
    assert len(lines) == monitored.LAST_LINES
    assert lines[-1] == "line 49\N{REPLACEMENT CHARACTER}"


@pytest.fixture
def systemd_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A systemd-run that notes its arguments and does what the real one does: exec."""
    program = tmp_path / "bin" / "systemd-run"
    program.parent.mkdir()
    log = tmp_path / "systemd-run.log"
    program.write_text(
        f'#!/bin/sh\necho "$@" >>{log}\nwhile [ "$1" != -- ]; do shift; done\nshift\nexec "$@"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    return log


def test_under_systemd_a_vm_gets_a_scope_of_its_own(
    systemd_run: Path, monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    monkeypatch.setenv("INVOCATION_ID", "0123456789abcdef")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert monitored.is_running(start("sleep 60"))
    manager = "--system" if os.geteuid() == 0 else "--user"
    assert systemd_run.read_text().startswith(f"{manager} --scope --quiet --collect -- ")


def test_without_systemd_there_is_no_scope(
    systemd_run: Path, monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    monkeypatch.delenv("INVOCATION_ID", raising=False)
    start("sleep 60")
    assert not systemd_run.exists()
