"""``nexusctl template`` and the real API: recipes, versions, editing, export and import."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from builds import services
from builds.models import Template
from builds.recipe import parse
from tests.factories import make_rootfs, make_template
from tests.nexusctl.conftest import Outcome

Ctl = Callable[..., Outcome]


@pytest.fixture
def template(transactional_db: None) -> Template:
    made = make_template(name="web")
    return services.update_template(made, recipe=parse({"packages": ["nginx"]}))


@pytest.fixture
def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes $EDITOR a program that runs a line of shell on the file ``$1``."""

    def use(line: str) -> None:
        script = tmp_path / "editor"
        script.write_text(f"#!/bin/sh\n{line}\n")
        script.chmod(0o755)
        monkeypatch.setenv("EDITOR", str(script))
        monkeypatch.delenv("VISUAL", raising=False)

    return use


def current(name: str = "web") -> dict[str, Any]:
    return dict(Template.objects.get(name=name).current.recipe)


def test_a_template_with_all_of_it(ctl: Ctl, tmp_path: Path) -> None:
    make_rootfs()
    (tmp_path / "motd").write_text("hello\n")
    (tmp_path / "tool").write_bytes(b"\x7fELF\xff")
    (tmp_path / "tool").chmod(0o755)
    done = ctl(
        *("template", "create", "alpine", "3.23", "--name", "web"),
        *("--package", "nginx", "--package", "curl", "--command", "true", "--command", "a\nb"),
        *("--env", "TZ=UTC", "--env", "A=b=c", "--init", "openrc", "--size", "512"),
        *("--overlay", f"{tmp_path}/motd:/etc/motd:0600:7:8"),
        *("--overlay", f"{tmp_path}/tool:/bin/tool"),
    )
    assert (done.code, done.err) == (0, "")
    assert current() == {
        "packages": ["nginx", "curl"],
        "commands": ["true", "a\nb"],
        "env": {"TZ": "UTC", "A": "b=c"},
        "init": "openrc",
        "size_mib": 512,
        "overlays": [
            {"path": "/etc/motd", "content": "hello\n", "mode": "0600", "owner": "7:8"},
            {"path": "/bin/tool", "content_base64": "f0VMRv8=", "mode": "0755"},
        ],
    }
    shown = ctl("template", "inspect", "web").out
    assert "/bin/tool  0755  0:0  5 B" in shown


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--overlay", "nowhere", "is not SRC:DEST"),
        ("--overlay", "a:b:c:d", "is not SRC:DEST"),
        ("--overlay", "/no/such/file:/etc/motd", "No such file"),
        ("--overlay", "/etc:/etc", "Is a directory"),
        ("--env", "A", "is not NAME=VALUE"),
        ("--init", "upstart", "upstart"),
        ("--size", "big", "not a valid integer"),
    ],
)
def test_options_that_make_no_recipe(
    nexusctl: Ctl, server: Any, option: str, value: str, words: str
) -> None:
    done = nexusctl("template", "create", "alpine", "3.23", option, value)
    assert done.code == 2
    assert words in done.err
    assert server.seen == []


def test_what_the_server_refuses_is_said(ctl: Ctl) -> None:
    make_rootfs()
    done = ctl("template", "create", "alpine", "3.23", "--package=--root=/")
    assert done.code == 1
    assert "packages[1]: no package is called '--root=/'" in done.err
    assert not Template.objects.exists()


def test_an_export_is_imported(ctl: Ctl, template: Template, tmp_path: Path) -> None:
    file = tmp_path / "web.yaml"
    assert ctl("template", "export", "web", "-o", str(file)).out == ""
    assert ctl("template", "export", "web").out == file.read_text()
    assert yaml.safe_load(file.read_text())["packages"] == ["nginx"]
    assert "packages" not in ctl("template", "export", "web", "--version", "1").out
    assert json.loads(ctl("template", "export", "web", "--json").out) == file.read_text()
    taken = ctl("template", "import", str(file))
    assert (taken.code, "--replace" in taken.err) == (5, True)
    file.write_text(file.read_text().replace("nginx", "git"))
    plan = ctl("template", "import", str(file), "--replace", "--dry-run")
    assert (plan.code, plan.out, current()) == (0, "Would: web\n", {"packages": ["nginx"]})
    done = ctl("template", "import", str(file), "--replace")
    assert done.err == "Its current version is 3.\n"
    assert current() == {"packages": ["git"]}


def test_an_import_names_the_line(ctl: Ctl, template: Template, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("name: bad\nrootfs: {distro: alpine, version: 3.23}\ninit: x\n")
    done = ctl("template", "import", str(file))
    assert done.code == 1
    assert "Line 3: init" in done.err


def test_editing_opens_the_editor_and_saves_a_version(
    ctl: Ctl, template: Template, editor: Callable[[str], None]
) -> None:
    editor("sed -i s/nginx/git/ $1")
    done = ctl("template", "edit", "web")
    assert (done.code, done.err) == (0, "Its current version is 3.\n")
    assert current() == {"packages": ["git"]}
    editor("true")
    assert ctl("template", "edit", "web").err == "Nothing was changed.\n"
    assert Template.objects.get().current.number == 3


@pytest.mark.parametrize(("line", "code"), [("echo 'init: x' >>$1", 1), ("echo '{' >>$1", 1)])
def test_what_was_typed_is_kept_when_it_is_refused(
    ctl: Ctl, template: Template, editor: Callable[[str], None], line: str, code: int
) -> None:
    editor(line)
    done = ctl("template", "edit", "web")
    assert done.code == code
    kept = Path(done.err.split("Your text is kept in ")[1].strip())
    assert "nginx" in kept.read_text()
    kept.unlink()


def test_what_was_typed_is_kept_when_somebody_was_faster(
    ctl: Ctl,
    template: Template,
    editor: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def typed(text: str, **_: Any) -> str:
        services.update_template(template, recipe=parse({"packages": ["theirs"]}))
        return text.replace("nginx", "mine")

    monkeypatch.setattr("nexusctl.commands.template_files.click.edit", typed)
    done = ctl("template", "edit", "web")
    assert done.code == 5
    assert "nexusctl template diff web 2 3" in done.err
    kept = Path(done.err.split("Your text is kept in ")[1].strip())
    assert "mine" in kept.read_text()
    assert current() == {"packages": ["theirs"]}
    assert ctl("template", "edit", "web", "--file", str(kept)).code == 0
    assert current() == {"packages": ["mine"]}
    kept.unlink()


def test_versions_are_listed_compared_and_gone_back_to(ctl: Ctl, template: Template) -> None:
    rows = ctl("template", "versions", "web").out.splitlines()
    assert [row.split()[0] for row in rows] == ["VERSION", "2", "1"]
    changed = ctl("template", "diff", "web").out
    assert changed.splitlines()[:2] == ["--- version 1", "+++ version 2"]
    assert "+  - nginx" in changed
    assert ctl("template", "diff", "web", "2").err == "Nothing differs.\n"
    assert "-  - nginx" in ctl("template", "diff", "web", "2", "1").out
    assert ctl("template", "diff", "web", "1", "7").code == 4
    assert ctl("template", "inspect", "web", "--version", "1").out.count("nginx") == 0
    done = ctl("template", "revert", "web", "1")
    assert (done.code, done.err) == (0, "Its current version is 3.\n")
    assert current() == {}


def test_one_version_differs_from_nothing(ctl: Ctl) -> None:
    make_template(name="web")
    assert ctl("template", "diff", "web").err == "There is only one version.\n"


def test_copying_renaming_and_deleting(ctl: Ctl, template: Template) -> None:
    assert ctl("template", "copy", "web", "--name", "shop").out.startswith("shop  ")
    assert ctl("template", "copy", "web", "--name", "old", "--version", "1").code == 0
    assert (current("shop"), current("old")) == ({"packages": ["nginx"]}, {})
    assert ctl("template", "rename", "web", "shop").code == 5
    assert ctl("template", "rename", "web", "site").out.startswith("site  ")
    assert ctl("template", "delete", "site", "--yes").code == 0
    assert ctl("template", "inspect", "site").code == 4
