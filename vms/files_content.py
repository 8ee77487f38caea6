"""Files of VMs as answers over HTTP: streamed, by ranges, and never shown by a browser."""

from __future__ import annotations

import posixpath
import re
from collections.abc import AsyncIterator
from typing import Any, cast
from urllib.parse import quote

from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse

from guest_agent.files import Download, FileInfo, Files
from nexus_site.core.errors import Invalid, Retryable
from nexus_site.core.text import visible
from vms.services.files import version_of

MAX_LINKS = 40
RANGE = re.compile(r"bytes=(\d{1,18})?-(\d{1,18})?")


async def file_answer(request: HttpRequest, files: Files, path: str) -> HttpResponseBase:
    """The file's bytes, or those that the header ``Range`` asks for; for HEAD what it is."""
    if request.method == "HEAD" or "Range" in request.headers:
        info = await files.stat(path, follow=True)
        if info.type != "file":
            raise Invalid("Only an ordinary file has content.", code="no-file")
        if request.method == "HEAD":
            return _described(HttpResponse(), info, info.size)
        if (wanted := wanted_range(request, info)) is not None:
            return await _part(files, path, info, wanted)
    download = await files.read(path)
    info = download.info
    if not info.size:  # what the kernel makes as it is read tells no size
        return _described(_streamed(download, aiter(download)), info)
    return _described(_streamed(download, exactly(download, info.size)), info, info.size)


async def archive_answer(files: Files, path: str, name: str | None) -> HttpResponseBase:
    """A file or a directory as an archive; symbolic links at the end of ``path`` are followed."""
    download = await files.read_tar(await _followed(files, path), name=name)
    response = _streamed(download, aiter(download))
    return _kept(response, f"{visible(download.info.name).strip('/') or 'root'}.tar")


async def _followed(files: Files, path: str) -> str:
    for _ in range(MAX_LINKS):
        info = await files.stat(path)
        if info.type != "link":
            return path
        path = posixpath.join(posixpath.dirname(path.rstrip("/")), info.target or "")
    raise Invalid("Too many symbolic links lead on from there.", code="too-many-links")


def wanted_range(request: HttpRequest, info: FileInfo) -> tuple[int, int] | None:
    """The first byte that is wanted and the one after the last; None for all of them.

    Several ranges, and those of another version of the file, are none. ``start >= end`` says
    that there are no such bytes.
    """
    match = RANGE.fullmatch(request.headers.get("Range", "").strip())
    condition = request.headers.get("If-Range", "")
    if match is None or match[0] == "bytes=-" or condition not in ("", etag(info)):
        return None
    first, last = match[1], match[2]
    if first is None:
        return max(info.size - int(last), 0) if int(last) else info.size, info.size
    return int(first), info.size if last is None else min(int(last) + 1, info.size)


async def _part(
    files: Files, path: str, info: FileInfo, wanted: tuple[int, int]
) -> HttpResponseBase:
    start, end = wanted
    if start >= end:
        response = HttpResponse(status=416)
        response.headers["Content-Range"] = f"bytes */{info.size}"
        return response
    download = await files.read(path, offset=start, length=end - start)
    answer = _streamed(download, exactly(download, end - start))
    answer.status_code = 206
    answer.headers["Content-Range"] = f"bytes {start}-{end - 1}/{info.size}"
    return _described(answer, info, end - start)


async def exactly(download: Download, size: int) -> AsyncIterator[bytes]:
    """So many bytes: what a growing file has more is left, less is an error."""
    left = size
    with download:
        async for data in download:
            yield data[:left]
            left -= min(len(data), left)
            if not left:
                return
    raise Retryable(
        f"The VM gave {size - left} of {size} bytes.",
        hint="The file was cut while it was read; try again.",
        code="file-short",
    )


def etag(info: FileInfo) -> str:
    return f'"{version_of(info)}"'


def _described(
    response: HttpResponseBase, info: FileInfo, size: int | None = None
) -> HttpResponseBase:
    response.headers["ETag"] = etag(info)
    response.headers["Accept-Ranges"] = "bytes"
    if size is not None:
        response.headers["Content-Length"] = str(size)
    return _kept(response, visible(info.name))


def _kept(response: HttpResponseBase, name: str) -> HttpResponseBase:
    """Whatever a guest says its file is, a browser keeps it and does not show it."""
    response.headers["Content-Type"] = "application/octet-stream"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(name, safe='')}"
    response.headers["Cache-Control"] = "no-store"
    return response


def _streamed(download: Download, pieces: AsyncIterator[bytes]) -> StreamingHttpResponse:
    response = StreamingHttpResponse(pieces)
    # A caller who is gone before the first piece leaves a generator that never began.
    cast(Any, response)._resource_closers.append(download.close)
    return response
