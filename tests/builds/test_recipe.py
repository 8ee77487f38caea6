"""What a template may say, and how it is told what it may not."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from builds.recipe import MAX_TEXT, Recipe, parse
from nexus_site.core.errors import Invalid


def overlay(path: str = "/etc/motd", **values: Any) -> dict[str, Any]:
    return {"overlays": [{"path": path} | values]}


def test_what_has_its_usual_value_is_not_kept() -> None:
    usual = {"packages": [], "env": {}, "init": "auto", "size_mib": None}
    assert parse(usual).document() == {}
    assert parse({"packages": ["curl"]}).document() == {"packages": ["curl"]}


def test_an_overlay_is_a_file_of_root_s_unless_it_says_otherwise() -> None:
    recipe = parse(overlay(content="hello\n"))
    assert recipe.overlays[0].data() == b"hello\n"
    assert (recipe.overlays[0].mode, recipe.overlays[0].owner) == ("0644", "0:0")


def test_an_overlay_s_path_is_written_one_way() -> None:
    for path in ("etc/motd", "/etc//motd", "/./etc/motd/"):
        assert parse(overlay(path)).overlays[0].path == "/etc/motd"


def test_base64_may_be_broken_into_lines() -> None:
    text = base64.encodebytes(bytes(range(256))).decode()
    assert parse(overlay(content_base64=text)).overlays[0].data() == bytes(range(256))


def test_the_same_bytes_are_kept_the_same_way() -> None:
    encoded = base64.b64encode("naïve\r\n".encode()).decode()
    as_text, as_base64 = (
        parse(overlay(**{name: value}))
        for name, value in (("content", "naïve\r\n"), ("content_base64", encoded))
    )
    assert as_text.document() == as_base64.document() == overlay(content="naïve\r\n")
    for raw in (b"\x00\x01", b"\xff"):
        kept = overlay(content_base64=base64.b64encode(raw).decode())
        assert parse(kept).document() == kept


def test_only_packages_and_commands_need_a_machine() -> None:
    assert not parse(overlay() | {"env": {"A": "b"}}).needs_machine
    assert parse({"packages": ["curl"]}).needs_machine
    assert parse({"commands": ["true"]}).needs_machine


@pytest.mark.parametrize(
    ("document", "field", "word"),
    [
        ({"packages": ["--allow-untrusted"]}, "packages[1]", "--allow-untrusted"),
        ({"packages": ["curl", "two words"]}, "packages[2]", "two words"),
        ({"packages": "curl"}, "packages", "list"),
        ({"packages": [8]}, "packages[1]", "text"),
        ({"commands": [" \n"]}, "commands[1]", "not empty"),
        ({"commands": ["a\0b"]}, "commands[1]", "line of shell"),
        ({"env": {"1A": "x"}}, "env.1A", "'1A'"),
        ({"env": {"A": "x\ny"}}, "env.A", "newlines"),
        ({"env": {"A": 1}}, "env.A", "text"),
        ({"init": "upstart"}, "init", "openrc"),
        ({"size_mib": 8}, "size_mib", "64"),
        ({"size_mib": "512"}, "size_mib", "integer"),
        ({"rootfs": "alpine"}, "rootfs", "nothing of this name"),
        (overlay("/etc/../../root/.ssh/id"), "overlays[1].path", ".."),
        (overlay("/"), "overlays[1].path", "root directory"),
        (overlay("/a\0b"), "overlays[1].path", "NUL"),
        (overlay(f"/{'x' * 256}"), "overlays[1].path", "255"),
        (overlay(mode="0999"), "overlays[1].mode", "octal"),
        (overlay(mode="rwxr-xr-x"), "overlays[1].mode", "octal"),
        (overlay(mode=0o644), "overlays[1].mode", "text"),
        (overlay(owner="root:root"), "overlays[1].owner", "numbers"),
        (overlay(owner="0:4294967296"), "overlays[1].owner", "numbers"),
        (overlay(content_base64="not base64!"), "overlays[1]", "cannot be read"),
        (overlay(content="a", content_base64="YQ=="), "overlays[1]", "not both"),
        (overlay(content="x" * (MAX_TEXT + 1)), "overlays[1].content", "1048576"),
        ({"overlays": [{"content": "x"}]}, "overlays[1].path", "missing"),
        ([], "", "names with values"),
    ],
)
def test_what_cannot_be_is_refused_at_its_place(document: Any, field: str, word: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse(document)
    assert caught.value.code == "recipe-invalid"
    found = caught.value.extra["errors"]
    assert [one["field"] for one in found] == [field]
    assert word in found[0]["message"]
    assert word in caught.value.text


def test_every_fault_is_named_at_once() -> None:
    with pytest.raises(Invalid) as caught:
        parse({"packages": ["-x"], "init": "none", "commands": [""], "env": {"": "x"}})
    fields = [one["field"] for one in caught.value.extra["errors"]]
    assert fields == ["packages[1]", "commands[1]", "env."]
    assert caught.value.detail.count("\n") == 2


@pytest.mark.parametrize(
    ("paths", "word"),
    [(["/etc/motd", "etc//motd"], "two overlays"), (["/srv/a/b", "/srv/a"], "cannot be in it")],
)
def test_overlays_that_exclude_each_other_are_refused(paths: list[str], word: str) -> None:
    with pytest.raises(Invalid, match=word):
        parse({"overlays": [{"path": path} for path in paths]})


def test_text_is_bounded_wherever_it_stands() -> None:
    half = "x" * (MAX_TEXT // 2 + 1)
    for more in (
        {"overlays": [{"path": f"/{name}", "content": half} for name in "ab"]},
        overlay(content=half) | {"commands": ["x" * 16000] * 33},
        overlay(content=half) | {"env": {f"A{n}": "x" * 8000 for n in range(66)}},
    ):
        with pytest.raises(Invalid, match="more than 1048576 bytes"):
            parse(more)


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Recipe().init = "none"
