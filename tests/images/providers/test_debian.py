"""Debian root file systems: one really made from this system's mirror, and what can go wrong."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from images.entries import Kind
from images.files import sha256_of
from images.formats.rootfs import read_rootfs
from images.providers import debian, debian_archive, mmdebstrap
from images.providers.apt_sources import Source
from images.providers.base import FetchedRootfs
from images.providers.debian import DebianProvider
from images.trees import Tree
from nexus_site.core.errors import Broken, Invalid, NexusError, NotFound, Retryable
from tests.tiny_disk import can_mount, tiny_disk

NOWHERE = "http://127.0.0.1:9/debian"  # nobody listens on the port called discard
RELEASE = "Origin: Debian\nSuite: oldstable\nDate: Sat, 11 Jul 2026 10:16:37 UTC\n"

FakeProgram = Callable[[str], Path]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> FetchedRootfs:
    """Debian 12, made from this system's mirror; takes about a minute."""
    directory = tmp_path_factory.mktemp("debian")
    return fetch(DebianProvider("debian", {}), directory, "12")


@pytest.fixture(scope="session")
def tree(made: FetchedRootfs, tmp_path_factory: pytest.TempPathFactory) -> Tree:
    tree = Tree.create(tmp_path_factory.mktemp("debian-tree"))
    read_rootfs(made.path, made.format, tree)
    return tree


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[str]:
    """A mirror with the Release files of bookworm, and nothing else; it has no updates."""
    release = tmp_path / "debian/dists/bookworm/InRelease"
    release.parent.mkdir(parents=True)
    release.write_text(RELEASE)
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/debian"
        server.shutdown()
        thread.join()


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeProgram:
    """Puts a shell script called mmdebstrap on PATH."""

    def add(script: str) -> Path:
        program = tmp_path / "bin/mmdebstrap"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        return program

    return add


def fetch(
    provider: DebianProvider,
    directory: Path,
    version: str = "bookworm",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> FetchedRootfs:
    offer = next(offer for offer in provider.offers() if offer.matches("debian", version))
    return provider.fetch(offer, directory, progress)


def test_what_was_made_is_described(made: FetchedRootfs) -> None:
    assert [path.name for path in made.path.parent.iterdir()] == [made.path.name]
    assert made.sha256 == sha256_of(made.path)
    assert made.size_bytes == made.path.stat().st_size
    assert made.format == "tar.zst"
    assert made.verification == "OpenPGP by apt (debian-archive-keyring), made here"
    assert made.source.startswith("mmdebstrap from http")


def test_it_is_a_debian_with_systemd(tree: Tree) -> None:
    assert b"\nVERSION_CODENAME=bookworm\n" in tree.read(tree.resolve("etc/os-release"))
    assert tree.entry("sbin").target == "usr/sbin"
    assert tree.resolve("sbin/init") == "usr/lib/systemd/systemd"
    status = tree.read("var/lib/dpkg/status").decode()
    installed = {line[9:] for line in status.splitlines() if line.startswith("Package: ")}
    assert set(debian.PACKAGES) <= installed
    assert "perl" not in installed
    assert status.count("\nStatus: install ok installed\n") == len(installed)


def test_owners_modes_and_devices_are_those_of_debian(tree: Tree) -> None:
    assert (tree.entry("etc/shadow").mode, tree.entry("etc/shadow").gid) == (0o640, 42)
    assert tree.entry("usr/bin/passwd").mode == 0o4755
    assert tree.entry("tmp").mode == 0o1777
    assert tree.entry("var/lib/apt/lists/partial").uid == 42  # _apt, also where root made it
    assert {entry.uid for entry in tree if entry.path.startswith("usr/")} == {0}
    assert Kind.SOCKET not in {entry.kind for entry in tree}


def test_nothing_of_this_machine_is_in_it(tree: Tree) -> None:
    assert tree.read("etc/machine-id") == tree.read("etc/resolv.conf") == b""
    assert tree.entry("etc/resolv.conf").mode == 0o644
    assert "etc/hostname" not in tree
    assert b"\nroot:*:" in tree.read("etc/shadow")
    assert max(entry.mtime for entry in tree) < time.time()


def test_the_guest_takes_packages_from_the_same_mirror(tree: Tree) -> None:
    lines = [line for line in tree.read("etc/apt/sources.list").decode().splitlines() if line]
    archive = DebianProvider("debian", {})._archive()
    keyring = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
    assert lines[0] == f"deb {keyring} {archive.uri} bookworm main"
    assert lines[1] == f"deb {keyring} {archive.uri} bookworm-updates main"
    assert "usr/share/keyrings/debian-archive-keyring.gpg" in tree


def test_services_without_a_use_are_off(tree: Tree) -> None:
    assert tree.entry("etc/systemd/system/modprobe@.service").target == "/dev/null"
    wants = [path for path in tree.paths("etc/systemd/system") if ".wants/" in path]
    names = {path.rpartition("/")[2] for path in wants}
    assert not names & {"apt-daily.timer", "e2scrub_all.timer", "getty@tty1.service"}
    assert "fstrim.timer" in names


def test_the_same_state_of_the_mirror_gives_the_same_bytes(
    made: FetchedRootfs, tmp_path: Path
) -> None:
    shown: list[int] = []
    again = fetch(DebianProvider("again", {}), tmp_path, "12", lambda done, _: shown.append(done))
    if again.source != made.source:
        made = fetch(DebianProvider("debian", {}), made.path.parent, "12")  # it has changed
    assert again.sha256 == made.sha256
    assert shown == sorted(shown)
    assert (shown[0], shown[-1]) == (0, 100)
    assert len(set(shown)) > 10


def test_offers_need_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = DebianProvider("mine", {"mirror": NOWHERE})
    offers = provider.offers()
    assert [(offer.version, *offer.aliases) for offer in offers] == [
        ("bookworm", "12"),
        ("trixie", "13"),
    ]
    assert {offer.provider for offer in offers} == {"mine"}
    monkeypatch.setattr(debian, "KEYRINGS", Path("/nonexistent"))
    assert provider.offers() == []


@pytest.mark.parametrize("wish", ["12", "bookworm", "Bookworm"])
def test_a_release_has_a_name_and_a_number(wish: str) -> None:
    provider = DebianProvider("debian", {"mirror": NOWHERE})
    arch = provider.offers()[0].arch
    found = provider.find("Debian", wish, arch)
    assert found is not None
    assert found.version == "bookworm"
    assert provider.find("debian", "4", arch) is None
    assert provider.find("debian", wish, "sparc") is None
    assert provider.find("alpine", wish, arch) is None
    assert (provider.serves("Debian"), provider.serves("alpine")) == (True, False)


def test_a_system_without_a_mirror_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian, "system_sources", list[Source])
    provider = DebianProvider("debian", {})
    assert provider.offers() == []
    for ask in (provider.refresh, lambda: provider.find("debian", "12", "x86_64")):
        with pytest.raises(Invalid, match="apt has no mirror of Debian"):
            ask()


def test_a_mirror_is_asked_for_the_releases_it_has(mirror: str) -> None:
    (offer,) = DebianProvider("debian", {"mirror": mirror}).refresh()
    assert offer.version == "bookworm"


def test_a_mirror_may_do_without_updates_but_not_without_the_release(
    mirror: str, tmp_path: Path
) -> None:
    archive = debian_archive.Archive(mirror)
    state = debian_archive.state_of(archive, "bookworm", tmp_path, lambda words: None)
    assert state.suites == {"bookworm": mirror}
    assert state.date.isoformat() == "2026-07-11T10:16:37+00:00"
    with pytest.raises(NotFound) as caught:
        debian_archive.state_of(archive, "trixie", tmp_path, lambda words: None)
    assert caught.value.code == "not-on-mirror"
    assert "404" in caught.value.detail


def test_what_is_no_mirror_is_told(mirror: str, tmp_path: Path) -> None:
    (tmp_path / "debian/dists/bookworm/InRelease").write_text("<html>Welcome</html>")
    with pytest.raises(Broken, match="no Release file") as caught:
        DebianProvider("debian", {"mirror": mirror}).refresh()
    assert caught.value.code == "not-a-mirror"


def test_a_mirror_that_cannot_be_reached_may_come_back(tmp_path: Path) -> None:
    with pytest.raises(Retryable, match="cannot be reached") as caught:
        fetch(DebianProvider("debian", {"mirror": NOWHERE}), tmp_path)
    assert caught.value.code == "mirror-unreachable"
    assert "Could not connect to 127.0.0.1:9" in caught.value.detail
    assert list(tmp_path.iterdir()) == []


def test_packages_that_nobody_signed_are_not_taken(mirror: str, tmp_path: Path) -> None:
    into = tmp_path / "into"
    with pytest.raises(NexusError) as caught:
        fetch(DebianProvider("debian", {"mirror": mirror}), into)
    assert caught.value.code == "signature"
    assert list(into.iterdir()) == []


def test_a_disk_that_is_full_is_told_and_left_empty(
    mirror: str, fake: FakeProgram, tmp_path: Path
) -> None:
    into = tmp_path / "into"
    into.mkdir()
    if not can_mount():  # the words of a full disk, where none can be made
        fake("echo 'E: Write error - write (28: No space left on device)' >&2; exit 25")
        check_disk_full(mirror, into)
        return
    fake('head -c 9000000 /dev/urandom || { echo "No space left on device" >&2; exit 1; }')
    with tiny_disk(into, 4):
        check_disk_full(mirror, into)


def check_disk_full(mirror: str, into: Path) -> None:
    with pytest.raises(Retryable, match="disk") as caught:
        fetch(DebianProvider("debian", {"mirror": mirror}), into)
    assert caught.value.code == "disk-full"
    assert list(into.iterdir()) == []


def wait_until_ended(pid: int) -> None:
    """A process that was killed may take a moment to be gone, on a busy machine."""
    deadline = time.monotonic() + 60
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "it was not killed"
        time.sleep(0.05)


def test_giving_up_ends_the_work_and_leaves_nothing(
    mirror: str, fake: FakeProgram, tmp_path: Path
) -> None:
    fake(f"sleep 600 & echo $! > {tmp_path}/child; echo 'I: extracting archives...' >&2; wait")
    into = tmp_path / "into"

    def give_up(done: int, total: int) -> None:
        if done == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(DebianProvider("debian", {"mirror": mirror}), into, progress=give_up)
    child = int((tmp_path / "child").read_text())
    wait_until_ended(child)
    assert list(into.iterdir()) == []


@pytest.mark.parametrize("missing", ["mmdebstrap", "apt-helper"])
def test_a_missing_program_is_named_with_the_command_that_installs_it(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing == "mmdebstrap":
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        monkeypatch.setattr(mmdebstrap, "APT_HELPER", "/nonexistent/apt-helper")
    with pytest.raises(Broken, match=f"needs {missing}") as caught:
        fetch(DebianProvider("debian", {"mirror": NOWHERE}), tmp_path)
    assert "apt-get install -y --no-install-recommends mmdebstrap" in caught.value.hint


@pytest.mark.parametrize(
    ("words", "kind", "code"),
    [
        (
            "E: Release file for http://m/InRelease is expired (invalid",
            Retryable,
            "mirror-outdated",
        ),
        ("Err:1 http://m bookworm InRelease\n  NO_PUBKEY 6ED0E7B82643E131", Broken, "signature"),
        ("E: The repository 'http://m bookworm InRelease' is not signed.", Broken, "signature"),
        ("E: The repository 'x' does not have a Release file.", NotFound, "not-on-mirror"),
        ("E: Failed to fetch http://m/x  404  Not Found", NotFound, "not-on-mirror"),
        ("E: Failed to fetch http://m/x  503  Unavailable", Retryable, "mirror-unreachable"),
        ("  Temporary failure resolving 'm'", Retryable, "mirror-unreachable"),
        ("E: failed to unshare the user namespace", Broken, "no-namespaces"),
        ("E: newuidmap 7 0 100000 1 failed", Broken, "no-namespaces"),
        ("Segmentation fault", Broken, "mmdebstrap-failed"),
    ],
)
def test_failures_are_explained_by_the_words_of_apt(
    words: str, kind: type[NexusError], code: str
) -> None:
    error = mmdebstrap.explained("mmdebstrap", 25, f"I: running apt-get update...\n{words}\n")
    assert (type(error), error.code) == (kind, code)
    assert words in error.detail


def test_the_configuration_is_checked() -> None:
    checked = debian.TYPE.check({"mirror": "http://mirror.example/debian/"})
    assert checked == {
        "mirror": "http://mirror.example/debian",
        "security_mirror": "",
        "keyring": "",
    }
    with pytest.raises(Invalid, match=r"config\.keyring: This must be an armored"):
        debian.TYPE.check({"keyring": "/usr/share/keyrings/debian-archive-keyring.gpg"})
    with pytest.raises(Invalid, match=r"config\.mirror: .* in every image"):
        debian.TYPE.check({"mirror": "http://me:secret@mirror.example/debian"})
