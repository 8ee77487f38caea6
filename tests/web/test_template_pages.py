"""The pages of templates: reading, the editor as form and as YAML, versions, two editors."""

from __future__ import annotations

import html as entities
import re
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from builds import services
from builds.models import Template
from builds.recipe import Recipe, parse
from tests.factories import make_build, make_image, make_rootfs, make_template
from tests.web.conftest import htmx

pytestmark = pytest.mark.usefixtures("nudges")

RECIPE = {
    "packages": ["nginx", "curl"],
    "commands": ["rc-update add nginx", "if true; then\n  echo <b>\nfi\n"],
    "env": {"TZ": "Europe/Berlin", "SPACES": "  a = b "},
    "overlays": [
        {"path": "/etc/motd", "content": "\n  hello\n\tworld\n", "mode": "0600", "owner": "7:8"},
        {"path": "/etc/dos", "content": "a\r\nb\r\n"},
        {"path": "/bin/tool", "content_base64": "AAEC"},
    ],
    "init": "openrc",
    "size_mib": 512,
}
YAML = "name: shop\nrootfs: {distro: alpine, version: 3.23}\npackages: [nginx]\n"


@pytest.fixture
def template(db: None) -> Template:
    return services.create_template(name="web", rootfs=make_rootfs(), recipe=parse(RECIPE))


@pytest.fixture
def edit(client: Client, template: Template) -> str:
    return f"/templates/{template.ref}/edit/"


def text_of(response: Any) -> str:
    return entities.unescape(response.content.decode())


def form_of(response: Any) -> dict[str, str]:
    """What a browser would send of the editor that it shows, line ends included."""
    html = response.content.decode()
    form = html[html.index("<form id=") :]
    form = form[: form.index("</form>")]
    values: dict[str, str] = {}
    for tag in re.findall(r"<input (?!type=\"hidden\" name=\"csrf)[^>]*>", form):
        name, value = re.search(r' name="([^"]+)"', tag), re.search(r' value="([^"]*)"', tag)
        assert name
        values[name[1]] = entities.unescape(value[1]) if value else ""
    for name, inner in re.findall(r'<textarea name="([^"]+)"[^>]*>\n(.*?)</textarea>', form, re.S):
        values[name] = entities.unescape(inner).replace("\r", "").replace("\n", "\r\n")
    for name, options in re.findall(r'<select name="([^"]+)"[^>]*>(.*?)</select>', form, re.S):
        chosen = re.search(r'value="([^"]*)" selected', options)
        values[name] = chosen[1] if chosen else ""
    return values


# Reading


def test_a_template_s_page_shows_what_it_says(client: Client, template: Template) -> None:
    services.update_template(template, description="Our pages")
    shown = text_of(client.get("/templates/web/"))
    for text in ("Our pages", "nginx", "TZ=Europe/Berlin", "/etc/motd", "rc-update add nginx"):
        assert text in shown
    assert "echo <b>" in shown
    assert "<b>" not in client.get("/templates/web/").content.decode(), "escaped"


def test_versions_can_be_read_and_compared(client: Client, template: Template) -> None:
    services.update_template(template, recipe=parse({"packages": ["git"]}))
    shown = text_of(client.get("/templates/web/versions/2/"))
    assert 'class="diff-added"><span class="diff-mark">+ </span>  - git' in shown
    assert 'class="diff-removed"><span class="diff-mark">− </span>  - nginx' in shown
    assert "Make it current again" not in shown
    first = text_of(client.get("/templates/web/versions/1/"))
    assert "rc-update add nginx" in first
    assert "Make it current again" in first
    assert client.get("/templates/web/versions/3/").status_code == 404


def test_an_old_version_is_made_current_again(client: Client, template: Template) -> None:
    services.update_template(template, recipe=Recipe())
    address = f"/templates/{template.ref}/versions/1/revert/"
    page = client.post(address, follow=True)
    assert "Version 3 says what version 1 says." in text_of(page)
    assert template.current.parsed == parse(RECIPE)
    page = client.post(address, follow=True)
    assert "says what version 1 says already" in text_of(page)


def test_a_template_is_downloaded_as_yaml(client: Client, template: Template) -> None:
    response = client.get("/templates/web/yaml/")
    assert response["Content-Disposition"] == 'attachment; filename="web.yaml"'
    assert "  - nginx\n" in response.content.decode()
    assert client.get("/templates/web/yaml/?version=1").status_code == 200
    assert client.get("/templates/web/yaml/?version=9").status_code == 404
    assert client.get("/templates/web/yaml/?version=x").status_code == 422


def test_a_long_history_costs_no_more(client: Client, template: Template) -> None:
    for number in range(2):
        services.update_template(template, recipe=parse({"env": {"N": str(number)}}))
        make_build(template=template)
    costs = [_queries(client, template, page) for page in ("", "edit/", "versions/2/")]
    for number in range(20):
        services.update_template(template, recipe=parse({"env": {"M": str(number)}}))
        make_build(template=template, image=make_image())
    assert [_queries(client, template, page) for page in ("", "edit/", "versions/2/")] == costs
    assert max(costs) <= 14


def _queries(client: Client, template: Template, page: str) -> int:
    with CaptureQueriesContext(connection) as seen:
        assert client.get(f"/templates/{template.ref}/{page}").status_code == 200
    return len(seen)


# The editor


def test_saving_what_is_shown_changes_nothing(
    client: Client, template: Template, edit: str
) -> None:
    sent = form_of(client.get(edit))
    page = client.post(edit, sent, follow=True)
    assert "Nothing in the recipe has changed: web stays at version 1." in text_of(page)
    assert template.current.parsed.overlays[1].data() == b"a\r\nb\r\n", "not Unix's line ends"


def test_saving_makes_a_version_and_says_so(client: Client, template: Template, edit: str) -> None:
    sent = form_of(client.get(edit)) | {
        "packages": "  git \r\n\r\nmake\r\n",
        "env": "A=b=c\r\n\r\nEMPTY=",
        "init": "none",
        "size_mib": "",
        "description": "Our pages",
        "commands-0-command": "",
    }
    response = client.post(edit, sent, headers=htmx("form"))
    assert response["HX-Redirect"] == f"/templates/{template.ref}/"
    assert "Version 2 of web is saved." in text_of(client.get(response["HX-Redirect"]))
    recipe = template.current.parsed
    assert recipe.packages == ["git", "make"]
    assert recipe.env == {"A": "b=c", "EMPTY": ""}
    assert (recipe.init, recipe.size_mib) == ("none", None)
    assert recipe.commands == ["if true; then\n  echo <b>\nfi\n"]
    template.refresh_from_db()
    assert template.description == "Our pages"


def test_rows_come_and_go_without_a_check_and_without_losing_anything(
    client: Client, template: Template, edit: str
) -> None:
    sent = form_of(client.get(edit)) | {"packages": "not saved yet", "row": "add-overlays"}
    response = client.post(edit, sent, headers=htmx("form#builds-editor"))
    assert response.status_code == 200
    grown = form_of(response)
    assert grown["overlays-TOTAL_FORMS"] == "4"
    assert (grown["overlays-3-path"], grown["overlays-3-mode"]) == ("", "0644")
    assert grown["packages"] == "not saved yet"
    assert grown["overlays-0-content"] == "\r\n  hello\r\n\tworld\r\n"
    response = client.post(edit, grown | {"row": "remove-overlays-0"})
    shrunk = form_of(response)
    assert shrunk["overlays-TOTAL_FORMS"] == "3"
    assert shrunk["overlays-0-path"] == "/etc/dos"
    assert shrunk["expected_version"] == "1"
    assert template.current.number == 1


@pytest.mark.parametrize(
    "row", ["remove-overlays-99", "remove-overlays-x", "add-secrets", "remove", "x" * 99]
)
def test_buttons_that_are_not_there_do_nothing(client: Client, edit: str, row: str) -> None:
    sent = form_of(client.get(edit))
    kept = form_of(client.post(edit, sent | {"row": row}))
    assert kept == sent


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        ({"packages": "ok\nnot ok"}, "id_packages", "no package is called 'not ok'"),
        ({"env": "A=1\nB"}, "id_env", "Line 2: there is no = in it."),
        ({"env": "A=1\nA=2"}, "id_env", "Line 2: A is there twice."),
        ({"env": "1A=1"}, "id_env", "'1A' is not the name of a variable"),
        ({"init": "upstart"}, "id_init", "not one of the available choices"),
        ({"size_mib": "8"}, "id_size_mib", "greater than or equal to 64"),
        ({"size_mib": "many"}, "id_size_mib", "whole number"),
        ({"rootfs": "aaaaaaaaaaaaq"}, "id_rootfs", "not one of the available choices"),
        ({"description": "x" * 201}, "id_description", "at most 200"),
        ({"overlays-0-path": "/a/../b"}, "id_overlays-0-path", "may not contain '..'"),
        ({"overlays-0-path": ""}, "id_overlays-0-path", "This field is required."),
        ({"overlays-1-mode": "0999"}, "id_overlays-1-mode", "octal digits"),
        ({"overlays-1-owner": "root"}, "id_overlays-1-owner", "UID:GID, in numbers"),
        ({"overlays-2-content": "%%%"}, "id_overlays-2-content", "cannot be read"),
        ({"commands-1-command": "a\0b"}, "id_commands-1-command", "Null characters"),
        ({"overlays-0-path": "/etc/dos"}, None, "two overlays are called /etc/dos"),
    ],
)
def test_what_is_wrong_is_said_at_its_field(
    client: Client,
    template: Template,
    edit: str,
    change: dict[str, str],
    field: str | None,
    words: str,
) -> None:
    sent = form_of(client.get(edit)) | change
    response = client.post(edit, sent, headers=htmx("form#builds-editor"))
    assert response.status_code == 422
    shown = text_of(response)
    assert shown.startswith('<form id="builds-editor"') or "<form" in shown[:500]
    found = re.findall(r'<div class="field-error" id="([^"]+)-error">(.*?)</div>', shown, re.S)
    if field is None:
        assert (found, words in shown) == ([], True)
    else:
        assert [name for name, _ in found] == [field]
        assert words in found[0][1]
    assert template.current.number == 1


def test_a_row_left_empty_is_no_row_and_faults_stay_at_theirs(
    client: Client, template: Template, edit: str
) -> None:
    sent = form_of(client.get(edit))
    empty = {"path": "", "mode": "0644", "owner": "0:0", "encoding": "text", "content": ""}
    sent |= {f"overlays-0-{name}": value for name, value in empty.items()}
    response = client.post(edit, sent | {"overlays-1-mode": "rw"})
    assert 'id="id_overlays-1-mode-error"' in response.content.decode()
    client.post(edit, sent)
    paths = [overlay.path for overlay in template.current.parsed.overlays]
    assert paths == ["/etc/dos", "/bin/tool"]


def test_the_second_of_two_editors_sees_both_and_may_save_again(
    client: Client, template: Template, edit: str
) -> None:
    sent = form_of(client.get(edit)) | {"packages": "mine"}
    services.update_template(template, recipe=parse({"packages": ["theirs"]}))
    response = client.post(edit, sent, headers=htmx("form#builds-editor"))
    assert response.status_code == 422
    shown = text_of(response)
    assert "version 2 is there, and this was made from version 1" in shown
    theirs, mine = shown.split("What yours would change in version 2")
    assert "+ </span>  - theirs" in theirs
    assert "− </span>  - theirs" in mine
    assert "+ </span>  - mine" in mine
    assert template.current.number == 2
    again = form_of(response)
    assert (again["packages"], again["expected_version"]) == ("mine", "2")
    assert client.post(edit, again, headers=htmx("form")).has_header("HX-Redirect")
    assert template.current.parsed.packages == ["mine"]


def test_a_recipe_with_more_rows_than_a_form_can_hold_is_edited_as_yaml(
    client: Client, template: Template, edit: str
) -> None:
    services.update_template(template, recipe=parse({"commands": ["true"] * 151}))
    assert 'id="builds-yaml_editor"' in client.get(edit).content.decode()


def test_onlookers_read_and_do_not_edit(onlooker: Client, template: Template) -> None:
    ref = template.ref
    for page in ("", "versions/1/", "yaml/"):
        assert onlooker.get(f"/templates/{ref}/{page}").status_code == 200
    assert onlooker.get(f"/templates/{ref}/edit/").status_code == 403
    for verb in ("edit/", "copy/", "rename/", "delete/", "versions/1/revert/"):
        assert onlooker.post(f"/templates/{ref}/{verb}").status_code == 403
    assert onlooker.get("/templates/new/").status_code == 403


# As YAML


def test_a_template_is_edited_as_yaml(client: Client, template: Template, edit: str) -> None:
    sent = form_of(client.get(f"{edit}?as=yaml"))
    assert "- nginx" in sent["text"]
    page = client.post(f"{edit}?as=yaml", sent, follow=True)
    assert "stays at version 1" in text_of(page)
    sent["text"] = sent["text"].replace("- nginx", "- git").replace("name: web", "name: shop")
    page = client.post(f"{edit}?as=yaml", sent, follow=True)
    assert "Version 2 of shop is saved." in text_of(page)
    assert template.current.parsed.packages == ["git", "curl"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (YAML + "init: x\nsize_mib: 1\n", ["Line 4: init", "Line 5: size_mib"]),
        (YAML + "a: *b\n", ["Line 4: Anchors and aliases"]),
        ("", ["This field is required."]),
        ("rootfs: {distro: alpine, version: 9}\n", ["alpine 9"]),
    ],
)
def test_yaml_that_cannot_be_used_says_on_which_line(
    client: Client, template: Template, edit: str, text: str, words: list[str]
) -> None:
    for address in (f"{edit}?as=yaml", "/templates/new/?as=yaml"):
        response = client.post(address, {"text": text}, headers=htmx("form#builds-yaml_editor"))
        assert response.status_code == 422
        assert 'id="builds-yaml_editor"' in response.content.decode()
        assert all(word.lower() in text_of(response).lower() for word in words)
    assert template.current.number == 1


def test_yaml_of_an_old_version_is_a_conflict_too(
    client: Client, template: Template, edit: str
) -> None:
    sent = form_of(client.get(f"{edit}?as=yaml"))
    services.update_template(template, recipe=Recipe())
    response = client.post(f"{edit}?as=yaml", sent)
    assert response.status_code == 422
    assert "What version 2 changed meanwhile" in text_of(response)
    assert form_of(response)["expected_version"] == "2"


# Making and other verbs


def test_a_template_is_made_with_all_of_it(client: Client) -> None:
    rootfs = make_rootfs()
    sent: dict[str, Any] = {
        "name": "shop",
        "rootfs": rootfs.ref,
        "packages": "nginx",
        "overlays-TOTAL_FORMS": "1",
        "overlays-0-path": "etc/motd",
        "overlays-0-mode": "0600",
        "overlays-0-owner": "0:0",
        "overlays-0-encoding": "text",
        "overlays-0-content": "hello\r\n",
        "commands-TOTAL_FORMS": "1",
        "commands-0-command": "true",
    }
    assert client.post("/templates/new/", sent).status_code == 302
    recipe = Template.objects.get(name="shop").current.parsed
    assert recipe.overlays[0].data() == b"hello\n"
    assert (recipe.overlays[0].path, recipe.commands) == ("/etc/motd", ["true"])


def test_a_template_is_made_of_yaml(client: Client) -> None:
    make_rootfs()
    assert "distro: alpine" in text_of(client.get("/templates/new/?as=yaml")), "an example"
    assert client.post("/templates/new/?as=yaml", {"text": YAML}).status_code == 302
    taken = client.post("/templates/new/?as=yaml", {"text": YAML})
    assert (taken.status_code, "There is a template “shop” already." in text_of(taken)) == (
        422,
        True,
    )


@pytest.mark.parametrize("count", ["-1", "x", "", "9" * 4000, "100000"])
def test_a_number_of_rows_that_cannot_be_is_bounded(client: Client, db: None, count: str) -> None:
    sent = {"rootfs": make_rootfs().ref, "name": "shop", "overlays-TOTAL_FORMS": count}
    response = client.post("/templates/new/", sent)
    assert response.status_code in (302, 422)


def test_copying_renaming_and_deleting(client: Client, template: Template) -> None:
    page = client.post(f"/templates/{template.ref}/copy/", {"name": "shop"}, follow=True)
    assert "shop is a copy" in text_of(page)
    page = client.post(f"/templates/{template.ref}/rename/", {"name": "site"}, follow=True)
    assert "It is called site now." in text_of(page)
    taken = client.post(f"/templates/{template.ref}/rename/", {"name": "shop"})
    assert taken.status_code == 409
    page = client.post(f"/templates/{template.ref}/delete/", follow=True)
    assert "site is deleted." in text_of(page)
    assert [each.name for each in Template.objects.all()] == ["shop"]


def test_a_template_with_images_says_why_it_cannot_be_deleted(client: Client) -> None:
    template = make_template(name="web")
    build = make_build(template=template, image=make_image(name="web-1"), state="succeeded")
    shown = text_of(client.get("/templates/web/"))
    assert "Delete what was made from it first: web-1." in shown
    assert build.image_name in shown
    assert client.post(f"/templates/{template.ref}/delete/").status_code == 409
