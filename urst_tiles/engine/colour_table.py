"""What a point operation makes of every colour of 8 bits, in a table of 64 MiB.

Red, green and blue of 8 bits tell 16.8 million colours apart. To compute all of them takes as long as to
compute 17 megapixels, and a pixel is looked up several times as fast as it is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

#: How many colours there are, and how many of them have the same blue.
COLOURS, PLANE = 1 << 24, 1 << 16
#: How many pixels are numbered at a time: their numbers fit the cache of a processor.
STRIP = 1 << 16
#: The most bands that a table holds for each colour, a byte for each, and its size in memory.
MOST_BANDS, TABLE_BYTES = 4, 4 * COLOURS


class Numbers:
    """The numbers of colours, red + 256 green + 65536 blue, of one strip of pixels after the other."""

    def __init__(self) -> None:
        self._bytes = np.zeros((STRIP, 4), np.uint8)
        self._numbers = self._bytes.view("<i4")[:, 0]

    def of(self, rgb: Pixels) -> Iterator[tuple[tuple[slice, slice], NDArray[np.int32]]]:
        """The rows and columns of each strip of ``rgb``, (h, w, 3), and the numbers of its pixels, int32,
        (rows, columns), which lie in memory that the numbers of the next strip are written to."""
        height, width = rgb.shape[:2]
        rows = max(1, STRIP // max(1, width))
        for y in range(0, height, rows):
            for x in range(0, width, STRIP):
                strip = rgb[y : y + rows, x : x + STRIP]
                h, w = strip.shape[:2]
                three = self._bytes[: h * w].reshape(h, w, 4)
                for channel in range(3):  # a copy of all three at once takes four times as long
                    three[..., channel] = strip[..., channel]
                yield (slice(y, y + h), slice(x, x + w)), self._numbers[: h * w].reshape(h, w)


def colours_of(within: NDArray[np.integer], blue: int) -> Pixels:
    """The colours, (n, 3), of one ``blue``, whose numbers within their plane are ``within``, (n,)."""
    pixels = np.empty((len(within), 3), np.uint8)
    pixels[:, 0], pixels[:, 1], pixels[:, 2] = within & 255, within >> 8, blue
    return pixels


class ColourTable:
    """The results of a point operation on all colours.

    Parameters
    ----------
    operation : takes pixels, uint8 (h, w, 3), to pixels, uint8 (h, w, bands), each for itself.
    bands : at most `MOST_BANDS`.
    threads : how many threads compute the table.
    """

    def __init__(self, operation: Callable[[Pixels], Pixels], bands: int, threads: int = 1) -> None:
        self._bands, self._numbers = bands, Numbers()
        self._results = np.zeros(COLOURS, np.int32)
        by_band = self._results.view(np.uint8).reshape(-1, PLANE, MOST_BANDS)
        within = np.arange(PLANE)

        def fill(blue: int) -> None:
            every = colours_of(within, blue).reshape(256, 256, 3)
            by_band[blue, :, :bands] = operation(every).reshape(PLANE, bands)

        with ThreadPoolExecutor(threads) as pool:  # of which no other needs anything until the table is there
            list(pool.map(fill, range(256)))
        self._found = np.empty(STRIP, np.int32)

    def look_up(self, rgb: Pixels, out: Pixels) -> None:
        """Write the results for ``rgb``, (h, w, 3), into ``out``, (h, w, bands)."""
        results = torch.from_numpy(self._results)
        for place, numbers in self._numbers.of(rgb):
            found = self._found[: numbers.size]
            torch.index_select(results, 0, torch.from_numpy(numbers.ravel()), out=torch.from_numpy(found))
            by_band = found.view(np.uint8).reshape(*numbers.shape, MOST_BANDS)
            for band in range(self._bands):
                out[(*place, band)] = by_band[..., band]
