"""How the command fails: exit codes, texts, and never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nexus_site.core.errors import KINDS
from nexusctl.errors import BY_KIND, BY_STATUS, FAILED
from nexusctl.main import main
from nexusctl.server import Server, find_server
from tests.nexusctl import answers as a

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, 1), (401, 6), (403, 6), (404, 4), (405, 1), (409, 5), (422, 1), (500, 1), (503, 1)],
)
def test_exit_codes_of_problems(server, nexusctl, status, code):
    answer = a.problem(status, "It is so.", hint="Do this.", evidence="line 1\nline 2")
    server.on("GET", "/vms/x", answer)
    done = nexusctl("vm", "inspect", "x")
    assert done.code == code
    assert done.err == "✗ It is so.\n  line 1\n  line 2\nhint: Do this.\n"
    assert done.out == ""


def test_the_map_is_the_one_of_the_server():
    for name, kind in KINDS.items():
        assert BY_STATUS.get(kind.status, FAILED) == kind.exit_code
        assert BY_KIND.get(name, FAILED) == kind.exit_code


def test_an_unreachable_server(server, nexusctl, monkeypatch):
    monkeypatch.setenv("NEXUS_URL", "http://127.0.0.1:1")
    done = nexusctl("vm", "list")
    assert done.code == 3
    assert done.err == (
        "✗ Nexus does not answer at http://127.0.0.1:1 (connection refused).\n"
        "hint: Start it with ./nexus up, or name the right server with --server.\n"
    )


def test_somebody_else_on_the_port(server, nexusctl):
    server.on("GET", "/status", (200, b"<html>hello</html>"))
    assert nexusctl("status").code == 3
    server.on("GET", "/status", (502, b"<html>bad gateway</html>"))
    done = nexusctl("status")
    assert (done.code, done.err) == (1, "✗ HTTP status 502\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["vm", "lisst"], "No such command 'lisst'. Did you mean 'list'?"),
        (["drvie", "list"], "Did you mean one of: 'drive', 'provider'?"),
        (["vm", "start"], "Missing argument 'VM'."),
        (["vm", "list", "--jsn"], "No such option '--jsn'. Did you mean '--json'?"),
        (["vm", "list", "--server", "ftp://x"], "is not the address of a server"),
        (["vm", "list", "--server", "http://x:port"], "is not the address of a server"),
        (["vm", "list", "--server", "http://[x"], "is not the address of a server"),
        (["vm", "create", "--memory", "lots"], "'lots' is not a valid integer"),
    ],
)
def test_usage_errors(nexusctl, arguments, said):
    done = nexusctl(*arguments)
    assert done.code == 2
    assert said in done.err


def test_a_bug_is_no_traceback(server, nexusctl):
    server.on("GET", "/status", {"unexpected": "shape"})
    done = nexusctl("status")
    assert done.code == 1
    assert "Traceback" not in done.err
    assert "NEXUS_DEBUG=1" in done.err


def test_the_server_of_this_machine_is_found(tmp_path, monkeypatch):
    for name in ("NEXUS_URL", "NEXUS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NEXUS_DATA_DIR", str(tmp_path))
    (tmp_path / "run").mkdir()
    (tmp_path / "token").write_text("nxt_local\n")
    assert find_server() == Server("http://127.0.0.1:9600", "nxt_local")
    (tmp_path / "run/nexusd.json").write_text(json.dumps({"url": "http://127.0.0.1:7777"}))
    assert find_server() == Server("http://127.0.0.1:7777", "nxt_local")
    assert find_server("http://localhost:1/", "nxt_x") == Server("http://localhost:1", "nxt_x")


@pytest.mark.parametrize(("text", "seconds"), [("", 30), ("120", 120), ("0.5", 0.5)])
def test_how_long_an_answer_may_take_is_set(monkeypatch, text, seconds):
    monkeypatch.setenv("NEXUS_TIMEOUT", text)
    assert find_server("http://localhost:1", "nxt_x").patience == seconds


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "inf"])
def test_a_time_that_is_none(nexusctl, monkeypatch, text):
    monkeypatch.setenv("NEXUS_TIMEOUT", text)
    done = nexusctl("vm", "list")
    assert (done.code, "NEXUS_TIMEOUT" in done.err) == (2, True)


def test_the_data_directory_follows_xdg(tmp_path, monkeypatch):
    monkeypatch.delenv("NEXUS_DATA_DIR", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    (tmp_path / "nexus").mkdir()
    (tmp_path / "nexus/token").write_text("nxt_xdg")
    assert find_server().token == "nxt_xdg"


def test_the_local_token_is_told_to_no_other_machine(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("NEXUS_TOKEN", raising=False)
    monkeypatch.setenv("NEXUS_DATA_DIR", str(tmp_path))
    (tmp_path / "token").write_text("nxt_local")
    assert main(["--server", "http://nexus.example:9600", "vm", "list"]) == 6
    assert "There is no token for http://nexus.example:9600." in capsys.readouterr().err


def test_without_a_nexus_on_this_machine(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("NEXUS_URL", raising=False)
    monkeypatch.delenv("NEXUS_TOKEN", raising=False)
    monkeypatch.setenv("NEXUS_DATA_DIR", str(tmp_path))
    assert main(["vm", "list"]) == 3
    assert "Start one with ./nexus up" in capsys.readouterr().err


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nexusctl", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_as_a_process(server):
    server.on("GET", "/vms", a.page(a.VM))
    done = run("vm", "list", NEXUS_URL=server.url, NEXUS_TOKEN="nxt_test")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert "hello  aebagbafaydqq  ready" in done.stdout


def test_a_start_loads_no_library_that_it_does_not_need():
    code = (
        "import sys; from nexusctl.main import main; main(['version']);"
        "print([m for m in ('django', 'rich', 'http.client', 'httpx2', 'ninja', 'asyncio')"
        " if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "nexusctl 0.1.0\n[]\n"
