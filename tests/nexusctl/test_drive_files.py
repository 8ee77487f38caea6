"""``nexusctl drive export`` and ``import`` and the real API."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from drives.models import Drive, Snapshot
from drives.services import file_of, storage
from images.formats.archives import opened
from images.formats.tar_reader import TarArchive
from nexus_site.core.models import Operation
from tests.drives.transfers.drive_archives import MIB, give_back, store, whole
from tests.factories import make_drive, make_vm
from tests.nexusctl.conftest import Outcome
from vms.models import Attachment
from vms.states import State

Ctl = Callable[..., Outcome]


@pytest.fixture
def drive(transactional_db: None) -> Iterator[Drive]:
    drive = make_drive(name="disk", size_bytes=16 * MIB)
    store(drive, 0, 9 * MIB)
    yield drive
    give_back()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory to work in."""
    path = tmp_path / "here"
    path.mkdir()
    monkeypatch.chdir(path)
    return path


def test_out_and_in_again(ctl: Ctl, drive: Drive, here: Path) -> None:
    done = ctl("drive", "export", "disk")
    assert (done.code, done.out) == (0, ""), done.err
    assert [path.name for path in here.iterdir()] == ["disk.tar.zst"]
    assert done.err.startswith("disk.tar.zst: ")
    with opened(here / "disk.tar.zst") as stream:
        names = [item.entry.path for item in TarArchive(stream)]
    assert names == ["drive.json", "disk.img", "disk.img.sha256"]
    done = ctl("drive", "import", "disk.tar.zst", "--name", "again", "--delete-with-vm")
    assert done.code == 0, done.err
    again = Drive.objects.get(name="again")
    assert done.out == f"again  {again.ref}\n"
    assert "✓ Take the disk in" in done.err
    assert again.delete_with_vm
    assert file_of(again).read_bytes() == file_of(drive).read_bytes()


def test_a_snapshot_is_exported_while_its_drive_is_in_use(
    ctl: Ctl, drive: Drive, here: Path
) -> None:
    snapshot = Snapshot.objects.create(
        name="before", drive=drive, size_bytes=drive.size_bytes, state=Snapshot.State.READY
    )
    storage().snapshot(drive.ref, snapshot.ref)
    Attachment.objects.create(vm=make_vm(name="web", root=False, state=State.READY), drive=drive)
    refused = ctl("drive", "export", "disk")
    assert refused.code == 5
    assert "web" in refused.err
    assert "nexusctl snapshot create disk" in refused.err
    assert list(here.iterdir()) == []
    assert ctl("snapshot", "export", "before", "-o", "x").code == 0
    assert ctl("drive", "import", "x").code == 0
    assert file_of(Drive.objects.get(name="before")).read_bytes() == file_of(snapshot).read_bytes()


def test_an_import_from_the_standard_input(
    ctl: Ctl, transactional_db: None, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "x").write_bytes(whole())
    with (here / "x").open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        done = ctl("drive", "import", "-", "--size", "8M")
    assert done.code == 0, done.err
    drive = Drive.objects.get()
    assert (drive.name, drive.size_bytes) == ("travelled", 8 * MIB)
    assert Operation.objects.get().params["filename"] == ""
    give_back()


def test_a_dry_run_changes_nothing(ctl: Ctl, transactional_db: None, here: Path) -> None:
    (here / "x").write_bytes(whole())
    plan = ctl("drive", "import", "x", "--dry-run")
    assert plan.out.splitlines()[0] == "Would: Import drive travelled"
    assert not Drive.objects.exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("export", "nope"), 4, "There is no drive “nope”."),
        (("export", "disk", "-o", "/"), 1, "/ is a directory."),
        (("export", "disk", "-o", "/no/such/x"), 1, "/no/such/x: no such file or directory."),
        (("export",), 2, "Missing argument 'DRIVE'"),
        (("import", "/no/such/file"), 2, "does not exist"),
        (("import", "/etc"), 2, "is a directory"),
        (("import", "/etc/hostname"), 1, "no drive that Nexus can read"),
        (("import", "/etc/hostname", "--sha256", "12"), 2, "64 hexadecimal digits"),
        (("import", "/etc/hostname", "--sha256", "0" * 64), 1, "its checksum is another"),
        (("import", "/dev/null"), 1, "The upload is empty."),
    ],
)
def test_wrong_usage_says_what_is_wrong(
    ctl: Ctl, drive: Drive, here: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    done = ctl("drive", *words)
    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert "error of its own" not in done.err
    assert list(here.iterdir()) == []
