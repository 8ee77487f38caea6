"""IDs: 63 random bits, 13 letters, never anything else."""

from __future__ import annotations

import json

import pytest
from django.template import Context, Template
from hypothesis import given
from hypothesis import strategies as st

from builds.models import Template as BuildTemplate
from nexus_site.core import ids
from nexus_site.core.errors import Invalid, NotFound
from nexus_site.core.ids import NexusID

VECTORS = {
    1: "aaaaaaaaaaaac",
    12345: "aaaaaaaaaayds",
    72623859790382856: "aebagbafaydqq",
    2**63 - 1: "p777777777776",
}


@pytest.mark.parametrize(("number", "text"), VECTORS.items())
def test_known_ids_are_written_and_read_back(number: int, text: str) -> None:
    assert ids.encode(number) == text
    assert ids.decode(text) == number
    assert ids.decode(text.upper()) == number


@given(st.integers(min_value=0, max_value=2**63 - 1))
def test_every_id_survives_its_text_form(number: int) -> None:
    text = ids.encode(number)
    assert len(text) == 13
    assert ids.decode(text) == number


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "13 letters"),
        ("aaaaaaaaaaaa", "13 letters"),
        ("aaaaaaaaaaaaaa", "13 letters"),
        ("aaaaaaaaaaa1c", "letters a-z and the digits 2-7"),
        ("aaaaaaaaaaa-c", "letters a-z and the digits 2-7"),
        ("aaaaaaaaaaaaé", "letters a-z and the digits 2-7"),
        ("aaaaaaaaaaaad", "canonical"),
        ("qaaaaaaaaaaaa", "63 bits"),
        ("7777777777776", "63 bits"),
    ],
)
def test_what_is_no_id_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        ids.decode(text)


def test_an_id_is_an_integer_that_shows_as_letters_everywhere() -> None:
    number = NexusID(12345)
    assert str(number) == f"{number}" == "%s" % number == "aaaaaaaaaayds"  # noqa: UP031
    assert Template("{{ id }}|{{ id|upper }}").render(Context({"id": number})) == (
        "aaaaaaaaaayds|AAAAAAAAAAYDS"
    )
    assert json.dumps({"id": str(number)}) == '{"id": "aaaaaaaaaayds"}'


def test_random_ids_differ_and_fit_63_bits() -> None:
    made = {NexusID.random() for _ in range(1000)}
    assert len(made) == 1000
    assert all(0 < number < 2**63 for number in made)


@pytest.mark.parametrize("name", ["a", "web-1", "0", "x" * 63, "alpine-3-23"])
def test_dns_labels_are_names(name: str) -> None:
    assert ids.check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "-a", "a-", "A", "a_b", "a.b", "x" * 64, "ü", "a b", "a\n", "../etc"]
)
def test_other_texts_are_no_names(name: str) -> None:
    with pytest.raises(Invalid, match="A name has 1 to 63"):
        ids.check_name(name)


def test_a_well_formed_id_is_no_name() -> None:
    with pytest.raises(Invalid, match="form of an ID"):
        ids.check_name("aaaaaaaaaayds")


@pytest.mark.parametrize("name", sorted(ids.RESERVED))
def test_a_word_of_the_addresses_is_no_name(name: str) -> None:
    with pytest.raises(Invalid, match="means something else"):
        ids.check_name(name)


@pytest.mark.django_db
def test_a_reference_is_an_id_first_then_a_name() -> None:
    template = BuildTemplate.objects.create(name="web")
    rows = BuildTemplate.objects.all()
    assert ids.resolve(rows, "web") == template
    assert ids.resolve(rows, template.ref) == template
    assert ids.resolve(rows, template.ref.upper()) == template
    assert ids.resolve(rows, template.id) == template


@pytest.mark.django_db
@pytest.mark.parametrize("ref", ["nothing", "aaaaaaaaaaaac", "", "a b", "é"])
def test_a_reference_to_nothing_says_what_was_looked_for(ref: str) -> None:
    with pytest.raises(NotFound, match="There is no template") as caught:
        ids.resolve(BuildTemplate.objects.all(), ref)
    assert caught.value.code == "template-not-found"


def test_generated_names_are_valid_and_avoid_what_is_taken() -> None:
    taken = {"web"}
    assert ids.free_name(lambda name: name in taken, "db") == "db"
    assert ids.free_name(lambda name: name in taken, "web").startswith("web-")
    assert ids.check_name(ids.free_name(lambda name: False))
