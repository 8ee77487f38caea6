"""Programs in a real VM, by API and by command line."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import signal
import subprocess
import time
import urllib.error
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from bench.server import BIN, Server
from tests.servers import PATIENCE, wait_for_state

MIB = 1 << 20


def run(server: Server, vm: dict[str, Any], *argv: str, **more: Any) -> dict[str, Any]:
    answer: dict[str, Any] = server.post(f"/v1/vms/{vm['id']}/exec", argv=argv, **more)
    return answer


def ctl(
    server: Server, vm: dict[str, Any], *arguments: str, **more: Any
) -> subprocess.CompletedProcess[bytes]:
    """``nexusctl vm exec VM ARGUMENTS``; not JSON."""
    return subprocess.run(
        command(vm, *arguments), env=server.env, capture_output=True, timeout=PATIENCE, **more
    )


def command(vm: dict[str, Any], *arguments: str) -> list[str]:
    return [str(BIN / "nexusctl"), "vm", "exec", vm["id"], *arguments]


@contextmanager
def started(server: Server, vm: dict[str, Any], script: str) -> Iterator[subprocess.Popen[bytes]]:
    """``nexusctl`` that runs a shell script, which has said go; killed if it runs still."""
    with subprocess.Popen(
        command(vm, "--no-stdin", "--", "sh", "-c", f"echo go; {script}"),
        env=server.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        try:
            assert running.stdout
            assert running.stdout.readline() == b"go\n"
            yield running
        finally:
            running.kill()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def runs(server: Server, vm: dict[str, Any], name: str) -> bool:
    """Whether a program of this name runs in the guest."""
    return run(server, vm, "pidof", name)["exit_code"] == 0


# The command line


def test_outputs_are_apart_and_the_exit_code_is_passed_on(
    server: Server, vm: dict[str, Any]
) -> None:
    done = ctl(server, vm, "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")


def test_a_signal_is_passed_on_as_shells_do(server: Server, vm: dict[str, Any]) -> None:
    assert ctl(server, vm, "--", "sh", "-c", "kill -TERM $$").returncode == 128 + 15


def test_where_how_and_as_whom(server: Server, vm: dict[str, Any]) -> None:
    options = ("--user", "nobody", "--cwd", "/tmp", "--env", "WORD=otter", "--env", "EMPTY=")
    done = ctl(server, vm, *options, "--", "sh", "-c", 'id -un; pwd; echo "$WORD"; env')
    assert done.stdout.splitlines()[:3] == [b"nobody", b"/tmp", b"otter"]
    assert b"EMPTY=\n" in done.stdout


def test_ten_mib_of_input_arrive_whole(server: Server, vm: dict[str, Any]) -> None:
    data = os.urandom(10 * MIB)
    done = ctl(server, vm, "--", "sha256sum", input=data)
    assert done.stdout.split()[0].decode() == hashlib.sha256(data).hexdigest(), done.stderr
    done = ctl(server, vm, "--", "cat", input=data[:MIB])
    assert done.stdout == data[:MIB]


def test_input_that_nobody_takes_ends_with_the_program(server: Server, vm: dict[str, Any]) -> None:
    assert ctl(server, vm, "--", "true", input=os.urandom(2 * MIB)).returncode == 0


def test_what_cannot_run_is_told(server: Server, vm: dict[str, Any]) -> None:
    done = ctl(server, vm, "--", "no-such-program")
    assert done.returncode == 1
    assert b"no-such-program" in done.stderr


def test_a_program_out_of_time_is_killed(server: Server, vm: dict[str, Any]) -> None:
    done = ctl(server, vm, "--timeout", "0.5", "--", "sleep", "1000")
    assert done.returncode == 128 + 9
    assert b"time was over" in done.stderr


def test_the_first_ctrl_c_interrupts_and_the_second_kills(
    server: Server, vm: dict[str, Any]
) -> None:
    with started(server, vm, "trap 'echo caught' INT; while :; do sleep 0.1; done") as running:
        assert running.stdout
        time.sleep(0.5)  # the trap is set
        running.send_signal(signal.SIGINT)
        assert running.stdout.readline() == b"caught\n"
        running.send_signal(signal.SIGINT)
        assert running.wait(PATIENCE) == 128 + 9


def test_a_client_that_is_killed_ends_the_group(server: Server, vm: dict[str, Any]) -> None:
    with started(server, vm, "sleep 4242 & sleep 4242; echo never") as running:
        until(lambda: runs(server, vm, "sleep"))
        running.kill()
        running.wait(PATIENCE)
        until(lambda: not runs(server, vm, "sleep"))


def test_a_hundred_megabytes_flow_in_constant_memory(server: Server, vm: dict[str, Any]) -> None:
    """The reader takes nothing for a while: what it does not take is not made."""
    assert server.daemon
    processes = psutil.Process(server.daemon.pid).children(recursive=True)
    before = sum(process.memory_info().rss for process in processes)
    most = before

    def look() -> None:
        nonlocal most
        most = max(most, sum(process.memory_info().rss for process in processes))

    with started(server, vm, "exec head -c 100000000 /dev/zero") as flowing:
        assert flowing.stdout
        got = 0
        for _ in range(15):
            time.sleep(0.2)
            look()
        while piece := flowing.stdout.read(MIB):
            got += len(piece)
            look()
        assert flowing.wait(PATIENCE) == 0
    assert got == 100_000_000
    assert most - before < 60 * MIB


# The API


def test_an_answer_holds_both_outputs(server: Server, vm: dict[str, Any]) -> None:
    answer = run(server, vm, "sh", "-c", "cat; echo err >&2", stdin="hello")
    assert answer | {"seconds": 0} == {
        "exit_code": 0,
        "signal": None,
        "timed_out": False,
        "seconds": 0,
        "stdout": "hello",
        "stderr": "err\n",
        "stdout_truncated": False,
        "stderr_truncated": False,
    }


def test_fifty_programs_at_once(server: Server, vm: dict[str, Any]) -> None:
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda n: run(server, vm, "echo", str(n)), range(50)))
    assert [answer["stdout"] for answer in answers] == [f"{n}\n" for n in range(50)]


def connection(server: Server) -> HTTPConnection:
    parts = urlsplit(server.url)
    return HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE)


@contextmanager
def asked(server: Server, vm: dict[str, Any], accept: str, *argv: str) -> Iterator[HTTPConnection]:
    """A POST that has been sent; hung up after the block."""
    token = (server.data_dir / "token").read_text().strip()
    headers = {
        "Authorization": f"Bearer {token}",
        "Content-Type": "application/json",
        "Accept": accept,
    }
    parts = urlsplit(server.url)
    with closing(HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE)) as asking:
        body = json.dumps({"argv": argv})
        asking.request("POST", f"/v1/vms/{vm['id']}/exec", body, headers)
        yield asking


def test_output_is_streamed_as_events(server: Server, vm: dict[str, Any]) -> None:
    script = "printf 'ä'; echo x >&2; exit 3"
    with (
        asked(server, vm, "text/event-stream", "sh", "-c", script) as asking,
        asking.getresponse() as response,
    ):
        text = response.read().decode()
    events = [block.split("\n") for block in text.strip().split("\n\n")]
    assert events[0][0] == "event: started"
    assert events[-1][0] == "event: exit"
    assert json.loads(events[-1][1].removeprefix("data: "))["exit_code"] == 3
    assert "event: stdout\nid: " in text
    assert '{"text": "\\u00e4"}' in text


@pytest.mark.parametrize("accept", ["text/event-stream", "application/json"])
def test_a_caller_who_hangs_up_ends_the_group(
    server: Server, vm: dict[str, Any], accept: str
) -> None:
    with asked(server, vm, accept, "sh", "-c", "sleep 4243 & sleep 4243"):
        until(lambda: runs(server, vm, "sleep"))
    until(lambda: not runs(server, vm, "sleep"))


def test_binary_output_comes_as_base64(server: Server, vm: dict[str, Any]) -> None:
    answer = run(server, vm, "head", "-c", "1500000", "/dev/zero", output="base64")
    assert base64.b64decode(answer["stdout"]) == bytes(MIB)
    assert answer["stdout_truncated"]


# When Nexus comes and goes


def test_a_restart_of_nexus_midway_is_told(server: Server, vm: dict[str, Any]) -> None:
    with started(server, vm, "sleep 4244") as running:
        server.stop()
        _, said = running.communicate(timeout=PATIENCE)
        server.start()
    assert running.returncode in (1, 3), said
    assert b"ended" in said or b"broke" in said
    wait_for_state(server, vm["id"], "ready")
    until(lambda: _answers(server, vm))
    until(lambda: not runs(server, vm, "sleep"))


def test_a_worker_that_dies_midway_is_told(server: Server, vm: dict[str, Any]) -> None:
    with started(server, vm, "sleep 4245") as running:
        worker = json.loads((server.data_dir / "run" / "worker.json").read_text())
        os.kill(worker["pid"], signal.SIGKILL)
        _, said = running.communicate(timeout=PATIENCE)
    assert running.returncode == 1
    assert b"the worker was restarted or has died" in said
    until(lambda: _answers(server, vm))
    until(lambda: not runs(server, vm, "sleep"))


def _answers(server: Server, vm: dict[str, Any]) -> bool:
    try:
        return bool(run(server, vm, "true")["exit_code"] == 0)
    except urllib.error.HTTPError:
        return False


def test_a_vm_that_is_not_ready_says_so(server: Server, vm: dict[str, Any]) -> None:
    server.ctl("vm", "stop", vm["id"], "--force")
    done = ctl(server, vm, "--", "true")
    assert done.returncode == 5
    assert b"is stopped" in done.stderr
    assert b"nexusctl vm start" in done.stderr
