"""Work in a process of its own that shares all that is loaded already."""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any


def start_forked(work: Callable[..., None], *arguments: Any) -> tuple[BaseProcess, Connection]:
    """Run ``work(*arguments, connection)``; the process and the other end of its connection."""
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe()
    process = fork.Process(target=work, args=(*arguments, there))
    with warnings.catch_warnings():
        # Later Pythons warn of threads, such as those of a parallel test run: they hold no lock
        # that this work needs.
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    there.close()
    return process, here
