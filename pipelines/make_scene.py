"""Make a real-looking georeferenced scene of any size: hills, a river, lakes, fields, woods, towns.

    python pipelines/make_scene.py scene.tif --size 8192x8192

Every pixel is one metre wide, and a pure function of (seed, row, column). The scene is drawn tile by tile, so
memory does not grow with the image, and a smaller scene is the top left corner of a larger scene.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import tifffile
from command_line import Parser, new_file, positive, program
from numpy.typing import NDArray
from scenery.landscape import Landscape

from urst_tiles.errors import BadInput
from urst_tiles.storage.publish import publishing

TILE = 512
MOST = 10**12  # pixels; the places of all tiles are held in memory until the end
EPSG = 32632  # UTM zone 32 north
#: tifffile's "deflate" is the deprecated code 32946.
TIFFFILE_NAMES = {"deflate": "zlib", "none": None}
CORNER = (600_000.0, 5_300_000.0)  # easting and northing of the top left corner, metres


def tiles(scene: Landscape, height: int, width: int, dtype: str) -> Iterator[NDArray[np.generic]]:
    """Yield the tiles of the image, uint8 or uint16, (TILE, TILE, 3), row by row.

    Tiles at the bottom and right continue the scene beyond the edge of the image.
    """
    corners = ((y, x) for y in range(0, height, TILE) for x in range(0, width, TILE))
    threads = os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool:
        drawing = (pool.submit(scene.draw, *corner, TILE, TILE) for corner in corners)
        waiting = deque(islice(drawing, 2 * threads))
        while waiting:
            yield as_dtype(waiting.popleft().result(), dtype)
            waiting.extend(islice(drawing, 1))


def as_dtype(colours: NDArray[np.float32], dtype: str) -> NDArray[np.generic]:
    """Convert colours in 0..1 to the full range of ``dtype``."""
    return np.rint(colours * np.iinfo(dtype).max).astype(dtype)


def geotiff_tags(y: int = 0, x: int = 0) -> list[tuple[int, int, int, tuple[float, ...]]]:
    """The tags of GeoTIFF 1.1: pixel scale, tie point, and the keys of a projected CRS with cells as areas,
    for a part of a scene whose corner is at row ``y`` and column ``x``.

    Each is (code, TIFF data type, count, values).
    """
    keys = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, EPSG)
    return [
        (33550, 12, 3, (1.0, 1.0, 0.0)),
        (33922, 12, 6, (0.0, 0.0, 0.0, CORNER[0] + x, CORNER[1] - y, 0.0)),
        (34735, 3, len(keys), keys),
    ]


def write_scene(
    path: Path, height: int, width: int, *, seed: int = 1, dtype: str = "uint8", compression: str = "deflate"
) -> None:
    """Write the scene as a tiled TIFF or BigTIFF without overviews.

    ``path`` is there when the scene is complete, and not before.
    """
    large = height * width * 3 * np.dtype(dtype).itemsize > 3 << 30
    with publishing(path) as file, tifffile.TiffWriter(file, bigtiff=large) as out:
        out.write(
            tiles(Landscape(seed), height, width, dtype),
            shape=(height, width, 3),
            dtype=dtype,
            tile=(TILE, TILE),
            photometric="rgb",
            compression=TIFFFILE_NAMES.get(compression, compression),
            predictor=compression in ("deflate", "lzw", "zstd"),
            compressionargs={"level": 90} if compression == "jpeg" else None,
            resolution=(0.01, 0.01),
            resolutionunit="centimeter",
            extratags=[(*tag, True) for tag in geotiff_tags()],
            metadata=None,
            software="urst-tiles make_scene",
        )


def size(text: str) -> tuple[int, int]:
    """(height, width) of a text such as "640x480"; a single number is a square of that side."""
    found = re.fullmatch(r"(\d{1,9})(?:[x×](\d{1,9}))?", text.strip().lower())
    width, height = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 0 < width * height <= MOST:
        raise argparse.ArgumentTypeError(
            "must be WIDTHxHEIGHT in pixels, such as 640x480, or the side of a square, and at most"
            f" {MOST // 10**6} megapixels; got {text!r}"
        )
    return height, width


def square(text: str) -> tuple[int, int]:
    """(height, width) of a square of so many million pixels."""
    side = max(1, round((positive(text) * 1e6) ** 0.5))
    if side * side > MOST:
        raise argparse.ArgumentTypeError(f"must be at most {MOST // 10**6}, got {text}")
    return side, side


@program
def main(words: Sequence[str]) -> None:
    """Run the command line: draw the scene, write the file and print a line about it."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("output", type=new_file)
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument(
        "--size", type=size, default="8192", help="WIDTHxHEIGHT in pixels, or the side of a square"
    )
    sizes.add_argument(
        "--megapixels",
        type=square,
        dest="size",
        metavar="NUMBER",
        help="a square of this many million pixels",
    )
    parser.add_argument("--seed", type=int, default=471, help="471 has some of everything")
    parser.add_argument("--dtype", choices=("uint8", "uint16"), default="uint8")
    parser.add_argument(
        "--compression", choices=("deflate", "jpeg", "lzw", "zstd", "none"), default="deflate"
    )
    args = parser.parse_args(words)
    if args.dtype == "uint16" and args.compression == "jpeg":
        raise BadInput("jpeg holds 8 bits only: choose --dtype uint8 or another --compression")
    height, width = args.size
    write_scene(args.output, height, width, seed=args.seed, dtype=args.dtype, compression=args.compression)
    print(f"{args.output}: {width} x {height}, EPSG:{EPSG}, 1 m per pixel")


if __name__ == "__main__":
    sys.exit(main())
