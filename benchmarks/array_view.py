"""Reading through `Source.array` beside `Source.read`, in the same run.

The boxes are those that the blocks of a job of ``lite`` read, which are 4096 px with the halo of its windows
around them; and the chunks of the array, as dask and xarray ask for them. All boxes are read directly, then
from the array, and so on; the fastest of some tries counts. The array has chunks of 1024 px; with ``--chunk``
others can be tried.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from harness import Parser, integer, program, table
from opener_files import made
from openers import SIDE, best, pixels

from urst_tiles.geometry import Box, Grid
from urst_tiles.nets import lite
from urst_tiles.source import Source, open_source, zarr_view
from urst_tiles.source.thumbnail import cells

#: What is read, by the names in `opener_files.FILES`, and what the table calls it.
FILES = {
    "TIFF": "tiled TIFF, our reader",
    "JPEG 2000": "JPEG 2000, GDAL",
    "ENVI": "ENVI, GDAL",
    "DICOM slide": "DICOM slide, OpenSlide",
    "Zarr": "Zarr",
}


def sources(folder: Path) -> Iterator[tuple[str, Source]]:
    """Each kind of opener, prepared."""

    def path_of(name: str) -> Path:
        return made(name, folder, lambda: pixels(SIDE))

    for name, called in FILES.items():
        yield called, open_source(path_of(name))
    yield "JPEG, spooled by libvips", open_source(path_of("JPEG picture")).prepare(folder / "job")


def blocks(shape: tuple[int, int]) -> list[Box]:
    """The boxes that the blocks of a job of ``lite`` read."""
    grid = Grid(*shape, lite.HALO, lite.STRIDE, minimum=lite.MINIMUM)
    read = (grid.read_box(grid.cores(grid.block_box(i))) for i in range(len(grid)))
    return [box.clip(grid.image) for box in read]


def speeds(source: Source, boxes: list[Box], tries: int) -> tuple[float, float]:
    """Megapixels a second, directly and through the array, each in its fastest try."""
    array = source.array
    ways: tuple[Callable[[Box], Any], ...] = (source.read, lambda box: np.asarray(array[box.slices]))
    np.testing.assert_array_equal(ways[0](boxes[-1]), ways[1](boxes[-1]))

    def pass_over(read: Callable[[Box], object]) -> None:
        for box in boxes:
            read(box)

    seconds = best([partial(pass_over, read) for read in ways], tries)
    direct, through = (sum(box.area for box in boxes) / 1e6 / spent for spent in seconds)
    return direct, through


@program
def main(words: Sequence[str]) -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--chunk", type=integer(16), default=zarr_view.CHUNK)
    parser.add_argument("--tries", type=integer(), default=3)
    given = parser.parse_args(words)
    zarr_view.CHUNK = given.chunk
    warnings.simplefilter("ignore")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for called, source in sources(Path(folder)):
            found = [called]
            for boxes in (blocks(source.shape), list(cells(source.shape, (given.chunk, given.chunk)))):
                direct, through = speeds(source, boxes, given.tries)
                found += [f"{direct:.3g}", f"{through:.3g}", f"{direct / through:.3g}"]
            rows.append(found)
    header = ("file", "blocks: direct", "array", "takes (<= 1.05)", "chunks: direct", "array", "takes")
    table(f"Reading through the zarr array, Mpx/s, chunks of {given.chunk} px", header, rows)


if __name__ == "__main__":
    sys.exit(main())
