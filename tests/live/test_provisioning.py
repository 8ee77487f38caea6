"""What a real guest is given when it starts, and its first-boot script."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from bench.server import BIN, Server
from tests.servers import PATIENCE, wait_for_state

SECRET = "correct-horse-battery"
RUNS = "/root/runs"
NAME = "given"


@pytest.fixture(scope="module")
def given(server: Server, vm: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of files, some of which the VM ``given`` has got; it is ready."""
    files = tmp_path_factory.mktemp("given")
    (files / "token").write_text(SECRET)
    (files / "app.conf").write_bytes(b"x = 1\n\xff")
    script = f"echo begun >>{RUNS}; echo $COLOUR $TOKEN; sleep 8; cat /etc/app.conf; echo end"
    (files / "script").write_text(f"{script}\n")
    image = vm["image"]["name"]
    ctl(server, "vm", "create", "--image", image, "--name", NAME, "--memory", "256",
        "--env", "COLOUR=deep blue", "--secret-env", f"TOKEN=@{files}/token",
        "--hosts", "db.example=10.1.2.3", "--dns", "9.9.9.9",
        "--file", f"{files}/app.conf:/etc/app.conf:640",
        "--secret-file", f"{files}/token:/root/deep/token",
        "--script", str(files / "script"))  # fmt: skip
    return files


def ctl(server: Server, *words: str, code: int = 0) -> str:
    done = subprocess.run(
        [BIN / "nexusctl", *words],
        env=server.env,
        capture_output=True,
        timeout=PATIENCE,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def inside(server: Server, *argv: str) -> str:
    answer = server.post(f"/v1/vms/{NAME}/exec", argv=argv)
    assert answer["exit_code"] == 0, answer
    return str(answer["stdout"])


def wait_for_phase(server: Server, phase: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while phase not in (found := server.get(f"/v1/vms/{NAME}"))["phase"]:
        assert time.monotonic() < deadline, found
        assert found["state"] in ("created", "stopped", "starting", "running"), found["state"]
        time.sleep(0.2)
    assert found["state"] == "running"


def test_a_guest_is_given_all_of_it_and_its_script_outlives_nexus(
    server: Server, given: Path
) -> None:
    ctl(server, "vm", "start", NAME, "--no-wait")
    wait_for_phase(server, "running the first-boot script")
    assert "running the first-boot script" in ctl(server, "vm", "inspect", NAME)
    server.stop()
    server.start()
    wait_for_state(server, NAME, "ready")
    assert inside(server, "sh", "-c", 'echo "$COLOUR $TOKEN"') == f"deep blue {SECRET}\n"
    login = inside(server, "env", "-i", "sh", "-lc", 'echo "$COLOUR $TOKEN"')
    assert login == f"deep blue {SECRET}\n"
    assert "10.1.2.3 db.example" in inside(server, "cat", "/etc/hosts")
    assert inside(server, "cat", "/etc/resolv.conf") == "nameserver 9.9.9.9\n"
    assert inside(server, "stat", "-c", "%a %U", "/etc/app.conf") == "640 root\n"
    assert inside(server, "stat", "-c", "%a", "/root/deep/token") == "600\n"
    assert inside(server, "cat", "/root/deep/token") == SECRET
    assert inside(server, "cat", RUNS) == "begun\n"
    log = ctl(server, "vm", "provision-log", NAME)
    assert log.startswith("deep blue [secret]\nx = 1\n")
    assert "end\n" in log
    assert "ended with exit code 0" in log


def test_the_script_does_not_run_at_the_next_start(server: Server, given: Path) -> None:
    ctl(server, "vm", "restart", NAME)
    assert inside(server, "cat", RUNS) == "begun\n"
    assert inside(server, "sh", "-c", "echo $COLOUR") == "deep blue\n"


def test_a_script_that_fails_is_a_warning(server: Server, given: Path) -> None:
    script = given / "fails"
    script.write_text("#!/bin/sh\necho so far\nexit 3\n")
    ctl(server, "vm", "provision", NAME, "--script", str(script), "--unset", "TOKEN")
    ctl(server, "vm", "restart", NAME)
    assert server.get(f"/v1/vms/{NAME}")["state"] == "ready"
    assert "The first-boot script ended with exit code 3." in ctl(server, "vm", "history", NAME)
    assert inside(server, "sh", "-c", "echo $COLOUR$TOKEN") == "deep blue\n"


def test_a_script_that_fails_is_the_vms_failure_where_it_is_wished(
    server: Server, given: Path
) -> None:
    ctl(server, "vm", "provision", NAME, "--on-failure", "fail", "--run-again")
    said = ctl(server, "vm", "restart", NAME, code=1)
    assert "Provisioning failed: The first-boot script ended with exit code 3." in said
    found = wait_for_state(server, NAME, "failed")
    while server.get(f"/v1/operations?state=running&subject={found['id']}")["items"]:
        time.sleep(0.2)  # what has stopped it writes down that it has
    history = server.get(f"/v1/vms/{NAME}/history?limit=200")["items"]
    assert [move["to_state"] for move in history[-3:]] == ["running", "stopping", "failed"]
    assert history[-1]["detail"]["detail"] == "so far\n"
    (given / "fails").write_text("true\n")
    ctl(server, "vm", "provision", NAME, "--script", str(given / "fails"))
    ctl(server, "vm", "start", NAME)
    assert "script runs at the next start" not in ctl(server, "vm", "provision", NAME, "--show")


def test_secrets_are_nowhere_on_the_host(server: Server, given: Path) -> None:
    for path in server.data_dir.rglob("*"):
        if path.is_file() and path.suffix in (".log", ".json", ".db", ".db-wal"):
            assert SECRET.encode() not in path.read_bytes(), path
    ctl(server, "vm", "delete", NAME, "--force", "--yes")
