"""``nexusctl vm cp`` and ``vm ls`` against a server whose VMs are directories of this machine."""

from __future__ import annotations

import io
import json
import os
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import pytest

from nexusctl.copying import Place
from nexusctl.main import main

ODD = os.fsdecode(b"odd \xff")
MISSING = {"status": 404, "detail": "The VM's agent says: no such file.", "code": "not-in-guest"}


class Handler(BaseHTTPRequestHandler):
    """The part of the API that is about files; ``archive`` in place of a real one, if it is set."""

    protocol_version = "HTTP/1.1"
    vms: Path
    archive: bytes | None = None
    full = False

    def handle_any(self) -> None:
        parts = urlsplit(self.path)
        self.query = dict(parse_qsl(parts.query, errors="surrogateescape"))
        _, _, _, vm, *what = parts.path.split("/")
        self.root = self.vms / vm
        self.at = self.root / self.query["path"].lstrip("/")
        self.close_connection = True
        getattr(self, f"{self.command.lower()}_{'_'.join(what)}")()

    do_GET = do_PUT = do_POST = handle_any

    def answer(self, body: Any, status: int = 200) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def described(self, path: Path) -> dict[str, Any]:
        status = path.lstat()
        kind = "link" if path.is_symlink() else "directory" if path.is_dir() else "file"
        return {
            "name": path.name.encode("utf-8", "backslashreplace").decode(),
            "path": quote(os.fsencode("/" + str(path.relative_to(self.root)))),
            "type": kind,
            "size": status.st_size,
            "mode": f"{status.st_mode & 0o7777:04o}",
            "uid": 0,
            "gid": 0,
            "target": str(path.readlink()) if kind == "link" else None,
        }

    def get_files(self) -> None:
        if not self.at.exists():
            self.answer(MISSING, 404)
            return
        names = sorted(path.name for path in self.at.iterdir()) if self.at.is_dir() else []
        names = [name for name in names if name > self.query.get("after", "")]
        page = names[:2]
        self.answer(
            {
                "file": self.described(self.at),
                "items": [self.described(self.at / name) for name in page],
                "next_after": quote(os.fsencode(page[-1])) if len(names) > 2 else None,
            }
        )

    def get_files_content(self) -> None:
        self.answer(self.at.read_bytes())

    def get_files_archive(self) -> None:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar:
            tar.add(self.at, arcname=self.query["name"])
        self.answer(packed.getvalue() if self.archive is None else self.archive)

    def post_files_directory(self) -> None:
        if not self.at.parent.is_dir():
            self.answer(MISSING, 404)
            return
        self.at.mkdir(int(self.query["mode"], 8))
        self.answer(b"", 204)

    def put_files_content(self) -> None:
        if self.full:  # says so while the rest is still on its way
            self.answer({"status": 409, "detail": "The disk is full."}, 409)
            self.connection.recv(1 << 20)
            return
        data = self.body()
        if self.at.is_dir() or not self.at.parent.is_dir():
            self.answer(MISSING, 404)
            return
        self.at.write_bytes(data)
        if "mode" in self.query:
            self.at.chmod(int(self.query["mode"], 8))
        self.answer({"bytes": len(data)})

    def put_files_archive(self) -> None:
        with tarfile.open(fileobj=io.BytesIO(self.body()), errors="surrogateescape") as tar:
            members = tar.getmembers()
            tar.extractall(self.at, filter="fully_trusted")
        size = sum(member.size for member in members)
        self.answer({"entries": len(members), "bytes": size, "skipped": 0})

    def body(self) -> bytes:
        if "Content-Length" in self.headers:
            return self.rfile.read(int(self.headers["Content-Length"]))
        data = bytearray()
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return bytes(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Handler]]:
    handler = type("BoundHandler", (Handler,), {"vms": tmp_path / "vms"})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("NEXUS_URL", f"http://127.0.0.1:{http.server_port}")
        monkeypatch.setenv("NEXUS_TOKEN", "nxt_test")
        yield handler
        http.shutdown()


@pytest.fixture
def vm(server: type[Handler]) -> Path:
    root = server.vms / "hello"
    (root / "srv").mkdir(parents=True)
    return root


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a file and a directory."""
    directory = tmp_path / "here"
    (directory / "tree/in").mkdir(parents=True)
    (directory / "tree/in" / ODD).write_bytes(b"x" * 1_000_000)
    (directory / "tree/in").chmod(0o750)
    (directory / "tree/link").symlink_to("in/../nowhere")
    (directory / "tree" / ("long" * 60)).write_text("long")
    (directory / "file").write_text("hello")
    (directory / "file").chmod(0o741)
    monkeypatch.chdir(directory)
    return directory


def cp(*arguments: str) -> int:
    return main(["vm", "cp", *arguments])


def check_tree(root: Path) -> None:
    assert (root / "in" / ODD).read_bytes() == b"x" * 1_000_000
    assert (root / "in").stat().st_mode & 0o777 == 0o750
    assert str((root / "link").readlink()) == "in/../nowhere"
    assert (root / ("long" * 60)).read_text() == "long"


# Files


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("/new", "new"),
        ("/srv", "srv/file"),
        ("/srv/", "srv/file"),
        ("/srv/.", "srv/file"),
        ("relative", "relative"),
        ("/old", "old"),
    ],
)
def test_a_file_goes_in(vm: Path, here: Path, target: str, found: str) -> None:
    (vm / "old").write_text("before")
    assert cp("file", f"hello:{target}") == 0
    assert (vm / found).read_text() == "hello"
    assert (vm / found).stat().st_mode & 0o7777 == 0o741


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("new", "new"),
        (".", "note"),
        ("tree", "tree/note"),
        ("tree/", "tree/note"),
        ("file", "file"),
    ],
)
def test_a_file_comes_out(vm: Path, here: Path, target: str, found: str) -> None:
    (vm / "note").write_text("from the VM")
    (vm / "note").chmod(0o4751)
    assert cp("hello:/note", target) == 0
    assert (here / found).read_text() == "from the VM"
    assert (here / found).stat().st_mode & 0o7777 == 0o751, "nobody becomes somebody else"


def test_streams(vm: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: Any) -> None:
    with (here / "file").open() as file:
        monkeypatch.setattr("sys.stdin", file)
        assert cp("-", "hello:/typed") == 0
    assert (vm / "typed").read_text() == "hello"
    assert cp("hello:/typed", "-") == 0
    assert capfdbinary.readouterr().out == b"hello"
    assert cp("hello:/srv", "-") == 0
    with tarfile.open(fileobj=io.BytesIO(capfdbinary.readouterr().out)) as tar:
        assert tar.getnames() == ["."]


def test_a_device_is_written_not_replaced(vm: Path, here: Path) -> None:
    (vm / "note").write_text("x")
    os.mkfifo(here / "pipe")
    reader = os.open(here / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    assert cp("hello:/note", "pipe") == 0
    assert os.read(reader, 10) == b"x"
    os.close(reader)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("nothing", "hello:/x"), 4, "nothing is not there"),
        (("hello:/nothing", "x"), 4, "hello:/nothing is not there"),
        (("file", "hello:/no/such"), 4, "no such file"),
        (("file", "hello:/new/"), 4, "The directory hello:/new/ is not there"),
        (("hello:/note", "new/"), 4, "The directory new/ is not there"),
        (("file/.", "hello:/x"), 1, "file/. is no directory"),
        (("tree", "hello:/note"), 1, "hello:/note is no directory"),
        (("hello:/srv", "file"), 1, "file is no directory"),
        (("hello:/srv", "no/such"), 1, "no such file"),
        (("file", "tree"), 2, "One of the two is in a VM"),
    ],
)
def test_what_cannot_be_copied(
    vm: Path, here: Path, capsys: Any, arguments: tuple[str, str], code: int, said: str
) -> None:
    (vm / "note").write_text("x")
    assert cp(*arguments) == code
    assert said in capsys.readouterr().err


def test_a_refusal_while_it_is_sent_is_told(
    server: type[Handler], vm: Path, here: Path, capsys: Any
) -> None:
    server.full = True
    with (here / "large").open("wb") as file:
        file.truncate(200 << 20)
    assert cp("large", "hello:/x") == 5
    assert "The disk is full" in capsys.readouterr().err


# Directories


@pytest.mark.parametrize(
    ("source", "target", "found"),
    [
        ("tree", "/new", "new"),
        ("tree", "/srv", "srv/tree"),
        ("tree/", "/srv/", "srv/tree"),
        ("tree/.", "/srv", "srv"),
        ("tree/.", "/new", "new"),
    ],
)
def test_a_directory_goes_in_and_comes_out(
    vm: Path, here: Path, source: str, target: str, found: str
) -> None:
    assert cp(source, f"hello:{target}") == 0
    check_tree(vm / found)
    (here / "back").mkdir()
    assert cp(f"hello:/{found}", "back") == 0
    check_tree(here / "back" / Path(found).name)
    assert cp(f"hello:/{found}/.", "back") == 0
    check_tree(here / "back")
    assert cp(f"hello:/{found}", "other") == 0
    check_tree(here / "other")


def test_from_one_vm_to_another(server: type[Handler], vm: Path, here: Path) -> None:
    (server.vms / "other").mkdir()
    assert cp("tree", "hello:/tree") == 0
    assert cp("hello:/tree", "other:/") == 0
    check_tree(server.vms / "other/tree")
    assert cp(f"hello:/tree/in/{ODD}", "other:/one") == 0
    assert (server.vms / "other/one").read_bytes() == b"x" * 1_000_000


def test_as_json(vm: Path, here: Path, capsys: Any) -> None:
    assert cp("tree", "hello:/tree", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"entries": 4, "bytes": 1_000_004, "skipped": 0}


def test_a_list(vm: Path, capsys: Any) -> None:
    for name in ("a", "b", "c", ODD):
        (vm / "srv" / name).write_text(name[:1])
    (vm / "srv/link").symlink_to("else")
    assert main(["vm", "ls", "hello", "/srv"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[4] for line in lines[1:]] == ["a", "b", "c", "link", "odd"]
    assert lines[4].startswith("l")
    assert lines[4].endswith("link → else")


@pytest.mark.parametrize(
    ("text", "vm", "path", "name"),
    [
        ("hello:/etc/x", "hello", "/etc/x", "x"),
        ("hello:etc/", "hello", "/etc/", "etc"),
        ("hello:", "hello", "/", ""),
        ("hello:/a/..", "hello", "/a/..", ""),
        ("./a:b", "", "./a:b", "a:b"),
        ("/a:b/c", "", "/a:b/c", "c"),
    ],
)
def test_places(text: str, vm: str, path: str, name: str) -> None:
    place = Place.parse(text)
    assert (place.vm, place.path, place.name) == (vm, path, name)


def test_a_guest_that_lies_is_told(
    server: type[Handler], vm: Path, here: Path, capsys: Any
) -> None:
    server.archive = b"x" * 4096
    assert cp("hello:/srv", "out") == 1
    assert "is no archive" in capsys.readouterr().err
