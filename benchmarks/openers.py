"""Reading speed of each opener beside GDAL's and libvips' own reading of the same file, in the same run.

An opener reads the file through `Source.read` in boxes of 2048 px, on its threads, as a job's blocks do; GDAL
reads with rasterio in the same boxes, on as many threads with a dataset each, OpenSlide and zarr likewise;
libvips reads from top to bottom. Each figure is the best of three.
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from harness import table

from urst_tiles.geometry import Box
from urst_tiles.machine import decoder_count
from urst_tiles.source import Source, open_source
from urst_tiles.source.thumbnail import cells

SIDE, BOX = 6144, 2048


def boxes(shape: tuple[int, int]) -> list[Box]:
    """The boxes in which an image is read."""
    return list(cells(shape, (BOX, BOX)))


def ours(source: Source) -> None:
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


def best(call: Callable[[], object], tries: int = 3) -> float:
    """The wall seconds of the fastest of some calls."""
    seconds = []
    for _ in range(tries):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def write(folder: Path) -> dict[str, tuple[Path, str, Callable[[Path], None]]]:
    """The files by what they are, each with the name of the other reader, and that reader."""
    import zarr
    from rasterio.shutil import copy

    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    from helpers import geotiff, picture
    from slide_files import write_dicom

    pixels = np.tile(picture(1024, 1024), (SIDE // 1024, SIDE // 1024, 1))
    tiff = geotiff(folder / "a.tif", pixels)
    files = {"TIFF, deflate, tiles": (tiff, "GDAL", by_gdal), "the same TIFF": (tiff, "libvips", by_vips)}
    tiles = {"BLOCKXSIZE": "1024", "BLOCKYSIZE": "1024", "QUALITY": "25"}
    for name, driver, suffix, options in (
        ("JPEG 2000, tiles", "JP2OpenJPEG", "jp2", tiles),
        ("VRT of the TIFF", "VRT", "vrt", {}),
        ("ENVI", "ENVI", "dat", {}),
        ("HFA, compressed", "HFA", "img", {"COMPRESSED": "YES"}),
        ("GeoPackage, JPEG", "GPKG", "gpkg", {"TILE_FORMAT": "JPEG"}),
    ):
        path = folder / f"{driver}.{suffix}"
        copy(tiff, path, driver=driver, **options)
        files[name] = (path, "GDAL", by_gdal)
    (folder / "slide").mkdir()
    slide = write_dicom(folder / "slide" / "a.dcm", pixels, tile=512)
    files["DICOM slide, JPEG"] = (slide, "OpenSlide", by_openslide)
    array = zarr.create_array(folder / "a.zarr", shape=pixels.shape, dtype="u1", chunks=(512, 512, 3))
    array[:] = pixels
    files["Zarr, zstd"] = (folder / "a.zarr", "zarr", by_zarr)
    return files


def main() -> None:
    warnings.simplefilter("ignore")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, (path, other, read) in write(Path(folder)).items():
            source = open_source(path)
            pixels = source.shape[0] * source.shape[1]
            mine, theirs = (
                best(lambda source=source: ours(source)),
                best(lambda path=path, read=read: read(path)),
            )
            rows.append((name, pixels / mine / 1e6, other, pixels / theirs / 1e6, theirs / mine))
    table("Reading, Mpx/s", ("file", "here", "beside", "that", "ratio (>= 0.7)"), rows)


if __name__ == "__main__":
    main()
