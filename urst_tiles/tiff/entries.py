"""Entries of TIFF directories, and which of them are damaged.

Writers do not keep to the letter of the specification: they give a width as a signed number or as a byte, or
the compression once per sample. libtiff reads such files, and so does this package, as long as the number
that is meant is beyond doubt.

References: TIFF 6.0 (1992), section 2; ``TIFFReadDirEntry*`` and ``TIFFFetchNormalTag`` in libtiff's
tif_dirread.c.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from urst_tiles.errors import DamagedFile
from urst_tiles.tiff.bytes import FileBytes
from urst_tiles.tiff.types import TYPES, WIDTHS

#: Tags on which every pixel depends and which hold exactly one whole number, from NewSubfileType to
#: TileLength.
SINGLE = {254, 256, 257, 259, 262, 266, 274, 277, 278, 284, 317, 322, 323}

#: All tags of whole numbers on which every pixel depends: besides ``SINGLE`` the bits per sample, the offsets
#: and sizes of strips and tiles, the palette, and the meaning of further bands.
WHOLE = SINGLE | {258, 273, 279, 320, 324, 325, 338, 339}

#: The tables of offsets and sizes of strips and tiles.
TABLES = {273, 279, 324, 325}

#: Those of ``SINGLE`` without which the same samples are read: Orientation. libtiff ignores it where it holds
#: several numbers.
SPARE = {274}

#: A pixel has no more samples than this, and a tag no more numbers that are given once per sample.
MOST_SAMPLES = 65535

#: Data types that these tags have after the specification: SHORT, LONG and LONG8.
WHOLE_TYPES = {3, 4, 16}

#: Further types that libtiff takes for whole numbers: BYTE, SBYTE, SSHORT, SLONG, IFD, SLONG8 and IFD8.
LOOSE_TYPES = {1, 6, 8, 9, 13, 17, 18}


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a directory.

    Attributes
    ----------
    dtype : TIFF data type of the value, one of `TYPES`.
    count : how many numbers, pairs or characters the value has.
    offset : position of the value in the file, in bytes.
    """

    dtype: int
    count: int
    offset: int

    @property
    def value_bytes(self) -> int:
        """Length of the value in bytes."""
        return self.count * WIDTHS[self.dtype]


def check_entry(file: FileBytes, code: int, entry: Entry, rest: bytes) -> None:
    """Check that an entry fits to the file, and holds whole numbers where it must.

    Parameters
    ----------
    file : the file.
    code : the code of the tag.
    entry : its entry.
    rest : the bytes that follow a value in the entry itself. Writers leave them 0; a narrow type with other
        bytes behind its value was a wider one before the file was damaged.

    Raises
    ------
    DamagedFile : the entry contradicts the file, or cannot hold the numbers of its tag.
    """
    counted = code not in SINGLE or 0 < entry.count <= MOST_SAMPLES
    if code in WHOLE and not (counted and _is_whole(code, entry, rest)):
        wanted = "one whole number" if code in SINGLE else "whole numbers"
        raise DamagedFile(
            f"{file.path}: TIFF tag {code} must hold {wanted}, not {entry.count} value(s) of type "
            f"{entry.dtype}; it is damaged"
        )
    if entry.dtype in TYPES and entry.offset + entry.value_bytes > file.size:
        raise DamagedFile(
            f"{file.path}: TIFF tag {code} needs bytes up to {entry.offset + entry.value_bytes}, but the "
            f"file has only {file.size}; it is cut off or damaged"
        )


def _is_whole(code: int, entry: Entry, rest: bytes) -> bool:
    """Whether the value is one of whole numbers, beyond doubt."""
    if code in TABLES and entry.dtype in (1, 6) and entry.count > 8:
        return False  # no file is so small that bytes tell the places in it
    return entry.dtype in WHOLE_TYPES or (entry.dtype in LOOSE_TYPES and not any(rest))


def is_one_number(path: Path, code: int, values: Sequence[int]) -> bool:
    """Whether the values of a tag that should hold one number are all the same, as once per sample.

    False where they differ and the tag is to be ignored (``SPARE``).

    Raises
    ------
    DamagedFile : they differ, and pixels depend on the tag.
    """
    if all(value == values[0] for value in values):
        return True
    if code in SPARE:
        return False
    raise DamagedFile(
        f"{path}: TIFF tag {code} must hold one whole number, not {len(values)} different ones; it is damaged"
    )
