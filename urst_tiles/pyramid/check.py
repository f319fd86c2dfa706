"""Check an output of any format, and say in sentences what is wrong with it."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from urst_tiles.errors import BadInput, MissingFile
from urst_tiles.geometry import ceil_div
from urst_tiles.pyramid.deep_zoom import dzi_levels, iiif_name
from urst_tiles.pyramid.deep_zoom_reader import dzi_facts
from urst_tiles.pyramid.formats import Format, tiles_of_dzi
from urst_tiles.pyramid.jp2_check import JP2_MAGIC, gdal_says, jp2_shape
from urst_tiles.pyramid.validate import ValidationReport, few
from urst_tiles.pyramid.validate import validate as validate_tiff
from urst_tiles.pyramid.zarr_check import zarr_problems
from urst_tiles.source.colour import libvips
from urst_tiles.source.remote import Address
from urst_tiles.storage.addresses import is_store
from urst_tiles.storage.names import require_file
from urst_tiles.storage.stores import get_tree, is_remote, path_of, utf8_name

#: What the files of pictures begin with.
_MAGIC = {JP2_MAGIC: "jp2", b"\x89PNG\r\n\x1a\n": "png", b"\xff\xd8\xff": "jpg", b"RIFF": "webp"}

Shape = tuple[int, int]


def validate(
    path: str | os.PathLike[str], *, deep: bool = True, descriptor: int | None = None
) -> ValidationReport:
    """Check whether an output is valid: a pyramidal TIFF in the cloud-optimised layout, an OME-TIFF, an
    OME-Zarr, a DZI, a static IIIF image, a PNG, a JPEG, a WebP or a JPEG 2000 (JP2).

    Parameters
    ----------
    path : the file, or the folder of an OME-Zarr or of IIIF, written by this package or any other program. At
        an address of an object store it is copied to this machine, into ``TMPDIR``, for as long as it takes.
    deep : whether every tile, or the whole picture, is decoded, too.
    descriptor : a TIFF if it is open already; ``path`` is then only its name, and ``deep`` must be false.

    Raises
    ------
    MissingFile : the file does not exist or may not be read.
    BadInput : it is a folder of none of these formats, or a device.
    """
    if descriptor is not None:
        return validate_tiff(path, deep=deep, descriptor=descriptor)
    if (stored := _on_store(path)) is not None:
        return _validate_copy(stored, deep)
    place = Path(path)
    if os.fspath(path) and os.path.isdir(path):
        return _validate_folder(place, deep)
    require_file(path)
    kind = _kind_of(place)
    if kind == "tif":
        return validate_tiff(path, deep=deep)
    if kind == "dzi":
        return _report(place, *_dzi(place, deep))
    return _report(place, *_picture(place, kind, deep))


def _on_store(path: str | os.PathLike[str]) -> Path | None:
    """The path of an output on an object store; None for any other name."""
    if is_remote(path):
        return path_of(path)
    text = os.fspath(path)
    return path_of(text) if is_store(text) and not os.path.lexists(text) else None


def _validate_copy(stored: Path, deep: bool) -> ValidationReport:
    """Check a copy, on this machine, of an output on an object store."""
    with TemporaryDirectory(prefix="urst-tiles-") as folder:
        copy = Path(folder) / stored.name
        get_tree(stored, copy)
        report = validate(copy, deep=deep)
    problems = tuple(one.replace(str(copy), str(stored)) for one in report.problems)
    return replace(report, path=Address(str(stored)), problems=problems)


def _kind_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            start = file.read(12)
    except OSError as error:
        raise MissingFile(f"{path} cannot be read: {error.strerror}") from error
    if path.suffix.lower() == ".dzi" or start.lstrip().startswith((b"<?xml", b"<Image")):
        return "dzi"
    found = next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), "tif")
    return found if found != "webp" or start[8:12] == b"WEBP" else "tif"


def _report(path: Path, levels: list[Shape], tiles: int, problems: list[str]) -> ValidationReport:
    return ValidationReport(path, tuple(levels), tiles, tuple(problems))


def _validate_folder(path: Path, deep: bool) -> ValidationReport:
    if (path / "zarr.json").is_file():
        return _report(path, *zarr_problems(path, deep))
    if (path / "info.json").is_file():
        return _report(path, *_iiif(path, deep))
    raise BadInput(
        f"{path} is a folder, and neither an OME-Zarr (zarr.json) nor an IIIF image (info.json); name a file"
    )


def is_replaceable(path: Path, chosen: Format) -> bool:
    """Whether what lies at ``path`` may be replaced by an output of a format that is a folder: nothing, a
    file, an empty folder, or a folder of this format."""
    if not path.is_dir() or path.is_symlink():
        return True
    names = os.listdir(path)
    if chosen.name == "dzi":
        return path.suffix.lower() != ".dzi" and all(name.isdigit() for name in names)
    return not names or {"iiif": "info.json", "ome.zarr": "zarr.json"}.get(chosen.name) in names


# Folders of tiles


def _dzi(path: Path, deep: bool) -> tuple[list[Shape], int, list[str]]:
    facts = dzi_facts(path)
    if facts is None:
        return [], 0, ["it is no description of a Deep Zoom image (XML with Image and Size)"]
    (height, width), side, kind = facts.shape, facts.side, facts.kind
    folder, count = tiles_of_dzi(path), dzi_levels(height, width)
    shapes = [(ceil_div(height, 1 << n), ceil_div(width, 1 << n)) for n in range(count)]

    def expected() -> Iterator[tuple[Path, Shape]]:
        for n, shape in enumerate(shapes):
            for (row, column), size in _tile_sizes(shape, side):
                yield folder / str(count - 1 - n) / f"{column}_{row}.{kind}", size

    return shapes, *_tiles(expected(), folder, deep)


def _tile_sizes(shape: Shape, side: int) -> Iterator[tuple[tuple[int, int], Shape]]:
    """Row and column of each tile of a level, and its height and width."""
    height, width = shape
    for row in range(ceil_div(height, side)):
        for column in range(ceil_div(width, side)):
            yield (row, column), (min(side, height - row * side), min(side, width - column * side))


def _iiif(path: Path, deep: bool) -> tuple[list[Shape], int, list[str]]:
    try:
        facts = json.loads((path / "info.json").read_bytes())
        height, width = int(facts["height"]), int(facts["width"])
        tile, kind = facts["tiles"][0], (facts.get("preferredFormats") or ["jpg"])[0]
        side, factors = int(tile["width"]), [int(factor) for factor in tile["scaleFactors"]]
        good = facts["type"] == "ImageService3" and min(height, width, side, *factors) > 0
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        return [], 0, [f"its info.json is none of IIIF Image API 3 ({error!r})"]
    if not good or any(factor & (factor - 1) for factor in factors):
        return [], 0, ["its info.json is none of IIIF Image API 3 with tiles at powers of two"]
    shapes = [(ceil_div(height, factor), ceil_div(width, factor)) for factor in factors]

    def expected() -> Iterator[tuple[Path, Shape]]:
        for factor, shape in zip(factors, shapes, strict=True):
            for (row, column), size in _tile_sizes(shape, side):
                name = iiif_name((height, width), side, factor.bit_length() - 1, row, column)
                yield path / name / f"default.{kind}", size

    return shapes, *_tiles(expected(), path, deep)


def _tiles(expected: Iterator[tuple[Path, Shape]], folder: Path, deep: bool) -> tuple[int, list[str]]:
    """How many tiles were decoded, and what is wrong with the tiles in a folder."""
    done = 0

    def wrong() -> Iterator[str]:
        nonlocal done
        for path, shape in expected:
            name = path.relative_to(folder.parent)
            if not path.is_file() or not path.stat().st_size:
                yield f"{name} is missing or empty"
            elif deep:
                done += 1
                if said := _undecodable(path, shape):
                    yield f"{name} {said}"

    return done, few(wrong())


def _undecodable(path: Path, shape: Shape | None = None) -> str | None:
    """Why a picture cannot be decoded or has another size, as the end of a sentence; None if it is good."""
    pyvips = libvips()
    try:
        with utf8_name(path) as name:
            image = pyvips.Image.new_from_file(str(name), access="sequential", fail_on="warning")
            if shape is not None and (image.height, image.width) != shape:
                return f"has {image.width} x {image.height} pixels instead of {shape[1]} x {shape[0]}"
            image.avg()
    except (pyvips.Error, OSError):
        return "cannot be decoded: it is damaged"
    return None


# Pictures


def _picture(path: Path, kind: str, deep: bool) -> tuple[list[Shape], int, list[str]]:
    try:
        with path.open("rb") as file:
            shape = _STRUCTURES[kind](file)
    except (ValueError, struct.error, IndexError) as error:
        return [], 0, [str(error) or "it is cut off"]
    undecodable = gdal_says if kind == "jp2" else _undecodable
    said = undecodable(path, shape) if deep else None
    return [shape], int(deep), [f"the picture {said}"] if said else []


def _png(file: Any) -> Shape:
    """The size of a PNG whose chunks are whole; ValueError says what is wrong."""
    file.seek(8)
    shape, name = (0, 0), b""
    while name != b"IEND":
        head = file.read(8)
        if len(head) < 8:
            raise ValueError("it ends without the chunk IEND: it is cut off")
        length, name = struct.unpack(">I4s", head)
        data, checksum = file.read(length), file.read(4)
        if zlib.crc32(name + data) != int.from_bytes(checksum, "big") or len(data) < length:
            raise ValueError(f"its chunk {name.decode('latin-1')} fails its checksum or is cut off")
        if name == b"IHDR":
            width, height = struct.unpack_from(">II", data)
            shape = height, width
    if file.read(1) or 0 in shape:
        raise ValueError("it has bytes behind its end, or no size")
    return shape


def _jpg(file: Any) -> Shape:
    """The size of a JPEG that has an end; ValueError says what is wrong."""
    file.seek(2)
    shape = (0, 0)
    while True:
        marker, length = struct.unpack(">HH", file.read(4))
        if marker >> 8 != 0xFF:
            raise ValueError("its segments do not follow each other")
        data = file.read(length - 2)
        if 0xC0 <= marker & 0xFF <= 0xCF and marker & 0xFF not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, 1)
            shape = height, width
        if marker == 0xFFDA:
            break
    file.seek(-2, os.SEEK_END)
    if file.read() != b"\xff\xd9" or 0 in shape:
        raise ValueError("it ends without the marker EOI: it is cut off")
    return shape


def _webp(file: Any) -> Shape:
    """The size of a WebP whose chunks are whole; ValueError says what is wrong."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(12)
    if int.from_bytes(head[4:8], "little") + 8 != size:
        raise ValueError(f"it has {size} bytes, and its header says otherwise: it is cut off")
    name, _, data = file.read(4), file.read(4), file.read(10)
    if name == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (4, 7))
    elif name == b"VP8L":
        bits = int.from_bytes(data[1:5], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (6, 8))
    return height, width


_STRUCTURES: dict[str, Callable[[Any], Shape]] = {"png": _png, "jpg": _jpg, "webp": _webp, "jp2": jp2_shape}
