"""A folder in a place that others may write to, which one user alone can enter."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

#: The name of this user's folder.
NAME = f"urst-tiles-{os.getuid()}"


def make_private(folder: Path) -> bool:
    """Make ``folder`` unless it exists; returns whether it is one of this user that nobody else can enter.

    Raises
    ------
    OSError : it cannot be made.
    """
    with suppress(FileExistsError):
        folder.mkdir(0o700)
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
