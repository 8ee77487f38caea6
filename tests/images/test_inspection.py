"""Looking into images: what they say of themselves, their files, and images that lie."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from images.entries import Kind, decoded
from images.formats.disks import Disk, RawDisk
from images.formats.rootfs import read_rootfs
from images.inspection import ImageView, RootView, TreeView, open_image
from images.trees import Tree
from nexus_site.core.errors import Invalid, NotFound
from tests.images.formats.ext4_images import debugfs, make_ext4

OS_RELEASE = b"""\
# a comment
PRETTY_NAME="Debian GNU/Linux 12 \x1b[31m(bookworm)"
ID=debian
VERSION_ID='12'
lower=no
BROKEN="no end
"""
DPKG = b"""\
Package: zlib1g
Status: install ok installed
Version: 1:1.2.13
Description: compression library
 Version: not this one

Package: gone
Status: deinstall ok config-files
Version: 1

Package: half
Status: install ok not-installed

Package: adduser
Status: install ok installed
Version: 3.134
"""
APK = b"C:Q1x\nP:musl\nV:1.2.5-r0\nF:lib\n\nP:busybox\nV:1.36\n"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    for name in ("etc/nexus", "usr/lib/systemd", "usr/bin", "var/lib/dpkg/status.d", "many"):
        (root / name).mkdir(parents=True)
    (root / "usr/lib/os-release").write_bytes(OS_RELEASE)
    (root / "etc/os-release").symlink_to("../usr/lib/os-release")
    (root / "var/lib/dpkg/status").write_bytes(DPKG)
    (root / "var/lib/dpkg/status.d/base").write_bytes(b"Package: base-files\nVersion: 12\n")
    (root / "var/lib/dpkg/status.d/base.md5sums").write_bytes(b"Package: none\n")
    (root / "usr/lib/systemd/systemd").write_bytes(b"init")
    (root / "usr/bin/nexus-agent").write_bytes(b"agent" * 5000)
    (root / "etc/nexus/image.yaml").write_bytes(b"image_id: x\nagent_version: 0.3.0\n")
    (root / "lib").symlink_to("/usr/lib")
    (root / "up").symlink_to("../../../../etc")
    (root / "loop").symlink_to("loop")
    (root / "far").symlink_to("/nowhere/else")
    (root / "outside").symlink_to(tmp_path)
    for number in range(300):
        (root / "many" / f"name-{number:03}-{'n' * 80}").write_bytes(b"%d" % number)
    with (root / "holes").open("wb") as file:
        file.write(b"start")
        file.seek(5 << 20)
        file.write(b"end")
        file.truncate((5 << 20) + 9000)
    return root


@pytest.fixture
def image(tmp_path: Path, source: Path) -> Path:
    return make_ext4(tmp_path / "fs.img", source, size_mib=32)


@pytest.fixture(params=["image", "tree"])
def view(request: pytest.FixtureRequest, tmp_path: Path, source: Path) -> Iterator[RootView]:
    """The same files, packed and not."""
    image = make_ext4(tmp_path / "fs.img", source, size_mib=32)
    if request.param == "image":
        with open_image(image) as found:
            yield found
        return
    tree = Tree.create(tmp_path / "tree")
    read_rootfs(image, "ext4", tree)
    with TreeView(tree) as found:
        yield found


def test_tells_its_distribution_without_what_a_terminal_would_obey(view: RootView) -> None:
    assert view.os_release() == {
        "PRETTY_NAME": "Debian GNU/Linux 12 [31m(bookworm)",
        "ID": "debian",
        "VERSION_ID": "12",
        "BROKEN": "no end",
    }


def test_tells_its_packages_agent_and_init(view: RootView) -> None:
    assert view.packages() == [("adduser", "3.134"), ("base-files", "12"), ("zlib1g", "1:1.2.13")]
    assert view.agent() == ("0.3.0", hashlib.sha256(b"agent" * 5000).hexdigest())
    assert view.init() == "systemd"


def test_lists_directories_in_order_and_up_to_a_limit(view: RootView) -> None:
    names = [entry.path for entry in view.list("/many")]
    assert names == sorted(names)
    assert len(names) == 300
    assert [entry.path for entry in view.list("many", limit=2)] == names[:2]
    assert [entry.path for entry in view.list()] == [
        "etc", "far", "holes", "lib", "loop", "many", "outside", "up", "usr", "var",
    ]  # fmt: skip
    assert [entry.path for entry in view.list("up/nexus")] == ["etc/nexus/image.yaml"]


def test_links_lead_nowhere_but_inside(view: RootView) -> None:
    assert view.read("lib/../lib/systemd/systemd", 10) == b"init"
    assert view.read("up/../../etc/os-release", 4096) == OS_RELEASE
    assert view.entry("lib").target == "/usr/lib"
    assert view.entry("lib/os-release").kind is Kind.FILE
    with pytest.raises(Invalid, match="Too many"):
        view.read("loop", 10)
    for path in ("far", "outside", "outside/source", "etc/none", "etc/os-release/x"):
        with pytest.raises((NotFound, Invalid)):
            view.read(path, 10)


def test_reads_files_with_their_holes_and_up_to_a_limit(view: RootView, source: Path) -> None:
    content = (source / "holes").read_bytes()
    assert view.read("holes", len(content)) == content
    with pytest.raises(Invalid, match="more than 4 bytes"):
        view.read("holes", 4)
    with view.open("holes") as file:
        assert file.read(3) == b"sta"
        view.list("etc")
        assert file.read(2) == b"rt"
    with pytest.raises(Invalid, match="directory"):
        view.open("etc")
    with pytest.raises(Invalid, match="not a directory"):
        view.list("holes")


def test_an_image_that_says_nothing_has_nothing(tmp_path: Path) -> None:
    with open_image(make_ext4(tmp_path / "fs.img")) as view:
        assert (view.os_release(), view.packages(), view.agent()) == ({}, [], None)
        assert (view.init(), view.list()) == ("none", [])


def test_packages_of_apk_are_found_at_both_places(tmp_path: Path) -> None:
    for number, place in enumerate(("lib/apk/db", "usr/lib/apk/db")):
        source = tmp_path / str(number)
        (source / place).mkdir(parents=True)
        (source / place / "installed").write_bytes(APK)
        with open_image(make_ext4(tmp_path / f"{number}.img", source)) as view:
            assert view.packages() == [("busybox", "1.36"), ("musl", "1.2.5-r0")]


class CountedDisk(Disk):
    """A disk that counts what is read of it."""

    def __init__(self, path: Path) -> None:
        self._disk, self.read = RawDisk(path), 0
        self.size = self._disk.size

    def _read(self, offset: int, length: int) -> bytes:
        self.read += length
        return self._disk.read_at(offset, length)

    def close(self) -> None:
        self._disk.close()


def test_one_question_reads_little_of_a_large_image(tmp_path: Path, source: Path) -> None:
    (source / "large").write_bytes(random.Random(1).randbytes(8 << 20))
    disk = CountedDisk(make_ext4(tmp_path / "fs.img", source, size_mib=8192))
    with ImageView(disk) as view:
        assert view.list("etc")
        assert view.os_release()["ID"] == "debian"
        assert disk.read < 256 << 10


def test_a_directory_too_large_to_be_honest_is_refused(image: Path) -> None:
    with open_image(image) as view, pytest.MonkeyPatch.context() as patch:
        patch.setattr("images.inspection._MAX_DIRECTORY_BLOCKS", 2)
        with pytest.raises(Invalid, match="more blocks"):
            view.list("many")


def test_names_that_are_no_text_can_be_asked_for(tmp_path: Path) -> None:
    image = make_ext4(tmp_path / "fs.img")
    debugfs(image, "mkdir placeholder")
    image.write_bytes(image.read_bytes().replace(b"placeholder", b"\xff\xfe\n\x1b-holder"))
    name = decoded(b"\xff\xfe\n\x1b-holder")
    with open_image(image) as view:
        assert [entry.path for entry in view.list()] == [name]
        assert view.list(name) == []


@given(seed=st.integers(0, 2**32), count=st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_a_damaged_image_answers_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, seed: int, count: int
) -> None:
    base = tmp_path_factory.mktemp("view")
    (base / "source" / "etc").mkdir(parents=True)
    (base / "source" / "etc" / "os-release").write_bytes(OS_RELEASE)
    (base / "source" / "link").symlink_to("etc")
    image = make_ext4(base / "fs.img", base / "source", size_mib=1, options=("-b", "1024"))
    content, source = bytearray(image.read_bytes()), random.Random(seed)
    for place in source.sample([at for at, byte in enumerate(content) if byte], count):
        content[place] = source.choice([0, 1, 0xFF, content[place] ^ 1])
    image.write_bytes(content)
    with contextlib.suppress(Invalid, NotFound), open_image(image) as view:
        view.os_release(), view.packages(), view.agent(), view.init(), view.list("link")
