"""The initrd: its cpio form, and which modules go in, in which order."""

import gzip
import os
import stat
from pathlib import Path

import pytest

from images.initrd import build_initrd, read_cpio, select_modules
from nexus_site.core.errors import Invalid

MODULES_DEP = """\
kernel/fs/ext4/ext4.ko.gz: kernel/fs/mbcache.ko.gz kernel/fs/jbd2.ko.gz kernel/lib/crc16.ko.gz
kernel/lib/crc16.ko.gz:
kernel/fs/mbcache.ko.gz:
kernel/fs/jbd2.ko.gz: kernel/lib/crc16.ko.gz
kernel/drivers/virtio_blk.ko:
kernel/drivers/virtio-rng.ko.gz: kernel/drivers/rng-core.ko.gz
kernel/drivers/rng-core.ko.gz:
kernel/net/transport.ko.gz: kernel/net/common.ko.gz kernel/net/vsock.ko.gz
kernel/net/common.ko.gz: kernel/net/vsock.ko.gz
kernel/net/vsock.ko.gz:
kernel/odd/packed.ko.zst:
kernel/odd/broken.ko.gz:
kernel/odd/absent.ko.gz:
"""


@pytest.fixture
def tree() -> dict[str, bytes]:
    paths = [line.partition(":")[0] for line in MODULES_DEP.splitlines()]
    files = {path: b"ELF of " + path.encode() for path in paths if path.endswith(".ko")}
    files |= {path: gzip.compress(b"ELF of " + path.encode()) for path in paths if "gz" in path}
    files["kernel/odd/packed.ko.zst"] = b"zstd"
    files["kernel/odd/broken.ko.gz"] = files["kernel/lib/crc16.ko.gz"][:-9]
    del files["kernel/odd/absent.ko.gz"]
    files["modules.dep"] = MODULES_DEP.encode()
    files["modules.builtin"] = b"kernel/drivers/virtio.ko\nkernel/net/af-packet.ko\n"
    return files


def names(modules: list[tuple[str, bytes]]) -> list[str]:
    return [name for name, _ in modules]


def test_dependencies_come_first_and_once(tree: dict[str, bytes]) -> None:
    modules = select_modules(tree, ["virtio_blk", "jbd2"], ["ext4", "transport"])
    assert names(modules) == [
        "virtio_blk.ko",
        *["crc16.ko", "jbd2.ko", "mbcache.ko"],
        *["ext4.ko", "vsock.ko", "common.ko", "transport.ko"],
    ]


def test_modules_are_uncompressed(tree: dict[str, bytes]) -> None:
    assert select_modules(tree, ["virtio_blk", "crc16"], []) == [
        ("virtio_blk.ko", b"ELF of kernel/drivers/virtio_blk.ko"),
        ("crc16.ko", b"ELF of kernel/lib/crc16.ko.gz"),
    ]


def test_dashes_and_underscores_are_the_same(tree: dict[str, bytes]) -> None:
    assert names(select_modules(tree, ["virtio_rng"], [])) == ["rng-core.ko", "virtio-rng.ko"]
    assert names(select_modules(tree, ["virtio-rng"], [])) == ["rng-core.ko", "virtio-rng.ko"]


def test_what_is_built_in_is_left_out(tree: dict[str, bytes]) -> None:
    assert select_modules(tree, ["virtio", "af_packet"], []) == []


def test_a_missing_module_is_named_unless_optional(tree: dict[str, bytes]) -> None:
    assert names(select_modules(tree, ["crc16"], ["btrfs"])) == ["crc16.ko"]
    with pytest.raises(Invalid, match="no module btrfs"):
        select_modules(tree, ["crc16", "btrfs"], [])


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("packed", "kernel-module-compression"),
        ("broken", "kernel-damaged"),
        ("absent", "kernel-damaged"),
    ],
)
def test_a_module_that_cannot_be_used(tree: dict[str, bytes], module: str, code: str) -> None:
    with pytest.raises(Invalid, match=f"{module}.ko") as caught:
        select_modules(tree, [module], [])
    assert caught.value.code == code


@pytest.mark.parametrize("name", ["modules.dep", "modules.builtin"])
def test_a_tree_without_its_lists(tree: dict[str, bytes], name: str) -> None:
    del tree[name]
    with pytest.raises(Invalid, match=name):
        select_modules(tree, ["crc16"], [])


def write_agent(directory: Path) -> Path:
    agent = directory / "agent"
    agent.write_bytes(b"\x7fELF the agent")
    return agent


def test_initrd_has_agent_and_modules(tmp_path: Path) -> None:
    out = tmp_path / "initrd"
    build_initrd(out, write_agent(tmp_path), [("b.ko", b"BB"), ("a.ko", b"AAA")])
    assert read_cpio(out.read_bytes()) == {
        "init": b"\x7fELF the agent",
        "lib/modules/b.ko": b"BB",
        "lib/modules/a.ko": b"AAA",
        "modules": b"b.ko\na.ko\n",
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["agent", "initrd"]


def test_initrd_is_the_same_for_the_same_input(tmp_path: Path) -> None:
    agent = write_agent(tmp_path)
    first, second = tmp_path / "first", tmp_path / "second"
    build_initrd(first, agent, [("a.ko", b"AAA")])
    os.utime(agent, (1, 1))
    agent.chmod(0o700)
    build_initrd(second, agent, [("a.ko", b"AAA")])
    assert first.read_bytes() == second.read_bytes()


def test_headers_are_what_the_kernel_reads(tmp_path: Path) -> None:
    """Parsed by hand: magic, mode, size, four-byte alignment, the trailer."""
    out = tmp_path / "initrd"
    build_initrd(out, write_agent(tmp_path), [])
    data = out.read_bytes()
    at = data.index(b"init\0") - 110
    assert data[at : at + 6] == b"070701"
    assert at % 4 == 0
    assert int(data[at + 14 : at + 22], 16) == stat.S_IFREG | 0o755
    assert data[at + 116 : at + 132] == b"\x7fELF the agent\0\0"
    assert data[data.index(b"TRAILER!!!") - 110 :].startswith(b"070701")


def test_a_failed_write_leaves_the_old_initrd(tmp_path: Path) -> None:
    out = tmp_path / "initrd"
    out.mkdir()  # a directory cannot be replaced by a file
    with pytest.raises(OSError, match="directory"):
        build_initrd(out, write_agent(tmp_path), [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["agent", "initrd"]


@pytest.mark.parametrize("cut", [0, 50, 115, -130])
def test_a_damaged_archive_is_invalid(tmp_path: Path, cut: int) -> None:
    out = tmp_path / "initrd"
    build_initrd(out, write_agent(tmp_path), [])
    with pytest.raises(Invalid, match="whole cpio"):
        read_cpio(out.read_bytes()[:cut])
