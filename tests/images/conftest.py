"""What tests of downloads and of providers share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.images.downloads.server import Mirror, running_mirror


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with running_mirror() as mirror:
        yield mirror
