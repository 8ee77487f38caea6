"""Images keep nothing of one machine, and no time of one run."""

from __future__ import annotations

import pytest

from builds.cleaning import clean, settle_times
from images.trees import Tree


@pytest.mark.parametrize(
    "path",
    [
        "boot/vmlinuz",
        "etc/hostname",
        "etc/ssh/ssh_host_ed25519_key",
        "etc/ssh/ssh_host_ed25519_key.pub",
        "root/.bash_history",
        "run/lock/x",
        "tmp/left",
        "var/cache/apt/pkgcache.bin",
        "var/lib/apt/lists/mirror_Release",
        "var/lib/systemd/random-seed",
        "var/log/apt/history.log",
        "var/log/dpkg.log",
    ],
)
def test_what_belongs_to_one_machine_or_one_run_is_left_out(tree: Tree, path: str) -> None:
    tree.add_file(path, b"secret")
    clean(tree)
    assert path not in tree


@pytest.mark.parametrize(
    "path", ["etc/ssh/sshd_config", "var/lib/dpkg/status", "root/.profile", "etc/fstab"]
)
def test_the_rest_stays(tree: Tree, path: str) -> None:
    tree.add_file(path, b"kept")
    clean(tree)
    assert tree.read(path) == b"kept"


def test_directories_that_are_emptied_stay_with_their_modes(tree: Tree) -> None:
    tree.add_directory("tmp", mode=0o1777)
    tree.add_file("tmp/deep/down", b"x")
    clean(tree)
    assert tree.entry("tmp").mode == 0o1777
    assert tree.paths("tmp") == ["tmp"]


def test_var_run_through_a_link_is_emptied_where_it_really_is(tree: Tree) -> None:
    tree.add_symlink("tmp", "/var/tmp")
    tree.add_file("var/tmp/x", b"x")
    clean(tree)
    assert "var/tmp/x" not in tree
    assert tree.entry("tmp").target == "/var/tmp"


def test_a_systemd_guest_has_an_empty_machine_id_and_others_none(tree: Tree) -> None:
    tree.add_file("etc/machine-id", b"0123456789abcdef\n")
    clean(tree)
    assert "etc/machine-id" not in tree
    tree.add_file("usr/lib/systemd/systemd", b"elf")
    clean(tree)
    assert tree.read("etc/machine-id") == b""


def test_a_container_image_gets_the_directories_that_a_guest_mounts_on(tree: Tree) -> None:
    tree.add_file("app", b"elf", mode=0o755)
    clean(tree)
    assert {"dev", "proc", "run", "sys", "tmp"} <= set(tree.paths())
    assert tree.entry("tmp").mode == 0o1777


def test_times_of_this_run_become_the_newest_of_the_content(tree: Tree) -> None:
    tree.add_file("old", b"", mtime=1_000)
    tree.add_file("newest", b"", mtime=5_000)
    tree.add_file("of-this-run", b"", mtime=9_000)
    tree.add_file("without", b"")
    assert settle_times(tree, started=8_000) == 5_000
    times = {entry.path: entry.mtime for entry in tree}
    assert times == {
        "": 5_000, "old": 1_000, "newest": 5_000, "of-this-run": 5_000, "without": 5_000,
    }  # fmt: skip
    assert settle_times(tree, started=8_000) == 5_000, "again: the same"


def test_a_tree_without_any_date_gets_one_that_ext4_can_hold(tree: Tree) -> None:
    tree.add_file("a", b"")
    assert settle_times(tree, started=8_000) == 1
