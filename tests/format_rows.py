"""The rows of the table of formats in docs/formats.md, each with what writes such a file and what reads it
beside us."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import format_files as files
import numpy as np
import rasterio
import tifffile
from format_files import Write, by_gdal, by_pillow, by_tifffile, described, imagecodec
from helpers import geotiff
from PIL import Image
from scanner_files import write_mirax, write_svslide, write_vms
from slide_files import write_dicom, write_ndpi

from urst_tiles.pyramid.formats import FORMATS

#: Reads the colours of a file, (h, w, 3), in another way than we do.
Right = Callable[[Path], np.ndarray]


@dataclass(frozen=True)
class Row:
    """A format that is read.

    Attributes
    ----------
    title, names : what the format is called, and its usual suffixes.
    write : writes such a file.
    by : who reads it.
    extra : the extra that is needed.
    where : what is needed of the libraries, in words; empty where every installation reads it.
    levels : where overviews are found: "inside", "inside, `.ovr`", "`.ovr`", or nowhere.
    place : where the georeference is found: "inside", "beside", or nowhere.
    types : the types of samples that are tried, those of a whole job first.
    grey : whether a file has one band.
    at : the key in `PLACES` of where the file lies.
    right : the other reader; None where the format keeps the very pixels that were written.
    server : whether an S3 server of this machine must run, at AWS_ENDPOINT_URL.
    """

    title: str
    names: str
    write: Write
    by: str
    extra: str = ""
    where: str = ""
    levels: str = ""
    place: str = ""
    types: tuple[str, ...] = ("uint8",)
    grey: bool = False
    at: str = "web"
    right: Right | None = None
    server: bool = False

    def text(self, name: str) -> str:
        """The row of the table in Markdown."""
        bits = {"uint8": "8", "int16": "16", "uint16": "16", "float32": "float"}
        read = f"yes, `{self.extra}`" if self.extra else "yes"
        cells = (
            self.title, in_backticks(self.names), self.where or read, self.by,
            self.levels or "–", self.place or "–", ", ".join(bits[one] for one in self.types), f"`{name}`",
        )  # fmt: skip
        return "| " + " | ".join(cells) + " |"


@dataclass(frozen=True)
class Refused:
    """A format that is not read: what it is called, its suffixes, why, what writes such a file, and the words
    of the sentence that it is refused with."""

    title: str
    names: str
    why: str
    write: Callable[[Path], Path]
    words: str

    def text(self, name: str) -> str:
        """The row of the table in Markdown."""
        return f"| {self.title} | {in_backticks(self.names)} | no | {self.why} | – | – | – | `{name}` |"


def in_backticks(names: str) -> str:
    """Names between commas; those of GDAL's file systems would look like paths of this repository."""
    return ", ".join(one if one.startswith("/") else f"`{one}`" for one in names.split())


def by_gdal_itself(path: Path) -> np.ndarray:
    with rasterio.open(path) as data:
        bands = data.read()
    return np.moveaxis(bands if len(bands) == 3 else bands[[0, 0, 0]], 0, -1)


def by_openslide_itself(path: Path) -> np.ndarray:
    import openslide

    with openslide.OpenSlide(path) as slide:
        return np.asarray(slide.read_region((0, 0), 0, slide.dimensions))[..., :3]


def by_pillow_itself(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def by_tifffile_itself(path: Path) -> np.ndarray:
    return tifffile.imread(path, key=0)


def by_vips_itself(path: Path) -> np.ndarray:
    import pyvips

    return pyvips.Image.new_from_file(str(path)).numpy()[..., :3]


OWN, VIPS, GDAL, OPENSLIDE, ZARR, MANY = "own reader", "libvips", "GDAL", "OpenSlide", "zarr", "own mosaic"
ALL, BOTH, FLOAT = ("uint8", "uint16", "float32"), ("uint8", "uint16"), ("float32",)
IN_OR_OVR, OVR = "inside, `.ovr`", "`.ovr`"
UNLESS = "where libvips has it"


def gdal(title: str, names: str, write: Write, levels: str = OVR, **more: Any) -> Row:
    """A row of a georeferenced format that GDAL reads."""
    return Row(title, names, write, GDAL, "gdal", levels=levels, **{"place": "inside"} | more)


def slide(title: str, names: str, write: Write, **more: Any) -> Row:
    """A row of a slide that OpenSlide reads."""
    return Row(title, names, write, OPENSLIDE, "slides", **{"right": by_openslide_itself} | more)


ROWS: dict[str, Row] = {
    # TIFF
    "tiff": Row("TIFF", ".tif .tiff", by_tifffile("a.tif", True), OWN, levels="inside", types=ALL),
    "bigtiff": Row(
        "BigTIFF",
        ".tif .btf .tf8",
        by_tifffile("a.btf", True, bigtiff=True, tile=(64, 64)),
        OWN,
        levels="inside",
        types=ALL,
    ),
    "geotiff": Row(
        "GeoTIFF",
        ".tif .tiff",
        lambda folder, pixels: geotiff(folder / "a.tif", pixels),
        OWN,
        place="inside",
        types=ALL,
        at="utm",
    ),
    "cog": Row(
        "Cloud Optimized GeoTIFF (COG)",
        ".tif",
        by_gdal("COG", "cog.tif", BLOCKSIZE="128"),
        OWN,
        levels="inside",
        place="inside",
        types=ALL,
    ),
    "ome-tiff": Row(
        "OME-TIFF", ".ome.tif .ome.tiff .ome.btf", files.ome_tiff, OWN, levels="inside", types=ALL
    ),
    "imagej": Row("ImageJ's TIFF", ".tif", files.imagej, OWN, types=ALL),
    # slides
    "svs": Row("Aperio", ".svs", files.aperio, OWN, levels="inside", right=by_openslide_itself),
    "scn": Row(
        "Leica",
        ".scn",
        described("a.scn", files.LEICA, files.LEICA),
        OWN,
        levels="inside",
        right=by_tifffile_itself,
    ),
    "bif": Row("Ventana, whose tiles do not overlap", ".bif .tif", files.ventana, OWN, levels="inside"),
    "qptiff": Row(
        "Akoya, PerkinElmer",
        ".qptiff",
        described("a.qptiff", files.AKOYA.format("FullResolution"), files.AKOYA.format("ReducedResolution")),
        OWN,
        levels="inside",
        right=by_tifffile_itself,
    ),
    "ndpi": slide(
        "Hamamatsu NDPI",
        ".ndpi",
        lambda folder, pixels: write_ndpi(folder / "a.ndpi", pixels),
        levels="inside",
    ),
    "dicom": slide("DICOM", ".dcm", lambda folder, pixels: write_dicom(folder / "a.dcm", pixels)),
    "mirax": slide(
        "3DHISTECH MIRAX", ".mrxs", lambda folder, pixels: write_mirax(folder / "a.mrxs", pixels), right=None
    ),
    "vms": slide(
        "Hamamatsu VMS",
        ".vms .vmu",
        lambda folder, pixels: write_vms(folder / "a.vms", pixels),
        levels="inside",
    ),
    "svslide": slide(
        "Sakura", ".svslide", lambda folder, pixels: write_svslide(folder / "a.svslide", pixels)
    ),
    # pictures
    "png": Row("PNG", ".png", files.png, VIPS, place="beside", types=BOTH),
    "jpeg": Row(
        "JPEG", ".jpg .jpeg", by_pillow("a.jpg", quality=95), VIPS, place="beside", right=by_pillow_itself
    ),
    "webp": Row("WebP", ".webp", by_pillow("a.webp", lossless=True), VIPS, place="beside"),
    "gif": Row("GIF", ".gif", by_pillow("a.gif"), VIPS, place="beside", right=by_pillow_itself),
    "avif": Row("AVIF", ".avif", by_pillow("a.avif", quality=95), VIPS, place="beside", right=by_vips_itself),
    "vips": Row("libvips' own", ".v .vips", files.vips_file, VIPS, types=ALL),
    "ppm": gdal("PPM, PGM", ".ppm .pgm .pnm", by_pillow("a.ppm"), place="beside", levels="", types=BOTH[:1]),
    "bmp": gdal("BMP", ".bmp", by_gdal("BMP", "a.bmp", levels="beside"), place="beside"),
    # what GDAL reads
    "jpeg2000": gdal(
        "JPEG 2000",
        ".jp2 .j2k",
        by_gdal("JP2OpenJPEG", "a.jp2", QUALITY="100", REVERSIBLE="YES"),
        IN_OR_OVR,
        types=BOTH,
    ),
    "vrt": gdal("VRT", ".vrt", by_gdal("VRT", "a.vrt", levels="beside"), IN_OR_OVR, types=ALL),
    "netcdf": gdal("netCDF", ".nc", by_gdal("netCDF", "a.nc", levels="beside"), types=ALL, grey=True),
    "hdf5": gdal("HDF5", ".h5 .hdf5", files.hdf5, "", place="", types=ALL, grey=True),
    "geopackage": gdal(
        "GeoPackage", ".gpkg", by_gdal("GPKG", "a.gpkg", levels="inside", TILE_FORMAT="PNG"), "inside"
    ),
    "mbtiles": gdal("MBTiles", ".mbtiles", by_gdal("MBTiles", "a.mbtiles", levels="inside"), "inside"),
    "envi": gdal("ENVI", ".dat .img .bsq", by_gdal("ENVI", "a.dat", levels="beside"), types=ALL),
    "hfa": gdal(
        "Erdas Imagine (HFA)", ".img", by_gdal("HFA", "a.img", levels="inside"), IN_OR_OVR, types=ALL
    ),
    "nitf": gdal("NITF", ".ntf .nitf", by_gdal("NITF", "a.ntf", "utm", "beside"), types=ALL, at="utm"),
    "mrf": gdal(
        "MRF", ".mrf", by_gdal("MRF", "a.mrf", levels="inside", BLOCKSIZE="64"), "inside", types=BOTH
    ),
    "pcidsk": gdal("PCIDSK", ".pix", by_gdal("PCIDSK", "a.pix", levels="inside"), IN_OR_OVR, types=ALL),
    "ermapper": gdal("ER Mapper", ".ers", by_gdal("ERS", "a.ers", levels="beside"), types=ALL),
    "bil": gdal("ESRI BIL", ".bil", by_gdal("EHdr", "a.bil", levels="beside"), types=ALL),
    "grib": gdal(
        "GRIB",
        ".grib .grib2 .grb",
        by_gdal("GRIB", "a.grib2", "degrees", "beside"),
        types=FLOAT,
        grey=True,
        at="degrees",
        right=by_gdal_itself,
    ),
    "ascii-grid": gdal(
        "ESRI ASCII grid", ".asc", by_gdal("AAIGrid", "a.asc", levels="beside"), types=("int16",), grey=True
    ),
    "gdal-zarr": gdal("Zarr with GDAL's georeference", ".zarr", by_gdal("Zarr", "g.zarr"), "", types=ALL),
    # Zarr
    "ome-zarr-0.4": Row(
        "OME-Zarr 0.1 to 0.4", ".ome.zarr .zarr", files.ome_zarr("0.4"), ZARR, levels="inside", types=ALL
    ),
    "ome-zarr-0.5": Row(
        "OME-Zarr 0.5", ".ome.zarr .zarr", files.ome_zarr("0.5"), ZARR, levels="inside", types=ALL
    ),
    "zarr": Row("Zarr array", ".zarr", files.plain_zarr, ZARR, types=ALL),
    # many files, archives, addresses
    "folder": Row(
        "a folder of georeferenced files", "tiles/", files.tiles, MANY, place="inside", types=ALL, at="utm"
    ),
    "pattern": Row("a pattern", "'tiles/*.tif'", files.pattern, MANY, place="inside", types=ALL, at="utm"),
    "list": Row("a list", "@tiles.txt", files.listed, MANY, place="inside", types=ALL, at="utm"),
    "stac": Row(
        "a STAC item", "item.json", files.stac, "own reader, or GDAL", place="inside", types=ALL, at="utm"
    ),
    "archive": gdal(
        "a file in an archive",
        "/vsizip/a.zip/a.tif /vsitar/ /vsigzip/",
        files.archive,
        "",
        types=ALL,
        at="utm",
    ),
    "https": gdal(
        "an address",
        "https://host/a.tif ftp:// /vsicurl/",
        files.uploaded("http"),
        "inside",
        at="web",
        server=True,
    ),
    "s3": gdal(
        "an object store",
        "s3://bucket/a.tif gs:// az:// /vsis3/",
        files.uploaded("s3"),
        "inside",
        server=True,
    ),
    # where libvips has it
    "jpeg-xl": Row(
        "JPEG XL", ".jxl", imagecodec("jpegxl", "a.jxl", lossless=True), VIPS, where=UNLESS, types=BOTH
    ),
    "pfm": Row("PFM", ".pfm", files.pfm, VIPS, where=UNLESS, types=FLOAT),
    "radiance": Row(
        "Radiance",
        ".hdr",
        imagecodec("rgbe", "a.hdr", header=True),
        VIPS,
        where=UNLESS,
        types=FLOAT,
        right=by_vips_itself,
    ),
    "fits": Row("FITS", ".fits .fit", files.fits, VIPS, where=UNLESS, types=("int16",), grey=True),
    "openexr": Row("OpenEXR", ".exr", files.exr, VIPS, where=UNLESS, types=FLOAT),
    "nifti": Row("NIfTI", ".nii .nii.gz", files.nifti, VIPS, where=UNLESS, grey=True),
}


def made(name: str, data: bytes) -> Callable[[Path], Path]:
    """Writes a file with these bytes."""

    def write(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return write


def raw(folder: Path) -> Path:
    """A DNG: a small preview first, the data of the sensor in its SubIFD."""
    pattern = [(33421, 3, 2, (2, 2), True), (33422, 1, 4, b"\0\1\1\2", True)]
    with tifffile.TiffWriter(folder / "a.dng") as file:
        file.write(
            np.zeros((20, 30, 3), np.uint8), photometric="rgb", subifds=1, subfiletype=1, metadata=None
        )
        file.write(np.zeros((80, 120), np.uint16), photometric=32803, extratags=pattern, metadata=None)
    return folder / "a.dng"


def olympus(folder: Path) -> Path:
    """A small TIFF, with the slide in a folder beside it."""
    tifffile.imwrite(folder / "a.vsi", np.zeros((20, 30, 3), np.uint8), photometric="rgb")
    return folder / "a.vsi"


#: One blue-green pixel of 16 x 16 in HEVC, as x265 and libheif write it.
HEIC = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAXxtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAACJp"
    "bG9jAAAAAERAAAEAAQAAAAABoAABAAAAAAAAADIAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRtAAAAAAAB"
    "AAAA/GlwcnAAAADcaXBjbwAAAHVodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEA"
    "AQApQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbqrprm4CGgwIAAAAyAAAADAIRiAAEABkQBwXPBiQAAABNjb2xybmNseAABAA0ABoAAAAAU"
    "aXNwZQAAAAAAAABAAAAAQAAAAChjbGFwAAAAEAAAAAEAAAAQAAAAAf///9AAAAAC////0AAAAAIAAAAQcGl4aQAAAAADCAgIAAAAGGlw"
    "bWEAAAAAAAAAAQABBYECAwWEAAAAOm1kYXQAAAAuKAGvEyFiY0D1JyL//Ven/zJCf8l9lhZ3K6DBW/L6wPZkm8DzqpGegIdppzAVeA=="
)

REFUSED: dict[str, Refused] = {
    "heic": Refused(
        "HEIC",
        ".heic .heif",
        "HEVC; only where libvips decodes it, which its wheel does not",
        made("a.heic", HEIC),
        "is a HEIC picture: libvips has no decoder of its pixels",
    ),
    "camera-raw": Refused(
        "raw files of cameras", ".dng .nef .cr2 .arw", "develop them first", raw, "is raw data of a camera"
    ),
    "fuji-raw": Refused(
        "those that are no TIFF",
        ".raf .cr3 .orf .rw2 .x3f",
        "develop them first",
        made("a.raf", b"FUJIFILMCCD-RAW 0201FF383501" + bytes(200)),
        "is a camera's raw file, .*develop it first",
    ),
    "vsi": Refused(
        "Olympus cellSens", ".vsi", "bfconvert makes OME-TIFF of it", olympus, "Olympus.*bfconvert"
    ),
    "ets": Refused(
        "a part of it",
        ".ets",
        "bfconvert makes OME-TIFF of it",
        made("a.ets", b"SIS\0" + bytes(99)),
        "bfconvert",
    ),
    "lif": Refused(
        "Leica LIF",
        ".lif",
        "bfconvert makes OME-TIFF of it",
        made("a.lif", b"p\0\0\0" + bytes(99)),
        "bfconvert",
    ),
    "pdf": Refused(
        "PDF",
        ".pdf",
        "has no pixels of its own: render it first (a GDAL that was built with Poppler does)",
        made("a.pdf", b"%PDF-1.4\n%%EOF\n"),
        "is a PDF document, .*pdftoppm",
    ),
    "svg": Refused(
        "SVG",
        ".svg .svgz",
        "has no pixels of its own: render it first",
        made("a.svg", b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>'),
        "is an SVG drawing, .*rsvg",
    ),
    "dzi-in": Refused(
        "Deep Zoom",
        ".dzi",
        "its picture is in thousands of files: give the image they were made from",
        made("a.dzi", b'<?xml version="1.0"?><Image xmlns="http://schemas.microsoft.com/deepzoom/2008"/>'),
        "is the description of a Deep Zoom image",
    ),
    "psd": Refused(
        "Photoshop",
        ".psd .psb",
        "save a TIFF or PNG there",
        made("a.psd", b"8BPS\0\1" + bytes(99)),
        "is a file of Photoshop",
    ),
    "jpeg-xr": Refused(
        "JPEG XR",
        ".jxr .wdp",
        "convert it first",
        made("a.jxr", b"II\xbc\1" + bytes(99)),
        "is a JPEG XR image",
    ),
}

#: Formats that are written: what a row of the table says besides what `FORMATS` of the package holds, the
#: title and the levels.
OUT = {
    "tif": ("Cloud Optimized GeoTIFF, BigTIFF", "inside"),
    "ome.tif": ("OME-TIFF", "inside (SubIFDs)"),
    "ome.zarr": ("OME-Zarr 0.5", "inside"),
    "dzi": ("Deep Zoom", "inside"),
    "iiif": ("IIIF 3, level 0", "inside"),
    "png": ("PNG", "–"),
    "jpg": ("JPEG", "–"),
    "webp": ("WebP", "–"),
    "jp2": ("JPEG 2000", "inside"),
}


def text_of_output(name: str) -> str:
    """The row of the table in Markdown of a format that is written."""
    one, (title, levels) = FORMATS[name], OUT[name]
    suffixes = ", ".join(f"`{suffix}`" for suffix in one.suffixes)
    place = "–" if one.georeference == "none" else one.georeference
    bits = "8, 16" if one.sixteen_bit else "8"
    more = "address too, `remote`" if one.on_stores else "`gdal`" if name == "jp2" else "–"
    return f"| {title} | {suffixes} | `{name}` | {more} | {levels} | {place} | {bits} | `out.{name}` |"
