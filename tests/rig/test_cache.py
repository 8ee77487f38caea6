"""Entries of the rig's cache: made once, whole or not at all, and gone when nobody needs them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.rig.cache import Cache, digest


class Maker:
    """Makes an entry of one file, and counts."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, out: Path) -> None:
        self.calls += 1
        (out / "root.ext4").write_bytes(b"x" * 1000)


@pytest.fixture
def make() -> Maker:
    return Maker()


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def test_an_entry_is_made_once(cache: Cache, make: Maker) -> None:
    for _ in range(2):
        with cache.entry("key", make) as entry:
            assert (entry / "root.ext4").stat().st_size == 1000
    assert make.calls == 1


def test_what_fails_leaves_nothing(cache: Cache, make: Maker, tmp_path: Path) -> None:
    def fail(out: Path) -> None:
        make(out)
        raise OSError("no network")

    with pytest.raises(OSError, match="no network"), cache.entry("key", fail):
        pass
    assert [path for path in (tmp_path / "cache").iterdir() if path.is_dir()] == []
    with cache.entry("key", make) as entry:
        assert entry.is_dir()


def cut(entry: Path) -> None:
    (entry / "root.ext4").write_bytes(b"x" * 10)


def lose(entry: Path) -> None:
    (entry / "root.ext4").unlink()


def scribble(entry: Path) -> None:
    (entry / "manifest.json").write_text("[1, 2")


@pytest.mark.parametrize("damage", [cut, lose, scribble])
def test_a_damaged_entry_is_made_anew(
    cache: Cache, make: Maker, damage: Callable[[Path], None]
) -> None:
    with cache.entry("key", make) as entry:
        damage(entry)
    with cache.entry("key", make) as entry:
        assert (entry / "root.ext4").stat().st_size == 1000
    assert make.calls == 2


def test_entries_of_other_keys_go_when_nobody_uses_them(
    cache: Cache, make: Maker, tmp_path: Path
) -> None:
    (tmp_path / "cache/.killed.abc").mkdir(parents=True)
    with cache.entry("old", make):
        pass
    with cache.entry("used", make), cache.entry("new", make):
        pass
    left = {path.name for path in (tmp_path / "cache").iterdir() if path.is_dir()}
    assert left == {"used", "new"}


def test_who_comes_while_it_is_made_waits_for_it(cache: Cache) -> None:
    begun, go_on = threading.Event(), threading.Event()
    make = Maker()

    def slow(out: Path) -> None:
        begun.set()
        go_on.wait()
        make(out)

    def use(maker: Callable[[Path], None]) -> None:
        with cache.entry("key", maker):
            pass

    first = threading.Thread(target=use, args=(slow,))
    second = threading.Thread(target=use, args=(make,))
    first.start()
    begun.wait()
    second.start()
    go_on.set()
    first.join()
    second.join()
    assert make.calls == 1


def test_a_key_is_of_words_and_contents(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("one")
    before = digest("word", file)
    assert before == digest("word", file)
    assert before != digest("wor", "d", file)
    file.write_text("two")
    assert before != digest("word", file)
