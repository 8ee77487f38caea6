"""The identity of an image follows from what it is made of."""

from __future__ import annotations

from dataclasses import replace

import pytest

from builds.inputs import Inputs
from builds.recipe import parse

INPUTS = Inputs(
    name="web",
    rootfs="alpine 3.23 x86_64",
    rootfs_sha256="1" * 64,
    recipe={"packages": ["nginx"]},
    size_mib=8192,
    agent_digest="2" * 64,
)


def test_equal_inputs_give_equal_ids_whatever_the_order_of_their_words() -> None:
    one = replace(INPUTS, recipe={"packages": ["a"], "env": {"A": "1", "B": "2"}})
    other = replace(INPUTS, recipe={"env": {"B": "2", "A": "1"}, "packages": ["a"]})
    assert one.image_id == other.image_id
    assert one.build_key == other.build_key
    assert one.fs_uuid == other.fs_uuid


@pytest.mark.parametrize(
    "change",
    [
        {"name": "db"},
        {"rootfs_sha256": "3" * 64},
        {"recipe": {"packages": ["nginx", "curl"]}},
        {"recipe": {"packages": ["curl", "nginx"]}},
        {"size_mib": 4096},
        {"agent_digest": "4" * 64},
        {"edition": 2},
        {"format": 0},
    ],
    ids=str,
)
def test_any_other_input_is_another_image(change: dict[str, object]) -> None:
    assert replace(INPUTS, **change).image_id != INPUTS.image_id  # type: ignore[arg-type]


def test_image_build_and_file_system_have_ids_of_their_own() -> None:
    assert len({INPUTS.image_id, INPUTS.build_key}) == 2
    assert INPUTS.fs_uuid != INPUTS.hash_seed


def test_ids_are_like_all_others() -> None:
    for number in range(200):
        inputs = replace(INPUTS, edition=number)
        assert 0 < inputs.image_id < 2**63
        assert len(str(inputs.image_id)) == 13


def test_the_ids_of_known_inputs_stay_for_ever() -> None:
    assert str(INPUTS.image_id) == str(Inputs.from_document(INPUTS.document()).image_id)
    assert INPUTS.digest == "f423163bc31d939f2f252325f93787de49016e75e318ac043c7cdcfab36a2d8d"


def test_a_recipe_says_the_same_with_and_without_usual_values() -> None:
    short = parse({"packages": ["nginx"]})
    long = parse({"packages": ["nginx"], "commands": [], "env": {}, "init": "auto"})
    assert short.document() == long.document() == {"packages": ["nginx"]}
