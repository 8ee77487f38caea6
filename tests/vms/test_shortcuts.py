"""Shortcuts to images and drives, from every source: real builds of a rootfs of two files.

The chain to a VM, with QEMU, is in ``test_chain.py``.
"""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builds import services as build_services
from builds.models import Build, Template
from builds.recipe import parse
from drives import services as drive_services
from drives.models import Drive
from images import services as image_services
from images import uploads
from images.models import Image, Rootfs
from nexus_site.core import operations
from nexus_site.core.errors import Broken, Conflict, Invalid, NotFound
from nexus_site.core.models import Operation
from tests.factories import make_drive, make_image, make_vm
from tests.images.providers.alpine_mirror import mini_rootfs
from vms import chain, shortcuts
from vms.models import VM

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("nudges")]

CONTENT = mini_rootfs("1")
LONG = ["rootfs", "template", "build", "image", "drive", "vm", "start", "agent"]


@pytest.fixture(autouse=True)
def _small_images(settings: Any, data_dir: Path) -> None:
    settings.NEXUS = settings.NEXUS.model_copy(update={"image_size_mib": 64})
    for name in left():
        uploads.discard(name)
    shutil.rmtree(image_services.rootfs_dir() / "upload", ignore_errors=True)
    for path in (data_dir / "images").glob("*.ext4"):
        path.unlink()


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    """A distribution that a provider delivers from a file of this machine."""
    path = tmp_path / "tiny.tar.gz"
    path.write_bytes(CONTENT)
    config = {"path": str(path), "sha256": hashlib.sha256(CONTENT).hexdigest()}
    config |= {"distro": "tiny", "version": "1"}
    image_services.create_provider(name="tiny", type="tarball", config=config)
    return "tiny"


@pytest.fixture
def template(tiny: str) -> Template:
    run(image_services.download_rootfs(tiny, "1"))
    return build_services.create_template(
        name="web", rootfs=Rootfs.objects.get(), recipe=parse({"env": {"A": "b"}})
    )


@pytest.fixture
def image(template: Template) -> Image:
    run(build_services.trigger_build(template))
    return Image.objects.get()


def run(operation: Operation) -> Operation:
    operations.execute(operation.pk)
    operation.refresh_from_db()
    return operation


def skipped(operation: Operation) -> list[str]:
    return [step["name"] for step in operation.steps if step["state"] == "skipped"]


def left() -> list[str]:
    return sorted(path.name for path in uploads.uploads_dir().glob("*"))


def uploaded(content: bytes = CONTENT, filename: str = "tiny.tgz") -> uploads.Upload:
    return uploads.receive(io.BytesIO(content), filename=filename)


# Steps


@pytest.mark.parametrize(
    ("kind", "steps"),
    [
        ("image.from-rootfs", LONG[:4]),
        ("image.from-template", LONG[2:4]),
        ("image.from-upload", LONG[:4]),
        ("drive.from-rootfs", LONG[:5]),
        ("drive.from-template", LONG[2:5]),
        ("drive.from-image", LONG[3:5]),
        ("vm.from-rootfs", LONG),
        ("vm.from-template", LONG[2:]),
        ("vm.from-image", LONG[3:]),
    ],
)
def test_every_way_is_a_piece_of_the_same_chain(kind: str, steps: list[str]) -> None:
    assert [step.name for step in chain.plan(Operation(kind=kind))] == steps
    assert kind in operations._kinds, "workers know it"


# To an image


def test_an_image_from_a_distribution_and_once_more(tiny: str) -> None:
    first = run(shortcuts.from_rootfs("image", "Tiny", "1"))
    assert first.state == "succeeded", first.error
    image = Image.objects.get()
    assert (first.subject_kind, first.subject_id, first.subject_name) == (
        ("image", image.id, "tiny-1")
    )
    assert (Template.objects.get().name, Rootfs.objects.get().distro) == ("tiny-1", "tiny")
    again = run(shortcuts.from_rootfs("image", "tiny", "1"))
    assert skipped(again) == ["rootfs", "template", "build"]
    assert again.subject_id == image.id
    named = run(shortcuts.from_rootfs("image", "tiny", "1", name="mine"))
    assert skipped(named) == ["rootfs", "template"]
    assert Image.objects.get(name="mine").pk == named.subject_id
    assert Template.objects.count() == 1


def test_a_plan_knows_what_is_there_already(image: Image) -> None:
    template = Template.objects.get()
    plan = operations.rehearse(lambda: shortcuts.from_template("image", template))
    assert [(row["name"], row["action"]) for row in plan["steps"]] == [
        ("build", "skip"),
        ("image", "run"),
    ]
    build_services.update_template(template, recipe=parse({}))
    plan = operations.rehearse(lambda: shortcuts.from_template("image", template))
    assert plan["steps"][0]["action"] == "run"


def test_a_template_with_a_recipe_is_not_taken_for_the_distribution(template: Template) -> None:
    run(shortcuts.from_rootfs("image", "tiny", "1"))
    assert Image.objects.get().name == "tiny-1"
    assert Template.objects.count() == 2


def test_a_distribution_that_nobody_has_names_what_there_is(tiny: str) -> None:
    with pytest.raises(NotFound, match="plan9") as raised:
        shortcuts.from_rootfs("image", "plan9", "4")
    assert "tiny 1" in raised.value.extra["available"]


def test_a_template_that_is_removed_meanwhile_fails_the_operation(template: Template) -> None:
    operation = shortcuts.from_template("image", template)
    build_services.delete_template(template)
    assert run(operation).error["code"] == "template-gone"


# Of an upload


def test_an_uploaded_file_becomes_an_image(tmp_path: Path) -> None:
    operation = run(shortcuts.import_image(uploaded(), name="mine", checked=True))
    assert operation.state == "succeeded", operation.error
    image = Image.objects.get()
    assert (image.name, operation.subject_id) == ("mine", image.id)
    kept = Rootfs.objects.get()
    assert (kept.distro, kept.version) == ("mine", hashlib.sha256(CONTENT).hexdigest()[:12])
    assert (kept.source, kept.verification) == ("uploaded: tiny.tgz", "sha256")
    assert left() == []


def test_the_same_file_again_is_the_same_rootfs(tmp_path: Path) -> None:
    run(shortcuts.import_image(uploaded(), name="mine"))
    again = run(shortcuts.import_image(uploaded(), name="other"))
    assert skipped(again) == ["rootfs", "template"]
    assert (Rootfs.objects.count(), Template.objects.count(), Image.objects.count()) == (1, 1, 2)
    assert left() == []
    image_services.rootfs_path(Rootfs.objects.get()).unlink()
    third = run(shortcuts.import_image(uploaded(), name="third"))
    assert third.state == "succeeded", third.error
    assert Image.objects.filter(name="third").exists()


def test_a_name_of_the_longest_kind_will_do() -> None:
    operation = run(shortcuts.import_image(uploaded(), name="x" * 63))
    assert operation.state == "succeeded", operation.error


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"hello", "format-unknown"),
        (CONTENT[: len(CONTENT) // 2], "archive-damaged"),
        (b"\x1f\x8b" + b"\0" * 500, "format-unknown"),
    ],
)
def test_a_file_that_cannot_be_read_leaves_nothing(content: bytes, code: str) -> None:
    operation = run(shortcuts.import_image(uploaded(content), name="mine"))
    assert (operation.state, operation.error["code"]) == ("failed", code)
    assert not Image.objects.exists()
    assert (Template.objects.count(), Rootfs.objects.count()) == (0, 0)
    assert left() == []
    assert not list((image_services.rootfs_dir() / "upload").rglob("rootfs.*"))


def test_a_file_that_was_there_before_outlives_an_import_that_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run(shortcuts.import_image(uploaded(), name="mine"))

    def full(*_: object, **__: object) -> None:
        raise Broken("The disk is full.", code="disk-full")

    monkeypatch.setattr("builds.services.trigger_build", full)
    operation = run(shortcuts.import_image(uploaded(), name="other"))
    assert operation.error["code"] == "disk-full"
    assert image_services.rootfs_path(Rootfs.objects.get()).exists()
    assert Template.objects.count() == 1


@pytest.mark.parametrize(
    ("wishes", "error"),
    [({"name": "Bad Name"}, Invalid), ({"name": "taken"}, Conflict), ({"format": "zip"}, Invalid)],
)
def test_an_import_is_checked_before_it_begins(
    wishes: dict[str, str], error: type[Exception]
) -> None:
    make_image(name="taken")
    with pytest.raises(error):
        shortcuts.import_image(uploaded(), **wishes)
    assert not Operation.objects.exists()


# To a drive and a VM


def test_a_drive_from_each_source(image: Image) -> None:
    template = Template.objects.get()
    ways = [
        shortcuts.from_rootfs("drive", "tiny", "1", name="one", size_mib=128),
        shortcuts.from_template("drive", template, name="two"),
        shortcuts.from_image("drive", image, name="three"),
    ]
    for operation in map(run, ways):
        assert operation.state == "succeeded", operation.error
        drive = Drive.objects.get(name=operation.subject_name)
        assert (operation.subject_kind, operation.subject_id) == ("drive", drive.id)
        assert drive_services.require_file(drive).stat().st_size == drive.size_bytes
    sizes = {drive.name: drive.size_bytes >> 20 for drive in Drive.objects.all()}
    assert sizes == {"one": 128, "two": 64, "three": 64}


@pytest.mark.parametrize("source", ["rootfs", "template", "image"])
def test_a_drive_that_cannot_be_made_leaves_only_images(
    source: str, image: Image, monkeypatch: pytest.MonkeyPatch, data_dir: Path
) -> None:
    def full(*_: object) -> None:
        raise Broken("The disk is full.", code="disk-full")

    before = sorted((data_dir / "drives").glob("*.*"))
    monkeypatch.setattr(drive_services.storage(), "clone_image", full)
    ways: dict[str, Callable[[], Operation]] = {
        "rootfs": lambda: shortcuts.from_rootfs("drive", "tiny", "1"),
        "template": lambda: shortcuts.from_template("drive", Template.objects.get(name="web")),
        "image": lambda: shortcuts.from_image("drive", image),
    }
    operation = run(ways[source]())
    assert (operation.state, operation.error["code"]) == ("failed", "disk-full")
    assert not Drive.objects.exists()
    assert sorted((data_dir / "drives").glob("*.*")) == before
    assert image_services.has_file(image)
    assert Image.objects.count() == (2 if source == "rootfs" else 1), "what was built stays"
    assert not Build.objects.filter(state="running").exists()


def test_a_vm_whose_drive_cannot_be_made_is_not_there(
    image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise Broken("The disk is full.", code="disk-full")

    monkeypatch.setattr(drive_services.storage(), "clone_image", full)
    operation = run(shortcuts.from_image("vm", image, name="hello"))
    assert (operation.state, operation.error["code"]) == ("failed", "disk-full")
    assert not VM.objects.exists()
    assert not Drive.objects.exists()


def test_an_image_without_its_file_makes_no_drive(image: Image) -> None:
    image_services.image_path(image).unlink()
    operation = run(shortcuts.from_image("drive", image))
    assert (operation.state, operation.error["code"]) == ("failed", "image-damaged")
    assert not Drive.objects.exists()


@pytest.mark.parametrize("target", ["image", "drive", "vm"])
@pytest.mark.parametrize(
    ("name", "code"), [("taken", "name-taken"), ("Bad Name", "name-rule"), ("-x", "name-rule")]
)
def test_names_are_checked_before_anything_is_begun(
    target: shortcuts.Target, name: str, code: str, template: Template
) -> None:
    make_drive(name="taken", image=make_image(name="taken"))
    make_vm(name="taken", root=False)
    before = Operation.objects.count()
    with pytest.raises((Conflict, Invalid)) as raised:
        shortcuts.from_template(target, template, name=name)
    assert raised.value.code == code
    assert Operation.objects.count() == before


def test_a_vm_gets_a_name_and_the_usual_size() -> None:
    operation = shortcuts.from_image("vm", make_image())
    assert operation.params["name"] == operation.subject_name != ""
    assert (operation.params["vcpu_count"], operation.params["mem_size_mib"]) == (1, 512)
    with pytest.raises(Invalid):
        shortcuts.from_image("vm", make_image(), mem_size_mib=1)
