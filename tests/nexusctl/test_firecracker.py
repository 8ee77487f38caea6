"""``nexusctl firecracker`` and the real API."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.conf import LazySettings

from images.models import VmmRelease
from images.providers.releases.github import OFFLINE_HINT
from images.services import releases
from nexus_site.core.errors import Retryable
from tests.factories import make_release
from tests.images.downloads.server import running_mirror
from tests.images.providers.github_releases import GitHub, release_archive
from tests.images.providers.programs import ARCH, release
from tests.nexusctl.conftest import Outcome

Ctl = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def github(settings: LazySettings) -> Iterator[GitHub]:
    """The publisher, with two releases."""
    with running_mirror() as mirror:
        github = GitHub(mirror, ARCH)
        for version in ("1.11.0", "1.12.1"):
            github.publish(version, release_archive(version, release(version), ARCH))
        url = {"firecracker_releases_url": github.base_url}
        settings.NEXUS = settings.NEXUS.model_copy(update=url)
        yield github
    shutil.rmtree(releases.releases_dir())


def test_releases_from_the_first_to_the_last(ctl: Ctl, tmp_path: Path) -> None:
    assert "nexusctl firecracker download" in ctl("firecracker", "installed").err
    before = ctl("firecracker", "list")
    assert ("github" in before.out, "asked: never" in before.err) == (False, True)
    listed = ctl("firecracker", "list", "--refresh")
    lines = [line.split() for line in listed.out.splitlines()]
    assert [line[::2] for line in lines[1:3]] == [
        ["1.12.1", "github", "B"],
        ["1.11.0", "github", "B"],
    ]
    plan = ctl("firecracker", "download", "--dry-run")
    assert "Take out its programs" in plan.out
    newest = ctl("firecracker", "download")
    assert newest.out.startswith("1.12.1  ")
    assert "1.11.0" not in newest.err
    older = ctl("firecracker", "download", "v1.11.0")
    assert "hint" not in older.err
    assert "nexusctl firecracker use 1.11.0" in older.err
    again = ctl("firecracker", "download", "1.11.0")
    assert (again.code, "Firecracker 1.11.0 is there" in again.err) == (0, True)
    assert ctl("firecracker", "use", "1.11.0").out.startswith("1.11.0  ")
    rows = json.loads(ctl("firecracker", "installed", "--json").out)
    assert {row["version"]: row["is_default"] for row in rows} == {"1.11.0": True, "1.12.1": False}
    assert "Say --yes" in ctl("firecracker", "remove", "1.11.0").err
    assert "Would be done" in ctl("firecracker", "remove", "1.11.0", "--dry-run").out
    assert "The default is 1.12.1 now." in ctl("firecracker", "remove", "1.11.0", "--yes").err
    assert "is left here" in ctl("firecracker", "remove", "v1.12.1", "--yes").err
    assert not VmmRelease.objects.exists()


def test_a_path_is_said_as_people_say_paths(
    ctl: Ctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, content in release("1.12.1").items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o755)
    monkeypatch.chdir(tmp_path)
    done = ctl("firecracker", "download", "--provider", "local", "--path", "firecracker")
    assert (done.code, VmmRelease.objects.get().source) == (0, str(tmp_path / "firecracker"))


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("download", "latest"), 1, "is no version of Firecracker"),
        (("download", "9.9.9"), 4, "There is no Firecracker 9.9.9"),
        (("download", "--provider", "nope"), 2, "'github', 'wheel', 'local'"),
        (("download", "--provider", "local"), 1, "--path /usr/local/bin"),
        (
            ("download", "--provider", "local", "--path", "/nowhere"),
            4,
            "no firecracker at /nowhere",
        ),
        (("download", "--path", "/usr/local/bin"), 1, "Add --provider local"),
        (("use", "9.9.9"), 4, "hint: See which there are: nexusctl firecracker installed"),
        (("use", "1.12.1"), 1, "Bring them back: nexusctl firecracker download 1.12.1"),
        (("remove", "9.9.9", "--yes"), 4, "There is no release “9.9.9”"),
    ],
)
def test_wrong_usage(ctl: Ctl, words: tuple[str, ...], code: int, said: str) -> None:
    make_release("1.12.1")
    done = ctl("firecracker", *words)
    assert (done.code, done.out) == (code, "")
    assert said in done.err


def test_a_release_in_use_is_a_conflict(ctl: Ctl, monkeypatch: pytest.MonkeyPatch) -> None:
    make_release("1.12.1")
    monkeypatch.setattr(releases, "_users", [lambda: [("1.12.1", "web")]])
    done = ctl("firecracker", "remove", "1.12.1", "--yes")
    assert (done.code, "used by VMs that run: web" in done.err) == (5, True)


def test_without_a_network_the_other_ways_are_told(
    ctl: Ctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> bytes:
        raise Retryable("GitHub cannot be reached.", hint="Look at the network.")

    monkeypatch.setattr("images.downloads.fetch_bytes", offline)
    for words in (("download",), ("list", "--refresh")):
        done = ctl("firecracker", *words)
        assert done.code == 1
        assert "GitHub cannot be reached." in done.err
        assert OFFLINE_HINT in done.err
