"""What makes a file this file: its size, its directories, its byte counts, and samples of its content.

Never the time of change: copies are the same source, and a file that was edited within a second is not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from urst_tiles.tiff.bytes import FileBytes

if TYPE_CHECKING:
    from urst_tiles.tiff.pages import TiffFile

SAMPLES = 64
SAMPLE_BYTES = 1 << 16


def file_fingerprint(path: Path, sidecars: Sequence[Path] = ()) -> str:
    """Hex digest of size and of 64 evenly spread samples of 64 KiB, first and last included; sidecars
    alike."""
    digest = hashlib.sha256()
    for each in (path, *sidecars):
        file = FileBytes(each)
        digest.update(f"{file.size} ".encode())
        for start in _spread(max(1, file.size - SAMPLE_BYTES + 1)):
            digest.update(file(start, SAMPLE_BYTES))
    return digest.hexdigest()


def tiff_fingerprint(file: TiffFile, sidecars: Sequence[Path] = ()) -> str:
    """Hex digest of a TIFF: size, every directory's tags (tables of byte counts included), and 64
    segments."""
    digest = hashlib.sha256(f"{file.bytes.size} ".encode())
    for directory in file.directories:
        for code in sorted(directory.entries):
            digest.update(f"{code} {directory.entries[code].dtype} ".encode())
            digest.update(directory.raw(code))
    offsets, counts = file.directories[0].segment_tables
    for i in _spread(min(offsets.size, counts.size)):
        digest.update(file.bytes(int(offsets[i]), min(int(counts[i]), SAMPLE_BYTES)))
    if sidecars:
        digest.update(file_fingerprint(sidecars[0], sidecars[1:]).encode())
    return digest.hexdigest()


def _spread(count: int) -> list[int]:
    """Up to 64 evenly spread indices below ``count``, first and last included."""
    return sorted({i * (count - 1) // (SAMPLES - 1) for i in range(SAMPLES)}) if count else []


def array_fingerprint(array: Any) -> str:
    """Hex digest of an array's shape, dtype and 64 evenly spread patches of 64 x 64 pixels."""
    height, width = array.shape[:2]
    digest = hashlib.sha256(f"{array.shape} {array.dtype} ".encode())
    rows, columns = max(1, (height + 63) // 64), max(1, (width + 63) // 64)
    for i in _spread(rows * columns):
        y, x = i // columns * 64, i % columns * 64
        digest.update(np.ascontiguousarray(array[y : y + 64, x : x + 64]).tobytes())
    return digest.hexdigest()
