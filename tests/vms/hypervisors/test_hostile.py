"""A VMM's directory, as a VMM would have it that its guest has taken over."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from nexus_site.core.errors import Broken
from vms.hypervisors.firecracker import hostile

tampered = pytest.raises(Broken, match="tampered")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    path.mkdir()
    return path


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text("of the host")
    path.chmod(0o640)
    return path


@pytest.fixture
def other_socket() -> Iterator[Path]:
    """A socket of somebody else on this host; its path must be short."""
    path = Path(f"/tmp/nexus-test-{os.getpid()}.sock")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        yield path
    path.unlink()


# Sockets


def test_a_socket_is_reached_however_long_its_path(root: Path, tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    with hostile.directory(deep) as fd, socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"/proc/self/fd/{fd}/api.sock")
        listening.listen()
        with (
            hostile.socket_path(deep, "api.sock") as path,
            socket.socket(socket.AF_UNIX) as calling,
        ):
            calling.connect(path)
            calling.send(b"hello")
            answering, _ = listening.accept()
            with answering:
                assert answering.recv(10) == b"hello"


def test_a_link_to_a_socket_is_not_followed(root: Path, other_socket: Path) -> None:
    (root / "api.sock").symlink_to(other_socket)
    with tampered, hostile.socket_path(root, "api.sock"):
        pass


def test_what_is_held_stays_what_it_was(root: Path, other_socket: Path) -> None:
    with hostile.directory(root) as fd, socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"/proc/self/fd/{fd}/api.sock")
        listening.listen()
        with (
            hostile.socket_path(root, "api.sock") as path,
            socket.socket(socket.AF_UNIX) as calling,
        ):
            (root / "api.sock").unlink()
            (root / "api.sock").symlink_to(other_socket)
            calling.connect(path)
            listening.settimeout(30)
            listening.accept()[0].close()


def test_a_root_that_is_a_link_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    with pytest.raises(NotADirectoryError), hostile.directory(tmp_path / "link"):
        pass


def test_no_socket_yet(root: Path) -> None:
    with pytest.raises(FileNotFoundError), hostile.socket_path(root, "api.sock"):
        pass


# FIFOs


def test_a_fifo_is_read(root: Path) -> None:
    hostile.make_fifo(root, "log.fifo", None)
    assert stat.S_IMODE((root / "log.fifo").stat().st_mode) == 0o600
    fd = hostile.open_fifo(root, "log.fifo")
    (root / "log.fifo").open("w").close()
    assert os.read(fd, 10) == b""
    os.close(fd)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_fifo_is_the_vmms(root: Path) -> None:
    hostile.make_fifo(root, "log.fifo", 2_000_000_007)
    made = (root / "log.fifo").stat()
    assert (made.st_uid, made.st_gid) == (2_000_000_007, 2_000_000_007)


def test_another_thing_in_place_of_a_fifo(root: Path, secret: Path) -> None:
    (root / "file").write_text("x")
    (root / "link").symlink_to(secret)
    (root / "device").symlink_to("/dev/zero")
    for name in ("file", "link", "device"):
        with tampered:
            hostile.open_fifo(root, name)


def test_a_fifo_is_not_made_over_something(root: Path, secret: Path) -> None:
    (root / "log.fifo").symlink_to(secret.with_name("new"))
    with pytest.raises(FileExistsError):
        hostile.make_fifo(root, "log.fifo", None)
    assert not secret.with_name("new").exists()


# Files that a VMM has written


def elsewhere() -> Path:
    """On another file system."""
    return Path("/dev/shm")


@pytest.fixture(params=["same", "other"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """On the same file system, or on another."""
    directory = tmp_path if request.param == "same" else elsewhere()
    path = directory / f"nexus-test-{os.getpid()}"
    yield path
    path.unlink(missing_ok=True)


def test_a_file_is_taken(root: Path, target: Path) -> None:
    (root / "memory").write_text("the guest's")
    (root / "memory").chmod(0o644)
    hostile.take_file(root, "memory", target)
    assert target.read_text() == "the guest's"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert (target.stat().st_uid, target.stat().st_gid) == (os.geteuid(), os.getegid())
    assert list(root.iterdir()) == []


def test_a_link_is_not_taken(root: Path, target: Path, secret: Path) -> None:
    (root / "memory").symlink_to(secret)
    with tampered:
        hostile.take_file(root, "memory", target)
    assert not target.exists()
    assert stat.S_IMODE(secret.stat().st_mode) == 0o640


def test_a_file_that_becomes_a_link_meanwhile(
    root: Path, target: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "memory").write_text("the guest's")
    rename = hostile._rename

    def after_a_swap(*names: object) -> bool:
        (root / "memory").unlink()
        (root / "memory").symlink_to(secret)
        return rename(*names)  # type: ignore[arg-type]

    monkeypatch.setattr(hostile, "_rename", after_a_swap)
    if target.parent == elsewhere():
        hostile.take_file(root, "memory", target)
        assert target.read_text() == "the guest's"
    else:
        with tampered:
            hostile.take_file(root, "memory", target)
        assert not os.path.lexists(target)
    assert secret.read_text() == "of the host"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o640


def test_removing_follows_nothing(root: Path, secret: Path) -> None:
    (root / "v.sock").symlink_to(secret)
    for _ in range(2):
        hostile.remove(root, "v.sock")
    assert (list(root.iterdir()), secret.exists()) == ([], True)
