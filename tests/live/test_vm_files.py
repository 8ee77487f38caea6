"""Files of a real VM, by API and by command line."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import psutil
import pytest

from bench.server import BIN, Server
from tests.servers import PATIENCE

MIB = 1 << 20
LARGE = 64 * MIB
Headers = dict[str, str]


@contextmanager
def asked(
    server: Server,
    vm: dict[str, Any],
    method: str,
    what: str,
    body: Any = None,
    headers: Headers | None = None,
    **query: Any,
) -> Iterator[HTTPResponse]:
    """The answer of the API about files of the VM."""
    with closing(connected(server)) as connection:
        path = f"/v1/vms/{vm['id']}/files{what}?{urlencode(query)}"
        connection.request(method, path, body, bearer(server) | (headers or {}))
        yield connection.getresponse()


def connected(server: Server) -> HTTPConnection:
    parts = urlsplit(server.url)
    return HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE)


def bearer(server: Server) -> Headers:
    return {"Authorization": f"Bearer {(server.data_dir / 'token').read_text().strip()}"}


def sh(server: Server, vm: dict[str, Any], script: str) -> str:
    """What a script prints in the guest; it must succeed."""
    answer = server.post(f"/v1/vms/{vm['id']}/exec", argv=["sh", "-ec", script])
    assert answer["exit_code"] == 0, answer
    return str(answer["stdout"])


@contextmanager
def little_memory(server: Server, most: int) -> Iterator[None]:
    """Web and worker grow by less than ``most`` bytes together."""
    assert server.daemon
    processes = psutil.Process(server.daemon.pid).children(recursive=True)
    rss: list[int] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.05):
            rss.append(sum(process.memory_info().rss for process in processes))

    before = sum(process.memory_info().rss for process in processes)
    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield
    finally:
        over.set()
        looking.join()
    assert max(rss) - before < most


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A file of 64 MiB and its checksum."""
    path = tmp_path_factory.mktemp("large") / "large"
    data = os.urandom(LARGE)
    path.write_bytes(data)
    return path, hashlib.sha256(data).hexdigest()


# The API


@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_file_goes_in_and_comes_out_in_constant_memory(
    server: Server, vm: dict[str, Any], large: tuple[Path, str], chunked: bool
) -> None:
    path, digest = large
    headers = {} if chunked else {"Content-Length": str(LARGE)}
    with little_memory(server, LARGE // 2):
        with (
            path.open("rb") as file,
            asked(server, vm, "PUT", "/content", file, headers, path="/root/large") as response,
        ):
            assert json.load(response) == {"bytes": LARGE}
        assert sh(server, vm, "sha256sum /root/large").split()[0] == digest
        got = hashlib.sha256()
        with asked(server, vm, "GET", "/content", path="/root/large") as response:
            time.sleep(2)  # what is not read is not made
            while data := response.read(MIB):
                got.update(data)
        assert got.hexdigest() == digest


def test_a_range_of_it(server: Server, vm: dict[str, Any], large: tuple[Path, str]) -> None:
    wanted = {"Range": "bytes=60000000-60999999"}
    with asked(server, vm, "GET", "/content", None, wanted, path="/root/large") as response:
        assert response.status == 206
        with large[0].open("rb") as file:
            file.seek(60_000_000)
            assert response.read() == file.read(1_000_000)


def test_a_client_that_hangs_up_leaves_nothing(server: Server, vm: dict[str, Any]) -> None:
    sh(server, vm, "mkdir -p /srv/half; echo before > /srv/half/file")
    with closing(connected(server)) as connection:
        connection.putrequest("PUT", f"/v1/vms/{vm['id']}/files/content?path=/srv/half/file")
        for name, value in bearer(server).items():
            connection.putheader(name, value)
        connection.putheader("Content-Length", str(LARGE))
        connection.endheaders()
        for _ in range(8):
            connection.send(bytes(MIB))
        until(lambda: len(sh(server, vm, "ls -A /srv/half").split()) == 2)
    until(lambda: sh(server, vm, "ls -A /srv/half") == "file\n")
    assert sh(server, vm, "cat /srv/half/file") == "before\n"


@pytest.mark.parametrize(
    ("path", "status"), [("/nothing/here", 404), ("/dev/shm/small/file", 409), ("relative", 422)]
)
def test_a_refusal_reaches_a_client_that_is_still_sending(
    server: Server, vm: dict[str, Any], large: tuple[Path, str], path: str, status: int
) -> None:
    sh(server, vm, "mkdir -p /dev/shm/small")
    sh(server, vm, "mount | grep -q small || mount -t tmpfs -o size=4m small /dev/shm/small")
    headers = {"Content-Length": str(LARGE)}
    with (
        large[0].open("rb") as file,
        asked(server, vm, "PUT", "/content", file, headers, path=path) as response,
    ):
        assert response.status == status
        assert json.load(response)["detail"]
    assert sh(server, vm, "ls -A /dev/shm/small") == ""


def test_nobody_gets_in_with_a_body(server: Server, vm: dict[str, Any]) -> None:
    wrong = {"Authorization": "Bearer nxt_wrong"}
    with asked(server, vm, "PUT", "/content", bytes(4 * MIB), wrong, path="/x") as response:
        assert response.status == 401


def test_what_the_kernel_makes_has_no_size(server: Server, vm: dict[str, Any]) -> None:
    with asked(server, vm, "GET", "/content", path="/proc/version") as response:
        assert response.read().startswith(b"Linux")


# The command line


def cp(server: Server, *arguments: str, **more: Any) -> subprocess.CompletedProcess[bytes]:
    command = [str(BIN / "nexusctl"), "vm", "cp", *arguments]
    return subprocess.run(command, env=server.env, capture_output=True, timeout=PATIENCE, **more)


def test_a_directory_goes_in_and_comes_out(
    server: Server, vm: dict[str, Any], tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    (tree / "in").mkdir(parents=True)
    odd = os.fsdecode(b"odd \xff \x1b")
    (tree / "in" / odd).write_bytes(os.urandom(3 * MIB))
    (tree / "in" / odd).chmod(0o741)
    (tree / "in/link").symlink_to("../nowhere")
    (tree / ("n" * 200)).write_text("long")
    assert cp(server, str(tree), f"{vm['id']}:/srv").returncode == 0
    assert sh(server, vm, "stat -c '%a %u' /srv/tree/in/odd*") == "741 0\n"
    done = cp(server, f"{vm['id']}:/srv/tree/.", str(tmp_path / "back"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "back/in" / odd).read_bytes() == (tree / "in" / odd).read_bytes()
    assert stat.S_IMODE((tmp_path / "back/in" / odd).stat().st_mode) == 0o741
    assert str((tmp_path / "back/in/link").readlink()) == "../nowhere"
    assert (tmp_path / "back" / ("n" * 200)).read_text() == "long"


def test_files_links_and_streams(server: Server, vm: dict[str, Any], tmp_path: Path) -> None:
    ref = vm["id"]
    assert cp(server, "-", f"{ref}:/srv/typed", input=b"typed").returncode == 0
    assert cp(server, f"{ref}:/srv/typed", "-").stdout == b"typed"
    sh(server, vm, "ln -sf typed /srv/to-file; ln -sfn /etc/apk /srv/to-directory")
    assert cp(server, f"{ref}:/srv/to-file", str(tmp_path)).returncode == 0
    assert (tmp_path / "to-file").read_text() == "typed"
    assert cp(server, f"{ref}:/srv/to-directory", str(tmp_path)).returncode == 0
    assert (tmp_path / "to-directory/world").is_file()
    archive = cp(server, f"{ref}:/etc/apk", "-").stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert "./world" in tar.getnames()
    done = cp(server, f"{ref}:/no/such", str(tmp_path))
    assert done.returncode == 4
    assert b"is not there" in done.stderr


def test_a_large_file_by_the_command_line(
    server: Server, vm: dict[str, Any], large: tuple[Path, str], tmp_path: Path
) -> None:
    path, digest = large
    with little_memory(server, LARGE // 2):
        assert cp(server, str(path), f"{vm['id']}:/root/copy").returncode == 0
        assert cp(server, f"{vm['id']}:/root/copy", str(tmp_path)).returncode == 0
    with (tmp_path / "copy").open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == digest
