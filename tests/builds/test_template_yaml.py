"""Templates as YAML: what goes out comes in again, and what strangers send does no harm."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import pytest
import yaml
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from builds import yaml_text
from builds.models import Template, TemplateVersion
from builds.recipe import MAX_TEXT, parse
from builds.template_yaml import dump, load
from images.models import Rootfs
from nexus_site.core.errors import Invalid

ROOTFS = Rootfs(distro="alpine", version="3.20", provider="embedded", sha256="ab" * 32)
MINIMAL = "rootfs:\n  distro: alpine\n  version: 3.20\n"
WHOLE = """\
name: web
description: 'Our pages: all of them'
rootfs:
  distro: alpine
  version: 3.20
init: openrc
size_mib: 512
env:
  DEBUG: no
  PORT: 8080
  EMPTY:
overlays:
  - path: /etc/motd
    mode: 0640
    owner: 1000:100
    content: |
      Hello.
      \tA tab.
packages:
  - nginx
commands:
  - rc-update add nginx
  - |
    if true; then
      echo yes
    fi
"""


def version_of(document: dict[str, Any]) -> tuple[Template, TemplateVersion]:
    template = Template(name="web", description="Our pages: all of them")
    version = TemplateVersion(
        template=template, number=3, rootfs=ROOTFS, recipe=document, created_at=timezone.now()
    )
    return template, version


def refused(text: str | bytes) -> Invalid:
    with pytest.raises(Invalid) as caught:
        load(text)
    return caught.value


def test_values_are_what_they_look_like_to_people() -> None:
    found = load(WHOLE)
    assert (found.name, found.description) == ("web", "Our pages: all of them")
    assert (found.rootfs.distro, found.rootfs.version) == ("alpine", "3.20")
    assert found.env == {"DEBUG": "no", "PORT": "8080", "EMPTY": ""}
    assert (found.overlays[0].mode, found.overlays[0].owner) == ("0640", "1000:100")
    assert found.overlays[0].content == "Hello.\n\tA tab.\n"
    assert found.commands[1] == "if true; then\n  echo yes\nfi\n"
    assert (found.init, found.size_mib) == ("openrc", 512)


def test_what_is_left_out_or_left_empty_has_its_usual_value() -> None:
    plain = load(MINIMAL).recipe
    assert load(MINIMAL + "packages:\nsize_mib: null\nname:\n").recipe == plain == parse({})


def test_an_export_reads_well() -> None:
    text = dump(*version_of(load(WHOLE).recipe.document()))
    assert text.startswith("# Nexus template web, version 3 of ")
    assert "  - |\n    if true; then\n      echo yes\n    fi\n" in text
    assert "    content: |\n      Hello.\n      \tA tab.\n" in text
    names = [line.partition(":")[0] for line in text.splitlines() if line[:1].isalpha()]
    assert names == [
        *("name", "description", "rootfs", "init", "size_mib"),
        *("env", "overlays", "packages", "commands"),
    ]


def test_other_programs_read_an_export_as_we_do() -> None:
    text = dump(*version_of(load(WHOLE).recipe.document()))
    theirs = yaml.safe_load(text)
    assert theirs["rootfs"]["version"] == "3.20"
    assert theirs["env"] == {"DEBUG": "no", "PORT": "8080", "EMPTY": ""}
    assert theirs["overlays"][0]["mode"] == "0640"


LINES = st.text(st.sampled_from("ab \t\n'\"#:-|>%&*!?{}[],\\\r\0\x85\u2028é🙂"), max_size=40)
VISIBLE = LINES.filter(lambda text: text.strip() and "\0" not in text)
RECIPES = st.fixed_dictionaries(
    {},
    optional={
        "overlays": st.lists(
            st.builds(
                lambda name, content: {"path": f"/srv/{name}", "content": content},
                st.text("abc.", min_size=4, max_size=9),
                LINES | st.text(max_size=60),
            ),
            max_size=3,
            unique_by=lambda overlay: overlay["path"],
        ),
        "packages": st.lists(st.sampled_from(["curl", "g++", "a=1.0-r0", "no", "1.0"]), max_size=3),
        "commands": st.lists(VISIBLE, max_size=3),
        "env": st.dictionaries(
            st.sampled_from(["A", "yes", "N", "_1"]),
            LINES.map(lambda text: text.replace("\n", "").replace("\0", "")),
        ),
        "init": st.sampled_from(["auto", "none", "systemd"]),
        "size_mib": st.none() | st.integers(64, 1 << 20),
    },
)


@given(RECIPES)
def test_what_goes_out_comes_in_again(document: dict[str, Any]) -> None:
    recipe = parse(document)
    text = dump(*version_of(recipe.document()))
    assert load(text).recipe == recipe
    assert load(text.encode()).rootfs.sha256 == ROOTFS.sha256


def test_bytes_go_out_as_base64_and_come_in_again() -> None:
    overlay = {"path": "/bin/tool", "mode": "0755", "content_base64": "AAEC" * 100}
    recipe = parse({"overlays": [overlay]})
    text = dump(*version_of(recipe.document()))
    assert max(len(line) for line in text.splitlines()) < 100
    assert load(text).recipe == recipe


@pytest.mark.parametrize(
    "unit", ["a\n", "\n", " ", "\u2028", "a line of some length\n", "x", "\tx\n"]
)
def test_the_largest_file_goes_out_and_comes_in_again(unit: str) -> None:
    content = unit * (MAX_TEXT // len(unit.encode()))
    recipe = parse({"overlays": [{"path": "/a", "content": content}]})
    text = dump(*version_of(recipe.document()))
    assert len(text.encode()) < yaml_text.MAX_BYTES
    assert load(text).recipe.document() == recipe.document()


@pytest.mark.parametrize(
    ("change", "line", "word"),
    [
        (("init: openrc", "init: upstart"), 6, "init: it should be 'auto'"),
        (("size_mib: 512", "size_mib: big"), 7, "integer"),
        (("PORT: 8080", "2PORT: 8080"), 10, "env.2PORT"),
        (("mode: 0640", "mode: 0649"), 14, "overlays[1].mode"),
        (("/etc/motd", "/etc/../../x"), 13, "overlays[1].path"),
        (("  - nginx", "  - nginx\n  - --root=/"), 21, "packages[2]"),
        (("- rc-update add nginx", "- ' '"), 22, "commands[1]"),
        (("packages:", "package:"), 19, "package: there is nothing of this name"),
        (("  distro: alpine\n", ""), 3, "rootfs.distro: it is missing"),
        (("init: openrc", "init: openrc\ninit: none"), 7, "“init” is there twice"),
        (("init: openrc", "init: [openrc"), 7, "did not find expected"),
        (("init: openrc", "\tinit: openrc"), 6, "a tab character"),
        (("name: web", "name: Web"), 1, "A name has 1 to 63"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(
    change: tuple[str, str], line: int, word: str
) -> None:
    error = refused(WHOLE.replace(*change))
    assert f"Line {line}: " in error.text
    assert word in error.text
    assert error.extra["line"] == line


def test_every_fault_has_its_line() -> None:
    error = refused(WHOLE.replace("openrc", "upstart").replace("0640", "rw"))
    assert [line.partition(":")[0] for line in error.detail.splitlines()] == ["Line 6", "Line 14"]


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (BOMB, "Anchors and aliases"),
        (MINIMAL + "env: &e {A: b}\n", "Anchors and aliases"),
        (MINIMAL + "env: *e\n", "Anchors and aliases"),
        (MINIMAL + "init: !!python/object/apply:os.system [reboot]\n", "Tags"),
        (MINIMAL + "init: !!python/name:os.system\n", "Tags"),
        (MINIMAL + "init: !!binary YXV0bw==\n", "Tags"),
        (MINIMAL + "!!str init: auto\n", "A name is plain text"),
        (MINIMAL + "? [a, b]\n: c\n", "A name is plain text"),
        (MINIMAL + "---\n" + MINIMAL, "A second document"),
        (MINIMAL + "env: " + "[" * 500_000, "nested"),
        (MINIMAL + "env: " + "{a: " * 500_000, "nested"),
        (MINIMAL + "packages:\n" + "  - a\n" * 300_000, "more than 10000 values"),
        (MINIMAL + "# " + "x" * yaml_text.MAX_BYTES, "longer than 2 MiB"),
        (MINIMAL.encode() + b"name: \xff\n", "UTF-8"),
        (MINIMAL + "name: \ud800\n", "UTF-8"),
        (MINIMAL + "name: \x07\n", "not YAML"),
        ("", "nothing in it"),
        ("# only a comment\n", "nothing in it"),
        ("- a\n- b\n", "A template is names with values"),
        ("just text", "A template is names with values"),
        ("%YAML 9.9\n---\na: b\n", "found incompatible YAML document"),
    ],
    ids=range(21),
)
def test_hostile_documents_are_refused_at_once(text: str | bytes, word: str) -> None:
    started = time.process_time()
    assert word in refused(text).text
    assert time.process_time() - started < 20, "a bound on work, not a measurement"


@given(st.text(st.sampled_from("ab:-[]{}&*!|>'\"#? \n\t%@`,0"), max_size=80) | st.binary())
def test_whatever_comes_is_read_or_refused(text: str | bytes) -> None:
    with contextlib.suppress(Invalid):
        assert load(text).rootfs.distro
