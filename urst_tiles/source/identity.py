"""Fingerprints of sources, by which a job recognises that it continues with the same pixels.

A fingerprint depends on the size of a file, on samples of its content, and for a TIFF on its directories with
their tables of byte counts. It does not depend on the time of the last change: a copy of a file is the same
source, and an edit within the same second, which may leave the time as it is, is seen from the content.
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

#: How many samples of the content of a file are read, and the bytes of each.
SAMPLES = 64
SAMPLE_BYTES = 1 << 16


def file_fingerprint(path: Path, sidecars: Sequence[Path] = ()) -> str:
    """SHA-256, in hex, of the size of a file and of up to 64 samples of 64 KiB, spread evenly over it.

    ``sidecars`` are files that belong to the image; they enter the digest in the same way.
    """
    digest = hashlib.sha256()
    for file_path in (path, *sidecars):
        file = FileBytes(file_path)
        digest.update(f"{file.size} ".encode())
        for start in _spread(max(1, file.size - SAMPLE_BYTES + 1)):
            digest.update(file(start, SAMPLE_BYTES))
    return digest.hexdigest()


def tiff_fingerprint(file: TiffFile, sidecars: Sequence[Path] = ()) -> str:
    """SHA-256, in hex, of a TIFF: its size, its tags, and samples of its tiles or strips.

    The tags are those of every directory, tables of byte counts included. The samples are up to 64 KiB from
    each of at most 64 tiles or strips of the first directory, spread evenly. The files ``sidecars`` enter the
    digest as in `file_fingerprint`.
    """
    digest = hashlib.sha256(f"{file.bytes.size} ".encode())
    for directory in file.directories:
        for code in sorted(directory.entries):
            digest.update(f"{code} {directory.entries[code].dtype} ".encode())
            for piece in directory.pieces(code):
                digest.update(piece)
    offsets, counts = file.directories[0].segment_tables
    for i in _spread(min(offsets.size, counts.size)):
        digest.update(file.bytes(int(offsets[i]), min(int(counts[i]), SAMPLE_BYTES)))
    if sidecars:
        digest.update(file_fingerprint(sidecars[0], sidecars[1:]).encode())
    return digest.hexdigest()


def _spread(count: int) -> list[int]:
    """At most 64 indices in 0..count - 1, spread evenly, the first and the last included."""
    return sorted({i * (count - 1) // (SAMPLES - 1) for i in range(SAMPLES)}) if count else []


def array_fingerprint(array: Any) -> str:
    """SHA-256, in hex, of the shape and the dtype of an array and of at most 64 of its patches.

    ``array`` is (height, width, channels); the patches are 64 x 64 pixels and spread evenly.
    """
    height, width = array.shape[:2]
    digest = hashlib.sha256(f"{array.shape} {array.dtype} ".encode())
    rows, columns = max(1, (height + 63) // 64), max(1, (width + 63) // 64)
    for i in _spread(rows * columns):
        y, x = i // columns * 64, i % columns * 64
        digest.update(np.ascontiguousarray(array[y : y + 64, x : x + 64]).tobytes())
    return digest.hexdigest()
