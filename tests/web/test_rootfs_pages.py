"""The pages of distributions: kept and offered ones, and files of one's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.http import StreamingHttpResponse
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from images import uploads
from images.models import Rootfs
from images.providers.base import RootfsOffer
from images.services import rootfs_path
from nexus_site.core.models import Operation
from tests.factories import make_image, make_rootfs, make_template
from tests.web.conftest import htmx

pytestmark = pytest.mark.usefixtures("nudges")

SCRIPT = "<script>alert(1)</script>"


def _html(client: Client, address: str) -> str:
    return client.get(address).content.decode()


def _bytes(client: Client, address: str) -> bytes:
    response = client.get(address)
    assert isinstance(response, StreamingHttpResponse), response.status_code
    return b"".join(response)  # type: ignore[arg-type]


# Root file systems


def _offers(*versions: str) -> Callable[[], list[RootfsOffer]]:
    return lambda: [
        RootfsOffer("alpine", version, "x86_64", "embedded", "f", 1 << 20, "qcow2")
        for version in versions
    ]


def test_kept_ones_and_offers_are_one_list(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("images.services.list_rootfs_offers", _offers("3.22", "3.23"))
    kept = make_rootfs(
        version="3.23", verification="sha256, OpenPGP 0482D84", verified_at=timezone.now()
    )
    html = _html(client, "/distributions/")
    assert html.count("Fetch<span") == 1
    assert "sha256, OpenPGP 0482D84" in html
    assert f'href="/distributions/{kept.ref}/"' in html
    assert "Alpine 3.22" not in _html(client, "/distributions/?state=kept")
    assert "Alpine 3.23" not in _html(client, "/distributions/?q=3.22")


def test_fetching_says_which_provider(client: Client) -> None:
    form = {"distro": "alpine", "version": "3.23", "provider": "embedded"}
    client.post("/distributions/fetch/", form, headers=htmx("form"))
    assert Operation.objects.get().params == form


def test_a_rootfs_tells_what_vouches_for_it_and_what_it_is_used_by(client: Client) -> None:
    rootfs = make_rootfs(
        source="https://example.org/alpine.tar.gz",
        verification="sha256",
        verified_at=timezone.now(),
        config={"env": {"PATH": f"/bin{SCRIPT}"}, "cmd": ["/bin/sh", "-c\x1b[2J"], "user": "web"},
    )
    template = make_template(name="base", rootfs=rootfs)
    make_image(name="web", rootfs=rootfs)
    html = _html(client, f"/distributions/{rootfs.ref}/")
    for words in ("https://example.org/alpine.tar.gz", "sha256", "base", "web", "/bin/sh -c\\x1b"):
        assert words in html
    assert SCRIPT not in html
    assert "Its file is missing" in html
    response = client.post(f"/distributions/{rootfs.ref}/delete/", headers=htmx("form"))
    assert response.status_code == 409
    assert template.name in response.content.decode()


def test_a_damaged_rootfs_shows_as_such(client: Client) -> None:
    rootfs = make_rootfs(verification="sha256", verified_at=None)
    assert "does not hold" in _html(client, f"/distributions/{rootfs.ref}/")


def test_a_rootfs_is_verified_and_deleted(client: Client) -> None:
    rootfs = make_rootfs()
    rootfs_path(rootfs).parent.mkdir(parents=True, exist_ok=True)
    rootfs_path(rootfs).write_bytes(b"archive")
    client.post(f"/distributions/{rootfs.ref}/verify/", headers=htmx("form"))
    assert Operation.objects.get().kind == "rootfs.verify"
    response = client.post(f"/distributions/{rootfs.ref}/delete/", headers=htmx("form"))
    assert response["HX-Redirect"] == "/distributions/"
    assert not Rootfs.objects.exists()


# Files of one's own


def _upload(data: bytes = b"bytes", **values: str) -> dict[str, object]:
    return {"file": SimpleUploadedFile("root.tar", data)} | values


def test_a_file_is_imported_as_a_rootfs(client: Client) -> None:
    form = _upload(distro="mine", version="1.0", sha256="")
    response = client.post("/distributions/import/", form, headers=htmx("form"))
    operation = Operation.objects.get()
    assert response["HX-Redirect"] == f"/operations/{operation.ref}/"
    assert uploads.find_upload(operation.params["upload"]).size_bytes == 5


def test_a_file_is_imported_as_an_image(client: Client) -> None:
    form = _upload(name="mine", sha256="")
    response = client.post("/images/import/", form, headers=htmx("form"))
    operation = Operation.objects.get()
    assert response["HX-Redirect"] == f"/operations/{operation.ref}/"
    assert uploads.find_upload(operation.params["upload"]).size_bytes == 5


@pytest.mark.parametrize(
    ("address", "values", "field"),
    [
        ("/images/import/", {"sha256": "0" * 64}, "sha256"),
        ("/images/import/", {"sha256": "0"}, "sha256"),
        ("/images/import/", {"name": "Not A Name"}, "name"),
        ("/distributions/import/", {"distro": "m", "version": "1", "sha256": "0" * 64}, "sha256"),
        ("/distributions/import/", {"distro": "../x", "version": "1"}, "distro"),
        ("/distributions/import/", {"version": "1"}, "distro"),
    ],
)
def test_a_refused_file_is_told_at_its_field_and_not_kept(
    client: Client, address: str, values: dict[str, str], field: str
) -> None:
    left = set(uploads.uploads_dir().glob("*"))
    response = client.post(address, _upload(**values), headers=htmx("form"))
    assert response.status_code == 422
    assert f'id="id_{field}-error"' in response.content.decode()
    assert set(uploads.uploads_dir().glob("*")) == left
    assert not Operation.objects.exists()


def test_a_rootfs_used_by_many_costs_no_more(
    client: Client, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    rootfs = make_rootfs()
    for _ in range(20):
        make_template(rootfs=rootfs)
        make_image(rootfs=rootfs)
    with django_assert_max_num_queries(9):
        assert client.get(f"/distributions/{rootfs.ref}/").status_code == 200
