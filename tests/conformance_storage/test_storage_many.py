"""A thousand drives of one image."""

from __future__ import annotations

from pathlib import Path

from drives.storage import Storage
from images.files import sha256_of
from tests.conformance_storage.conftest import MIB, SIZE, scribble, spent

COUNT = 1000


def test_a_thousand_clones_are_independent_and_give_all_space_back(
    storage: Storage, image: str, place: Path
) -> None:
    original = sha256_of(storage.image_path(image))
    before = spent(storage, place)
    names = [f"clone-{number}" for number in range(COUNT)]
    for name in names:
        storage.clone_image(image, name)
    assert storage.inventory().drives == set(names)
    if storage.name != "copy":
        assert spent(storage, place) < before + COUNT * 32 << 10, "data is there once"
    sample = names[:: COUNT // 10]
    for name in sample:
        scribble(storage.drive_path(name), name.encode() * 1000, offset=SIZE // 3)
    digests = {sha256_of(storage.drive_path(name)) for name in sample}
    assert len(digests) == len(sample), "what one wrote is in no other"
    assert original not in digests
    assert sha256_of(storage.drive_path(names[1])) == original
    assert sha256_of(storage.image_path(image)) == original
    for name in names:
        storage.delete(name)
    assert storage.inventory().drives == set()
    assert spent(storage, place) < before + 2 * MIB
