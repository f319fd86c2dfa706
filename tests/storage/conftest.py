"""What is published lies on the disk: the tests of it wait for that."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module", autouse=True)
def disks() -> None:
    """The real ``fsync``, also in a quick run."""
