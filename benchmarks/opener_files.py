"""Files that each opener reads in its own way, for the benchmarks of speed and of memory; made when they are
first asked for."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from harness import ROOT

#: Writes a picture, uint8 (h, w, 3), into a folder, and returns the path that is opened.
Write = Callable[[Path, np.ndarray], Path]


def _tests() -> None:
    """Let helpers of the tests be imported."""
    folder = str(ROOT / "tests")
    if folder not in sys.path:
        sys.path.insert(0, folder)


def tiff(folder: Path, pixels: np.ndarray) -> Path:
    """A tiled GeoTIFF."""
    _tests()
    from helpers import geotiff

    return geotiff(folder / "a.tif", pixels, photometric="rgb" if pixels.ndim == 3 else "minisblack")


def by_gdal(driver: str, suffix: str, **options: str) -> Write:
    """GDAL's copy of such a GeoTIFF."""

    def write(folder: Path, pixels: np.ndarray) -> Path:
        from rasterio.shutil import copy

        copy(tiff(folder, pixels), folder / f"{driver}.{suffix}", driver=driver, **options)
        return folder / f"{driver}.{suffix}"

    return write


def one_band(write: Write) -> Write:
    """The same of the first band alone."""
    return lambda folder, pixels: write(folder, np.ascontiguousarray(pixels[..., 0]))


def dicom(folder: Path, pixels: np.ndarray) -> Path:
    """A slide in DICOM."""
    _tests()
    from slide_files import write_dicom

    return write_dicom(folder / "a.dcm", pixels, tile=512)


def mirax(folder: Path, pixels: np.ndarray) -> Path:
    """A MIRAX slide, in PNGs of 64 px."""
    _tests()
    from scanner_files import write_mirax

    return write_mirax(folder / "a.mrxs", pixels)


def array(folder: Path, pixels: np.ndarray) -> Path:
    """A plain array of Zarr, in chunks of 512."""
    import zarr

    made = zarr.create_array(folder / "a.zarr", shape=pixels.shape, dtype="u1", chunks=(512, 512, 3))
    made[:] = pixels
    return folder / "a.zarr"


def ome_zarr(folder: Path, pixels: np.ndarray) -> Path:
    """An OME-Zarr 0.5 of three channels, in shards of 4096 px."""
    import zarr

    path, planes = folder / "a.ome.zarr", np.moveaxis(pixels, -1, 0)
    group = zarr.open_group(path, mode="w", zarr_format=3)
    shards = (3, 4096, 4096)
    group.create_array("0", shape=planes.shape, dtype="u1", chunks=(1, 512, 512), shards=shards)[:] = planes
    axes = [{"name": "c", "type": "channel"}, *({"name": n, "type": "space"} for n in "yx")]
    scale = [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]
    one = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
    group.attrs.update({"ome": {"version": "0.5", "multiscales": [one]}})
    return path


def picture(codec: str, suffix: str) -> Write:
    """A picture without random access."""

    def write(folder: Path, pixels: np.ndarray) -> Path:
        import imagecodecs

        (folder / f"a.{suffix}").write_bytes(getattr(imagecodecs, f"{codec}_encode")(pixels))
        return folder / f"a.{suffix}"

    return write


def mosaic(folder: Path, pixels: np.ndarray) -> Path:
    """A folder of georeferenced tiles of 512 px."""
    _tests()
    from mosaics import tile

    (folder / "tiles").mkdir()
    height, width = pixels.shape[:2]
    for y in range(0, height, 512):
        for x in range(0, width, 512):
            name = folder / "tiles" / f"{y:05}_{x:05}.tif"
            tile(name, pixels, y, x, min(y + 512, height), min(x + 512, width))
    return folder / "tiles"


def bands(folder: Path, pixels: np.ndarray) -> Path:
    """A STAC item of a file for each band."""
    _tests()
    from format_files import stac

    return stac(folder, pixels)


FILES: dict[str, Write] = {
    "TIFF": tiff,
    "JPEG 2000": by_gdal("JP2OpenJPEG", "jp2", BLOCKXSIZE="1024", BLOCKYSIZE="1024", QUALITY="25"),
    "JPEG 2000, one tile": by_gdal("JP2OpenJPEG", "jp2", BLOCKXSIZE="8192", BLOCKYSIZE="8192", QUALITY="25"),
    "VRT": by_gdal("VRT", "vrt"),
    "ENVI": by_gdal("ENVI", "dat"),
    "HFA": by_gdal("HFA", "img", COMPRESSED="YES"),
    "GeoPackage": by_gdal("GPKG", "gpkg", TILE_FORMAT="JPEG"),
    "netCDF": one_band(by_gdal("netCDF", "nc", FORMAT="NC4", COMPRESS="DEFLATE")),
    "DICOM slide": dicom,
    "MIRAX slide": mirax,
    "Zarr": array,
    "OME-Zarr": ome_zarr,
    "JPEG picture": picture("jpeg8", "jpg"),
    "PNG picture": picture("png", "png"),
    "WebP picture": picture("webp", "webp"),
    "mosaic of 128": mosaic,
    "a file for each band": bands,
}


def made(name: str, folder: Path, pixels: Callable[[], np.ndarray]) -> Path:
    """The file of this name in a folder of its own within ``folder``."""
    own = folder / name.replace(" ", "-").replace(",", "")
    told = own / "path.txt"
    if not told.exists():
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir(parents=True)
        path = FILES[name](own, pixels())
        told.write_text(str(path))
    return Path(told.read_text())
