"""Files of every kind that become drives."""

from __future__ import annotations

import io
import random
import subprocess
from pathlib import Path

import pytest

from drives.models import Drive
from drives.services import export_drive, file_of, import_drive
from drives.transfers import incoming
from images import uploads
from images.formats.e2fsprogs import find_tool
from nexus_site.core import operations, steps
from nexus_site.core.errors import Conflict, Invalid
from nexus_site.core.models import Event, Operation
from tests.drives.transfers.conftest import BringIn
from tests.drives.transfers.drive_archives import MIB, SIZE, manifest, packed, store, whole
from tests.drives.transfers.drive_archives import checksum as checksum_of
from tests.drives.transfers.drive_archives import disk as disk_of
from tests.factories import make_drive, make_image
from tests.images.formats.archive_files import PACKERS
from tests.images.formats.qcow2_images import Cluster, make_qcow2


def ext4(path: Path, mib: int = 8) -> bytes:
    """An ext4 file system that has files."""
    root = path.with_suffix(".d")
    root.mkdir()
    (root / "file").write_bytes(random.Random(1).randbytes(100_000))
    command = [find_tool("mke2fs"), "-q", "-t", "ext4", "-d", root, path, f"{mib}m"]
    subprocess.run(command, check=True)
    return path.read_bytes()


def as_qcow2(raw: bytes) -> bytes:
    clusters = []
    for number, at in enumerate(range(0, len(raw), 4096)):
        data = raw[at : at + 4096]
        how = "hole" if not any(data) else ("stored", "compressed")[number % 2]
        clusters.append(Cluster(data, how))
    return make_qcow2(clusters, cluster_bits=12)


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
@pytest.mark.parametrize("packer", ["", *sorted(PACKERS)])
def test_disks_compressed_or_not(bring_in: BringIn, tmp_path: Path, kind: str, packer: str) -> None:
    raw = ext4(tmp_path / "disk")
    data = raw if kind == "raw" else as_qcow2(raw)
    drive = bring_in(PACKERS[packer](data) if packer else data)
    assert (drive.state, drive.origin, drive.image) == ("ready", "import", None)
    assert drive.size_bytes == len(raw)
    assert file_of(drive).read_bytes() == raw
    assert file_of(drive).stat().st_blocks * 512 < len(raw) / 2, "its zeros are holes"


@pytest.mark.parametrize("packer", ["", *sorted(PACKERS)])
def test_an_exported_drive_may_be_packed_otherwise(bring_in: BringIn, packer: str) -> None:
    plain = manifest() + disk_of() + checksum_of() + bytes(20 << 9)
    drive = bring_in(PACKERS[packer](plain) if packer else plain)
    assert (drive.name, drive.size_bytes) == ("travelled", SIZE)


def test_a_disk_that_is_no_whole_mebibyte_gets_zeros_at_its_end(
    bring_in: BringIn, tmp_path: Path
) -> None:
    raw = (b"\0" * 510 + b"\x55\xaa") * 3 + b"odd"
    drive = bring_in(raw)
    assert drive.size_bytes == MIB
    assert file_of(drive).read_bytes() == raw.ljust(MIB, b"\0")


@pytest.mark.parametrize("data", ["archive", "raw", "packed raw"])
def test_a_larger_size_grows_the_file_system_too(
    bring_in: BringIn, tmp_path: Path, data: str
) -> None:
    raw = ext4(tmp_path / "disk")
    if data == "archive":
        size = len(raw)
        raw = packed(
            manifest(size_bytes=size), disk_of(((0, size),), raw, size),
            checksum_of(((0, size),), raw),
        )  # fmt: skip
    drive = bring_in(PACKERS["gz"](raw) if data == "packed raw" else raw, size_mib=32)
    assert drive.size_bytes == file_of(drive).stat().st_size == 32 * MIB
    said = subprocess.run(
        [find_tool("dumpe2fs"), "-h", file_of(drive)], check=True, capture_output=True, text=True
    ).stdout
    sizes = {
        line.split(":")[0]: int(line.split()[-1])
        for line in said.splitlines()
        if line.startswith(("Block count", "Block size"))
    }
    assert sizes["Block count"] * sizes["Block size"] == 32 * MIB


def test_a_packed_disk_larger_than_the_size_that_was_asked_for(
    bring_in: BringIn, tmp_path: Path
) -> None:
    """Only when it is unpacked is its size known."""
    with pytest.raises(Invalid) as refusal:
        bring_in(PACKERS["xz"](ext4(tmp_path / "disk")), size_mib=2)
    assert refusal.value.text == "The disk in the file has 8 MiB; 2 were asked for."
    assert refusal.value.code == "drive-too-small"


def test_names(bring_in: BringIn) -> None:
    assert bring_in(whole()).name == "travelled"
    assert bring_in(whole()).name.startswith("travelled-"), "that one is taken"
    assert bring_in(whole(), name="mine").name == "mine"
    with pytest.raises(Conflict) as refusal:
        bring_in(whole(), name="mine")
    assert refusal.value.code == "name-taken"
    assert bring_in(b"\0" * 510 + b"\x55\xaa", delete_with_vm=True).delete_with_vm


def test_the_image_is_known_again_where_it_is_the_very_same(bring_in: BringIn) -> None:
    image = make_image(name="web", digest="7" * 64)

    def of(**changes: str) -> Drive:
        said = {"id": image.ref, "name": "other", "digest": "7" * 64} | changes
        return bring_in(packed(manifest(image=said), disk_of(), checksum_of()))

    assert of().image == image
    for wrong in ({"digest": "8" * 64}, {"id": "aaaaaaaaaaaaq"}, {"id": "../../x"}):
        assert of(**wrong).image is None


def test_out_and_in_again(bring_in: BringIn, data_dir: Path) -> None:
    image = make_image(name="web", digest="7" * 64)
    drive = make_drive(name="first", image=image, size_bytes=64 * MIB)
    store(drive, 0, 40 * MIB)
    export = export_drive(drive)
    assert export.filename == "first.tar.zst"
    again = bring_in(b"".join(export.pieces), name="second")
    assert file_of(again).read_bytes() == file_of(drive).read_bytes()
    assert file_of(again).stat().st_blocks * 512 < MIB
    assert again.image == image
    told = Event.objects.filter(subject_id=again.pk, kind__startswith="drive").order_by("seq")
    assert list(told.values_list("kind", flat=True)) == ["drive.created", "drive.ready"]


@pytest.fixture
def opened(db: None, nudges: list[str]) -> Operation:
    return import_drive(uploads.receive(io.BytesIO(whole())))


def test_an_import_that_was_killed_goes_on(
    opened: Operation, monkeypatch: pytest.MonkeyPatch, bring_in: BringIn
) -> None:
    """Wherever it is: before, in the middle of and after each step."""

    class Killed(BaseException):
        pass

    def killed(*_: object, **__: object) -> None:
        raise Killed

    places = [
        ("drives.transfers.target.Target.write", 1),
        ("drives.services.transfers.mark_ready", 2),
        ("images.uploads.discard", 3),
    ]
    for place, attempt in places:
        with monkeypatch.context() as patch:
            patch.setattr(place, killed)
            with pytest.raises(Killed):
                operations.execute(opened.pk)
        Operation.objects.filter(pk=opened.pk).update(state=Operation.State.QUEUED)
        opened.refresh_from_db()
        assert opened.attempt == attempt
    operations.execute(opened.pk)
    drive = Drive.objects.get()
    assert (drive.state, drive.size_bytes) == ("ready", SIZE)
    assert file_of(drive).stat().st_size == SIZE
    assert not uploads.uploads_dir().joinpath(opened.params["upload"]).exists()


def test_an_import_that_is_cancelled_leaves_nothing(
    opened: Operation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "PROGRESS_INTERVAL", 0.0)
    original = incoming.write_disk

    def cancel_meanwhile(*arguments: object) -> int:
        Operation.objects.filter(pk=opened.pk).update(cancel_requested=True)
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(incoming, "write_disk", cancel_meanwhile)
    drive = Drive.objects.get()
    operations.execute(opened.pk)
    opened.refresh_from_db()
    assert opened.state == Operation.State.CANCELLED
    assert not Drive.objects.exists()
    assert not file_of(drive).exists()
    assert not uploads.uploads_dir().joinpath(opened.params["upload"]).exists()
