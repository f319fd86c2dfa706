"""The formats of outputs: which names they have, what they can hold, and what is said of the rest.

This table is data; `urst_tiles.pyramid.finish` has the writer and the validator of each format.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from urst_tiles.errors import BadInput, BadPlan
from urst_tiles.tiff.metadata import RPC, Info

#: What the file of a format is in the folder of the output.
Shape = Literal["file", "folder"]


@dataclass(frozen=True)
class Format:
    """A format of outputs.

    Attributes
    ----------
    name : the word of ``--format``.
    title : its name in sentences.
    suffixes : the suffixes by which a name asks for it; the first is the usual one.
    shape : whether the output is a file or a folder.
    tiff : whether tiles are moved into it as the parts hold them; otherwise pixels are encoded again.
    most : the largest width and height in pixels; None without a limit.
    sixteen_bit : whether it holds uint16.
    alpha : whether it says which pixels are valid.
    lossy : whether its pixels are encoded with loss, at ``--quality``.
    georeference : how it tells where it lies: in itself, in files beside it, or not at all.
    on_stores : whether it is written to object stores, too.
    carries : what it carries of the metadata: "icc" (a colour profile), "exif" (with GPS), "xmp", "iptc",
        "texts" (such as a description), "resolution" (the size of a pixel, or its density).
    """

    name: str
    title: str
    suffixes: tuple[str, ...]
    shape: Shape = "file"
    tiff: bool = False
    most: int | None = None
    sixteen_bit: bool = False
    alpha: bool = True
    lossy: bool = False
    georeference: Literal["inside", "beside", "none"] = "none"
    on_stores: bool = False
    carries: frozenset[str] = frozenset()

    def companions(self, output: Path) -> list[Path]:
        """Files and folders that get their names together with ``output``, besides those of `sidecars`."""
        return [tiles_of_dzi(output)] if self.name == "dzi" else []

    def sidecars(self, output: Path) -> list[Path]:
        """Files beside ``output`` that may say where it lies; they are written only if there is need.

        They are the world file, GDAL's ``.aux.xml``, and a ``.prj``; but where a shapefile, or another
        picture with a world file, has the name of the output, the ``.prj`` of that name is theirs.
        """
        if self.georeference != "beside":
            return []
        found = [output.with_suffix(WORLD_FILES[self.name]), output.with_name(f"{output.name}.aux.xml")]
        others = {output.with_suffix(suffix) for suffix in _WITH_PRJ} - {found[0]}
        return found if any(one.exists() for one in others) else [*found, output.with_suffix(".prj")]


#: The suffix of the world file of each format that has one.
WORLD_FILES = {"png": ".pgw", "jpg": ".jgw", "webp": ".wpw"}

#: The suffixes of files whose reference system a ``.prj`` of their name tells: of shapefiles, and of world
#: files.
_WITH_PRJ = (".shp", *WORLD_FILES.values(), ".tfw", ".j2w", ".wld")

_CARRIED = frozenset({"icc", "exif", "xmp", "texts", "resolution"})

#: The formats by the words of ``--format``.
FORMATS: dict[str, Format] = {
    one.name: one
    for one in (
        Format(
            "tif", "TIFF", (".tif", ".tiff", ".btf", ".tf8", ".tf2"), tiff=True, sixteen_bit=True,
            georeference="inside", carries=_CARRIED | {"iptc"}, on_stores=True,
        ),
        Format(
            "ome.tif", "OME-TIFF", (".ome.tif", ".ome.tiff", ".ome.btf", ".ome.tf8", ".ome.tf2"), tiff=True,
            sixteen_bit=True, georeference="inside", carries=_CARRIED | {"iptc"}, on_stores=True,
        ),
        Format(
            "ome.zarr", "OME-Zarr", (".ome.zarr", ".zarr"), "folder", sixteen_bit=True,
            carries=frozenset({"resolution"}), on_stores=True,
        ),
        Format("dzi", "DZI", (".dzi",), lossy=True),
        Format("iiif", "IIIF", (".iiif",), "folder", lossy=True),
        Format(
            "png", "PNG", (".png",), most=1_000_000, sixteen_bit=True, georeference="beside", carries=_CARRIED
        ),
        Format(
            "jpg", "JPEG", (".jpg", ".jpeg", ".jpe", ".jfif"), most=65535, alpha=False, lossy=True,
            georeference="beside", carries=_CARRIED,
        ),
        Format(
            "webp", "WebP", (".webp",), most=16383, lossy=True, georeference="beside",
            carries=_CARRIED,
        ),
        Format("jp2", "JPEG 2000", (".jp2",), most=1 << 20, sixteen_bit=True, georeference="inside"),
    )
}  # fmt: skip

#: Every suffix that asks for a format, longer ones first.
SUFFIXES: dict[str, str] = {
    suffix: one.name
    for suffix, one in sorted(
        ((suffix, one) for one in FORMATS.values() for suffix in one.suffixes), key=lambda pair: -len(pair[0])
    )
}


def named_format(name: str) -> Format | None:
    """The format that the name of an output asks for.

    A name without a suffix is one of a TIFF, as for GDAL. None for a suffix of no format.
    """
    lower = name.lower()
    for suffix, word in SUFFIXES.items():
        if lower.endswith(suffix) and len(lower) > len(suffix):
            return FORMATS[word]
    return FORMATS["tif"] if not Path(name).suffix and not name.endswith(".") else None


def format_of(output: Path, wanted: str = "auto") -> Format | None:
    """The format of an output: the one that is wanted, or the one that its name asks for.

    None if the name asks for none that can be written.

    Raises
    ------
    BadInput : a format is wanted, and the name promises another one.
    """
    named = named_format(output.name)
    if wanted == "auto":
        return named
    chosen = FORMATS[wanted]
    if output.suffix and named is not None and named is not chosen and _promises(output.name):
        raise BadInput(
            f"--format {wanted} writes {chosen.title}, and {output.name} is the name of {named.title}: give"
            f" a name that ends in {chosen.suffixes[0]}, or leave --format out"
        )
    return chosen


def _promises(name: str) -> bool:
    return any(name.lower().endswith(suffix) for suffix in SUFFIXES)


def tiles_of_dzi(output: Path) -> Path:
    """The folder of the tiles of a DZI: ``NAME_files`` beside ``NAME.dzi``, as viewers look for it."""
    return output.with_name(f"{re.sub(r'[.]dzi$', '', output.name, flags=re.IGNORECASE)}_files")


def check_size(chosen: Format, height: int, width: int) -> None:
    """Raise BadPlan if an image of ``height`` x ``width`` pixels is too large for a format."""
    if chosen.most is not None and max(height, width) > chosen.most:
        raise BadPlan(
            f"{chosen.title} holds at most {chosen.most} pixels on a side, and the output has {width} x"
            f" {height}: choose a name that ends in .tif, .ome.zarr or .dzi"
        )


def check_dtype(chosen: Format, dtype: str) -> None:
    """Raise BadPlan if a format does not hold the data type of the output."""
    if dtype == "float32" and chosen.name != "tif":
        raise BadPlan(f"{chosen.title} is not written with floats: choose a name that ends in .tif")
    if dtype == "uint16" and not chosen.sixteen_bit:
        raise BadPlan(f"{chosen.title} holds 8 bits only: leave --dtype uint16 out, or write .tif or .png")


def check_bands(chosen: Format, colours: int) -> None:
    """Raise BadPlan if a format does not hold bands that are not red, green and blue."""
    if colours != 3 and chosen.name != "tif":
        raise BadPlan(
            f"{chosen.title} holds red, green and blue, and the output has {colours} band(s): choose a name"
            " that ends in .tif"
        )


def lost_in(chosen: Format, info: Info, *, channels: int, lossy_tiles: bool = False) -> list[str]:
    """What a format cannot hold of the picture and its metadata, each as a phrase.

    ``channels`` of the pixels are 4 if some may be invalid; ``lossy_tiles`` is whether tiles of JPEG or WebP
    are moved into an OME-TIFF.
    """
    lost = []
    if channels == 4 and not chosen.alpha:
        lost.append("which pixels are invalid (they are black)")
    elif channels == 4 and chosen.name == "ome.tif" and lossy_tiles:
        lost.append("which pixels are invalid (they are black; --compression deflate keeps it)")
    if chosen.georeference == "none" and info.geo:
        lost.append("the georeference")
    if chosen.name == "jp2" and any(tag.code == RPC for tag in info.geo):
        lost.append("rational polynomials (RPC)")
    kept = {"icc": info.icc, "exif": info.exif or info.gps}
    words = {"icc": "the colour profile", "exif": "EXIF"}
    lost += [words[name] for name, value in kept.items() if value and name not in chosen.carries]
    codes = {tag.code for tag in info.tags}
    if 700 in codes and "xmp" not in chosen.carries:
        lost.append("XMP")
    if 33723 in codes and "iptc" not in chosen.carries:
        lost.append("IPTC")
    if codes - {700, 33723} and "texts" not in chosen.carries:
        lost.append("texts such as the description")
    if info.pixels_per_cm and "resolution" not in chosen.carries:
        lost.append("the size of a pixel")
    if info.gdal_metadata and chosen.georeference == "none":
        lost.append("GDAL's metadata")
    return lost
