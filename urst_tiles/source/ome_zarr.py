"""OME-Zarr (OME-NGFF 0.1 to 0.5) and plain Zarr arrays, in folders of this machine and at addresses.

An image has y and x among the axes t, c, z, y and x, and an array for each level. References:
ngff.openmicroscopy.org/0.4 and /0.5; the Zarr specifications 2 and 3.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from urst_tiles.errors import BadInput, DamagedFile, MissingFile
from urst_tiles.source.remote_files import refusal
from urst_tiles.source.zarr_remote import RemoteFolder, is_zarr_address, names_zarr
from urst_tiles.tiff.choice import COLOURS, EVERY, Choice, Names, colour_numbers, number_of, said
from urst_tiles.tiff.selection import Note

#: Files by which a folder is known as Zarr.
MARKS = ("zarr.json", ".zgroup", ".zarray", ".zattrs")

#: A folder of this machine, or at an address.
Folder = Path | RemoteFolder

#: Codecs that only unpack bytes. Others are refused: one of those that zarr knows runs code in the file.
CODECS = frozenset({
    "blosc", "gzip", "zlib", "zstd", "lz4", "lzma", "bz2", "bytes", "crc32c", "adler32", "crc32", "shuffle",
    "delta", "transpose", "sharding_indexed", "bitround",
})  # fmt: skip

#: The most bytes of a file of metadata.
MOST_BYTES = 16 << 20

#: How many micrometres a unit of OME-Zarr has.
MICRONS = {
    "angstrom": 1e-4, "nanometer": 1e-3, "micrometer": 1.0, "millimeter": 1e3, "centimeter": 1e4,
    "meter": 1e6, "inch": 25400.0,
}  # fmt: skip

#: The colours in which a channel is pure red, green or blue.
PURE = {"ff0000": "red", "00ff00": "green", "0000ff": "blue"}


@dataclass(frozen=True)
class Axes:
    """Where the axes of an array are; -1 for one that it does not have."""

    t: int
    c: int
    z: int
    y: int
    x: int


@dataclass(frozen=True)
class ZarrImage:
    """An image in a folder of Zarr.

    Attributes
    ----------
    arrays : the folders of its arrays, the finest first.
    axes : their axes.
    channels : the names of its channels.
    colours : for each of them "red", "green" or "blue" if it is shown in just that colour, or None.
    microns : (y, x) size of a pixel of the first array, or None.
    rgb : whether the channels are red, green and blue, and perhaps alpha.
    """

    arrays: tuple[Folder, ...]
    axes: Axes
    channels: tuple[str | None, ...] = ()
    colours: tuple[str | None, ...] = ()
    microns: tuple[float, float] | None = None
    rgb: bool = False


@dataclass(frozen=True)
class Plane:
    """What is read of an image: its channels, at a depth and a time, counted from 0."""

    picks: tuple[int, ...]
    z: int
    t: int


def is_zarr(path: Path) -> bool:
    """Whether a folder is an image of OME-Zarr or an array that is read here; GDAL has any other."""
    return path.is_dir() and any((path / name).is_file() for name in MARKS) and _is_image(path)


def folder_at(path: Path) -> RemoteFolder | None:
    """The folder at an address, if it is an image that `is_zarr` would know; None for anything else.

    Only addresses that `is_zarr_address` knows are asked.

    Raises
    ------
    MissingFile : the address has ``.zarr`` in it, and there is no Zarr, or it may not be read.
    BadInput : what fsspec needs for it is not installed, or the address has a query.
    """
    if not is_zarr_address(path):
        return None
    if "?" in str(path):
        raise BadInput(f"{path} has a query (?...), to which no names of files can be added; leave it out")
    try:
        folder = RemoteFolder(str(path))
        found = [name for name in MARKS if _content(folder / name) is not None]
    except BadInput:
        if names_zarr(path):
            raise
        return None
    if found:
        return folder if _is_image(folder) else None
    if not names_zarr(path):
        return None
    if folder.refused:
        raise refusal(str(path), folder.refused)
    raise MissingFile(f"there is no Zarr at {path}: it has none of {', '.join(MARKS)}; check the address")


def _is_image(path: Folder) -> bool:
    """Whether a folder that is a Zarr is an image of OME-Zarr, or an array without georeferencing of GDAL."""
    attributes = _attributes(path)
    if _multiscales(attributes) is not None or _multiscales(_attributes(path / "0")) is not None:
        return True
    return _is_array(path) and "_CRS" not in attributes


def image_of(path: Folder) -> ZarrImage:
    """The image in a folder of Zarr.

    Raises
    ------
    BadInput : it is none, or has codecs that are not safe to run.
    DamagedFile : its metadata contradict themselves.
    """
    if _is_array(path):
        return _plain(path)
    folder = path if _multiscales(_attributes(path)) is not None else path / "0"  # bioformats2raw's first
    attributes = _attributes(folder)
    multiscales = _multiscales(attributes)
    try:
        first = multiscales[0]  # type: ignore[index]
        arrays = tuple(_inside(folder, str(one["path"])) for one in first["datasets"])
        return _described(path, arrays, first, attributes)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise DamagedFile(
            f"{path}: its multiscales make no sense ({type(error).__name__}: {error})"
        ) from None


def _described(
    path: Folder, arrays: tuple[Folder, ...], first: Mapping[str, Any], attributes: Mapping[str, Any]
) -> ZarrImage:
    """The image that the metadata ``multiscales`` describe."""
    shape = shape_of(arrays[0])
    told = first.get("axes") or "tczyx"[-len(shape) :]
    names = [axis if isinstance(axis, str) else axis["name"] for axis in told]
    if len(names) != len(shape) or not {"y", "x"} <= set(names) or not set(names) <= set("tczyx"):
        raise BadInput(f"{path} has the axes {', '.join(map(str, names))}; images have t, c, z, y and x")
    axes = Axes(*(names.index(name) if name in names else -1 for name in "tczyx"))
    count = shape[axes.c] if axes.c >= 0 else 1
    omero = attributes.get("ome", attributes).get("omero") or attributes.get("omero") or {}
    channels = list(omero.get("channels") or [])[:count]
    channels += [{}] * (count - len(channels))
    return ZarrImage(
        arrays,
        axes,
        tuple(str(one["label"]) if one.get("label") else None for one in channels),
        tuple(PURE.get(str(one.get("color", "")).lower()) for one in channels),
        _microns(first, told, axes),
    )


def _microns(first: Mapping[str, Any], told: Sequence[Any], axes: Axes) -> tuple[float, float] | None:
    """(y, x) size of a pixel in micrometres, from the scales of the first array and of the whole image."""
    found = []
    for axis in (axes.y, axes.x):
        unit = told[axis].get("unit") if isinstance(told[axis], dict) else None
        size = MICRONS.get(str(unit), 0.0)
        for owner in (first["datasets"][0], first):
            for one in owner.get("coordinateTransformations") or ():
                size *= float(one["scale"][axis]) if one.get("type") == "scale" else 1.0
        found.append(size)
    return (found[0], found[1]) if all(0 < size < 1e9 for size in found) else None


def _plain(path: Folder) -> ZarrImage:
    """An array by itself: (H, W), (H, W, 3 or 4) or (1 to 4, H, W), or with names of its dimensions."""
    shape, names = shape_of(path), metadata_of(path).get("dimension_names")
    if len(shape) == 2:
        return ZarrImage((path,), Axes(-1, -1, -1, 0, 1))
    if len(shape) == 3 and names and list(names)[1:] == ["y", "x"]:
        channels = shape[0]
    elif len(shape) == 3 and shape[2] in (3, 4):
        return ZarrImage((path,), Axes(-1, 2, -1, 0, 1), (None,) * shape[2], (None,) * shape[2], None, True)
    elif len(shape) == 3 and shape[0] <= 4:
        channels = shape[0]
    else:
        raise BadInput(
            f"{path} is an array of shape {shape}; images are (height, width), (height, width, 3 or 4) or (3,"
            " height, width), or OME-Zarr"
        )
    return ZarrImage(
        (path,), Axes(-1, 0, -1, 1, 2), (None,) * channels, (None,) * channels, None, channels in (3, 4)
    )


def plane_of(path: Path, image: ZarrImage, choice: Choice) -> tuple[Plane, list[Note]]:
    """Which channels at which depth and time are read, and what was chosen.

    As in OME-TIFF these are the channels shown in pure red, green and blue, else the first three, or the
    first if there are fewer; the plane in the middle of the depth; the first time. ``--page`` counts planes
    through the depth of the first time, then of the next. Raises BadInput where there is none.
    """
    shape, axes, notes = shape_of(image.arrays[0]), image.axes, list[Note]()
    depths = shape[axes.z] if axes.z >= 0 else 1
    times = shape[axes.t] if axes.t >= 0 else 1
    plane = depths // 2
    if choice.page is not None:
        plane = number_of(path, "page", choice.page, [Names()] * (depths * times))
    if depths * times > 1:
        told = f"z {plane % depths + 1} of {depths}, t {plane // depths + 1} of {times}"
        notes.append(Note(told, choice.page is None))
    count = min(3, len(image.channels)) if image.rgb else len(image.channels)
    names = [Names(name, (c,) if c else ()) for name, c in zip(image.channels, image.colours, strict=True)]
    if image.rgb:
        names = [Names(None, (colour,)) for colour in COLOURS]
    if choice.wanted == EVERY:
        picks = list(range(count))
    elif choice.wanted is not None:
        picks = [number_of(path, "channel", word, names or [Names()]) for word in choice.wanted]
    else:
        picks = colour_numbers(image.colours) or ([0, 1, 2] if count >= 3 else [0])
    if count > 1 and picks != list(range(count)):
        notes.append(Note(said("channel", names, picks), choice.wanted is None))
    return Plane(tuple(picks), plane % depths, plane // depths), notes


def shape_of(folder: Folder) -> tuple[int, ...]:
    """The shape of an array. Raises BadInput for an array that is not safe to read or holds no numbers."""
    metadata = metadata_of(folder)
    unknown = {name for name in _codecs(metadata) if name.removeprefix("numcodecs.") not in CODECS}
    if unknown:
        raise BadInput(
            f"{folder} has the codec {sorted(unknown)[0]}, which is not run here; write it with zstd"
        )
    dtype = metadata.get("data_type", metadata.get("dtype"))
    numbers = ("uint", "int", "float", "<", ">", "|u", "|i", "|b")
    if not isinstance(dtype, str) or not dtype.startswith(numbers) or "O" in dtype:
        raise BadInput(f"{folder} holds {dtype} and no numbers of an image")
    shape = metadata.get("shape")
    if not isinstance(shape, list) or not shape or not all(isinstance(n, int) and n > 0 for n in shape):
        raise DamagedFile(f"{folder}: its shape {shape} makes no sense")
    return tuple(shape)


def _codecs(metadata: Any) -> list[str]:
    """The names of all codecs in the metadata of an array, also those inside shards."""
    found = [one["id"] for one in (metadata.get("compressor"), *(metadata.get("filters") or ())) if one]
    waiting = list(metadata.get("codecs") or ())
    while waiting:
        one = waiting.pop()
        found.append(one if isinstance(one, str) else one["name"])
        inside = {} if isinstance(one, str) else one.get("configuration") or {}
        waiting += [*(inside.get("codecs") or ()), *(inside.get("index_codecs") or ())]
    return found


def _is_array(folder: Folder) -> bool:
    there = _content(folder / ".zarray") is not None
    return there or _json(folder / "zarr.json").get("node_type") == "array"


def metadata_of(folder: Folder) -> dict[str, Any]:
    """The metadata of an array. Raises DamagedFile where there are none."""
    found = _json(folder / "zarr.json") or _json(folder / ".zarray")
    if not found or found.get("node_type", "array") != "array":
        raise DamagedFile(f"{folder} is no array of Zarr: its metadata are missing or damaged")
    return found


def _attributes(folder: Folder) -> dict[str, Any]:
    found = _json(folder / "zarr.json").get("attributes") or _json(folder / ".zattrs")
    return found if isinstance(found, dict) else {}


def _multiscales(attributes: Mapping[str, Any]) -> list[Any] | None:
    ome = attributes.get("ome")
    found = (ome if isinstance(ome, dict) else attributes).get("multiscales")
    return found if isinstance(found, list) and found else None


def _inside(folder: Folder, name: str) -> Folder:
    """The folder of an array inside another; ValueError for a name that leads out of it."""
    if name.startswith("/") or ".." in Path(name).parts:
        raise ValueError(f"the array {name} lies elsewhere")
    return folder / name


def _json(path: Folder) -> dict[str, Any]:
    """The values in a small file of JSON; none where there is no such file, or it is damaged."""
    try:
        found = json.loads(_content(path) or b"")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _content(path: Folder) -> bytes | None:
    """The content of a file of metadata; None where there is none, or where it is too large."""
    if isinstance(path, RemoteFolder):
        return path.read(MOST_BYTES)
    try:
        return None if path.stat().st_size > MOST_BYTES else path.read_bytes()
    except OSError:
        return None
