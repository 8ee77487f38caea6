"""Trees: what is kept of an entry, what changes do, and what hostile sources cannot do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.entries import MAX_MTIME, Entry, Kind, decoded, encoded, normal_path
from images.trees import Item, Tree
from nexus_site.core.errors import Broken, Conflict, Invalid, NotFound, Retryable


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree.create(tmp_path / "tree")


def contents_on_disk(tree: Tree) -> int:
    tree.save()
    return len(list((tree.directory / "content").iterdir()))


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        ("/", ""),
        ("", ""),
        (".", ""),
        ("./etc//hosts/", "etc/hosts"),
        ("/etc/./hosts", "etc/hosts"),
        ("-rf", "-rf"),
        ("a b/\n\t'\"\\", "a b/\n\t'\"\\"),
        ("…/..a/b..", "…/..a/b.."),
    ],
)
def test_paths_are_made_normal(path: str, normal: str) -> None:
    assert normal_path(path) == normal


@pytest.mark.parametrize(
    "path",
    ["..", "../etc/passwd", "/../x", "a/../../x", "a/..", "a\0b", "n" * 256, "d/" * 2048 + "x"],
)
def test_paths_that_lead_elsewhere_are_refused(tree: Tree, path: str) -> None:
    with pytest.raises(Invalid):
        tree.add_file(path, b"")
    with pytest.raises(Invalid):
        Entry(path, Kind.DIRECTORY, 0o755)


@given(st.binary(max_size=60))
def test_any_bytes_survive_as_a_name(raw: bytes) -> None:
    assert encoded(decoded(raw)) == raw


@pytest.mark.parametrize(
    "change",
    [
        {"mode": 0o10000},
        {"mode": -1},
        {"uid": 2**32},
        {"gid": -1},
        {"mtime": MAX_MTIME + 1},
        {"size": -1},
        {"size": 2**60},
        {"target": "x"},
        {"device": (4096, 0)},
        {"device": (0, 2**20)},
        {"xattrs": {"system.data": b""}},
        {"xattrs": {"-f": b""}},
        {"xattrs": {"user.": b""}},
        {"xattrs": {"user.x": b"x" * 70_000}},
        {"kind": Kind.SYMLINK},
        {"kind": Kind.SYMLINK, "target": "x" * 4096},
        {"kind": Kind.SYMLINK, "target": "a\0b"},
    ],
    ids=str,
)
def test_entries_that_no_file_system_holds_are_refused(change: dict[str, object]) -> None:
    good = {"path": "file", "kind": Kind.FILE, "mode": 0o644}
    assert Entry(**good)  # type: ignore[arg-type]
    with pytest.raises(Invalid, match="file"):
        Entry(**(good | change))  # type: ignore[arg-type]


def test_a_file_is_kept_under_a_number_and_its_owner_in_the_manifest(tree: Tree) -> None:
    entry = tree.add_file("/usr/bin/su", b"program", mode=0o4755, uid=5, gid=6, mtime=7)
    assert tree.read("usr/bin/su") == b"program"
    assert [found.path for found in tree] == ["", "usr", "usr/bin", "usr/bin/su"]
    assert (entry.mode, entry.uid, entry.gid, entry.mtime, entry.size) == (0o4755, 5, 6, 7, 7)
    kept = tree.content_path(entry)
    assert kept.parent == tree.directory / "content"
    assert kept.name.isalnum()


def test_a_file_of_this_machine_can_be_added(tree: Tree, tmp_path: Path) -> None:
    source = tmp_path / "agent"
    source.write_bytes(b"agent" * 1000)
    entry = tree.add_file("usr/bin/nexus-agent", source, mode=0o755)
    source.unlink()
    assert (entry.size, tree.read("usr/bin/nexus-agent")) == (5000, b"agent" * 1000)


def test_replacing_and_removing_frees_contents(tree: Tree) -> None:
    tree.add_file("etc/motd", b"old")
    tree.add_file("etc/motd", b"new")
    assert (tree.read("etc/motd"), contents_on_disk(tree)) == (b"new", 1)
    tree.add_symlink("etc/motd", "/run/motd")
    assert contents_on_disk(tree) == 0
    tree.add_file("etc-other", b"stays")
    tree.add_file("etc/deep/er/file", b"goes")
    assert tree.remove("/etc") == 5
    assert tree.paths() == ["", "etc-other"]
    assert contents_on_disk(tree) == 1
    assert tree.remove("/etc") == 0


def test_the_root_stays(tree: Tree) -> None:
    with pytest.raises(Invalid):
        tree.remove("/")
    with pytest.raises(Invalid):
        tree.add_file("/", b"")
    assert tree.add_directory("/", mode=0o700) == tree.entry("")


def test_hard_links_share_their_content_until_the_last_is_gone(tree: Tree) -> None:
    first = tree.add_file("bin/gzip", b"gzip", mode=0o755, uid=3)
    second = tree.add_link("bin/gunzip", "bin/gzip")
    assert (second.content, second.uid, second.mode) == (first.content, 3, 0o755)
    tree.add_file("bin/gzip", b"another")
    assert (tree.read("bin/gunzip"), contents_on_disk(tree)) == (b"gzip", 2)
    tree.remove("bin/gunzip")
    assert contents_on_disk(tree) == 1
    tree.add_link("bin/gzip", "bin/gzip")
    assert tree.read("bin/gzip") == b"another"


def test_only_files_of_the_tree_have_hard_links(tree: Tree) -> None:
    tree.add_symlink("link", "/etc/shadow")
    with pytest.raises(NotFound):
        tree.add_link("stolen", "/etc/shadow")
    with pytest.raises(Invalid, match="only files"):
        tree.add_link("stolen", "link")


def test_nothing_is_put_behind_a_symbolic_link(tree: Tree, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    tree.add_symlink("link", str(outside))
    for add in (
        lambda: tree.add_file("link/file", b"escaped"),
        lambda: tree.add_directory("link/a/b"),
        lambda: tree.add_symlink("link/other", "x"),
    ):
        with pytest.raises(Invalid, match="symlink"):
            add()
    assert list(outside.iterdir()) == []


def test_the_refusal_says_where_the_link_leads(tree: Tree) -> None:
    tree.add_directory("usr/bin")
    tree.add_symlink("bin", "usr/bin")
    with pytest.raises(Invalid) as refusal:
        tree.add_file("bin/tool", b"")
    assert "/usr/bin" in refusal.value.hint
    tree.add_file(tree.resolve("bin") + "/tool", b"tool")
    assert tree.read("/bin/tool") == b"tool"


def test_parents_are_made_however_deep(tree: Tree) -> None:
    tree.add_file("d/" * 2047 + "x", b"deep", mtime=5)
    assert tree.read("d/" * 2047 + "x") == b"deep"
    assert (len(tree), tree.entry("d/d").mtime) == (2049, 5)


def test_many_entries_are_removed_in_one_pass(tree: Tree) -> None:
    for name in ("a/1", "a/2", "b/1"):
        tree.add_file(name, name.encode())
    assert tree.prune(lambda path: path.endswith("1")) == 2
    assert tree.paths() == ["", "a", "a/2", "b"]
    assert contents_on_disk(tree) == 1
    assert tree.prune(lambda _: True) == 3
    assert tree.paths() == [""]


def test_directories_and_other_entries_do_not_replace_each_other(tree: Tree) -> None:
    tree.add_file("a/file", b"")
    for add in (lambda: tree.add_symlink("a", "target"), lambda: tree.add_file("a", b"")):
        with pytest.raises(Invalid, match="cannot become"):
            add()
    with pytest.raises(Invalid, match="cannot become"):
        tree.add_directory("a/file")
    with pytest.raises(Invalid, match="can hold nothing"):
        tree.add_file("a/file/below", b"")


@pytest.mark.parametrize(
    ("path", "resolved"),
    [
        ("link/hosts", "etc/hosts"),
        ("/absolute/x", "etc/x"),
        ("up/etc", "etc"),
        ("missing/../etc", "etc"),
        ("chain/hosts", "etc/hosts"),
        ("etc/../../../etc", "etc"),
    ],
)
def test_links_are_followed_inside_the_tree(tree: Tree, path: str, resolved: str) -> None:
    tree.add_file("etc/hosts", b"hosts")
    tree.add_symlink("link", "etc")
    tree.add_symlink("absolute", "/etc")
    tree.add_symlink("up", "../../../..")
    tree.add_symlink("chain", "./link/.")
    assert tree.resolve(path) == resolved


def test_links_that_go_round_are_refused(tree: Tree) -> None:
    tree.add_symlink("a", "b")
    tree.add_symlink("b", "a/x")
    with pytest.raises(Invalid, match="Too many"):
        tree.read("a")


def test_reading_what_is_not_a_file_is_refused(tree: Tree) -> None:
    tree.add_directory("etc")
    with pytest.raises(Invalid, match="directory"):
        tree.read("etc")
    with pytest.raises(NotFound, match="etc/none"):
        tree.read("etc/none")


def fill_everything(tree: Tree) -> None:
    tree.add_file("file", b"content", mode=0o6711, uid=70_000, gid=8, mtime=9)
    tree.add_file("capable", b"", xattrs={"security.capability": bytes(range(20))})
    tree.add_link("link", "file")
    tree.add_symlink("symlink", decoded(b"to/\xff\n"), uid=1)
    tree.add(Entry("console", Kind.CHARACTER_DEVICE, 0o620, device=(5, 1)))
    tree.add(Entry(decoded(b"n\xc3\xa4me\xff \"'\n"), Kind.FIFO, 0o600, mtime=MAX_MTIME))


def test_what_is_saved_is_loaded(tree: Tree) -> None:
    fill_everything(tree)
    tree.save()
    loaded = Tree.load(tree.directory)
    assert list(loaded) == list(tree)
    assert loaded.read("file") == b"content"
    loaded.add_file("new", b"new")
    assert loaded.read("file") == b"content"
    assert loaded.read("new") == b"new"


def test_a_process_killed_before_saving_leaves_the_saved_tree(tree: Tree) -> None:
    fill_everything(tree)
    tree.save()
    before = list(tree)
    tree.remove("link")
    tree.remove("file")
    tree.add_file("new", b"never saved")
    loaded = Tree.load(tree.directory)
    assert list(loaded) == before
    assert loaded.read("link") == b"content"
    loaded.add_file("new", b"saved")
    assert contents_on_disk(loaded) == 3
    assert loaded.read("new") == b"saved"


def edit(change: Callable[[list[dict[str, object]]], None]) -> Callable[[Path], None]:
    def apply(manifest: Path) -> None:
        lines = [json.loads(line) for line in manifest.read_text().splitlines()]
        change(lines)
        manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))

    return apply


@pytest.mark.parametrize(
    "damage",
    [
        lambda manifest: manifest.write_text(""),
        lambda manifest: manifest.write_text('{"format": "other"}\n'),
        lambda manifest: manifest.write_text(manifest.read_text()[:-20]),
        edit(lambda lines: lines[2].update(content="../../../etc/passwd")),
        edit(lambda lines: lines[2].update(unknown=1)),
        edit(lambda lines: lines[2].update(kind="other")),
    ],
)
def test_a_damaged_manifest_is_broken(tree: Tree, damage: Callable[[Path], None]) -> None:
    fill_everything(tree)
    tree.save()
    damage(tree.directory / "manifest.jsonl")
    with pytest.raises(Broken):
        Tree.load(tree.directory)


def test_a_manifest_cannot_put_entries_behind_a_link(tree: Tree) -> None:
    fill_everything(tree)
    tree.save()
    edit(lambda lines: lines.append({"path": "symlink/x", "kind": "directory", "mode": 0}))(
        tree.directory / "manifest.jsonl"
    )
    with pytest.raises(Invalid, match="hold nothing"):
        Tree.load(tree.directory)


def test_trees_start_in_a_directory_of_their_own(tree: Tree, tmp_path: Path) -> None:
    with pytest.raises(Conflict):
        Tree.create(tree.directory)
    with pytest.raises(NotFound):
        Tree.load(tmp_path)


def file_item(path: str, *pieces: tuple[int, bytes], size: int = 10) -> Item:
    return Item(Entry(path, Kind.FILE, 0o644, size=size), pieces)


def test_sources_fill_in_any_order_with_holes(tree: Tree) -> None:
    big = 64 << 20
    tree.fill(
        [
            file_item("b/c/file", (6, b"late"), (0, b"early")),
            Item(Entry("b", Kind.DIRECTORY, 0o700, 4, 4)),
            Item(Entry("hard", Kind.FILE, 0), link_to="b/c/file"),
            file_item("holes", (0, bytes(1 << 20)), (big - 1, b"x"), size=big),
        ]
    )
    assert tree.read("hard") == b"early\0late"
    assert (tree.entry("b").mode, tree.entry("b").uid) == (0o700, 4)
    holes = tree.content_path(tree.entry("holes")).stat()
    assert (holes.st_size, holes.st_blocks * 512 < 1 << 20) == (big, True)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ([file_item("a", (8, b"xyz"))], "behind its end"),
        ([file_item("a", (-1, b"x"))], "behind its end"),
        ([file_item(f"f{n}") for n in range(6)], "more than 5 entries"),
        ([file_item("a", *[(0, b"0123456789")] * 11)], "more than 100 bytes"),
    ],
)
def test_sources_that_lie_or_flood_are_refused(tree: Tree, source: list[Item], reason: str) -> None:
    with pytest.raises(Invalid, match=reason):
        tree.fill(source, max_entries=5, max_bytes=100)


def test_a_full_disk_leaves_the_tree_as_it_was(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.add_file("etc/motd", b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("images.trees._write_pieces", full)
    with pytest.raises(Retryable) as raised:
        tree.add_file("etc/motd", b"new")
    assert raised.value.code == "disk-full"
    assert (tree.read("etc/motd"), contents_on_disk(tree)) == (b"old", 1)
