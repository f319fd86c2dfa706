"""Reading speed of each opener beside GDAL's and libvips' own reading of the same file, in the same run.

An opener reads the file through `Source.read` in boxes of 2048 px, on its threads, as a job's blocks do; GDAL
reads with rasterio in the same boxes, on as many threads with a dataset each, OpenSlide and zarr likewise;
libvips reads from top to bottom. Each figure is the best of three; both readers take turns, and both open the
file anew each time.

``python benchmarks/openers.py [SIDE]``: the side of the images, 6144 px by default.
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from harness import Parser, integer, program, table
from opener_files import made

from urst_tiles.geometry import Box
from urst_tiles.machine import decoder_count
from urst_tiles.source import identity, open_source, openers, spare
from urst_tiles.source.thumbnail import cells

SIDE, BOX = 6144, 2048


def boxes(shape: tuple[int, int]) -> list[Box]:
    """The boxes in which an image is read."""
    return list(cells(shape, (BOX, BOX)))


def pixels(side: int) -> np.ndarray[Any, Any]:
    """A picture, uint8 (side, side, 3), smooth and noisy at once."""
    random, steps = np.random.default_rng(0), np.arange(side)
    noise = np.tile(
        random.integers(0, 50, (1024, 1024, 3), np.uint8), (-(-side // 1024), -(-side // 1024), 1)
    )
    wave = (100 + 80 * np.sin(steps[:, None] / 47) * np.cos(steps / 61)).astype(np.uint8)
    return noise[:side, :side] + wave[..., None]


def ours(path: Path) -> None:
    """Open a file and read it; what earlier tries opened or learned, with the blocks that GDAL keeps, is
    forgotten."""
    openers._open_once.cache_clear()
    openers._open_many.cache_clear()
    identity.forget()
    spare.let_go()
    source = open_source(path)
    for box in boxes(source.shape):
        source.read(box)


def by_gdal(path: Path) -> None:
    import rasterio
    from rasterio.windows import Window

    with rasterio.open(path) as data:
        shape = data.shape

    def read(part: list[Box]) -> None:
        with rasterio.Env(GDAL_NUM_THREADS="1"), rasterio.open(path) as data:
            for box in part:
                data.read([1, 2, 3], window=Window(box.x0, box.y0, box.x1 - box.x0, box.y1 - box.y0))

    threads, todo = decoder_count(), boxes(shape)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read, [todo[i::threads] for i in range(threads)]))


def by_openslide(path: Path) -> None:
    import openslide

    with openslide.OpenSlide(path) as slide, ThreadPoolExecutor(decoder_count()) as pool:
        todo = boxes(slide.dimensions[::-1])
        list(pool.map(lambda b: np.asarray(slide.read_region((b.x0, b.y0), 0, b.shape[::-1])), todo))


def by_zarr(path: Path) -> None:
    import zarr

    array: Any = zarr.open_array(path, mode="r")
    for box in boxes(array.shape[:2]):
        np.asarray(array[box.slices])


def by_vips(path: Path) -> None:
    import pyvips

    pyvips.cache_set_max(0)  # or it would remember the average
    pyvips.Image.new_from_file(str(path), access="sequential").avg()


def by_files(path: Path) -> None:
    """Every file of a folder by rasterio, one after the other on each thread."""
    import rasterio

    def read(name: Path) -> None:
        with rasterio.Env(GDAL_NUM_THREADS="1"), rasterio.open(name) as data:
            data.read([1, 2, 3])

    with ThreadPoolExecutor(decoder_count()) as pool:
        list(pool.map(read, sorted(path.iterdir())))


def by_built_vrt(path: Path) -> None:
    """All files of a folder as one image: a VRT of them, made as gdalbuildvrt makes it, is read."""
    import rasterio

    sources, size = [], [0, 0]
    for name in sorted(path.iterdir()):
        with rasterio.open(name) as data:
            resolution, (x0, y0) = data.res[0], (data.transform.c, data.transform.f)
            sources.append((name, x0, y0, data.width, data.height))
    west, north = min(one[1] for one in sources), max(one[2] for one in sources)
    rows: list[str] = []
    for name, x0, y0, width, height in sources:
        x, y = round((x0 - west) / resolution), round((north - y0) / resolution)
        size = [max(size[0], x + width), max(size[1], y + height)]
        rows.append(
            f"<SimpleSource><SourceFilename>{name}</SourceFilename><SourceBand>BAND</SourceBand>"
            f'<SrcRect xOff="0" yOff="0" xSize="{width}" ySize="{height}"/>'
            f'<DstRect xOff="{x}" yOff="{y}" xSize="{width}" ySize="{height}"/></SimpleSource>'
        )
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}">{"".join(rows).replace("BAND", str(band))}'
        "</VRTRasterBand>"
        for band in (1, 2, 3)
    )
    vrt = path.with_name("built.vrt")
    vrt.write_text(f'<VRTDataset rasterXSize="{size[0]}" rasterYSize="{size[1]}">{bands}</VRTDataset>')
    by_gdal(vrt)


def by_ome(path: Path) -> None:
    """The full resolution of an OME-Zarr by zarr."""
    import zarr

    array: Any = zarr.open_group(path, mode="r")["0"]
    for box in boxes(array.shape[1:]):
        np.asarray(array[:, *box.slices])


def best(calls: Sequence[Callable[[], object]], tries: int = 3) -> list[float]:
    """The wall seconds of the fastest of some tries of each call; the calls take turns, so that what else the
    machine does meets all of them."""
    seconds: list[list[float]] = [[] for _ in calls]
    for _ in range(tries):
        for call, mine in zip(calls, seconds, strict=True):
            started = time.perf_counter()
            call()
            mine.append(time.perf_counter() - started)
    return [min(mine) for mine in seconds]


#: The files, by their names in `FILES`, each with the name of the other reader, and that reader.
ROWS: tuple[tuple[str, str, Callable[[Path], None]], ...] = (
    ("TIFF", "GDAL", by_gdal),
    ("TIFF", "libvips", by_vips),
    ("JPEG 2000", "GDAL", by_gdal),
    ("VRT", "GDAL", by_gdal),
    ("ENVI", "GDAL", by_gdal),
    ("HFA", "GDAL", by_gdal),
    ("GeoPackage", "GDAL", by_gdal),
    ("DICOM slide", "OpenSlide", by_openslide),
    ("MIRAX slide", "OpenSlide", by_openslide),
    ("Zarr", "zarr", by_zarr),
    ("OME-Zarr", "zarr", by_ome),
    ("mosaic of 128", "GDAL, a VRT made of them", by_built_vrt),
    ("mosaic of 128", "GDAL, file by file", by_files),
)


@program
def main(words: Sequence[str]) -> None:
    parser = Parser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "side", type=integer(64), nargs="?", default=SIDE, help="pixels (default %(default)s)"
    )
    side = parser.parse_args(words).side
    warnings.simplefilter("ignore")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, other, read in ROWS:
            path = made(name, Path(folder), lambda: pixels(side))
            mine, theirs = best((lambda path=path: ours(path), lambda path=path, read=read: read(path)))
            size = side * side / 1e6
            rows.append((name, size / mine, other, size / theirs, theirs / mine))
            print(*rows[-1], file=sys.stderr, flush=True)
    table("Reading, Mpx/s", ("file", "here", "beside", "that", "ratio (>= 0.7)"), rows)


if __name__ == "__main__":
    sys.exit(main())
