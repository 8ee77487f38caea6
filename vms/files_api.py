"""Files of VMs over HTTP: looked at, downloaded, uploaded, changed.

They are what a guest works with, not facts about it: reading them needs the scope ``operate`` too.
"""

from __future__ import annotations

from typing import Annotated, Any

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from ninja import Query, Router

from nexus_site.core.problems import BearerToken
from nexus_site.core.schemas import BINARY_BODY
from nexus_site.core.streaming import incoming
from vms.files_content import archive_answer, file_answer
from vms.files_paths import path_of
from vms.files_schemas import (
    FilesOut,
    ListQuery,
    MoveQuery,
    Path,
    UnpackedOut,
    UnpackQuery,
    WriteQuery,
    WrittenOut,
)
from vms.services.files import files_of

router = Router(auth=BearerToken("operate"))

BYTES: dict[str, Any] = {
    "responses": {
        200: {
            "content": {
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
            }
        }
    }
}


@router.get("/vms/{ref}/files", response=FilesOut)
async def browse_vm_files(
    request: HttpRequest, ref: str, query: Query[ListQuery]
) -> dict[str, Any]:
    """What is at a path of a ready VM, and a part of what is in it where it is a directory."""
    files = (await files_of(ref)).reading
    path, after = path_of(request, default="/"), path_of(request, "after")
    info = await files.stat(path, follow=query.follow)
    if info.type != "directory":
        return FilesOut.of(info, path, (), more=False)
    page = await files.list(path, after=after, limit=query.limit)
    return FilesOut.of(info, path, page.files, page.more)


@router.get("/vms/{ref}/files/content", openapi_extra=BYTES)
async def read_vm_file(request: HttpRequest, ref: str, path: Path) -> HttpResponseBase:
    """The bytes of a file, or a range of them."""
    files = await files_of(ref)
    return await file_answer(request, files.reading, path_of(request))


@router.api_operation(["HEAD"], "/vms/{ref}/files/content", include_in_schema=False)
async def look_at_vm_file(request: HttpRequest, ref: str, path: Path) -> HttpResponseBase:
    """Size and version of a file."""
    return await read_vm_file(request, ref, path)


@router.get("/vms/{ref}/files/archive", openapi_extra=BYTES)
async def read_vm_archive(
    request: HttpRequest,
    ref: str,
    path: Path,
    name: Annotated[str | None, Query(max_length=1024)] = None,
) -> HttpResponseBase:
    """A file or a directory with all that is in it, as an archive (tar).

    Its entries begin with ``name``, the last part of the path if it is left out; with an empty one
    a directory's files are at the archive's root.
    """
    files = await files_of(ref)
    wanted = None if name is None else path_of(request, "name")
    return await archive_answer(files.reading, path_of(request), wanted)


@router.put("/vms/{ref}/files/content", response=WrittenOut, openapi_extra=BINARY_BODY)
async def write_vm_file(request: HttpRequest, ref: str, query: Query[WriteQuery]) -> dict[str, Any]:
    """Write the request's body into a file. It is there whole or not at all; a file that was there
    keeps its mode and owner unless others are given."""
    files = await files_of(ref)
    length = request.headers.get("Content-Length", "")
    written = await files.write(
        path_of(request),
        incoming(request),
        size=int(length) if length.isdecimal() else None,
        mode=query.octal,
        user=query.user,
        parents=query.parents,
    )
    return {"bytes": written}


@router.put("/vms/{ref}/files/archive", response=UnpackedOut, openapi_extra=BINARY_BODY)
async def write_vm_archive(
    request: HttpRequest, ref: str, query: Query[UnpackQuery]
) -> dict[str, Any]:
    """Unpack the archive (tar) in the request's body into a directory, and nowhere else. What was
    unpacked before something failed stays."""
    files = await files_of(ref)
    unpacked = await files.write_tar(
        path_of(request),
        incoming(request),
        user=query.user,
        keep_owner=query.keep_owner,
        parents=query.parents,
    )
    return {
        "entries": unpacked.entries,
        "bytes": unpacked.bytes,
        "skipped": unpacked.skipped,
    }


@router.delete("/vms/{ref}/files", response={204: None})
async def remove_vm_file(
    request: HttpRequest, ref: str, path: Path, recursive: bool = False
) -> HttpResponse:
    """Remove a file or an empty directory; ``recursive``: a directory and all that is in it."""
    files = await files_of(ref)
    await files.remove(path_of(request), recursive=recursive)
    return HttpResponse(status=204)


@router.post("/vms/{ref}/files/directory", response={204: None})
async def make_vm_directory(
    request: HttpRequest, ref: str, query: Query[WriteQuery]
) -> HttpResponse:
    """Make a directory; with ``parents`` those above it too, and it may be there already."""
    files = await files_of(ref)
    mode = 0o755 if query.octal is None else query.octal
    await files.mkdir(path_of(request), mode=mode, user=query.user, parents=query.parents)
    return HttpResponse(status=204)


@router.post("/vms/{ref}/files/move", response={204: None})
async def move_vm_file(request: HttpRequest, ref: str, query: Query[MoveQuery]) -> HttpResponse:
    """Give a file another name in its file system."""
    files = await files_of(ref)
    await files.move(path_of(request), path_of(request, "to"), replace=query.replace)
    return HttpResponse(status=204)
