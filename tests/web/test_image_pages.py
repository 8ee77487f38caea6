"""The pages of images: real file systems, hostile names."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
from django.http import StreamingHttpResponse
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from builds.inputs import FORMAT
from builds.models import Build
from images.models import Image
from images.services import image_path
from nexus_site.core.models import Event
from tests.factories import make_build, make_drive, make_image, make_rootfs, make_template, make_vm
from tests.images.formats.ext4_images import make_ext4
from tests.web.conftest import htmx
from vms.models import Attachment

pytestmark = pytest.mark.usefixtures("nudges")

TURNED = "safe\u202etxt.exe"
SCRIPT = "<script>alert(1)</script>"
INPUTS = {
    "name": "web",
    "rootfs": "alpine 3.23 x86_64",
    "rootfs_sha256": "ab" * 32,
    "recipe": {"packages": ["nginx", "curl"], "overlays": [{"path": "/etc/motd"}]},
    "size_mib": 512,
    "agent_digest": "cd" * 32,
    "edition": 2,
    "format": FORMAT,
}


@pytest.fixture(autouse=True)
def _agent(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent's digest without an agent."""
    monkeypatch.setattr("builds.services.builds.agent_digest", lambda arch: "3" * 64)


@pytest.fixture
def image(db: None, tmp_path: Path) -> Image:
    """An image with a real file system of a stranger."""
    root = tmp_path / "root"
    for name in ("etc", "usr/lib", "empty", "dev"):
        (root / name).mkdir(parents=True)
    (root / "usr/lib/os-release").write_text("NAME=Strange\n")
    (root / "etc/os-release").symlink_to("../usr/lib/os-release")
    (root / "lib").symlink_to("usr/lib")
    (root / "loop").symlink_to("loop")
    (root / "away").symlink_to("/../../etc/passwd")
    (root / "etc/colours").write_bytes(b"\x1b[31mred\x1b[0m \xe2\x80\xae turned <b>bold</b>\n")
    (root / "etc/binary").write_bytes(b"\x7fELF\0\xff\xfe")
    (root / "etc/nothing").write_bytes(b"")
    (root / "etc/large").write_bytes(b"x" * (300 << 10))
    (root / "etc" / TURNED).write_text("turned\n")
    (root / "etc" / SCRIPT.replace("/", "\u2215")).write_text("script\n")
    os.mkfifo(root / "dev/pipe")
    (root / "etc" / os.fsdecode(b"caf\xe9\x1b[2J")).write_text("latin\n")
    found = make_image(name="strange", size_bytes=16 << 20)
    path = image_path(found)
    path.parent.mkdir(parents=True, exist_ok=True)
    make_ext4(path, root)
    return found


def _html(client: Client, address: str) -> str:
    return client.get(address).content.decode()


def _bytes(client: Client, address: str) -> bytes:
    response = client.get(address)
    assert isinstance(response, StreamingHttpResponse), response.status_code
    return b"".join(response)  # type: ignore[arg-type]


# Facts and provenance


def test_an_image_tells_where_it_comes_from_and_where_it_is_used(client: Client) -> None:
    image = make_image(name="web", inputs=INPUTS, init="openrc", packages=[["musl", "1.2"]])
    template = make_template(name="web-base")
    build = make_build(template=template, image=image, state="succeeded")
    vm = make_vm(name="hello", root=False)
    Attachment.objects.create(vm=vm, drive=make_drive(name="spare", image=image))
    html = _html(client, "/images/web/")
    for words in ("web-base", build.ref, "spare", "hello", "openrc", "abababab", "cdcdcdcd"):
        assert words in html
    assert "1 drive<" in html
    assert "2 packages" in html
    assert "1 file<" in html
    assert "512 MiB" in html
    assert "not yet: Verify" in html


def test_an_image_without_a_past_still_shows(client: Client) -> None:
    make_image(name="old")
    html = _html(client, "/images/old/")
    assert "Verify</button>" not in html
    assert "Nothing: it may be deleted." in html


def test_it_is_told_how_often_an_image_was_verified(client: Client) -> None:
    image = make_image(name="web", inputs=INPUTS)
    make_build(image=image, state="succeeded")
    before = timezone.now() - timedelta(hours=3)
    for state in ("succeeded", "succeeded", "failed", "running"):
        make_build(verifies=image, state=state, ended_at=before, image_name="web")
    html = _html(client, "/images/web/")
    assert "2 times, last" in html
    assert "3 h ago" in html
    assert "1 failed" in html


def test_verifying_leads_to_the_build_that_does_it(client: Client) -> None:
    rootfs = make_rootfs()
    image = make_image(name="web", inputs=INPUTS | {"rootfs_sha256": rootfs.sha256})
    make_build(template=make_template(rootfs=rootfs), image=image, state="succeeded")
    response = client.post("/images/web/verify/", headers=htmx("form"))
    build = Build.objects.get(verifies=image)
    assert response["HX-Redirect"] == f"/builds/{build.ref}/"
    html = _html(client, f"/builds/{build.ref}/")
    assert "verifies <a" in html
    assert "Cancel</button>" in html


def test_what_cannot_be_verified_says_why(client: Client) -> None:
    make_image(name="old", inputs=INPUTS)
    response = client.post("/images/old/verify/", headers=htmx("form"))
    assert response.status_code == 409
    assert "The record of its build is gone." in response.content.decode()


def test_an_image_is_renamed_and_keeps_its_address(client: Client) -> None:
    image = make_image(name="before")
    make_image(name="taken")
    response = client.post("/images/before/rename/", {"name": "after"}, headers=htmx("form"))
    assert response["HX-Redirect"] == f"/images/{image.ref}/"
    assert Event.objects.get(kind="image.renamed").data["before"] == "before"
    refused = client.post(f"/images/{image.ref}/rename/", {"name": "taken"}, headers=htmx("form"))
    assert refused.status_code == 409
    for wrong in ("Not A Name", "new", ""):
        answer = client.post(f"/images/{image.ref}/rename/", {"name": wrong}, headers=htmx("form"))
        assert answer.status_code == 422, wrong


def test_an_image_in_use_is_not_deleted_and_the_answer_names_the_drives(client: Client) -> None:
    image = make_image()
    make_drive(name="spare", image=image)
    response = client.post(f"/images/{image.ref}/delete/", headers=htmx("form"))
    assert response.status_code == 409
    assert "spare" in response.content.decode()
    assert "aria-disabled" in _html(client, f"/images/{image.ref}/")


# Packages


def test_packages_are_searched_and_paged(client: Client) -> None:
    packages = [[f"lib-{number:03}", f"1.{number}"] for number in range(250)]
    make_image(name="web", packages=[*packages, [SCRIPT, "\x1b[31m9"]])
    html = _html(client, "/images/web/packages/")
    assert "lib-000" in html
    assert "lib-150" not in html
    assert "1–100 of 251 packages" in html
    assert "lib-150" in _html(client, "/images/web/packages/?page=2")
    found = _html(client, "/images/web/packages/?q=LIB 1.249")
    assert "lib-249" in found
    assert "1 package<" in found
    hostile = _html(client, "/images/web/packages/?q=script")
    assert "&lt;script&gt;" in hostile
    assert SCRIPT not in hostile
    assert "\x1b" not in hostile
    assert "Nothing matches" in _html(client, "/images/web/packages/?q=none-such")


def test_the_list_of_packages_is_fetched_alone(client: Client) -> None:
    make_image(name="web", packages=[["musl", "1.2"]])
    answer = client.get("/images/web/packages/?q=m", headers=htmx("section#images-packages"))
    assert answer.content.decode().lstrip().startswith("<section")


def test_without_packages_it_says_so(client: Client) -> None:
    make_image(name="web")
    assert "No package is known" in _html(client, "/images/web/packages/")


# Files


def test_directories_are_browsed_with_mode_owner_size_and_links(
    client: Client, image: Image
) -> None:
    html = _html(client, "/images/strange/files/")
    assert f'href="/images/{image.ref}/files/?path=/etc"' in html
    assert "drwx" in html
    assert "0:0" in html or f"{os.getuid()}:" in html
    assert "→ <bdi>usr/lib</bdi>" in html
    part = client.get("/images/strange/files/?path=/etc", headers=htmx("section#images-files"))
    assert part.content.decode().lstrip().startswith("<section")
    assert "300 KiB" in part.content.decode()


def test_links_are_followed_inside_the_image_only(client: Client, image: Image) -> None:
    assert "NAME=Strange" in _html(client, "/images/strange/files/?path=/etc/os-release")
    assert "os-release" in _html(client, "/images/strange/files/?path=/lib")
    assert client.get("/images/strange/files/?path=/away").status_code == 404
    assert client.get("/images/strange/files/?path=/loop").status_code == 422
    assert client.get("/images/strange/files/?path=/../../../../etc/passwd").status_code == 404


def test_text_is_shown_escaped_and_harmless(client: Client, image: Image) -> None:
    html = _html(client, "/images/strange/files/?path=/etc/colours")
    assert "\\x1b[31mred" in html
    assert "\\u202e turned" in html
    assert "&lt;b&gt;bold" in html
    assert "\x1b" not in html
    assert "\u202e" not in html


def test_what_is_no_text_or_too_large_is_offered_for_download(client: Client, image: Image) -> None:
    for name, why in (("binary", "It is no text."), ("large", "too large to be shown")):
        html = _html(client, f"/images/strange/files/?path=/etc/{name}")
        assert why in html
        assert f"/images/{image.ref}/files/download/?path=etc/{name}" in html
    assert (
        _bytes(client, "/images/strange/files/download/?path=/etc/binary") == b"\x7fELF\0\xff\xfe"
    )
    assert "no content" in _html(client, "/images/strange/files/?path=/etc/nothing")
    assert "Nothing is in this directory" in _html(client, "/images/strange/files/?path=/empty")
    assert "This is a fifo" in _html(client, "/images/strange/files/?path=/dev/pipe")


def test_downloads_are_never_shown_by_the_browser(client: Client, image: Image) -> None:
    response = client.get("/images/strange/files/download/?path=/etc/colours")
    assert response["Content-Type"] == "application/octet-stream"
    assert response["Content-Disposition"].startswith("attachment")
    assert response["X-Content-Type-Options"] == "nosniff"
    response.close()


def test_hostile_names_are_shown_as_codes_and_can_be_opened(client: Client, image: Image) -> None:
    html = _html(client, "/images/strange/files/?path=/etc")
    assert "safe\\u202etxt.exe" in html
    assert "caf\\xe9\\x1b[2J" in html
    assert "<script>alert" not in html
    assert "\x1b" not in html
    assert "\u202e" not in html
    links = re.findall(r'href="(/images/[^"]*path=/etc/(?:safe|caf)[^"]*)"', html)
    texts = [_html(client, link) for link in links]
    assert [word in text for word, text in zip(("latin", "turned"), texts, strict=True)] == [
        True
    ] * 2
    name = quote(TURNED)
    response = client.get(f"/images/strange/files/download/?path=/etc/{name}")
    assert "\u202e" not in response["Content-Disposition"]
    assert "%E2%80%AE" not in response["Content-Disposition"]
    response.close()


def test_a_name_that_is_not_there_is_shown_as_codes_too(client: Client, image: Image) -> None:
    response = client.get("/images/strange/files/?path=/caf%E9%1b%5b2J%E2%80%AE")
    assert response.status_code == 404
    assert "The image has no /caf\\xe9\\x1b[2J\\u202e." in response.content.decode()
    assert client.get("/images/strange/files/download/?path=/etc").status_code == 422


def test_an_image_whose_file_is_gone_says_so(client: Client) -> None:
    make_image(name="lost")
    response = client.get("/images/lost/files/")
    assert response.status_code == 500
    assert "is missing or damaged" in response.content.decode()


def test_the_whole_image_is_taken_away(client: Client, image: Image) -> None:
    head = _bytes(client, "/images/strange/export/?format=tar")
    assert b"etc/os-release" in head
    assert _bytes(client, "/images/strange/export/")[:4] == b"\x28\xb5\x2f\xfd"
    assert client.get("/images/strange/export/?format=zip").status_code == 422


# Costs


def test_an_image_verified_often_costs_no_more(
    client: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    image = make_image(inputs=INPUTS)
    for _ in range(20):
        make_build(image=image, state="succeeded")
        make_build(verifies=image, state="succeeded", ended_at=timezone.now())
    with django_assert_max_num_queries(12):
        assert client.get(f"/images/{image.ref}/").status_code == 200
