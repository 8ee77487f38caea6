"""Downloads leave piece by piece, in constant memory, and break off visibly."""

from __future__ import annotations

import asyncio
import threading
import tracemalloc
import warnings
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from django.test import AsyncClient

from bench.server import Server
from images.models import Image
from images.services import contents, image_path
from nexus_site.core import auth
from nexus_site.core.streaming import Download
from tests.api.conftest import APIClient
from tests.real_images import damage, make_real_image

MIB = 1 << 20


def counted(made: list[int], count: int) -> Iterator[bytes]:
    for number in range(count):
        made.append(number)
        yield bytes([number])


async def test_each_piece_is_made_when_the_one_before_has_gone() -> None:
    made: list[int] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Django's own class warns, and makes them all at once
        async with aclosing(aiter(Download(counted(made, 5), "x"))) as pieces:
            assert await anext(pieces) == b"\0"
            assert made == [0]
            assert await anext(pieces) == b"\1"
            assert made == [0, 1]


async def test_pieces_are_made_beside_the_loop() -> None:
    loop = threading.get_ident()

    def where() -> Iterator[bytes]:
        yield str(threading.get_ident()).encode()

    (found,) = [piece async for piece in Download(where(), "x")]
    assert int(found) != loop


async def test_a_failure_midway_reaches_the_server() -> None:
    def fails() -> Iterator[bytes]:
        yield b"one"
        raise OSError("gone")

    pieces = aiter(Download(fails(), "x"))
    assert await anext(pieces) == b"one"
    with pytest.raises(OSError, match="gone"):
        await anext(pieces)


@pytest.mark.django_db(transaction=True)
def test_the_api_streams_under_asgi(tmp_path: Path) -> None:
    image = make_real_image(tmp_path)
    _, secret = auth.create_token("t", "read")

    async def ask(path: str) -> bytes:
        bearer = {"Authorization": f"Bearer {secret}"}
        response = await AsyncClient().get(f"/v1/images/strange/{path}", headers=bearer)
        assert isinstance(response, Download)
        return b"".join([piece async for piece in response])

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(asyncio.run(ask("file?path=/large"))) == 3 * MIB
        assert asyncio.run(ask("export?format=tar"))[257:262] == b"ustar"
    assert image_path(image).stat().st_size == image.size_bytes


@pytest.mark.parametrize("form", ["ext4.zst", "tar"])
def test_an_export_needs_little_memory(db: None, tmp_path: Path, form: str) -> None:
    image = make_real_image(tmp_path)
    tracemalloc.start()
    try:
        pieces = sum(1 for _ in contents.export(image, form))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert pieces > 1
    assert peak < 8 * MIB, "half of the image"


@pytest.fixture
def broken(db: None, tmp_path: Path) -> Image:
    image = make_real_image(tmp_path)
    damage(image_path(image), "/large")
    return image


def test_a_damaged_image_fails_midway(broken: Image, reader: APIClient) -> None:
    pieces = iter(reader.get("/images/strange/export?format=tar"))
    assert next(pieces)
    with pytest.raises(Exception, match="damaged"):
        list(pieces)


@pytest.mark.live
@pytest.mark.xdist_group("live")
def test_a_directory_is_sent_as_it_is_read(server: Server, tmp_path: Path) -> None:
    """An upload whose size nobody knows before; Django's own test server takes none."""
    (tmp_path / "root/etc").mkdir(parents=True)
    (tmp_path / "root/etc/os-release").write_text("PRETTY_NAME=Mine\n")
    server.ctl("image", "import", str(tmp_path / "root"), "--name", "sent")
    assert server.ctl("image", "inspect", "sent")["os_name"] == "Mine"
    again = server.ctl("image", "import", str(tmp_path / "root"), "--name", "sent-again")
    assert again["steps"][0]["state"] == "skipped", "the same directory is the same file"


@pytest.mark.live
@pytest.mark.xdist_group("live")
def test_an_export_that_fails_is_told_by_the_connection(server: Server, tmp_path: Path) -> None:
    """On a real server: the caller is told by the framing, soon, and the server goes on."""
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/os-release").write_text("ID=x\n")
    server.ctl("image", "import", str(root), "--name", "fragile")
    image = server.ctl("image", "inspect", "fragile")
    damage(server.data_dir / "images" / f"{image['id']}.ext4", "/etc/os-release")
    target = tmp_path / "fragile.tar"
    for _ in range(2):
        done = server.run("image", "export", "fragile", "--format", "tar", "-o", str(target))
        assert done.returncode == 3
        assert "broke its answer off" in done.stderr
    assert not list(tmp_path.glob("*.tar*")), "nothing that could be taken for an image"
