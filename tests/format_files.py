"""Small files of every format that the table in docs/formats.md has, each written by another library."""

from __future__ import annotations

import json
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import tifffile
import zarr
from helpers import geotiff
from mosaics import tile
from PIL import Image
from rasterio.shutil import copy
from rasterio.transform import Affine

#: Writes pixels, (h, w, 3) or (h, w), into a folder; the path, or the name, by which they are opened.
Write = Callable[[Path, np.ndarray], Path | str]

#: A pixel of the tiles of the web at zoom 16, in metres, where several formats want their images to lie.
WEB = 156543.03392804097 / 2**16
PLACES: dict[str, dict[str, Any]] = {
    "web": {"crs": "EPSG:3857", "transform": Affine(WEB, 0, 0, 0, -WEB, 0)},
    "degrees": {"crs": "EPSG:4326", "transform": Affine(0.01, 0, 7, 0, -0.01, 48)},
    "utm": {"crs": "EPSG:32632", "transform": Affine(10, 0, 500000, 0, -10, 5200000)},
}


def rasterio_tiff(path: Path, pixels: np.ndarray, place: str = "web", **options: Any) -> Path:
    """A GeoTIFF that rasterio writes."""
    bands = np.atleast_3d(pixels)
    shape = {"height": bands.shape[0], "width": bands.shape[1], "count": bands.shape[2]}
    with rasterio.open(
        path, "w", driver="GTiff", dtype=pixels.dtype, **shape | PLACES[place] | options
    ) as data:
        data.write(np.moveaxis(bands, -1, 0))
    return path


def by_gdal(driver: str, name: str, place: str = "web", levels: str = "", **options: str) -> Write:
    """GDAL's copy of a GeoTIFF; ``levels`` says where GDAL puts an overview of half the size, "inside" or in
    a file "beside" it, or nowhere."""

    def write(folder: Path, pixels: np.ndarray) -> Path:
        source, path = rasterio_tiff(folder / "source.tif", pixels, place), folder / name
        copy(source, path, driver=driver, **options)
        if levels == "inside":
            with rasterio.open(path, "r+") as data:
                data.build_overviews([2])
        elif levels == "beside":  # as gdaladdo -ro does; rasterio would write the image anew
            photometric = "rgb" if pixels.ndim == 3 else "minisblack"
            options_of_page: dict[str, Any] = {"photometric": photometric, "subfiletype": 1, "metadata": None}
            tifffile.imwrite(f"{path}.ovr", np.ascontiguousarray(pixels[::2, ::2]), **options_of_page)
        return path

    return write


def hdf5(folder: Path, pixels: np.ndarray) -> Path:
    """An HDF5 file with one array: netCDF-4 is such a file."""
    by_gdal("netCDF", "a.nc", FORMAT="NC4", WRITE_BOTTOMUP="NO")(folder, pixels)
    return (folder / "a.nc").rename(folder / "a.h5")


def by_tifffile(name: str, levels: bool = False, **options: Any) -> Write:
    """A TIFF that tifffile writes; with ``levels`` an overview of half the size is its second page."""

    def write(folder: Path, pixels: np.ndarray) -> Path:
        common = {"photometric": "rgb", "metadata": None} | options
        with tifffile.TiffWriter(folder / name, bigtiff=bool(common.pop("bigtiff", False))) as file:
            file.write(pixels, **common)
            if levels:
                file.write(pixels[::2, ::2], subfiletype=1, **common)
        return folder / name

    return write


def by_pillow(name: str, **options: Any) -> Write:
    """A picture that Pillow writes, with a world file beside it."""

    def write(folder: Path, pixels: np.ndarray) -> Path:
        Image.fromarray(pixels).save(folder / name, **options)
        world_file(folder / name)
        return folder / name

    return write


def world_file(path: Path) -> None:
    """A world file beside a picture, in the words of the tiles of the web."""
    letters = "wld" if path.suffix == ".ppm" else path.suffix[1] + path.suffix[-1] + "w"
    lines = (WEB, 0.0, 0.0, -WEB, WEB / 2, -WEB / 2)
    path.with_suffix(f".{letters}").write_text("".join(f"{number!r}\n" for number in lines))


def png(folder: Path, pixels: np.ndarray) -> Path:
    """A PNG of 8 or 16 bits, with a world file."""
    import imagecodecs

    (folder / "a.png").write_bytes(imagecodecs.png_encode(pixels))
    world_file(folder / "a.png")
    return folder / "a.png"


def described(name: str, first: str, second: str, **options: Any) -> Write:
    """A tiled slide of two levels, each with a description, as scanners write it."""

    def write(folder: Path, pixels: np.ndarray) -> Path:
        with tifffile.TiffWriter(folder / name, bigtiff=True) as file:
            for page, text in ((pixels, first), (pixels[::2, ::2], second)):
                file.write(
                    page, photometric="rgb", metadata=None, tile=(64, 64), compression="jpeg",
                    compressionargs={"level": 95}, description=text.encode(), **options,
                )  # fmt: skip
        return folder / name

    return write


def aperio(folder: Path, pixels: np.ndarray) -> Path:
    """An SVS: the slide, its thumbnail in one strip, and a level of half the size."""
    text = f"Aperio Image Library\r\n{pixels.shape[1]}x{pixels.shape[0]} (64x64) JPEG|AppMag = 20|MPP = 0.5"
    with tifffile.TiffWriter(folder / "a.svs") as file:
        for page, tiles in ((pixels, (64, 64)), (pixels[::4, ::4], None), (pixels[::2, ::2], (64, 64))):
            file.write(
                np.ascontiguousarray(page), photometric="rgb", metadata=None, tile=tiles, compression="jpeg",
                compressionargs={"level": 95}, description=text.encode(),
                rowsperstrip=None if tiles else page.shape[0],
            )  # fmt: skip
    return folder / "a.svs"


LEICA = (
    '<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01"><collection><image><scanSettings>'
    "<objectiveSettings><objective>20</objective></objectiveSettings></scanSettings></image></collection>"
    "</scn>"
)
AKOYA = (
    "<PerkinElmer-QPI-ImageDescription><ImageType>{}</ImageType><Name>H&amp;E</Name>"
    "</PerkinElmer-QPI-ImageDescription>"
)


def ventana(folder: Path, pixels: np.ndarray) -> Path:
    """A BIF whose tiles do not overlap; the label is its first page."""
    xmp = b'<?xml version="1.0"?><iScan ScanRes="0.25" Magnification="40"/>'
    pages = (
        (pixels[:80, :60], "Label Image", None, [(700, 1, len(xmp), xmp, True)]),
        (pixels, "level=0 mag=40 quality=95", (64, 64), []),
        (pixels[::2, ::2], "level=1 mag=20 quality=95", (64, 64), []),
    )
    with tifffile.TiffWriter(folder / "a.bif", bigtiff=True) as file:
        for page, text, tiles, tags in pages:
            file.write(
                np.ascontiguousarray(page), photometric="rgb", metadata=None, tile=tiles, extratags=tags,
                compression="deflate", description=text,
            )  # fmt: skip
    return folder / "a.bif"


def ome_tiff(folder: Path, pixels: np.ndarray) -> Path:
    """An OME-TIFF of three channels in pages of their own, with a level in SubIFDs."""
    planes = np.moveaxis(pixels, -1, 0)
    with tifffile.TiffWriter(folder / "a.ome.tif", ome=True) as file:
        common = {"photometric": "minisblack", "tile": (64, 64)}
        file.write(planes, subifds=1, metadata={"axes": "CYX"}, **common)
        file.write(np.ascontiguousarray(planes[:, ::2, ::2]), subfiletype=1, metadata=None, **common)
    return folder / "a.ome.tif"


def imagej(folder: Path, pixels: np.ndarray) -> Path:
    """A hyperstack of ImageJ of three channels."""
    tifffile.imwrite(folder / "a.tif", np.moveaxis(pixels, -1, 0), imagej=True, metadata={"axes": "CYX"})
    return folder / "a.tif"


def imagecodec(codec: str, name: str, **options: Any) -> Write:
    """A picture that imagecodecs writes."""

    def write(folder: Path, pixels: np.ndarray) -> Path:
        import imagecodecs

        (folder / name).write_bytes(getattr(imagecodecs, f"{codec}_encode")(pixels, **options))
        return folder / name

    return write


def pam(folder: Path, pixels: np.ndarray) -> Path:
    """A PAM of Netpbm."""
    height, width = pixels.shape[:2]
    head = f"P7\nWIDTH {width}\nHEIGHT {height}\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n"
    (folder / "a.pam").write_bytes(head.encode() + pixels.tobytes())
    return folder / "a.pam"


def pfm(folder: Path, pixels: np.ndarray) -> Path:
    """A PFM: float32, rows from bottom to top."""
    height, width = pixels.shape[:2]
    data = pixels[::-1].astype("<f4").tobytes()
    (folder / "a.pfm").write_bytes(f"PF\n{width} {height}\n-1.0\n".encode() + data)
    return folder / "a.pfm"


def fits(folder: Path, pixels: np.ndarray) -> Path:
    """A FITS image of one plane of 16 bits; its rows go from bottom to top."""
    height, width = pixels.shape[:2]
    cards = ("SIMPLE  = T", "BITPIX  = 16", "NAXIS   = 2", f"NAXIS1  = {width}", f"NAXIS2  = {height}", "END")
    head = "".join(f"{a:10}{b:>20}".ljust(80) if "=" in c else c.ljust(80)
                   for c in cards for a, _, b in [c.partition("= ")] for a in [a + "= "])  # fmt: skip
    data = np.ascontiguousarray(pixels[::-1]).astype(">i2").tobytes()
    (folder / "a.fits").write_bytes(head.ljust(2880).encode() + data + bytes(-len(data) % 2880))
    return folder / "a.fits"


def nifti(folder: Path, pixels: np.ndarray) -> Path:
    """A NIfTI-1 image of one slice of 8 bits."""
    head = bytearray(352)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, 2, pixels.shape[1], pixels.shape[0], 1, 1, 1, 1, 1)
    struct.pack_into("<2h", head, 70, 2, 8)
    struct.pack_into("<8f", head, 76, *[1.0] * 8)
    struct.pack_into("<3f", head, 108, 352.0, 1.0, 0.0)
    head[344:348] = b"n+1\0"
    (folder / "a.nii").write_bytes(bytes(head) + np.ascontiguousarray(pixels).tobytes())
    return folder / "a.nii"


def exr(folder: Path, pixels: np.ndarray) -> Path:
    """An OpenEXR image of float32, not compressed."""
    height, width = pixels.shape[:2]

    def attribute(name: str, kind: str, data: bytes) -> bytes:
        return name.encode() + b"\0" + kind.encode() + b"\0" + struct.pack("<I", len(data)) + data

    channels = b"".join(c.encode() + b"\0" + struct.pack("<IIii", 2, 0, 1, 1) for c in "BGR") + b"\0"
    window, one = struct.pack("<4i", 0, 0, width - 1, height - 1), struct.pack("<f", 1)
    head = struct.pack("<II", 20000630, 2) + b"".join((
        attribute("channels", "chlist", channels), attribute("compression", "compression", b"\0"),
        attribute("dataWindow", "box2i", window), attribute("displayWindow", "box2i", window),
        attribute("lineOrder", "lineOrder", b"\0"), attribute("pixelAspectRatio", "float", one),
        attribute("screenWindowCenter", "v2f", bytes(8)), attribute("screenWindowWidth", "float", one),
    )) + b"\0"  # fmt: skip
    row = 8 + 12 * width
    start = len(head) + 8 * height
    offsets = struct.pack(f"<{height}Q", *(start + y * row for y in range(height)))
    planes = np.moveaxis(pixels[..., ::-1], -1, 1).astype("<f4")
    rows = b"".join(struct.pack("<iI", y, 12 * width) + planes[y].tobytes() for y in range(height))
    (folder / "a.exr").write_bytes(head + offsets + rows)
    return folder / "a.exr"


def vips_file(folder: Path, pixels: np.ndarray) -> Path:
    """libvips' own format."""
    import pyvips

    pyvips.Image.new_from_array(pixels).vipssave(str(folder / "a.v"))
    return folder / "a.v"


def ome_zarr(version: str) -> Write:
    """An image of OME-Zarr with two levels: axes c, y, x, in red, green and blue."""

    def write(folder: Path, pixels: np.ndarray) -> Path:
        path = folder / "a.ome.zarr"
        group = zarr.open_group(path, mode="w", zarr_format=3 if version == "0.5" else 2)
        datasets = []
        for number, level in enumerate((pixels, pixels[::2, ::2])):
            planes = np.moveaxis(level, -1, 0)
            group.create_array(str(number), shape=planes.shape, dtype=planes.dtype, chunks=(1, 64, 64))[:] = (
                planes
            )
            scale = [{"type": "scale", "scale": [1.0, 0.5 * 2**number, 0.5 * 2**number]}]
            datasets.append({"path": str(number), "coordinateTransformations": scale})
        axes = [{"name": "c", "type": "channel"}, *({"name": n, "type": "space"} for n in "yx")]
        colours = [{"color": colour, "active": True} for colour in ("FF0000", "00FF00", "0000FF")]
        told: dict[str, Any] = {
            "multiscales": [{"version": version, "axes": axes, "datasets": datasets}],
            "omero": {"channels": colours},
        }
        group.attrs.update({"ome": told | {"version": "0.5"}} if version == "0.5" else told)
        return path

    return write


def plain_zarr(folder: Path, pixels: np.ndarray) -> Path:
    """A plain array of Zarr."""
    chunks = (64, 64, 3)[: pixels.ndim]
    zarr.create_array(folder / "a.zarr", shape=pixels.shape, dtype=pixels.dtype, chunks=chunks)[:] = pixels
    return folder / "a.zarr"


def tiles(folder: Path, pixels: np.ndarray) -> Path:
    """A folder of two georeferenced tiles."""
    (folder / "tiles").mkdir()
    middle = pixels.shape[1] // 2
    tile(folder / "tiles" / "left.tif", pixels, 0, 0, pixels.shape[0], middle)
    tile(folder / "tiles" / "right.tif", pixels, 0, middle, *pixels.shape[:2])
    return folder / "tiles"


def pattern(folder: Path, pixels: np.ndarray) -> str:
    """A pattern of names."""
    return f"{tiles(folder, pixels)}/*.tif"


def listed(folder: Path, pixels: np.ndarray) -> str:
    """A list of files."""
    found = sorted(tiles(folder, pixels).iterdir())
    (folder / "tiles.txt").write_text("".join(f"{path}\n" for path in found))
    return f"@{folder / 'tiles.txt'}"


def stac(folder: Path, pixels: np.ndarray) -> Path:
    """A STAC item whose assets are a file for each band."""
    assets = {}
    for number, colour in enumerate(("red", "green", "blue")):
        band = np.ascontiguousarray(pixels[..., number])
        geotiff(folder / f"{colour}.tif", band, photometric="minisblack")
        assets[colour] = {"href": f"./{colour}.tif"}
    item = {"type": "Feature", "stac_version": "1.0.0", "id": "a", "assets": assets}
    (folder / "item.json").write_text(json.dumps(item))
    return folder / "item.json"


def archive(folder: Path, pixels: np.ndarray) -> str:
    """A GeoTIFF in a ZIP archive."""
    source = geotiff(folder / "a.tif", pixels)
    with zipfile.ZipFile(folder / "a.zip", "w") as file:
        file.write(source, "in/a.tif")
    return f"/vsizip/{folder}/a.zip/in/a.tif"


def uploaded(scheme: str) -> Write:
    """A COG on the S3 server of this machine, by its address of ``s3`` or ``http``."""

    def write(folder: Path, pixels: np.ndarray) -> str:
        import s3fs

        source = by_gdal("COG", "cog.tif", BLOCKSIZE="128")(folder, pixels)
        store = s3fs.S3FileSystem()
        store.makedirs("images", exist_ok=True)
        store.put(str(source), "images/a.tif", ACL="public-read")
        return "s3://images/a.tif" if scheme == "s3" else f"{os.environ['AWS_ENDPOINT_URL']}/images/a.tif"

    return write
