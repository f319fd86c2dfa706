"""Cutting a finished picture into the places of the files that it was made from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from urst_tiles.geometry import Box
from urst_tiles.source.source import Source
from urst_tiles.source.tiff import TiffReader
from urst_tiles.source.valid import full
from urst_tiles.tiff.choice import EVERY, Choice
from urst_tiles.tiff.metadata import Info

#: Side in pixels of the squares that are read at once.
CELL = 1024


def stored_reader(path: Path, colours: int = 3) -> TiffReader:
    """Reads an output of this program, or a part of one, as it is stored, with so many bands."""
    return TiffReader(path, Choice() if colours == 3 else Choice(bands=EVERY))


class StoredPixels:
    """The pixels of an output of this program as it stores them, without a stretch.

    Parameters
    ----------
    path : the file.
    colours : the number of its bands, without validity.
    channels : the same, or 1 more if it says which pixels are valid.
    """

    def __init__(self, path: Path, colours: int, channels: int) -> None:
        self._reader, self._colours, self._channels = stored_reader(path, colours), colours, channels

    def read(self, box: Box) -> NDArray[np.generic]:
        """The pixels of a box, (h, w, channels); invalid ones are black, and the last channel tells them.

        Raises
        ------
        DamagedFile : a part of the box cannot be decoded.
        """
        out: NDArray[np.generic] = np.zeros((*box.shape, self._channels), self._reader.dtype)
        for cell in box.cells(CELL):
            samples, at = self._reader.cell(cell), out[cell.within(box).slices]
            if self._channels == self._colours:
                at[...] = samples.colour
            elif samples.weight is None:
                at[..., :-1], at[..., -1] = samples.colour, full(out.dtype)
            else:
                at[..., :-1] = np.where(samples.weight[..., None] > 0, samples.colour, 0)
                at[..., -1] = samples.weight
        return out


def info_of(own: Source, whole: Source) -> Info:
    """The metadata of a file that is cut from the whole: those of its own input, with the validity of the
    whole."""
    return replace(own.info, nodata=whole.info.nodata, validity=whole.info.validity)
