"""``nexusctl image`` and the real API: looking inside, taking away, bringing in."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from backports import zstd

from images.models import Image
from images.services import image_path
from tests.images.providers.alpine_mirror import mini_rootfs
from tests.nexusctl import answers as a
from tests.nexusctl.conftest import Outcome
from tests.real_images import COLOURS, OS_RELEASE, make_real_image

Ctl = Callable[..., Outcome]


@pytest.fixture
def image(transactional_db: None, tmp_path: Path) -> Image:
    return make_real_image(tmp_path, packages=[["musl", "1.2"]])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory to work in."""
    path = tmp_path / "here"
    path.mkdir()
    monkeypatch.chdir(path)
    return path


def test_ls_shows_a_directory_and_nothing_that_moves_a_terminal(ctl: Ctl, image: Image) -> None:
    lines = ctl("image", "ls", "strange").out.splitlines()
    assert lines[0].split() == ["MODE", "OWNER", "SIZE", "NAME"]
    assert [line.split()[0] for line in lines[1:]] == ["l", "d", "d", "d", "-", "l", "d"]
    assert lines[1].endswith("away → /../../etc/passwd")
    listed = ctl("image", "ls", "strange", "/etc").out
    assert r"\x1b[2Jgone\u202etxt.exe" in listed
    assert r"caf\xe9" in listed
    assert all(letter.isprintable() or letter == "\n" for letter in listed)
    rows = json.loads(ctl("image", "ls", "strange", "/dev", "--json").out)
    assert [(row["path"], row["kind"]) for row in rows] == [("/dev/pipe", "fifo")]
    assert ctl("image", "ls", "strange", "empty").err == "The directory is empty.\n"


def test_packages_and_none(ctl: Ctl, image: Image) -> None:
    assert ctl("image", "packages", "strange").out == "PACKAGE  VERSION\nmusl     1.2\n"
    Image.objects.update(packages=[])
    done = ctl("image", "packages", "strange")
    assert (done.code, done.out) == (0, "")
    assert done.err.startswith("No packages:")


def test_cat_is_faithful_to_a_pipe_and_harmless_on_a_terminal(
    ctl: Ctl, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ctl("image", "cat", "strange", "/etc/os-release").out == OS_RELEASE
    assert ctl("image", "cat", "strange", "/etc/colours").out == COLOURS.decode()
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert ctl("image", "cat", "strange", "/etc/colours").out == "red\n"
    assert ctl("image", "cat", "strange", "/large").code == 0, "bytes of any kind"


def test_a_name_that_is_no_utf_8_can_be_typed(ctl: Ctl, image: Image) -> None:
    assert ctl("image", "cat", "strange", os.fsdecode(b"/etc/caf\xe9")).out == "latin\n"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("cat", "strange", "/nope"), 4, "The image has no /nope."),
        (("cat", "strange", "/etc"), 1, "is a directory, not a file"),
        (("cat", "strange"), 2, "Missing argument 'PATH'"),
        (("ls", "strange", "/etc/colours"), 1, "is a file, not a directory"),
        (("ls", "nope"), 4, "There is no image “nope”."),
        (("packages", "nope"), 4, "nexusctl image list"),
        (("export", "nope"), 4, "There is no image “nope”."),
        (("export", "strange", "--format", "zip"), 2, "'zip' is not one of 'ext4.zst', 'tar'"),
        (("export", "strange", "-o", "/"), 1, "/ is a directory."),
        (("export", "strange", "-o", "/no/such/x"), 1, "/no/such/x: no such file or directory."),
        (("verify", "strange"), 5, "cannot be built again"),
        (("rename", "strange", "Not A Name"), 1, "lower-case letters"),
        (("import", "/no/such/file"), 2, "does not exist"),
        (("import", "/etc/hostname", "--sha256", "12"), 2, "64 hexadecimal digits"),
        (("import", "/etc/hostname", "--sha256", "0" * 64), 1, "its checksum is another"),
        (("import", "/etc/hostname", "--format", "zip"), 1, "There is no format “zip”."),
        (("import", "/etc/hostname", "--name", "strange"), 5, "already"),
        (("import", "/dev/null"), 1, "The upload is empty."),
    ],
)
def test_wrong_usage_says_what_is_wrong(
    ctl: Ctl, image: Image, here: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    done = ctl("image", *words)
    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert "error of its own" not in done.err
    assert list(here.iterdir()) == []


def test_an_export_is_a_file_named_after_the_image(ctl: Ctl, image: Image, here: Path) -> None:
    done = ctl("image", "export", "strange")
    assert (done.code, done.out) == (0, "")
    file = here / "strange.ext4.zst"
    assert zstd.decompress(file.read_bytes()) == image_path(image).read_bytes()
    assert ctl("image", "export", "strange", "--format", "tar", "-o", "x.tar").code == 0
    with tarfile.open("x.tar") as tar:
        assert "etc/colours" in [name.removeprefix("./") for name in tar.getnames()]
    assert sorted(path.name for path in here.iterdir()) == ["strange.ext4.zst", "x.tar"]


def test_an_export_that_breaks_off_leaves_what_was_there(
    server: Any, nexusctl: Ctl, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer says that it has more bytes than come."""
    (here / "i.tar").write_bytes(b"before")

    class Short(bytes):
        def __len__(self) -> int:
            return super().__len__() + 10

    server.on("GET", "/images/i/export", (200, Short(b"half")))
    for target in ("i.tar", "new.tar"):
        done = nexusctl("image", "export", "i", "--format", "tar", "-o", target)
        assert done.code == 3
        assert "broke its answer off" in done.err
    assert [path.name for path in here.iterdir()] == ["i.tar"]
    assert (here / "i.tar").read_bytes() == b"before"


def test_a_rename(ctl: Ctl, image: Image) -> None:
    assert ctl("image", "rename", "strange", "ours", "--dry-run").out == "Would: ours\n"
    assert ctl("image", "rename", "strange", "ours").out == f"ours  {image.ref}\n"
    assert ctl("image", "inspect", "ours").code == 0


def test_an_import_shows_its_steps_and_ends_with_the_image(
    ctl: Ctl, transactional_db: None, here: Path
) -> None:
    (here / "tiny.tgz").write_bytes(mini_rootfs("1"))
    plan = ctl("image", "import", "tiny.tgz", "--name", "mine", "--dry-run")
    assert plan.out.splitlines()[0] == "Would: Create image mine from tiny.tgz"
    assert not Image.objects.exists()
    done = ctl("image", "import", "tiny.tgz", "--name", "mine")
    assert done.code == 0, done.err
    image = Image.objects.get()
    assert done.out == f"mine  {image.ref}\n"
    assert "✓ Take the file in" in done.err
    assert "  ✓ Unpack it" in done.err
    again = ctl("image", "import", "tiny.tgz", "--name", "again")
    assert "↷ Take the file in" in again.err
    verified = ctl("image", "verify", "mine")
    assert verified.out == f"mine  {image.ref}  identical  {image.digest}\n"


def test_a_verification_is_asked_for_and_its_result_shown(server: Any, nexusctl: Ctl) -> None:
    server.on("POST", "/images/i/verify", (200, a.operation("succeeded")))
    server.on("GET", "/images/i", a.IMAGE_DETAIL)
    done = nexusctl("image", "verify", "i")
    assert done.out.split() == ["alpine-3-23", "aaaaaaaaaayds", "identical", "ab" * 32]
