"""What a guest has written since its memory was loaded or saved, and a whole memory made of it.

The VMM writes changed pages to a file with holes for all others. Laid over a copy of the base,
which shares its blocks where the file system can, they are the memory as it is by then.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from pathlib import Path

from images.files import copy_data, copy_sparse, data_ranges
from nexus_site.core.errors import Broken

PAGE = mmap.PAGESIZE


def tells_pages(directory: Path, size: int) -> bool:
    """Whether the holes of a file of `size` bytes there are exactly the pages nobody wrote.

    Some file systems keep no page without its neighbours, make holes of zeros, or do not tell:
    what they call data may be nothing, and would hide what is below it.
    """
    if directory.stat().st_blksize > PAGE:
        return False
    with tempfile.TemporaryFile(dir=directory) as probe:
        probe.truncate(size)
        os.pwrite(probe.fileno(), bytes(PAGE), PAGE)
        return list(data_ranges(probe.fileno(), size)) == [(PAGE, 2 * PAGE)]


def merge(base: Path, changes: Path, memory: Path) -> None:
    """Make the file `memory` the base with the changes over it, on the disk.

    Raises Broken where they are not of one size.
    """
    size = base.stat().st_size
    if changes.stat().st_size != size:
        raise Broken(
            "The VMM did not write as much as the guest has memory.",
            detail=f"{changes.stat().st_size} of {size} bytes",
            code="hostile-vmm",
        )
    copy_sparse(base, memory)
    with changes.open("rb") as reader, memory.open("r+b") as writer:
        copy_data(reader.fileno(), writer.fileno(), size)
        os.fsync(writer.fileno())
