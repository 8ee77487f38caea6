"""Fragments of kernel options: what one may say, and what must come of it."""

from __future__ import annotations

import pytest

from builds.kernels.fragments import default_fragment, parse, require_taken
from nexus_site.core.errors import Invalid, NotFound


def test_the_projects_own_has_a_number_and_what_a_guest_boots_from() -> None:
    fragment = default_fragment("x86_64")
    name, number = fragment.label.split()
    assert (name, number.isdigit()) == ("microvm", True)
    built_in = {wish[0] for wish in fragment.wishes}
    for option in ("PVH", "VIRTIO_MMIO", "VIRTIO_BLK", "EXT4_FS", "SCSI_VIRTIO", "VIRTIO_CONSOLE"):
        assert f"CONFIG_{option}=y" in built_in


def test_there_is_none_for_a_machine_that_nobody_made_one_for() -> None:
    with pytest.raises(NotFound, match="sparc"):
        default_fragment("sparc")


def test_options_comments_and_alternatives_are_told_apart() -> None:
    text = """\
# nexus fragment: mine 12
# A comment, and one that is a wish:
# CONFIG_MODULES is not set
CONFIG_A=y
CONFIG_B=n

CONFIG_OLD=y or CONFIG_NEW=y
CONFIG_NAME="x or y"
"""
    fragment = parse(text.replace('CONFIG_NAME="x or y"', 'CONFIG_NAME="x"'))
    assert fragment.label == "mine 12"
    assert fragment.wishes == (
        ("# CONFIG_MODULES is not set",),
        ("CONFIG_A=y",),
        ("# CONFIG_B is not set",),
        ("CONFIG_OLD=y", "CONFIG_NEW=y"),
        ('CONFIG_NAME="x"',),
    )
    assert fragment.allconfig.splitlines()[3:5] == ["CONFIG_OLD=y", "CONFIG_NEW=y"]


def test_without_a_number_it_is_known_by_its_text() -> None:
    one, other = parse("CONFIG_A=y\n"), parse("CONFIG_B=y\n")
    assert one.label.startswith("custom-")
    assert one.label != other.label


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "names no option"),
        ("# only words\n", "names no option"),
        ("CONFIG_A=y\nCONFIG_B=m\n", "Line 2 is a module"),
        ("CONFIG_A=y\nrm -rf /\n", "Line 2 is neither"),
        ("CONFIG_A=$(shell id)\n", "Line 1 is neither"),
        ('CONFIG_A="x\\"\n', "Line 1 is neither"),
        ("CONFIG_A=y or B=y\n", "Line 1 is neither"),
        ("CONFIG_A=y\n" * 30_000, "characters"),
    ],
)
def test_what_is_no_fragment_is_refused_with_its_line(text: str, reason: str) -> None:
    with pytest.raises(Invalid, match=reason) as caught:
        parse(text)
    assert caught.value.code == "fragment-invalid"


def test_all_that_was_wished_for_must_have_taken() -> None:
    fragment = parse(
        "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_OLD=y or CONFIG_NEW=y\nCONFIG_N=8\n"
    )
    require_taken(fragment, "CONFIG_A=y\nCONFIG_NEW=y\nCONFIG_N=8\n")
    require_taken(fragment, "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_OLD=y\nCONFIG_N=8\n")


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ("CONFIG_NEW=y\nCONFIG_N=8\n", "CONFIG_A=y"),
        ("CONFIG_A=m\nCONFIG_NEW=y\nCONFIG_N=8\n", "CONFIG_A=y"),
        ("CONFIG_A=y\nCONFIG_B=y\nCONFIG_NEW=y\nCONFIG_N=8\n", "# CONFIG_B is not set"),
        ("CONFIG_A=y\nCONFIG_N=8\n", "CONFIG_OLD=y or CONFIG_NEW=y"),
        ("CONFIG_A=y\nCONFIG_NEW=y\nCONFIG_N=9\n", "CONFIG_N=8"),
    ],
)
def test_an_option_that_did_not_take_is_named(config: str, named: str) -> None:
    fragment = parse(
        "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_OLD=y or CONFIG_NEW=y\nCONFIG_N=8\n"
    )
    with pytest.raises(Invalid) as caught:
        require_taken(fragment, config)
    assert caught.value.code == "options-not-taken"
    assert caught.value.detail == named
    assert named in caught.value.text
