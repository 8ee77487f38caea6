"""Huey's queue in SQLite, whose workers sleep until a job comes.

A byte in a FIFO beside the database says that one came. It is only a hint: who misses it looks
again after a while.
"""

from __future__ import annotations

import os
import select
import threading
from contextlib import suppress
from typing import Any

from huey import SqliteHuey
from huey.storage import SqliteStorage

LONGEST_SLEEP = 0.5  # seconds; workers are asked between two sleeps whether they shall end


class WakingStorage(SqliteStorage):  # type: ignore[misc]
    """Any process may enqueue; the threads of one dequeue."""

    blocking = True  # the consumer does not sleep by itself

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._fifo = f"{self.filename}.wake"
        self._bell = -1
        self._hanging_up = threading.Lock()

    def enqueue(self, data: bytes, priority: float | None = None) -> None:
        super().enqueue(data, priority)
        with suppress(OSError):  # nobody sleeps there, or who does is about to be woken
            bell = os.open(self._fifo, os.O_WRONLY | os.O_NONBLOCK)
            try:
                os.write(bell, b"!")
            finally:
                os.close(bell)

    def dequeue(self) -> bytes | None:
        """The next job; None when none has come for a while."""
        self._hang_up_bell()
        job: bytes | None = super().dequeue()
        if job is None:
            rung, _, _ = select.select([self._bell], [], [], LONGEST_SLEEP)
            if not rung:
                return None  # the next call looks first
            with suppress(BlockingIOError):  # another thread was quicker
                os.read(self._bell, 1)
            job = super().dequeue()
        return job

    def _hang_up_bell(self) -> None:
        """Be there to be woken, before looking for what may have come already."""
        with self._hanging_up:
            if self._bell < 0:
                with suppress(FileExistsError):
                    os.mkfifo(self._fifo, 0o600)
                # Open for writing too, it never ends for want of a writer.
                self._bell = os.open(self._fifo, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)


class WakingHuey(SqliteHuey):  # type: ignore[misc]
    storage_class = WakingStorage
