"""The guest's files through the real agent: a directory of this machine in place of a guest."""

from __future__ import annotations

import asyncio
import io
import os
import stat
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path

import pytest

from guest_agent.connection import AgentConnection
from guest_agent.exec import Program
from guest_agent.files import Files, Page, printable
from nexus_site.core.errors import Conflict, Invalid, NotFound, Retryable

from .conftest import PATIENCE, AgentProcess, eventually

Connect = Callable[[], Awaitable[AgentConnection]]
MEGABYTE = 1 << 20
ODD = os.fsdecode(b"odd \xff\n\x1b[31m \xc3\xa4")


@pytest.fixture
async def connection(agent: AgentProcess, connect: Connect) -> AgentConnection:
    agent.write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\notter:x:1234:1234::/:/bin/sh\n")
    agent.start()
    return await connect()


@pytest.fixture
def files(connection: AgentConnection) -> Files:
    return Files(connection)


@pytest.fixture
def root(agent: AgentProcess) -> Path:
    """The guest's root directory."""
    return agent.sandbox


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece


async def read(files: Files, path: str, **wanted: int) -> bytes:
    async with asyncio.timeout(PATIENCE):
        download = await files.read(path, **wanted)
        return b"".join([data async for data in download])


async def read_tar(files: Files, path: str, name: str | None = None) -> tarfile.TarFile:
    async with asyncio.timeout(PATIENCE):
        download = await files.read_tar(path, name=name)
        content = b"".join([data async for data in download])
    return tarfile.open(fileobj=io.BytesIO(content), errors="surrogateescape")


def archive(entries: Iterable[tuple[tarfile.TarInfo, bytes]], form: int) -> bytes:
    to = io.BytesIO()
    with tarfile.open(fileobj=to, mode="w", format=form, errors="surrogateescape") as tar:
        for info, content in entries:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return to.getvalue()


def entry(
    name: str, kind: bytes = tarfile.REGTYPE, target: str = "", **more: int
) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    for key, value in more.items():
        setattr(info, key, value)
    return info


def snapshot(directory: Path) -> dict[str, object]:
    """What lies below a directory."""
    found: dict[str, object] = {}
    for path in directory.rglob("*"):
        name = str(path.relative_to(directory))
        if path.is_symlink():
            found[name] = str(path.readlink())
        elif path.is_file():
            found[name] = path.read_bytes()
        else:
            found[name] = stat.S_IFMT(path.lstat().st_mode)
    return found


async def test_tells_of_one_file(files: Files, root: Path) -> None:
    (root / ODD).write_bytes(b"12345")
    (root / ODD).chmod(0o4751)
    os.utime(root / ODD, (1, 1_700_000_000.5))
    (root / "link").symlink_to(ODD)
    info = await files.stat("/" + ODD)
    assert (info.name, info.type, info.size, info.mode) == (ODD, "file", 5, 0o4751)
    assert (info.uid, info.gid, info.modified) == (os.getuid(), os.getgid(), 1_700_000_000.5)
    link = await files.stat("/link")
    assert (link.type, link.target) == ("link", ODD)
    assert (await files.stat("/link", follow=True)).size == 5
    assert (await files.stat("/")).type == "directory"
    assert printable(ODD) == "odd \\udcff\\n\\x1b[31m ä"
    with pytest.raises(NotFound):
        await files.stat("/nothing")
    with pytest.raises(NotFound):
        await files.stat(f"/{ODD}/below")
    with pytest.raises(Invalid):
        await files.stat("relative")
    with pytest.raises(Invalid):
        await files.stat("/" + "x" * 300)


async def test_lists_in_pages(files: Files, root: Path) -> None:
    names = sorted(
        [ODD, ".hidden", "a", "B", "ä", *(f"n{i:04}" for i in range(2500))], key=os.fsencode
    )
    directory = root / "many"
    directory.mkdir()
    for name in names:
        (directory / name).touch()
    found: list[str] = []
    page = Page((), more=True)
    while page.more:
        page = await files.list("/many", after=found[-1] if found else "", limit=400)
        assert len(page.files) <= 400
        found += [file.name for file in page.files]
    assert found == names
    assert len((await files.list("/many", limit=5000)).files) == 1000
    assert await files.list("/many", after="ÿ") == Page((), more=False)
    with pytest.raises(NotFound):
        await files.list("/many/a")


async def test_reads_files_and_parts_of_them(files: Files, root: Path) -> None:
    data = os.urandom(3 * MEGABYTE)
    (root / "data").write_bytes(data)
    (root / "empty").touch()
    assert await read(files, "/data") == data
    assert await read(files, "/data", offset=MEGABYTE + 1, length=100) == data[MEGABYTE + 1 :][:100]
    assert await read(files, "/data", offset=len(data) - 5) == data[-5:]
    assert await read(files, "/data", offset=len(data) + 5) == b""
    assert await read(files, "/data", length=0) == b""
    assert await read(files, "/empty") == b""
    os.mkfifo(root / "pipe")
    for path, kind in [("/pipe", Invalid), ("/nothing", NotFound), ("/", Conflict)]:
        with pytest.raises(kind):
            await files.read(path)


async def test_a_reader_that_leaves_or_waits_holds_nobody_up(files: Files, root: Path) -> None:
    (root / "data").write_bytes(bytes(8 * MEGABYTE))
    for _ in range(70):
        with await files.read("/data") as download:
            async for data in download:
                assert data
                break
    waiting = [await files.read("/data") for _ in range(20)]
    assert (await files.stat("/data")).size == 8 * MEGABYTE
    for download in waiting:
        download.close()


async def test_writes_a_file_at_once(files: Files, root: Path) -> None:
    data = os.urandom(3 * MEGABYTE)
    assert await files.write("/a/b/c", pieces(data, b"", b"end"), parents=True) == len(data) + 3
    assert (root / "a/b/c").read_bytes() == data + b"end"
    assert stat.S_IMODE((root / "a/b/c").stat().st_mode) == 0o644
    (root / "a/b/c").chmod(0o640)
    os.chown(root / "a/b/c", 77, 78)
    (root / "link").symlink_to(root / "a/b/c")
    await files.write("/link", pieces(b"new"), size=3)
    assert (root / "link").is_symlink()
    after = (root / "a/b/c").stat()
    assert (root / "a/b/c").read_bytes() == b"new"
    assert (stat.S_IMODE(after.st_mode), after.st_uid, after.st_gid) == (0o640, 77, 78)
    await files.write("/a/b/c", pieces(), mode=0o4755, user="otter")
    after = (root / "a/b/c").stat()
    assert (stat.S_IMODE(after.st_mode), after.st_uid, after.st_size) == (0o4755, 1234, 0)
    assert [path.name for path in (root / "a/b").iterdir()] == ["c"], "nothing is left behind"


async def test_a_write_that_fails_changes_nothing(files: Files, root: Path) -> None:
    (root / "file").write_bytes(b"old")

    async def breaks() -> AsyncIterator[bytes]:
        yield bytes(MEGABYTE)
        raise RuntimeError("the browser left")

    with pytest.raises(RuntimeError, match="browser"):
        await files.write("/file", breaks())
    with pytest.raises(Invalid, match="EOF"):
        await files.write("/file", pieces(b"short"), size=6)
    for path, kind in [("/none/file", NotFound), ("/etc", Conflict), ("/file/below", NotFound)]:
        with pytest.raises(kind):
            await files.write(path, pieces(bytes(4 * MEGABYTE)))
    with pytest.raises(Invalid, match="nobody-here"):
        await files.write("/file", pieces(), user="nobody-here")
    with pytest.raises(Invalid, match="mode"):
        await files.write("/file", pieces(), mode=0o10000)
    await eventually(lambda: {path.name for path in root.iterdir()} == {"etc", "file"})
    assert (root / "file").read_bytes() == b"old"


async def test_a_write_goes_on_where_it_was_cut_off(files: Files, root: Path) -> None:
    await files.write("/part", pieces(b"12345"), offset=0)
    assert await files.write("/part", pieces(b"678"), offset=5) == 3
    await files.write("/part", pieces(b"x"), offset=1)
    assert (root / "part").read_bytes() == b"1x345678"


async def test_makes_moves_and_removes(files: Files, root: Path) -> None:
    await files.mkdir("/a/b", parents=True, mode=0o750, user="otter")
    await files.mkdir("/a/b", parents=True)
    assert stat.S_IMODE((root / "a/b").stat().st_mode) == 0o750
    assert (root / "a").stat().st_uid == (root / "a/b").stat().st_uid == 1234
    with pytest.raises(Conflict):
        await files.mkdir("/a")
    (root / "a/file").write_text("1")
    (root / "a/other").write_text("2")
    with pytest.raises(Conflict):
        await files.move("/a/file", "/a/other")
    await files.move("/a/file", "/a/other", replace=True)
    assert (root / "a/other").read_text() == "1"
    with pytest.raises(Conflict):
        await files.remove("/a")
    (root / "kept").mkdir()
    (root / "kept/file").touch()
    (root / "a/link").symlink_to(root / "kept")
    await files.remove("/a", recursive=True)
    assert not (root / "a").exists()
    assert (root / "kept/file").exists(), "links are not followed"
    with pytest.raises(NotFound):
        await files.remove("/a", recursive=True)
    for path in ("/", "//", "/kept/..", "/../"):
        with pytest.raises(Invalid, match="root"):
            await files.remove(path, recursive=True)


async def test_a_tree_goes_out_and_in(files: Files, root: Path) -> None:
    tree = root / "tree"
    deep = tree / ("d" * 90) / ("e" * 90)
    deep.mkdir(parents=True)
    (deep / ("long" * 50)).write_bytes(os.urandom(100_000))
    (tree / ODD).write_bytes(b"odd")
    (tree / "script").write_text("#!/bin/sh")
    (tree / "script").chmod(0o4755)
    os.chown(tree / "script", 77, 78)
    (tree / "script").chmod(0o4755)
    (tree / "link").symlink_to("t" * 150)
    (tree / "empty").mkdir(mode=0o700)
    (tree / "block").write_bytes(bytes(512))
    os.mkfifo(tree / "pipe")
    with await read_tar(files, "/tree") as tar:
        names = {member.name for member in tar}
        assert names >= {"tree", "tree/" + ODD, "tree/link", "tree/empty"}
        assert tar.getmember("tree/script").mode == 0o4755
        assert tar.getmember("tree/script").uid == 77
    with await read_tar(files, "/tree", "") as tar:
        assert {member.name for member in tar} >= {ODD, "script"}
    with await read_tar(files, "/tree/script", "x") as tar:
        assert [(m.name, m.size) for m in tar] == [("x", 9)]

    download = await files.read_tar("/tree", name="")
    unpacked = await files.write_tar("/copy", download, keep_owner=True, parents=True)
    (tree / "pipe").unlink()
    assert snapshot(root / "copy") == snapshot(tree)
    assert unpacked.entries == len(snapshot(tree))
    assert unpacked.bytes == 100_000 + 3 + 9 + 512
    copied = (root / "copy/script").stat()
    assert (copied.st_uid, copied.st_gid, stat.S_IMODE(copied.st_mode)) == (77, 78, 0o4755)
    assert int(copied.st_mtime) == int((tree / "script").stat().st_mtime)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
async def test_archives_of_all_formats_are_read(files: Files, root: Path, form: int) -> None:
    long = "d" * 80 + "/" + "f" * 80
    content = archive(
        [
            (entry("dir/", tarfile.DIRTYPE, mode=0o711), b""),
            (entry("dir/file", mtime=1_600_000_000, mode=0o600), b"content"),
            (entry(long), b"x" * 1000),
            (entry("link", tarfile.SYMTYPE, "dir/file"), b""),
            (entry("hard", tarfile.LNKTYPE, "dir/file"), b""),
            (entry("device", tarfile.CHRTYPE), b""),
            (entry("./dot/./name"), b"dots"),
        ],
        form,
    )
    unpacked = await files.write_tar("/", pieces(content, bytes(100_000)), user="otter")
    assert (unpacked.entries, unpacked.skipped) == (6, 1)
    assert (root / long).stat().st_size == 1000
    assert (root / "hard").samefile(root / "dir/file")
    assert (root / "dir/file").read_bytes() == b"content"
    assert (root / "dir/file").stat().st_mtime == 1_600_000_000
    assert (root / "dir/file").stat().st_uid == (root / "dir").stat().st_uid == 1234
    assert stat.S_IMODE((root / "dir").stat().st_mode) == 0o711
    assert (root / "dot/name").read_bytes() == b"dots"


ESCAPES = [
    [(entry("../evil"), b"x")],
    [(entry("a/" * 10_000 + "deep"), b"x")],
    [(entry("a/../../evil"), b"x")],
    [(entry("l", tarfile.SYMTYPE, "/"), b""), (entry("l/OUT/evil"), b"x")],
    [(entry("l", tarfile.SYMTYPE, ".."), b""), (entry("l/evil"), b"x")],
    [
        (entry("l", tarfile.SYMTYPE, "../evil"), b""),
        (entry("l/", tarfile.DIRTYPE), b""),
        (entry("l/evil"), b"x"),
    ],
    [(entry("h", tarfile.LNKTYPE, "../secret"), b"")],
    [
        (entry("l", tarfile.SYMTYPE, "../secret"), b""),
        (entry("h", tarfile.LNKTYPE, "l"), b""),
        (entry("h"), b"x"),
    ],
    [(entry("l", tarfile.SYMTYPE, "../secret"), b""), (entry("l"), b"x")],
    [(entry("l", tarfile.SYMTYPE, "../evil"), b""), (entry("l", mode=0o777), b"x")],
    [(entry("..", tarfile.SYMTYPE, "x"), b"")],
    [(entry("l", tarfile.SYMTYPE, "../dir"), b""), (entry("l", tarfile.DIRTYPE, mode=0o777), b"")],
    [(entry("l", tarfile.SYMTYPE, "."), b""), (entry("l/../../evil"), b"x")],
]


@pytest.mark.parametrize("number", range(len(ESCAPES)))
async def test_no_archive_gets_out_of_its_directory(files: Files, root: Path, number: int) -> None:
    (root / "target").mkdir()
    (root / "secret").write_bytes(b"secret")
    (root / "dir").mkdir(mode=0o755)
    (root / "target/there").symlink_to("../dir")
    before = {
        name: value for name, value in snapshot(root).items() if not name.startswith("target")
    }
    out = str(root).lstrip("/")
    entries = [
        (entry(i.name.replace("OUT", out), i.type, i.linkname), d) for i, d in ESCAPES[number]
    ]
    with suppress(Invalid, Conflict, NotFound):
        await files.write_tar("/target", pieces(archive(entries, tarfile.GNU_FORMAT)))
    with pytest.raises(Conflict):
        await files.write_tar(
            "/target", pieces(archive([(entry("there/evil"), b"x")], tarfile.GNU_FORMAT))
        )
    after = {name: value for name, value in snapshot(root).items() if not name.startswith("target")}
    assert after == before
    assert stat.S_IMODE((root / "dir").stat().st_mode) == 0o755


@pytest.mark.parametrize(
    "content",
    [b"x" * 600, b"x" * 100, archive([(entry("a"), b"12345")], tarfile.GNU_FORMAT)[:514], b""],
)
async def test_what_is_no_archive_is_refused(files: Files, root: Path, content: bytes) -> None:
    with pytest.raises(Invalid):
        await files.write_tar("/", pieces(content))
    with pytest.raises(NotFound):
        await files.write_tar("/nothing", pieces(content))
    with pytest.raises(Conflict):
        await files.write_tar("/etc/passwd", pieces(content))


async def test_nothing_is_written_while_file_systems_are_frozen(
    agent: AgentProcess, connection: AgentConnection, files: Files
) -> None:
    agent.write("proc/self/mountinfo", "21 1 254:0 / / rw - ext4 /dev/vda rw\n")
    await connection.freeze()
    for work in (
        files.write("/file", pieces(b"x")),
        files.mkdir("/dir"),
        files.remove("/etc/passwd"),
        files.move("/etc/passwd", "/x"),
        files.write_tar("/", pieces(b"")),
    ):
        with pytest.raises(Retryable, match="frozen"):
            await work
    assert (await files.stat("/etc/passwd")).type == "file"
    await connection.thaw()
    await files.mkdir("/dir")


async def test_transfers_are_bounded_and_leave_room_for_others(
    connection: AgentConnection, files: Files, root: Path
) -> None:
    (root / "data").write_bytes(bytes(MEGABYTE))
    downloads = [await files.read("/data") for _ in range(64)]
    with pytest.raises(Retryable, match="as the agent can mind"):
        await files.read("/data")
    execution = await connection.start(Program(["true"]))
    assert await execution.read() is None
    for download in downloads:
        download.close()
