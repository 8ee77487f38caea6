"""Releases of Firecracker from wish to row: downloaded, side by side, used, removed, swept."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from images import services
from images.models import VmmRelease
from images.services import releases
from nexus_site.core import operations
from nexus_site.core.errors import Broken, Conflict, Invalid, NotFound
from nexus_site.core.models import Event, Operation
from tests.factories import make_release
from tests.images.downloads.server import Mirror
from tests.images.providers.github_releases import GitHub, release_archive
from tests.images.providers.programs import ARCH, OTHER_ARCH, program, release

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("nudges")]


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    shutil.rmtree(releases.releases_dir())


@pytest.fixture
def github(mirror: Mirror, settings: Any) -> GitHub:
    """A server like GitHub's, at which the setting points."""
    github = GitHub(mirror, ARCH)
    point_at(settings, github.base_url)
    return github


def point_at(settings: Any, base_url: str) -> None:
    settings.NEXUS = settings.NEXUS.model_copy(update={"firecracker_releases_url": base_url})


def archive(version: str) -> bytes:
    return release_archive(version, release(version, ARCH), ARCH)


def installation(tmp_path: Path, version: str, **programs: bytes) -> Path:
    """A directory as distributions have it; its path."""
    directory = tmp_path / f"bin-{version}"
    directory.mkdir()
    for name, content in (release(version) | programs).items():
        (directory / name).write_bytes(content)
        (directory / name).chmod(0o755)
    return directory


def ended(operation: Operation) -> Operation:
    operations.execute(operation.id)
    operation.refresh_from_db()
    return operation


def downloaded(version: str = "", **wish: str) -> VmmRelease:
    operation = ended(services.download_release(version, **wish))
    assert operation.state == "succeeded", operation.error
    return services.find_release(operation.result["release"])


def files() -> list[str]:
    """All that is in the directory of releases."""
    directory = releases.releases_dir()
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def test_the_newest_release_is_fetched_and_the_first_is_the_default(github: GitHub) -> None:
    assert services.default_release() is None
    for version in ("1.11.0", "1.12.1"):
        github.publish(version, archive(version))
    newest = downloaded()
    assert (newest.version, newest.arch, newest.is_default) == ("1.12.1", ARCH, True)
    assert (newest.provider, newest.verification) == ("github", "sha256")
    assert newest.source.startswith(github.mirror.url)
    older = downloaded("v1.11.0")
    assert older.is_default is False
    assert files() == [
        *(f"1.11.0-{ARCH}{name}" for name in ("", "/firecracker", "/jailer")),
        *(f"1.12.1-{ARCH}{name}" for name in ("", "/firecracker", "/jailer")),
    ]
    found = services.default_release()
    assert found is not None
    assert (found.version, found.arch) == ("1.12.1", ARCH)
    assert found.firecracker.read_bytes() == release("1.12.1")["firecracker"]
    assert found.jailer is not None
    assert found.firecracker.stat().st_mode & 0o777 == 0o555
    events = Event.objects.filter(kind="release.created").order_by("seq")
    assert [event.data["version"] for event in events] == ["1.12.1", "1.11.0"]


@pytest.mark.parametrize("wish", ["1.12.1", ""])
def test_what_is_here_is_not_fetched_again(github: GitHub, wish: str) -> None:
    path = github.publish("1.12.1", archive("1.12.1"))
    first = downloaded()
    operation = ended(services.download_release(wish))
    assert operation.result["release"] == first.ref
    assert operation.steps[1]["state"] == "skipped"
    assert [seen for seen, _ in github.mirror.requests].count(path) == 1


def test_lost_or_damaged_files_come_back_but_never_as_others(github: GitHub) -> None:
    github.publish("1.12.1", archive("1.12.1"))
    first = downloaded()
    program_file = services.release_dir(first) / "firecracker"
    program_file.chmod(0o755)
    program_file.write_bytes(b"damaged")
    assert downloaded("1.12.1") == first
    assert program_file.read_bytes() == release("1.12.1")["firecracker"]
    shutil.rmtree(program_file.parent)
    assert services.default_release() is None
    assert downloaded("1.12.1") == first
    shutil.rmtree(program_file.parent)
    other = release("1.12.1") | {"jailer": program("Jailer v1.12.1\nother\n")}
    github.publish("1.12.1", release_archive("1.12.1", other, ARCH))
    operation = ended(services.download_release("1.12.1"))
    assert (operation.state, operation.error["code"]) == ("failed", "release-changed")
    assert files() == []


def test_what_is_on_this_machine_is_copied(tmp_path: Path) -> None:
    directory = installation(tmp_path, "1.10.1")
    kept = downloaded(provider="local", path=str(directory))
    assert (kept.version, kept.provider) == ("1.10.1", "local")
    assert (kept.source, kept.verification) == (
        str(directory / "firecracker"),
        "as found on the server",
    )
    shutil.rmtree(directory)
    found = services.default_release()
    assert found is not None
    assert found.jailer is not None


def test_a_pair_of_files_under_their_long_names_will_do(tmp_path: Path) -> None:
    for name, content in release("1.12.1").items():
        path = tmp_path / f"{name}-v1.12.1-{ARCH}"
        path.write_bytes(content)
        path.chmod(0o755)
    named = downloaded(provider="local", path=str(tmp_path / f"firecracker-v1.12.1-{ARCH}"))
    assert named.jailer_sha256
    services.remove_release(named)
    assert downloaded(provider="local", path=str(tmp_path)).jailer_sha256 == named.jailer_sha256


def test_a_release_without_a_jailer_says_so(tmp_path: Path) -> None:
    directory = installation(tmp_path, "1.12.1")
    (directory / "jailer").unlink()
    kept = downloaded(provider="local", path=str(directory))
    assert kept.jailer_sha256 == ""
    found = services.default_release()
    assert found is not None
    assert found.jailer is None


@pytest.mark.parametrize(
    ("programs", "code"),
    [
        ({"firecracker": program("Firecracker v1.12.1\n", OTHER_ARCH)}, "release-arch"),
        ({"firecracker": b"#!/bin/sh\necho Firecracker v1.12.1\n"}, "release-not-elf"),
        ({"firecracker": program("Hello\n")}, "release-says-otherwise"),
        ({"jailer": program("Jailer v1.11.0\n")}, "release-says-otherwise"),
        ({"jailer": program("Jailer v1.12.1\n", OTHER_ARCH)}, "release-arch"),
        ({"jailer": b"x"}, "release-not-elf"),
    ],
)
@pytest.mark.parametrize("way", ["github", "local"])
def test_programs_that_will_not_do_leave_nothing(
    github: GitHub, tmp_path: Path, programs: dict[str, bytes], code: str, way: str
) -> None:
    if way == "github":
        content = release_archive("1.12.1", release("1.12.1") | programs, ARCH)
        github.publish("1.12.1", content)
        operation = services.download_release("1.12.1")
    else:
        path = str(installation(tmp_path, "1.12.1", **programs))
        operation = services.download_release(provider="local", path=path)
    ended(operation)
    assert (operation.state, operation.error["code"]) == ("failed", code)
    assert files() == []
    assert not VmmRelease.objects.exists()


@pytest.mark.parametrize(
    ("wish", "error"),
    [
        ({"provider": "nope"}, "There is no provider “nope”"),
        ({"provider": "local"}, "needs a path"),
        ({"provider": "local", "path": "bin"}, "absolute"),
        ({"provider": "wheel", "path": "x.whl"}, "absolute"),
        ({"path": "/usr/local/bin"}, "A path is for"),
        ({"version": "latest"}, "is no version"),
        ({"version": "../1.12.1"}, "is no version"),
    ],
)
def test_wishes_that_make_no_sense_are_refused_at_once(wish: dict[str, str], error: str) -> None:
    with pytest.raises(Invalid, match=error):
        services.download_release(**wish)
    assert not Operation.objects.exists()


@pytest.mark.parametrize(
    ("wish", "code"),
    [
        ({"provider": "local", "path": "/nowhere"}, "release-not-found"),
        ({"provider": "wheel", "path": "/nowhere/x.whl"}, "release-not-found"),
        ({"provider": "wheel", "path": __file__}, "checksum"),
        ({"provider": "wheel", "version": "9.9.9"}, "release-not-found"),
        ({"version": "9.9.9"}, "release-not-found"),
    ],
)
def test_what_is_not_there_fails_and_leaves_nothing(
    github: GitHub, wish: dict[str, str], code: str
) -> None:
    operation = ended(services.download_release(**wish))
    assert (operation.state, operation.error["code"]) == ("failed", code)
    assert files() == []


def test_two_downloads_do_not_come_at_once(github: GitHub) -> None:
    operation = services.download_release("1.12.1")
    with pytest.raises(Conflict) as busy:
        services.download_release("1.11.0")
    assert busy.value.extra == {"operation": operation.ref}


def test_a_download_that_was_killed_goes_on(
    github: GitHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies after the directory is in its place and before the row is kept."""
    path = github.publish("1.12.1", archive("1.12.1"))
    operation = services.download_release()

    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(releases, "drop_archive", die)
        patch.setattr(VmmRelease.objects, "create", die)
        with pytest.raises(Killed):
            operations.execute(operation.id)
    assert f"1.12.1-{ARCH}" in files(), "cut short in the middle"
    assert f"firecracker-v1.12.1-{ARCH}.tgz" in files()
    services.sweep_assets()
    assert f"firecracker-v1.12.1-{ARCH}.tgz" in files(), "an operation goes on from it"
    Operation.objects.filter(pk=operation.pk).update(state="queued", lease_until=None)
    assert ended(operation).state == "succeeded", operation.error
    assert services.default_release() is not None
    assert [seen for seen, _ in github.mirror.requests].count(path) == 1
    assert files() == [f"1.12.1-{ARCH}{name}" for name in ("", "/firecracker", "/jailer")]


def test_what_nobody_takes_up_is_swept(github: GitHub) -> None:
    github.publish("1.12.1", archive("1.12.1"))
    downloaded()
    kept, directory = files(), releases.releases_dir()
    (directory / f"1.0.0-{ARCH}").mkdir()
    (directory / f"1.0.0-{ARCH}" / "firecracker").write_bytes(b"x")
    (directory / "firecracker-v1.0.0.tgz").write_bytes(b"x")
    (directory / ".scratch.abc.part").mkdir()
    services.sweep_assets()
    assert files() == kept


def test_another_release_is_used_from_now_on() -> None:
    older, newer = make_release("1.11.0", files=True), make_release("1.12.1", files=True)
    assert (older.is_default, newer.is_default) == (True, False)
    services.use_release(newer)
    assert services.default_release() == services.release_of_version("v1.12.1")
    assert [row.version for row in services.installed_releases()] == ["1.12.1", "1.11.0"]
    services.use_release(newer)
    assert Event.objects.filter(kind="release.default").count() == 1
    older.refresh_from_db()
    assert older.is_default is False


def test_a_release_without_its_files_is_not_used() -> None:
    release = make_release("1.12.1")
    with pytest.raises(Broken) as missing:
        services.use_release(release)
    assert missing.value.hint.endswith("nexusctl firecracker download 1.12.1")
    assert services.default_release() is None


def test_the_newest_that_is_left_becomes_the_default() -> None:
    default, *_ = (make_release(version, files=True) for version in ("1.12.1", "1.9.0", "1.10.0"))
    directory = services.release_dir(default)
    services.remove_release(default)
    assert not directory.exists()
    found = services.default_release()
    assert found is not None
    assert found.version == "1.10.0"
    shutil.rmtree(services.release_dir(services.find_release("1.9.0")))
    services.remove_release(services.find_release("1.10.0"))
    services.remove_release(services.find_release("1.9.0"))
    assert services.default_release() is None
    assert [event.kind for event in Event.objects.order_by("seq")] == [
        "release.removed",
        "release.default",
        "release.removed",
        "release.default",
        "release.removed",
    ]


def test_a_release_that_vms_run_on_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(releases, "_users", [])
    services.ask_for_users(lambda: [("1.12.1", "web"), ("1.12.1", "db"), ("1.11.0", "old")])
    used, unused = make_release("1.12.1", files=True), make_release("1.10.0", files=True)
    with pytest.raises(Conflict, match="used by VMs that run: db, web") as conflict:
        services.remove_release(used)
    assert conflict.value.extra == {"vms": ["db", "web"]}
    assert services.default_release() is not None
    services.remove_release(unused)
    (shown,) = services.with_running_vms(services.installed_releases())
    assert shown.running_vms == ["db", "web"]


def test_a_release_is_found_by_id_and_version_on_this_machine_alone() -> None:
    here = make_release("1.12.1")
    make_release("1.11.0", arch=OTHER_ARCH)
    for ref in (here.ref, "1.12.1", "v1.12.1"):
        assert services.find_release(ref) == here
    for ref in ("1.11.0", "1.12", "", "aaaaaaaaaaaaq"):
        with pytest.raises(NotFound, match="There is no release"):
            services.find_release(ref)


# What can be had


def test_offers_are_remembered_and_asked_for_anew(github: GitHub, settings: Any) -> None:
    before = services.list_release_offers()
    assert before.refreshed_at is None
    assert {offer.provider for offer in before.offers} <= {"wheel"}
    github.publish("1.12.1", archive("1.12.1"))
    assert ended(services.refresh_releases()).state == "succeeded"
    requests = len(github.mirror.requests)
    found = services.list_release_offers()
    assert (found.offers[0].version, found.offers[0].provider) == ("1.12.1", "github")
    assert found.refreshed_at is not None
    assert len(github.mirror.requests) == requests, "no page waits for a network"
    github.mirror.pages.clear()
    operation = ended(services.refresh_releases())
    assert operation.state == "failed"
    after = services.list_release_offers()
    assert after.offers == found.offers
    assert "no such file" in after.problem
