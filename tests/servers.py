"""What tests do with a real server and its VMs."""

from __future__ import annotations

import http.cookiejar
import json
import os
import re
import signal
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any

import psutil

from bench.server import Server
from tests.firecracker_release import IN_THE_RIG

#: Seconds; emulated guests are slow on a busy machine, slower in the rig. No test measures time.
PATIENCE = 1200 if IN_THE_RIG else 240


def wait_for_state(server: Server, ref: str, *states: str) -> dict[str, Any]:
    """The VM once it is in one of ``states``; fails with its history when that never happens."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        vm: dict[str, Any] = server.get(f"/v1/vms/{ref}")
        if vm["state"] in states:
            return vm
        time.sleep(0.1)
    raise AssertionError(f"{ref} never became {states}: {history(server, ref)}")


def history(server: Server, ref: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = server.get(f"/v1/vms/{ref}/history?limit=200")["items"]
    return rows


def pid_of(server: Server, vm: dict[str, Any]) -> int:
    """The process ID of the VM's VMM."""
    record = server.data_dir / "vms" / vm["id"] / "monitor.json"
    return int(json.loads(record.read_text())["pid"])


def vmms(server: Server) -> list[psutil.Process]:
    """Processes that work in the VM directories of this server."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd().startswith(str(server.data_dir / "vms")):
                found.append(process)
        except psutil.Error:
            continue
    return found


def kill(pid: int, with_signal: int = signal.SIGKILL) -> None:
    os.kill(pid, with_signal)


def restart(server: Server, *, while_down: Callable[[], None] = lambda: None) -> None:
    """Stop the server as an operator would, do something, start it again."""
    server.stop()
    while_down()
    server.start()


def ctl_fails(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A ``nexusctl`` call that is expected to fail."""
    done = server.run(*arguments)
    assert done.returncode != 0, done.stdout
    return done


def signed_in(server: Server) -> Callable[[str], str]:
    """Somebody who is signed in and looks at pages: from a page's path to its HTML."""
    cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
    opener = urllib.request.build_opener(cookies)
    link = server.post("/v1/sign-in-link")["url"]
    with opener.open(link, timeout=PATIENCE) as page:
        found = re.search(r'csrfmiddlewaretoken" value="(\w+)"', page.read().decode())
    assert found, "the link's page posts a form"
    form = urllib.parse.urlencode({"csrfmiddlewaretoken": found[1]}).encode()
    with opener.open(link, form, timeout=PATIENCE) as page:
        assert page.url == server.url + "/"

    def look(path: str) -> str:
        with opener.open(server.url + path, timeout=PATIENCE) as page:
            return str(page.read().decode())

    return look
