"""The page with a VM's files: the real agent on a directory, reached through a real gateway."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from nexus_site.core.models import Event
from tests.vms.real_agents import Agents
from tests.web.conftest import htmx, make_ready_vm
from vms.gateway import SOCKET
from vms.models import VM
from vms.states import State
from vms.views import files as files_view

pytestmark = pytest.mark.django_db(transaction=True)

PAGE = "/vms/hello/files/"
ODD = os.fsdecode(b"odd \xff\n\x1b[31m<b>\xe2\x80\xae&")
SHOWN = "odd \\xff\\x0a\\x1b[31m<b>\\u202e&"


@pytest.fixture
def vm(db: None) -> VM:
    return make_ready_vm(name="hello")


@pytest.fixture
def root(settings: Any, vm: VM, tmp_path: Path) -> Iterator[Path]:
    """The guest's root directory."""
    with Agents(Path(settings.NEXUS.run_dir) / SOCKET) as agents:
        root = agents.real(vm, tmp_path)
        (root / "srv").mkdir()
        yield root


def get(client: Client, **query: Any) -> str:
    response = client.get(PAGE, query)
    assert response.status_code == 200
    return response.content.decode()


def hidden(html: str, name: str) -> str:
    return unescape(re.findall(rf'name="{name}" value="([^"]*)"', html)[0])


# Looking


def test_a_directory(client: Client, root: Path) -> None:
    (root / "srv/file").write_text("x" * 2048)
    (root / "srv/file").chmod(0o4755)
    (root / "srv/in").mkdir(mode=0o700)
    (root / "srv/link").symlink_to("else")
    html = get(client, path="/srv")
    for text in ("-rwsr-xr-x", "2 KiB", "drwx------", "→ <bdi>else</bdi>"):
        assert text in html, text
    assert "Drop files here" not in html
    assert f'href="/vms/{VM.objects.get().ref}/files/?path=/srv/in"' in html
    assert "files/content?path=/srv/file" in html
    assert "files/archive?path=/srv/in" in html
    assert "files/content?path=/srv/link" not in html
    assert "Drop files here" in get(client, path="/srv/in")


def test_names_are_escaped(client: Client, root: Path) -> None:
    (root / "srv" / ODD).mkdir()
    (root / "srv" / ODD / "in").write_text("x")
    html = get(client, path="/srv")
    assert ODD not in html
    assert "<b>" not in html
    assert "odd \\xff\\x0a\\x1b[31m&lt;b&gt;\\u202e&amp;" in html
    (address,) = set(re.findall(r'href="(/vms/\w+/files/\?path=/srv/odd[^"]*)"', html))
    assert address.endswith("odd%20%FF%0A%1B%5B31m%3Cb%3E%E2%80%AE%26")
    inside = client.get(unescape(address)).content.decode()
    assert f"{address}/in" in inside
    assert SHOWN in unescape(inside)


def test_a_large_directory_has_pages(
    client: Client, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_view, "A_PAGE", 2)
    for name in ("a", "b", "c"):
        (root / "srv" / name).touch()
    html = get(client, path="/srv")
    assert "?path=/srv&amp;after=b" in html
    assert "?path=/srv/c" not in html
    rest = get(client, path="/srv", after="b")
    assert "?path=/srv/c" in rest
    assert "From the beginning" in rest
    assert "after=" not in rest


def test_fragments_are_the_same_page(client: Client, root: Path) -> None:
    html = client.get(PAGE, {"path": "/srv"}, headers=htmx("section#vms-files")).content.decode()
    assert html.strip().startswith('<section id="vms-files"')
    assert "<html" not in html


@pytest.mark.parametrize("path", ["/srv/../srv/./", "srv", "//srv", "/../srv"])
def test_paths_are_cleaned(client: Client, root: Path, path: str) -> None:
    assert 'data-directory="/srv"' in get(client, path=path)


@pytest.mark.parametrize(("path", "status"), [("/nothing", 404), ("/a\0b", 422), ("/loop", 422)])
def test_what_is_not_there_has_a_way_on(client: Client, root: Path, path: str, status: int) -> None:
    (root / "loop").symlink_to("loop")
    response = client.get(PAGE, {"path": path})
    assert response.status_code == status
    assert "To the root directory" in response.content.decode()


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (State.STOPPED, "Start"),
        (State.STARTING, "See its console"),
        (State.UNREACHABLE, "See its console"),
    ],
)
def test_a_vm_that_is_not_ready(client: Client, vm: VM, state: State, text: str) -> None:
    VM.objects.filter(pk=vm.pk).update(state=state)
    html = get(client, path="/etc")
    assert f"hello is {state}" in html
    assert text in html
    assert f'data-live="vm:{vm.ref}"' in html, "it goes on by itself"


def test_a_worker_that_is_down_is_told(client: Client, vm: VM) -> None:
    response = client.get(PAGE)
    assert response.status_code == 503
    assert "The worker, which holds the VMs" in unescape(response.content.decode())


def test_onlookers_see_no_files(onlooker: Client, vm: VM) -> None:
    assert onlooker.get(PAGE).status_code == 403


# Texts


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (b"\xff\xfe", "It is no text."),
        (b"a\0b", "It is no text."),
        (b"x" * ((256 << 10) + 1), "It is too large"),
        (b"one\r\ntwo\n", "Its lines end in several ways."),
        (b"one\rtwo", "Its lines end in several ways."),
        (b"\x1b[31mred", "It has control characters."),
        ("\u202etxet".encode(), "It has control characters."),
    ],
)
def test_what_cannot_be_edited(client: Client, root: Path, content: bytes, shown: str) -> None:
    (root / "file").write_bytes(content)
    html = get(client, path="/file")
    assert shown in html
    assert "<textarea" not in html
    assert "\x1b" not in html
    assert "\u202e" not in html


@pytest.mark.parametrize(
    ("before", "typed", "after"),
    [
        (b"one\n", "\r\none\r\n</textarea>ä\r\n", "\none\n</textarea>ä\n".encode()),
        (b"one\r\ntwo\r\n", "two\r\n", b"two\r\n"),
        (b"", "new", b"new"),
        (b"x" * (256 << 10), "", b""),
    ],
)
def test_a_text_is_edited(
    client: Client, root: Path, before: bytes, typed: str, after: bytes
) -> None:
    (root / "file").write_bytes(before)
    (root / "file").chmod(0o640)
    html = get(client, path="/file")
    form = {"version": hidden(html, "version"), "text": typed}
    if b"\r\n" in before:
        form["crlf"] = hidden(html, "crlf")
    target = htmx("section#vms-files")
    saved = client.post(f"{PAGE}save/?path=/file", form, headers=target)
    assert saved.status_code == 200
    assert (root / "file").read_bytes() == after
    assert (root / "file").stat().st_mode & 0o7777 == 0o640
    assert "Saved" in saved.content.decode()
    again = {"version": hidden(saved.content.decode(), "version"), "text": "again"}
    assert client.post(f"{PAGE}save/?path=/file", again, headers=target).status_code == 200
    assert (root / "file").read_bytes().strip() == b"again"


def test_a_text_starts_where_the_file_does(client: Client, root: Path) -> None:
    (root / "file").write_text("\n\nfirst")
    html = get(client, path="/file")
    assert ">\n\n\nfirst</textarea>" in html, "browsers drop the first one"
    section = html[html.index('<section id="vms-files"') :]
    assert "data-live" not in section[: section.index(">")], "nobody's typing is overwritten"
    assert "data-uploads" not in html
    assert "New directory" not in html


def test_a_file_that_was_changed_meanwhile_stays(client: Client, root: Path) -> None:
    (root / "file").write_text("one")
    version = hidden(get(client, path="/file"), "version")
    (root / "file").write_text("another")
    form = {"version": version, "text": "mine"}
    refused = client.post(f"{PAGE}save/?path=/file", form, headers=htmx("section#vms-files"))
    assert refused.status_code == 409
    assert "changed in the VM meanwhile" in refused.content.decode()
    assert (root / "file").read_text() == "another"


def test_more_than_a_page_edits_is_refused(client: Client, root: Path) -> None:
    (root / "file").write_text("one")
    version = hidden(get(client, path="/file"), "version")
    form = {"version": version, "text": "ä" * (129 << 10)}
    assert client.post(f"{PAGE}save/?path=/file", form).status_code == 422


# What is done with files


def test_a_directory_is_made(client: Client, root: Path) -> None:
    assert "New directory in /srv" in client.get(f"{PAGE}directory/?path=/srv").content.decode()
    made = client.post(f"{PAGE}directory/?path=/srv", {"name": " a b"}, headers=htmx())
    assert made["HX-Retarget"] == "#toasts"
    assert (root / "srv/ a b").is_dir()
    again = client.post(f"{PAGE}directory/?path=/srv", {"name": " a b"}, headers=htmx())
    assert again.status_code == 409
    for name in ("a/b", "..", ""):
        refused = client.post(f"{PAGE}directory/?path=/srv", {"name": name}, headers=htmx())
        assert refused.status_code == 422


def test_a_file_is_moved(client: Client, root: Path) -> None:
    (root / "srv/a").write_text("a")
    (root / "srv/b").write_text("b")
    address = f"{PAGE}move/?path=/srv/a"
    assert 'value="/srv/a"' in client.get(address).content.decode()
    assert client.post(address, {"to": "/srv/b"}, headers=htmx()).status_code == 409
    client.post(address, {"to": "/srv/b", "replace": "on"}, headers=htmx())
    assert (root / "srv/b").read_text() == "a"
    client.post(f"{PAGE}move/?path=/srv/b", {"to": "c"}, headers=htmx())
    assert (root / "srv/c").read_text() == "a", "it stays in its directory"


def test_things_are_deleted_after_a_question(client: Client, root: Path) -> None:
    (root / "srv/in").mkdir()
    (root / "srv/in/file").write_text("x")
    (root / "srv/link").symlink_to("in")
    asked = client.get(f"{PAGE}remove/?path=/srv/in").content.decode()
    assert "everything in it" in asked
    assert (root / "srv/in/file").exists()
    assert "everything" not in client.get(f"{PAGE}remove/?path=/srv/link").content.decode()
    client.post(f"{PAGE}remove/?path=/srv/link", headers=htmx())
    assert (root / "srv/in/file").exists(), "the link went, not what it leads to"
    client.post(f"{PAGE}remove/?path=/srv/in", headers=htmx())
    assert not (root / "srv/in").exists()
    assert client.post(f"{PAGE}remove/?path=/", headers=htmx()).status_code == 422
    kinds = [event.data["action"] for event in Event.objects.filter(kind="vm.files")]
    assert kinds == ["removed", "removed"]


def test_history_shows_what_was_done(client: Client, root: Path) -> None:
    (root / "srv" / ODD).write_text("x")
    client.post(f"{PAGE}remove/?path=/srv/odd%20%FF%0A%1B[31m%3Cb%3E%E2%80%AE%26", headers=htmx())
    html = client.get("/events/").content.decode()
    assert f"removed “/srv/{SHOWN}”" in unescape(html)
    assert "<b>" not in html
