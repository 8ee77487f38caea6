"""The garbage collector of a process that serves."""

from __future__ import annotations

import gc


def spare_what_is_loaded() -> None:
    """Never again look for garbage among what is loaded now, which stays for the process's life.

    There are more than 100,000 objects by then. To look through them takes a tenth of a second,
    in which no request is answered, and happens every few dozen requests otherwise.
    """
    gc.collect()
    gc.freeze()
