"""The choice of the bands of a file that become the colours of the picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from urst_tiles.errors import BadInput


def choose_bands(path: Path, bands: Sequence[int] | None, available: int) -> list[int]:
    """The numbers of the colour bands to read, counted from 0: three, or a single band for a grey picture.

    Parameters
    ----------
    path : the file, for messages.
    bands : the bands that the user chose, counted from 1, as in ``--bands 3,2,1``. None chooses the first
        three, or the first if there are fewer than three.
    available : the number of colour bands in the file.

    Raises
    ------
    BadInput : ``bands`` are neither one nor three, or the file does not have all of them.
    """
    if bands is None:
        return [0, 1, 2] if available >= 3 else [0]
    if len(bands) not in (1, 3):
        raise BadInput(f"--bands takes one or three bands, as in 3,2,1, got {len(bands)}")
    for band in bands:
        if not 1 <= band <= available:
            raise BadInput(f"{path} has the colour bands 1 to {available}, but --bands asks for {band}")
    return [band - 1 for band in bands]
