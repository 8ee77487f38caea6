"""The monitor: what it writes, what it bounds, and what it survives."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vms.hypervisors import monitor, monitored
from vms.hypervisors.base import Exit, Handle

Start = Callable[[str], Handle]
Ended = Callable[[Handle], Exit]
Until = Callable[[Callable[[], object]], None]


def run_monitor(vm_dir: Path, *words: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-S", monitor.__file__, str(vm_dir), *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        **options,  # type: ignore[call-overload]
    )


@pytest.mark.parametrize(
    ("script", "code", "number"),
    [("exit 0", 0, None), ("exit 7", 7, None), ("kill -TERM $$", None, 15)],
)
def test_exit_status_is_exact(
    start: Start, ended: Ended, vm_dir: Path, script: str, code: int | None, number: int | None
) -> None:
    before = time.time()
    handle = start(script)
    result = ended(handle)
    assert (result.code, result.signal) == (code, number)
    assert result.at is not None
    assert before <= result.at <= time.time()
    assert json.loads((vm_dir / "exit.json").read_text()) == {
        "pid": handle.pid,
        "started": handle.started,
        "code": code,
        "signal": number,
        "at": result.at,
    }


def test_console_and_errors_go_to_their_logs(start: Start, ended: Ended, vm_dir: Path) -> None:
    ended(start("echo from the guest; echo from the VMM >&2"))
    assert (vm_dir / "console.log").read_text() == "from the guest\n"
    assert (vm_dir / "vmm.log").read_text() == "from the VMM\n"


def test_all_output_is_there_when_the_exit_is(start: Start, ended: Ended, vm_dir: Path) -> None:
    ended(start("seq 1 5000"))
    assert (vm_dir / "console.log").read_text().split() == [str(n) for n in range(1, 5001)]


def test_a_guest_that_writes_byte_by_byte_does_not_keep_the_monitor_busy(
    start: Start, until: Until, vm_dir: Path
) -> None:
    """A serial port does, and the guest needs the CPU more."""
    writing = (
        "import os, time\n"
        "began = time.monotonic()\n"
        "for _ in range(500): os.write(1, b'x'); time.sleep(0.0005)\n"
        "print(time.monotonic() - began, flush=True)\n"
        "time.sleep(600)"
    )
    handle = start(f'exec {sys.executable} -I -S -c "{writing}"')
    console = vm_dir / "console.log"
    until(lambda: console.read_text().endswith("\n"))
    took = float(console.read_text().lstrip("x"))
    counts = Path(f"/proc/{handle.monitor_pid}/io").read_text().split()
    reads = int(counts[counts.index("syscr:") + 1])
    assert reads < 2 * took * 1000 / monitor.GATHER_MS + 50


@pytest.fixture
def start_with_fifo(vm_dir: Path) -> Iterator[Callable[[str], Handle]]:
    """Starts a script that has a FIFO "f", which goes where its errors go."""
    started = []

    def start(script: str) -> Handle:
        os.mkfifo(vm_dir / "f")
        argv, env = ["/bin/sh", "-c", script], {"PATH": os.defpath}
        started.append(monitored.start(vm_dir, argv, env, "tcg", {vm_dir / "f": "vmm.log"}))
        return started[-1]

    yield start
    for handle in started:
        monitored.kill(handle)


def test_what_is_written_into_a_fifo_goes_to_its_log(
    start_with_fifo: Start, ended: Ended, vm_dir: Path
) -> None:
    """Whether it is kept open or not; a log may have several sources."""
    ended(start_with_fifo("echo one >f; echo two >&2; exec 3>f; echo three >&3; echo four >f"))
    assert sorted((vm_dir / "vmm.log").read_text().split()) == ["four", "one", "three", "two"]


def test_nobody_waits_at_a_fifo_when_the_monitor_is_killed(
    start_with_fifo: Start, until: Until, vm_dir: Path
) -> None:
    handle = start_with_fifo(
        "exec 3<>f; while [ ! -e go ]; do sleep 0.02; done; echo x >&3; touch done; sleep 60"
    )
    os.kill(handle.monitor_pid, signal.SIGKILL)
    until(lambda: not monitor.runs(handle.monitor_pid, handle.monitor_started))
    (vm_dir / "go").touch()
    until((vm_dir / "done").exists)
    assert monitored.is_running(handle)


def test_a_fifo_that_is_not_there(vm_dir: Path) -> None:
    result = run_monitor(vm_dir, "--fifo", "none=vmm.log", "--", "/bin/true")
    assert (result.returncode, "none" in result.stderr) == (1, True)
    assert not list(vm_dir.iterdir())


def test_a_talkative_guest_fills_two_files_and_no_more(
    start: Start, ended: Ended, vm_dir: Path
) -> None:
    ended(start("seq 1 2500000"))  # 18 MB
    older, newer = vm_dir / "console.log.1", vm_dir / "console.log"
    assert older.stat().st_size == monitor.CONSOLE_LIMIT
    assert newer.stat().st_size <= monitor.CONSOLE_LIMIT
    text = (older.read_bytes() + newer.read_bytes()).decode()
    numbers = [int(word) for word in text.split()[1:]]  # the first may be cut
    assert numbers == list(range(numbers[0], 2_500_001))
    written = sum(len(str(n)) + 1 for n in range(1, 2_500_001))
    assert int((vm_dir / "console.log.dropped").read_text()) == written - len(text)


def test_errors_are_bounded_too(start: Start, ended: Ended, vm_dir: Path) -> None:
    ended(start("seq 1 200000 >&2"))
    assert (vm_dir / "vmm.log.1").stat().st_size == monitor.VMM_LOG_LIMIT
    assert (vm_dir / "vmm.log").stat().st_size <= monitor.VMM_LOG_LIMIT


def test_each_start_begins_a_new_log_and_keeps_the_last(
    start: Start, ended: Ended, vm_dir: Path
) -> None:
    ended(start("echo first"))
    ended(start("echo second"))
    assert (vm_dir / "console.log").read_text() == "second\n"
    assert (vm_dir / "console.log.1").read_text() == "first\n"


def test_a_vmm_that_closes_its_output_is_still_watched(start: Start, until: Until) -> None:
    handle = start("exec >&- 2>&-; sleep 60")
    until(lambda: not Path(f"/proc/{handle.pid}/fd/1").exists())
    assert monitor.runs(handle.pid, handle.started)
    assert monitor.runs(handle.monitor_pid, handle.monitor_started)


def test_they_outlive_their_starter_in_sessions_of_their_own(start: Start) -> None:
    handle = start("sleep 60")
    sessions = {os.getsid(pid) for pid in (os.getpid(), handle.pid, handle.monitor_pid)}
    assert len(sessions) == 3
    assert os.getsid(handle.pid) == handle.pid
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    assert str(handle.monitor_pid) not in children


def test_the_monitor_ends_after_the_vmm(start: Start, until: Until) -> None:
    handle = start("exit 0")
    until(lambda: not monitor.runs(handle.monitor_pid, handle.monitor_started))


def test_sigterm_does_not_take_the_exit_status_away(start: Start, ended: Ended) -> None:
    handle = start("sleep 60")
    os.kill(handle.monitor_pid, signal.SIGTERM)
    os.kill(handle.pid, signal.SIGTERM)
    assert ended(handle).signal == signal.SIGTERM


def test_secrets_in_the_environment_stay_out(vm_dir: Path, until: Until) -> None:
    words = ["--env", "GREETING=a=b", "--", "/usr/bin/env"]
    assert run_monitor(vm_dir, *words, env={"NEXUS_SECRET": "s"}).returncode == 0
    until((vm_dir / "exit.json").exists)
    assert (vm_dir / "console.log").read_text() == "GREETING=a=b\n"


def test_files_are_for_the_owner_only(start: Start, ended: Ended, vm_dir: Path) -> None:
    ended(start("touch socket; echo hello"))
    modes = {path.name: path.stat().st_mode & 0o077 for path in vm_dir.iterdir()}
    del modes["launch.json"]  # written by the starter, under its umask
    assert set(modes.values()) == {0}


def test_a_program_that_is_not_there(vm_dir: Path) -> None:
    result = run_monitor(vm_dir, "--", "/no/such/vmm")
    assert result.returncode == 1
    assert "/no/such/vmm" in result.stderr
    assert not list(vm_dir.iterdir())


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("/bin/true",),
        ("--what", "x", "--", "/bin/true"),
        ("--env", "--", "/bin/true"),
    ],
)
def test_words_that_start_nothing(vm_dir: Path, words: tuple[str, ...]) -> None:
    assert run_monitor(vm_dir, *words).returncode == 1
    assert not list(vm_dir.iterdir())


def test_it_imports_nothing_that_takes_time(vm_dir: Path) -> None:
    """Every VM waits for it at its start."""
    command = [sys.executable, "-I", "-S", "-X", "importtime", monitor.__file__, str(vm_dir)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert {"os", "select"} <= imported
    assert not imported & {"contextlib", "enum", "json", "pathlib", "re", "signal", "typing"}


def test_when_the_record_cannot_be_written_the_vmm_is_not_left_alone(vm_dir: Path) -> None:
    (vm_dir / "monitor.json").mkdir()
    result = run_monitor(vm_dir, "--", "/bin/sleep", "60")
    assert result.returncode == 1
    assert not [pid for pid in Path("/proc").glob("[0-9]*") if _works_in(pid, vm_dir)]


def _works_in(process: Path, directory: Path) -> bool:
    try:
        return (process / "cwd").readlink() == directory
    except OSError:
        return False


@pytest.mark.parametrize("target", ["/dev/full", "/no/such/directory/log"])
def test_a_full_disk_costs_lines_not_the_vm(
    start: Start, ended: Ended, vm_dir: Path, target: str
) -> None:
    (vm_dir / "console.log").symlink_to(target)
    assert ended(start("seq 1 100000; exit 4")).code == 4


def test_start_times_tell_processes_apart() -> None:
    pid = os.getpid()
    started = monitor.start_time(pid)
    assert monitor.runs(pid, started)
    assert not monitor.runs(pid, started + 1)
    assert not monitor.runs(2**22 + 1, started)


def test_a_zombie_does_not_run() -> None:
    with subprocess.Popen(["/bin/true"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not monitor.runs(child.pid, monitor.start_time(child.pid))


def test_a_name_with_parentheses_and_spaces(vm_dir: Path) -> None:
    program = vm_dir / "a) Z 1 (b"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([str(program), "60"]) as child:
        assert monitor.runs(child.pid, monitor.start_time(child.pid))
        child.kill()
