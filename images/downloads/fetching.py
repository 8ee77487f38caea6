"""Downloads: resumed, repeated, checked while they come, and in their place only when right."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from images.downloads.partial import Partial, Source, locked_partial
from images.downloads.transport import DEFAULT, Answer, Failed, Policy, open_url
from images.files import Progress, move_file, no_progress, require_room, sha256_of
from nexus_site.core.errors import Broken, Invalid, as_nexus_error

T = TypeVar("T")

#: Looks at a file that is complete, before it is in its place; raises to refuse it.
Check = Callable[[Path], None]

_NEW_ENOUGH = 1 << 20  # bytes that an attempt must bring to count as progress
_MOST_ATTEMPTS = 100
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


@dataclass(frozen=True)
class Downloaded:
    """A file in its place, and what was found out about it."""

    path: Path
    sha256: str
    size_bytes: int


def download(
    url: str,
    destination: Path,
    *,
    sha256: str = "",
    size: int | None = None,
    check: Check | None = None,
    policy: Policy = DEFAULT,
    progress: Progress = no_progress,
) -> Downloaded:
    """Put what is at ``url`` into ``destination``, whole and right or not at all.

    ``sha256`` (hexadecimal) and ``size`` (bytes) are what it must have; ``check`` may look at
    the file before it is in its place. What has come stays when the connection or the process
    dies, and the next call goes on from there. A second call at the same time waits for the
    first. ``progress`` is told bytes done and bytes in all (0: not known), and may raise.

    Raises ``Retryable``, ``NotFound``, ``Broken`` (codes ``checksum``, ``size``,
    ``download-too-large``, ``redirect-refused``…), ``Invalid``, and what ``check`` raises.
    """
    with _disk_errors(), locked_partial(destination, lambda: progress(0, size or 0)) as partial:
        if sha256 and destination.exists() and sha256_of(destination) == sha256:
            partial.discard()
            if check is not None:
                check(destination)
            return Downloaded(destination, sha256, destination.stat().st_size)
        job = _Job(Source(url, sha256), size, partial, policy, progress)
        try:
            job.run()
            if check is not None:
                check(partial.path)
            move_file(partial.path, destination, 0o400)
        except (Broken, Invalid, OSError):  # nobody shall go on from here, nor fill the disk
            partial.discard()
            raise
        except BaseException:
            partial.discard_if_empty()
            raise
        partial.forget_source()
        return Downloaded(destination, partial.sha256, partial.size)


def fetch_bytes(
    url: str, limit: int, *, policy: Policy = DEFAULT, progress: Progress = no_progress
) -> bytes:
    """A small document, such as a list of releases; ``Broken`` where it is over ``limit``."""

    def attempt() -> bytes:
        with open_url(url, {}, policy) as answer:
            _check_ok(answer)
            data = bytearray()
            for chunk in answer.body:
                data += chunk
                if len(data) > limit:
                    raise _too_large(answer, limit)
            return bytes(data)

    return _repeated(attempt, lambda: 0, policy, lambda: progress(0, 0))


@dataclass
class _Job:
    """One download: what is wanted, what is there, and how to get the rest."""

    wanted: Source
    size: int | None
    partial: Partial
    policy: Policy
    progress: Progress

    def run(self) -> None:
        """Get the whole file; one whose resumed start was wrong is fetched once more."""
        resumed = self._complete()
        problem = self._problem()
        if problem and resumed:
            self.partial.start(self.wanted)
            self._complete()
            problem = self._problem()
        if problem:
            raise problem

    def _complete(self) -> bool:
        """Repeat until all is there; whether any of it was of an earlier connection."""
        resumed = False

        def attempt() -> None:
            nonlocal resumed
            resumed = self._attempt() or resumed

        _repeated(attempt, lambda: self.partial.size, self.policy, self._pulse)
        return resumed

    def _attempt(self) -> bool:
        kept = self.partial.resume(self.wanted)
        if self.wanted.sha256 and self.partial.sha256 == self.wanted.sha256:
            return True  # an earlier process had it all
        headers = {}
        if kept is not None:
            headers["Range"] = f"bytes={self.partial.size}-"
            if kept.validator:
                headers["If-Range"] = kept.validator
        with open_url(self.wanted.url, headers, self.policy) as answer:
            if kept is not None and self._goes_on(answer):
                self._receive(answer, self.partial.size)
                return True
            if answer.status != 200:  # it cannot go on from here, or did so from elsewhere
                self.partial.start(self.wanted)
                raise Failed(_odd(answer))
            self.partial.start(_version_of(self.wanted, answer))
            self._receive(answer, 0)
            return False

    def _goes_on(self, answer: Answer) -> bool:
        """Whether the answer is what comes after the data that is there."""
        found = _CONTENT_RANGE.fullmatch(answer.headers.get("content-range", ""))
        return answer.status == 206 and bool(found and int(found[1]) == self.partial.size)

    def _receive(self, answer: Answer, start: int) -> None:
        total = start + answer.length if answer.length is not None else self.size or 0
        if total > self.policy.max_bytes:
            raise _too_large(answer, self.policy.max_bytes)
        if self.size is not None and answer.length is not None and total != self.size:
            raise _wrong_size(self.wanted.url, self.size, total)
        require_room(self.partial.path.parent, total - start, "the file")
        for data in answer.body:
            self.partial.append(data)
            if self.partial.size > (self.size or self.policy.max_bytes):
                raise _too_large(answer, self.size or self.policy.max_bytes)
            self.progress(self.partial.size, total)

    def _pulse(self) -> None:
        self.progress(self.partial.size, self.size or 0)

    def _problem(self) -> Broken | None:
        """What is wrong with the complete file."""
        if self.size is not None and self.partial.size != self.size:
            return _wrong_size(self.wanted.url, self.size, self.partial.size)
        if self.wanted.sha256 and self.partial.sha256 != self.wanted.sha256:
            return Broken(
                "The downloaded file is not the one that was asked for: its checksum is wrong.",
                detail=f"{self.wanted.url}\nexpected: sha256 {self.wanted.sha256}\n"
                f"downloaded: sha256 {self.partial.sha256}",
                hint="The mirror is damaged or out of step; try another, or try later.",
                code="checksum",
            )
        return None


def _repeated(
    attempt: Callable[[], T],
    received: Callable[[], int],
    policy: Policy,
    pulse: Callable[[], None],
) -> T:
    """``attempt`` until it does not fail; attempts that brought something new are forgiven."""
    tries, pause = 0, policy.pause
    for _ in range(_MOST_ATTEMPTS):
        before = received()
        try:
            return attempt()
        except Failed as failed:
            if received() - before >= _NEW_ENOUGH:
                tries, pause = 0, policy.pause
            tries += 1
            if tries >= policy.attempts:
                raise failed.error from failed
            failure = failed
        _wait(max(pause, failure.retry_after), pulse)
        pause *= 2
    raise failure.error


def _wait(seconds: float, pulse: Callable[[], None]) -> None:
    """Sleep, asking now and then whether to go on."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        pulse()
        time.sleep(min(left, 1.0))


def _version_of(wanted: Source, answer: Answer) -> Source:
    return replace(
        wanted,
        etag=answer.headers.get("etag", ""),
        last_modified=answer.headers.get("last-modified", ""),
    )


def _check_ok(answer: Answer) -> None:
    if answer.status != 200:
        raise _odd(answer)


def _odd(answer: Answer) -> Broken:
    return Broken(
        f"{answer.address.host} answers {answer.status} with a part that nobody asked for.",
        detail=answer.address.shown,
        code="download-refused",
    )


def _too_large(answer: Answer, limit: int) -> Broken:
    return Broken(
        f"{answer.address.host} sends more than the {limit} bytes that it may.",
        detail=answer.address.shown,
        hint="The configured URL may be wrong.",
        code="download-too-large",
    )


def _wrong_size(url: str, expected: int, found: int) -> Broken:
    return Broken(
        f"The file should have {expected} bytes and has {found}.",
        detail=url,
        hint="The mirror is damaged or out of step; try another, or try later.",
        code="size",
    )


@contextlib.contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise as_nexus_error(error) from error
