"""Files and directories between this machine and VMs, and between two VMs.

Where things end up is as with ``docker cp``: a directory that is there takes what is copied into
itself, under its own name; ``DIRECTORY/.`` means what is in it.
"""

from __future__ import annotations

import os
import posixpath
import re
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPResponse, IncompleteRead
from pathlib import Path
from typing import BinaryIO, cast

from nexusctl import files
from nexusctl.archives import KEPT_MODE, PIECE, Counted, packed, unpack
from nexusctl.client import Client
from nexusctl.errors import NOT_FOUND, Failure
from nexusctl.output import visible

_IN_VM = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*):(.*)", re.DOTALL)
Advance = Callable[[int], None]


@dataclass(frozen=True)
class Place:
    """An end of a copy: a path of a VM, or of this machine where ``vm`` is empty."""

    vm: str
    path: str

    @classmethod
    def parse(cls, text: str) -> Place:
        """``VM:/path``, or a path here: ``./a:b`` has a colon of its own."""
        match = _IN_VM.fullmatch(text)
        if match is None:
            return cls("", text)
        return cls(match[1], match[2] if match[2].startswith("/") else f"/{match[2]}")

    @property
    def is_stream(self) -> bool:
        """Whether it is this command's own input or output."""
        return not self.vm and self.path == "-"

    @property
    def name(self) -> str:
        """What the thing is called where it is copied into a directory."""
        path = self.path.rstrip("/")
        if self.vm:
            return posixpath.basename(posixpath.normpath(path or "/"))
        return Path(path or "/").resolve().name

    @property
    def inside(self) -> bool:
        """Whether what is in the directory is meant, not the directory itself."""
        return self.path == "." or self.path.endswith("/.")

    @property
    def wants_directory(self) -> bool:
        return self.path.endswith("/") or self.inside

    def joined(self, name: str) -> Place:
        return Place(self.vm, posixpath.join(self.path, name))

    def __str__(self) -> str:
        return visible(f"{self.vm}:{self.path}" if self.vm else self.path)


@dataclass
class Copy:
    """One copy; ``run`` does it, and ``counted`` is what it was."""

    client: Client
    source: Place
    target: Place
    advance: Advance = lambda _: None
    begin: Callable[[int | None], None] = lambda _: None
    counted: Counted = field(default_factory=Counted)

    def run(self) -> None:
        """Raises ``Failure``."""
        if self.source.is_stream:
            self._send(self._pieces(sys.stdin.buffer), None, None, self.target)
            return
        kind, size, mode = self._look(self.source)
        if kind == "missing":
            raise Failure(f"{self.source} is not there.", exit_code=NOT_FOUND)
        if kind == "directory":
            self._copy_directory(mode)
        elif kind == "file":
            self._copy_file(size, mode)
        else:
            raise Failure(f"{self.source} is a {kind}; files and directories can be copied.")

    def _copy_file(self, size: int, mode: int) -> None:
        if self.source.wants_directory:
            raise Failure(f"{self.source} is no directory.")
        target = self._target_of_file()
        self.begin(size)
        if not self.source.vm:
            with files.source(Path(self.source.path)) as (file, size_now):
                self._send(self._pieces(file), size_now, mode, target)
            return
        with self.client.reading(_content(self.source), path=self.source.path) as response:
            if target.vm:
                self._send(self._received(response), response.length, mode, target)
            else:
                self._keep(response, mode, target)
        self.counted.entries += 1

    def _target_of_file(self) -> Place:
        if self.target.is_stream:
            return self.target
        kind = self._look(self.target)[0]
        if kind == "directory":
            return self.target.joined(self.source.name)
        if self.target.wants_directory:
            raise Failure(f"The directory {self.target} is not there.", exit_code=NOT_FOUND)
        return self.target

    def _copy_directory(self, mode: int) -> None:
        self.begin(None)
        if self.target.is_stream:
            with self._archive() as response, _explained(self.target):
                for data in self._received(response):
                    sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
            return
        into = self._directory_for(mode)
        if not self.source.vm:
            archive = self._counting(packed(Path(self.source.path), self.counted))
            self._send_archive(archive, into)
            return
        with self._archive() as response:
            if into.vm:
                self._send_archive(self._received(response), into)
            else:
                unpack(self._reader(response), Path(into.path), self.counted)

    def _directory_for(self, mode: int) -> Place:
        """The directory that takes what is in the source; it is made where it is missing."""
        kind = self._look(self.target)[0]
        into = self.target
        if kind == "directory" and not self.source.inside:
            into = self.target.joined(self.source.name)
            kind = self._look(into)[0]
        if kind not in ("directory", "missing"):
            raise Failure(f"{into} is no directory.")
        if kind == "missing" and into.vm:
            query = {"path": into.path, "mode": f"{mode:o}"}
            self.client.call("POST", f"/vms/{into.vm}/files/directory", query=query)
        elif kind == "missing":
            with _explained(into):
                Path(into.path).mkdir(mode | 0o700)
        return into

    # What is at a place

    def _look(self, place: Place) -> tuple[str, int, int]:
        """What is there ("missing" where nothing is), its size and its mode."""
        if place.vm:
            return self._look_in_vm(place)
        try:
            status = Path(place.path).stat()
        except (FileNotFoundError, NotADirectoryError):
            return "missing", 0, 0
        except OSError as error:
            raise _failure(place, error) from error
        kind = "directory" if stat.S_ISDIR(status.st_mode) else "file"
        return kind, status.st_size, stat.S_IMODE(status.st_mode) & KEPT_MODE

    def _look_in_vm(self, place: Place) -> tuple[str, int, int]:
        try:
            found = self.client.get(f"/vms/{place.vm}/files", path=place.path, limit=1)["file"]
        except Failure as failure:
            if failure.code == "not-in-guest":
                return "missing", 0, 0
            raise
        return found["type"], found["size"], int(found["mode"], 8) & KEPT_MODE

    # Bytes

    def _local(self, read: Callable[[int], bytes], most: int) -> bytes:
        with _explained(self.source):
            return read(most)

    def _pieces(self, file: BinaryIO) -> Iterator[bytes]:
        while data := self._local(file.read, PIECE):
            self.counted.bytes += len(data)
            self.advance(len(data))
            yield data

    def _counting(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for data in pieces:
            self.advance(len(data))
            yield data

    def _received(self, response: HTTPResponse) -> Iterator[bytes]:
        read = self._reader(response)
        while data := read(PIECE):
            self.counted.bytes += len(data)
            yield data

    def _reader(self, response: HTTPResponse) -> Callable[[int], bytes]:
        def read(most: int) -> bytes:
            data = response.read(most)
            if not data and response.length:  # http.client says so of chunked answers only
                raise IncompleteRead(b"", response.length)
            self.advance(len(data))
            return data

        return read

    def _archive(self) -> AbstractContextManager[HTTPResponse]:
        path = f"/vms/{self.source.vm}/files/archive"
        return self.client.reading(path, path=self.source.path, name=".")

    def _send(
        self, pieces: Iterator[bytes], size: int | None, mode: int | None, target: Place
    ) -> None:
        if not target.vm:
            raise Failure("One of the two must be in a VM: VM:/path.")
        wanted = "" if mode is None else f"{mode:o}"
        self.client.put(_content(target), pieces, size, path=target.path, mode=wanted)

    def _send_archive(self, pieces: Iterator[bytes], into: Place) -> None:
        path = f"/vms/{into.vm}/files/archive"
        done = self.client.put(path, pieces, None, path=into.path)
        self.counted.entries, self.counted.bytes = done["entries"], done["bytes"]
        self.counted.skipped += done["skipped"]

    def _keep(self, response: HTTPResponse, mode: int, target: Place) -> None:
        with _opened(target, mode) as file:
            for data in self._received(response):
                with _explained(target):
                    file.write(data)


def _content(place: Place) -> str:
    return f"/vms/{place.vm}/files/content"


@contextmanager
def _opened(target: Place, mode: int) -> Iterator[BinaryIO]:
    """A file to write: there whole or not at all, unless it is a device or a pipe."""
    path = Path(target.path)
    if not target.is_stream and path.exists() and not path.is_file():
        with _explained(target), path.open("wb") as file:
            yield cast("BinaryIO", file)
        return
    with files.sink(path) as sink:
        if not target.is_stream:
            os.fchmod(sink.fileno(), mode)
        yield sink


@contextmanager
def _explained(place: Place) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _failure(place, error) from error


def _failure(place: Place, error: OSError) -> Failure:
    return Failure(f"{place}: {(error.strerror or type(error).__name__).lower()}.")
