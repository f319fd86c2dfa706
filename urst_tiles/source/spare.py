"""A reader that was made for the facts of an image, kept for the first who reads its pixels.

To open a file may take as long as to read it: a MIRAX slide has an index of thousands of tiles. Therefore a
process that learns the facts of an image and then reads it opens its files once. The reader is handed over
only where no file was edited since before it was made (`settled`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from urst_tiles.source.identity import Stamp, settled, stamps_of

_lock = threading.Lock()

#: The process, what the reader is of, the stamps of its files, and the reader: of the last image alone.
_kept: tuple[int, object, tuple[Stamp | None, ...], Any] | None = None


def keep(key: object, files: Sequence[Path], began: int, reader: Any) -> None:
    """Keep a reader, in the place of the one that was kept before.

    Parameters
    ----------
    key : tells what the reader is of.
    files : all files that it reads.
    began : a time before it was made, in nanoseconds since 1970.
    """
    global _kept
    stamps = stamps_of(files)
    fit = settled(stamps, began)  # a file that was edited since, or shortly before, is opened anew
    with _lock:
        _kept = (os.getpid(), key, stamps, reader) if fit else None


def take(key: object, files: Sequence[Path]) -> Any:
    """The reader that was kept for this key, which is then no longer kept; None where there is none, or where
    one of its files looks different now."""
    global _kept
    with _lock:
        if _kept is None or _kept[:2] != (os.getpid(), key):
            return None
        (_, _, stamps, reader), _kept = _kept, None
    return reader if stamps_of(files) == stamps else None


def let_go() -> None:
    """Keep no reader."""
    global _kept
    with _lock:
        _kept = None
