"""Which of a file's bands become the picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from urst_tiles.errors import BadInput


def choose_bands(path: Path, bands: Sequence[int] | None, available: int) -> list[int]:
    """Zero-based colour bands to hand out: three, or one (which is then replicated).

    ``bands`` counts from one, as ``--bands 3,2,1``. Without it: the first three, or the first where there
    are fewer. Raises BadInput for bands that are not there.
    """
    if bands is None:
        return [0, 1, 2] if available >= 3 else [0]
    if len(bands) not in (1, 3):
        raise BadInput(f"--bands takes one or three bands, as in 3,2,1, got {len(bands)}")
    for band in bands:
        if not 1 <= band <= available:
            raise BadInput(f"{path} has the colour bands 1 to {available}, but --bands asks for {band}")
    return [band - 1 for band in bands]
