"""Images over HTTP: looking inside, taking them away, renaming, verifying, building anew."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from backports import zstd

from builds.inputs import Inputs
from builds.models import Build
from images.models import Image
from images.services import image_path
from nexus_site.core.models import Event, Operation
from tests.api.conftest import APIClient
from tests.factories import make_build, make_image
from tests.real_images import COLOURS, EVIL, OS_RELEASE, make_real_image


@pytest.fixture
def image(db: None, nudges: list[str], tmp_path: Path) -> Image:
    return make_real_image(tmp_path, packages=[["musl", "1.2"], ["zlib", "1.3"]])


def names(client: APIClient, path: str) -> list[str]:
    return [row["name"] for row in client.get(f"/images/strange/files?path={path}").json()["items"]]


def test_packages_are_listed_by_name(image: Image, reader: APIClient) -> None:
    assert reader.get("/images/strange/packages").json() == {
        "items": [{"name": "musl", "version": "1.2"}, {"name": "zlib", "version": "1.3"}],
        "next_cursor": None,
    }


def test_a_directory_is_listed_with_kinds_modes_and_links(image: Image, reader: APIClient) -> None:
    rows = {row["name"]: row for row in reader.get("/images/strange/files").json()["items"]}
    assert set(rows) == {"away", "dev", "empty", "etc", "large", "loop", "usr"}
    assert (rows["away"]["kind"], rows["away"]["target"]) == ("symlink", "/../../etc/passwd")
    assert (rows["etc"]["kind"], rows["etc"]["mode"]) == ("directory", "0755")
    assert (rows["large"]["path"], rows["large"]["size"]) == ("/large", 3 << 20)
    assert names(reader, "/empty") == []
    assert names(reader, "/usr/../dev") == ["pipe"], ".. stays inside"
    assert names(reader, "../../..") == list(rows)


def test_names_that_are_no_utf_8_are_shown_and_can_be_asked_for(
    image: Image, reader: APIClient
) -> None:
    assert set(names(reader, "/etc")) == {"os-release", "colours", r"caf\xe9", EVIL}
    latin = reader.get("/images/strange/file?path=/etc/caf%E9")
    assert b"".join(latin) == b"latin\n"
    assert unquote(latin.headers["Content-Disposition"]).endswith(r"caf\xe9")


@pytest.mark.parametrize("path", ["/usr/lib/os-release", "etc/os-release", "/../etc/os-release"])
def test_a_file_is_sent_as_it_is_links_followed(image: Image, reader: APIClient, path: str) -> None:
    response = reader.get(f"/images/strange/file?path={path}")
    assert b"".join(response) == OS_RELEASE.encode()
    assert response.headers["Content-Length"] == str(len(OS_RELEASE))
    assert response.headers["Content-Type"] == "application/octet-stream"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    disposition = response.headers["Content-Disposition"]
    assert disposition == "attachment; filename*=UTF-8''os-release"


def test_a_name_cannot_break_out_of_its_header(image: Image, reader: APIClient) -> None:
    response = reader.get("/images/strange/file?path=/etc/%1b[2Jgone%E2%80%AEtxt.exe")
    assert b"".join(response) == b"evil\n"
    assert response.headers["Content-Disposition"].isprintable()
    assert response.headers["Content-Disposition"].isascii()


@pytest.mark.parametrize(
    ("question", "status", "words"),
    [
        ("file?path=/etc", 422, "is a directory, not a file"),
        ("file?path=/dev/pipe", 422, "is a fifo, not a file"),
        ("file?path=/", 422, "is a directory, not a file"),
        ("file", 422, "path: Field required"),
        ("file?path=/nope", 404, "no /nope"),
        ("file?path=/away", 404, "no /etc/passwd"),
        ("file?path=/loop", 422, "Too many symbolic links"),
        ("file?path=/usr/lib/os-release/x", 404, "no /usr/lib/os-release/x"),
        ("file?path=a%00b", 404, "The image has no"),
        (f"file?path={'a' * 5000}", 422, "at most 4096"),
        ("files?path=/etc/os-release", 422, "is a file, not a directory"),
        ("files?path=/nope", 404, "no /nope"),
        ("export?format=zip", 422, "cannot be written out as “zip”"),
    ],
)
def test_what_cannot_be_shown_says_why(
    image: Image, reader: APIClient, question: str, status: int, words: str
) -> None:
    refused = reader.get(f"/images/strange/{question}")
    assert (refused.status_code, words in refused.json()["detail"]) == (status, True)


@pytest.mark.parametrize("question", ["files", "file?path=/x", "export", "export?format=tar"])
def test_an_image_without_its_file_is_broken_not_empty(
    image: Image, reader: APIClient, question: str
) -> None:
    image_path(image).unlink()
    refused = reader.get(f"/images/strange/{question}")
    assert (refused.status_code, refused.json()["code"]) == (500, "image-damaged")


def test_an_export_is_the_very_file_system(image: Image, reader: APIClient) -> None:
    response = reader.get("/images/strange/export")
    assert zstd.decompress(b"".join(response)) == image_path(image).read_bytes()
    disposition = response.headers["Content-Disposition"]
    assert disposition == "attachment; filename*=UTF-8''strange.ext4.zst"


def test_an_export_as_tar_has_its_files(image: Image, reader: APIClient) -> None:
    content = b"".join(reader.get("/images/strange/export?format=tar"))
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        found = {member.name.removeprefix("./"): member for member in tar}
        assert found["away"].linkname == "/../../etc/passwd"
        assert tar.extractfile(found["etc/colours"]).read() == COLOURS  # type: ignore[union-attr]


def test_an_image_is_renamed(image: Image, operator: APIClient) -> None:
    make_image(name="taken")
    for name, status, code in (
        ("taken", 409, "name-taken"),
        ("Not A Name", 422, "name-rule"),
        ("x" * 64, 422, "validation"),
    ):
        refused = operator.send("PATCH", "/images/strange", {"name": name})
        assert (refused.status_code, refused.json()["code"]) == (status, code)
    plan = operator.send("PATCH", "/images/strange?dry_run=1", {"name": "ours"})
    assert plan.json()["title"] == "ours"
    assert Image.objects.filter(name="strange").exists()
    done = operator.send("PATCH", "/images/strange", {"name": "ours"})
    assert (done.status_code, done.json()["id"]) == (200, image.ref)
    assert operator.send("PATCH", "/images/ours", {"name": "ours"}).status_code == 200
    assert Event.objects.filter(kind="image.renamed").count() == 1


def verifiable(world: Any) -> None:
    """The world's image as one whose inputs are known."""
    inputs = Inputs(
        name="alpine-3-23",
        rootfs="alpine 3.23 x86_64",
        rootfs_sha256=world.rootfs.sha256,
        recipe={},
        size_mib=64,
        agent_digest="3" * 64,
    )
    Image.objects.filter(pk=world.image.pk).update(inputs=inputs.document())


def test_an_image_is_verified_by_a_build_of_its_own(world: Any, operator: APIClient) -> None:
    verifiable(world)
    plan = operator.post("/images/alpine-3-23/verify?dry_run=1").json()
    assert plan["steps"][-1]["name"] == "compare"
    assert Build.objects.count() == 1
    headers = {"Idempotency-Key": "k"}
    first, again = (operator.post("/images/alpine-3-23/verify", headers=headers) for _ in range(2))
    assert first.status_code == 202
    assert first.json()["id"] == again.json()["id"]
    build = Build.objects.get(verifies=world.image)
    assert first.json()["subject"]["id"] == build.ref
    shown = operator.get(f"/builds/{build.ref}").json()
    assert shown["verifies"] == {"id": world.image.ref, "name": "alpine-3-23"}


def test_an_image_whose_build_is_gone_cannot_be_verified(world: Any, operator: APIClient) -> None:
    Build.objects.all().delete()
    refused = operator.post("/images/alpine-3-23/verify")
    assert (refused.status_code, refused.json()["code"]) == (409, "not-verifiable")
    assert not Operation.objects.filter(kind="build.run").exists()


def test_a_build_is_found_by_the_id_that_its_image_has_inside(
    world: Any, reader: APIClient
) -> None:
    key = Build.objects.get().id + 1
    Build.objects.update(key=key)
    make_build(template=world.template, key=key, verifies=world.image, state="succeeded")
    inside = f"/builds/{Build.objects.first().key}"
    for path in (inside, inside.upper().replace("BUILDS", "builds")):
        assert reader.get(path).json()["id"] == world.build.ref
    assert reader.get(f"{inside}/log").json()["ended"] is True
    Build.objects.filter(pk=world.build.pk).update(state="failed")
    assert reader.get(inside).status_code == 404, "what failed made no image"


def test_a_rebuild_is_another_image(
    world: Any, operator: APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builds.services.builds.agent_digest", lambda arch: "3" * 64)
    path = "/templates/alpine-3-23/builds"
    plan = operator.send("POST", f"{path}?dry_run=1", {"rebuild": True})
    assert plan.status_code == 200
    assert operator.send("POST", path, {"rebuild": True}).status_code == 202
    refused = operator.send("POST", path, {"rebuild": "perhaps"})
    assert refused.json()["code"] == "validation"
