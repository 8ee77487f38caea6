"""Files of VMs by the API: the real agent on a directory of this machine."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from urllib.parse import unquote

import pytest
from asgiref.sync import sync_to_async
from django.test import AsyncClient

from nexus_site.core import auth
from nexus_site.core.models import Event
from tests.api.conftest import Ask, content
from tests.vms.real_agents import Agents
from vms.models import VM
from vms.states import State

pytestmark = pytest.mark.django_db(transaction=True)

MIB = 1 << 20
ODD = os.fsdecode(b"odd \xff\n\x1b[31m<b>\xe2\x80\xae")


@pytest.fixture
def root(agents: Agents, guest: VM, tmp_path: Path) -> Path:
    """The guest's root directory."""
    return agents.real(guest, tmp_path)


# Looking


async def test_a_directory_in_parts(ask: Ask, root: Path) -> None:
    (root / "srv").mkdir(mode=0o750)
    for name in ("b", "a", ODD):
        (root / "srv" / name).write_text(name[:1])
    (root / "srv/link").symlink_to("/else\x1b")
    first = (await ask("GET", path="/srv", limit="2")).json()
    assert first["file"] == first["file"] | {"path": "/srv", "type": "directory", "mode": "0750"}
    assert [item["name"] for item in first["items"]] == ["a", "b"]
    assert first["next_after"] == "b"
    rest = (await ask("GET", path="/srv", limit="2", after=first["next_after"])).json()
    link, odd = rest["items"]
    assert (link["type"], link["target"]) == ("link", "/else\\x1b")
    assert odd["name"] == "odd \\xff\\x0a\\x1b[31m<b>\\u202e"
    assert odd["path"] == "/srv/odd%20%FF%0A%1B%5B31m%3Cb%3E%E2%80%AE"
    assert rest["next_after"] is None
    again = await ask("GET", path=unquote(odd["path"], errors="surrogateescape"))
    assert again.json()["file"] == odd
    assert again.json()["items"] == []


async def test_a_link_is_followed_unless_told_otherwise(ask: Ask, root: Path) -> None:
    (root / "file").write_text("x")
    (root / "link").symlink_to("file")
    assert (await ask("GET", path="/link")).json()["file"]["type"] == "file"
    assert (await ask("GET", path="/link", follow="false")).json()["file"]["type"] == "link"


# Reading


async def test_a_file_is_kept_and_never_shown(ask: Ask, root: Path) -> None:
    data = os.urandom(3 * MIB + 7)
    (root / "page.html").write_bytes(data)
    response = await ask("GET", "/content", path="/page.html")
    assert response.status_code == 200
    assert await content(response) == data
    headers = response.headers
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Disposition"] == "attachment; filename*=UTF-8''page.html"
    assert headers["Content-Length"] == str(len(data))
    head = await ask("HEAD", "/content", path="/page.html")
    assert (head.status_code, head.content) == (200, b"")
    assert {name: head.headers[name] for name in ("ETag", "Content-Length")} == {
        "ETag": headers["ETag"],
        "Content-Length": str(len(data)),
    }


@pytest.mark.parametrize(
    ("wanted", "status", "got", "said"),
    [
        ("bytes=2-4", 206, b"234", "bytes 2-4/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=-99", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=8-99", 206, b"89", "bytes 8-9/10"),
        ("bytes=10-", 416, b"", "bytes */10"),
        ("bytes=-0", 416, b"", "bytes */10"),
        ("bytes=5-4", 416, b"", "bytes */10"),
        ("bytes=0-1,3-4", 200, b"0123456789", None),
        ("bytes=-", 200, b"0123456789", None),
        ("lines=1-2", 200, b"0123456789", None),
    ],
)
async def test_ranges(
    ask: Ask, root: Path, wanted: str, status: int, got: bytes, said: str | None
) -> None:
    (root / "digits").write_bytes(b"0123456789")
    response = await ask("GET", "/content", path="/digits", headers={"Range": wanted})
    assert response.status_code == status
    assert await content(response) == got
    assert response.headers.get("Content-Range") == said


async def test_a_range_of_another_version_is_all_of_this_one(ask: Ask, root: Path) -> None:
    (root / "digits").write_bytes(b"0123456789")
    etag = (await ask("HEAD", "/content", path="/digits")).headers["ETag"]
    wanted = {"Range": "bytes=1-2", "If-Range": etag}
    response = await ask("GET", "/content", path="/digits", headers=wanted)
    assert (response.status_code, await content(response)) == (206, b"12")
    (root / "digits").write_bytes(b"012345678")
    response = await ask("GET", "/content", path="/digits", headers=wanted)
    assert (response.status_code, await content(response)) == (200, b"012345678")


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/nothing", 404, "not-in-guest"),
        ("/etc", 409, "guest-conflict"),
        ("/pipe", 422, "guest-invalid"),
        ("relative", 422, "bad-path"),
        ("", 422, "bad-path"),
        ("/a\0b", 422, "bad-path"),
    ],
)
async def test_what_cannot_be_read(ask: Ask, root: Path, path: str, status: int, code: str) -> None:
    os.mkfifo(root / "pipe")
    response = await ask("GET", "/content", path=path)
    assert (response.status_code, response.json()["code"]) == (status, code)
    response = await ask("GET", "/content", path=path, headers={"Range": "bytes=0-1"})
    assert response.status_code >= 400


async def test_a_directory_as_an_archive(ask: Ask, root: Path) -> None:
    (root / "srv/in").mkdir(parents=True)
    (root / "srv/in/file").write_text("hello")
    response = await ask("GET", "/archive", path="/srv")
    assert response.headers["Content-Disposition"].endswith("srv.tar")
    with tarfile.open(fileobj=io.BytesIO(await content(response))) as tar:
        assert tar.getnames() == ["srv", "srv/in", "srv/in/file"]
    response = await ask("GET", "/archive", path="/srv", name="")
    with tarfile.open(fileobj=io.BytesIO(await content(response))) as tar:
        assert "in/file" in tar.getnames()


# Changing


async def test_a_file_takes_the_place_of_the_one_before(ask: Ask, root: Path) -> None:
    (root / "file").write_text("before")
    (root / "file").chmod(0o640)
    data = os.urandom(2 * MIB + 1)
    response = await ask("PUT", "/content", data, path="/file")
    assert (response.status_code, response.json()) == (200, {"bytes": len(data)})
    assert (root / "file").read_bytes() == data
    assert (root / "file").stat().st_mode & 0o7777 == 0o640


async def test_mode_owner_and_parents(ask: Ask, root: Path) -> None:
    new = {"path": f"/a/b/{ODD}", "mode": "4711", "parents": "true", "user": "otter"}
    assert (await ask("PUT", "/content", b"x", **new)).status_code == 200
    status = (root / "a/b" / ODD).stat()
    assert (status.st_mode & 0o7777, status.st_uid) == (0o4711, 1234)


async def test_an_archive_is_unpacked(ask: Ask, root: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        info = tarfile.TarInfo("in/file")
        info.size = 5
        tar.addfile(info, io.BytesIO(b"hello"))
        pipe = tarfile.TarInfo("pipe")
        pipe.type = tarfile.FIFOTYPE
        tar.addfile(pipe)
    response = await ask("PUT", "/archive", packed.getvalue(), path="/new", parents="true")
    assert response.json() == {"entries": 1, "bytes": 5, "skipped": 1}
    assert (root / "new/in/file").read_text() == "hello"
    outside = io.BytesIO()
    with tarfile.open(fileobj=outside, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("../escaped"))
    response = await ask("PUT", "/archive", outside.getvalue(), path="/new")
    assert response.status_code == 422
    assert not (root / "escaped").exists()


async def test_directories_moves_and_ends(ask: Ask, root: Path) -> None:
    assert (await ask("POST", "/directory", path="/a", mode="700")).status_code == 204
    assert (root / "a").stat().st_mode & 0o7777 == 0o700
    assert (await ask("POST", "/directory", path="/a")).status_code == 409
    assert (await ask("POST", "/directory", path="/a/b/c", parents="true")).status_code == 204
    assert (await ask("POST", "/move", path="/a/b", to="/b")).status_code == 204
    assert (root / "b/c").is_dir()
    assert (await ask("POST", "/move", path="/b", to="/a")).status_code == 409
    assert (await ask("DELETE", path="/b")).status_code == 409
    assert (await ask("DELETE", path="/b", recursive="true")).status_code == 204
    assert not (root / "b").exists()
    assert (await ask("DELETE", path="/b")).status_code == 404


async def test_history_says_who_changed_what(ask: Ask, root: Path, guest: VM) -> None:
    await ask("PUT", "/content", b"x", path=f"/{ODD}")
    await ask("PUT", "/content", b"x", path="/no/such/directory")
    await ask("POST", "/move", path=f"/{ODD}", to=f"/{'x' * 250}")
    await ask("GET", path="/")
    events = [event async for event in Event.objects.filter(kind="vm.files").order_by("seq")]
    shown = "/odd \\xff\\x0a\\x1b[31m<b>\\u202e"
    assert [event.data for event in events] == [
        {"action": "wrote", "path": shown, "bytes": 1},
        {"action": "moved", "path": shown, "to": f"/{'x' * 198}…"},
    ]
    assert {(event.actor, event.subject_id) for event in events} == {("token:ci", guest.id)}


@pytest.mark.parametrize(
    "query", [{"mode": "9"}, {"mode": "10000"}, {"user": "x" * 300}, {"parents": "perhaps"}]
)
async def test_queries_that_cannot_be(ask: Ask, guest: VM, query: dict[str, str]) -> None:
    response = await ask("PUT", "/content", b"x", path="/file", **query)
    assert (response.status_code, response.json()["code"]) == (422, "validation")


# Who may, and when


@pytest.mark.parametrize("what", ["", "/content", "/archive"])
async def test_reading_needs_operate(guest: VM, what: str) -> None:
    secret = (await sync_to_async(auth.create_token)("eye", "read"))[1]
    response = await AsyncClient().get(
        f"/v1/vms/hello/files{what}?path=/etc", headers={"Authorization": f"Bearer {secret}"}
    )
    assert (response.status_code, response.json()["code"]) == (403, "scope")


@pytest.mark.parametrize(("state", "status"), [(State.STOPPED, 409), (State.STARTING, 503)])
@pytest.mark.parametrize(
    ("method", "what"), [("GET", ""), ("GET", "/content"), ("PUT", "/content")]
)
async def test_a_vm_that_is_not_ready(
    ask: Ask, guest: VM, state: State, status: int, method: str, what: str
) -> None:
    await VM.objects.filter(pk=guest.pk).aupdate(state=state)
    response = await ask(method, what, path="/etc")
    assert (response.status_code, response.json()["code"]) == (status, "vm-not-ready")
