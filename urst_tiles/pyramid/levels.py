"""The directories of the levels of a pyramid: what the output file says about its pixels.

GDAL's layout of a cloud-optimised GeoTIFF surrounds the data of each tile: before it lies a leader, the size
of the tile; behind it a trailer, the last four bytes of the tile again. A ghost header at the start of the
file announces this. A mask tile lies right behind the image tile that it belongs to.

References: TIFF 6.0 (1992); the page "Cloud optimized GeoTIFF" of GDAL's documentation.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from urst_tiles.geometry import ceil_div, round_up
from urst_tiles.pyramid.encode import Compression, Encoding
from urst_tiles.tiff.metadata import Info, with_band_items, with_items
from urst_tiles.tiff.types import LONG, RATIONAL, SHORT, UNDEFINED
from urst_tiles.tiff.writing import (
    BIG,
    DirectoryField,
    TiffForm,
    array_fields,
    directory,
    directory_bytes,
    directory_field,
    field,
    rational,
    tag_field,
    text,
)

COMPRESSION_CODE: dict[Compression, int] = {"lzw": 5, "jpeg": 7, "deflate": 8, "zstd": 50000, "webp": 50001}

#: The item of GDAL's metadata that says which page, channels or bands of the source were read.
CHOICE = "SOURCE_SELECTION"

#: Bytes of the leader (the size of the tile as uint32) and of the trailer (the last four bytes of the tile).
LEADER_BYTES = TRAILER_BYTES = 4


def level_fields(encoding: Encoding, height: int, width: int, *, overview: bool) -> list[DirectoryField]:
    """The fields of a directory that describe the pixels of one level of ``height`` x ``width`` pixels."""
    bits = np.dtype(encoding.dtype).itemsize * 8
    n, jpeg = encoding.samples, encoding.compression == "jpeg"
    fields = [
        *_shape(encoding.tile, height, width, subfile=1 if overview else 0),
        field(258, SHORT, *[bits] * n),
        field(259, SHORT, COMPRESSION_CODE[encoding.compression]),
        field(262, SHORT, 6 if jpeg else 2 if encoding.colours == 3 else 1),
        field(277, SHORT, n),
        field(284, SHORT, 1),
        field(339, SHORT, *[3 if encoding.dtype == "float32" else 1] * n),
    ]
    if not encoding.lossy and encoding.predictor:
        fields.append(field(317, SHORT, 3 if encoding.dtype == "float32" else 2))
    if encoding.stored_validity == "nodata":
        fields.append(text(42113, str(encoding.nodata)))
    extra = [0] * (encoding.colours - 1) if encoding.colours != 3 else []
    extra += [2] if encoding.stored_validity == "alpha" else []
    if extra:
        fields.append(field(338, SHORT, *extra))
    if jpeg:
        fields.append(field(530, SHORT, *([1, 1] if encoding.full_chroma else [2, 2])))
        reference = struct.pack("<12I", *[v for low in (0, 128, 128) for v in (low, 1, 255, 1)])
        fields.append(DirectoryField(532, RATIONAL, 6, reference))
    return fields


def mask_fields(encoding: Encoding, height: int, width: int, *, overview: bool) -> list[DirectoryField]:
    """The fields of a directory that describe the mask of one level: one bit per pixel, deflate.

    TIFF 6.0 calls such an image a transparency mask.
    """
    return [
        *_shape(encoding.tile, height, width, subfile=5 if overview else 4),
        field(258, SHORT, 1),
        field(259, SHORT, COMPRESSION_CODE["deflate"]),
        field(262, SHORT, 4),
        field(277, SHORT, 1),
        field(284, SHORT, 1),
    ]


def _shape(tile: int, height: int, width: int, subfile: int) -> list[DirectoryField]:
    return [
        field(254, LONG, subfile),
        field(256, LONG, width),
        field(257, LONG, height),
        field(322, SHORT, tile),
        field(323, SHORT, tile),
    ]


def info_fields(info: Info, statistics: Sequence[tuple[str, int, str]] = ()) -> list[DirectoryField]:
    """The fields of metadata at full resolution: georeferencing, texts, EXIF, colour profile, GDAL's XML.

    ``statistics`` are items about bands: (name, band counted from 0, text).
    """
    fields = [tag_field(tag) for tag in (*info.geo, *info.tags)]
    fields += [directory_field(code, tags) for code, tags in ((34665, info.exif), (34853, info.gps)) if tags]
    if info.icc:
        fields.append(DirectoryField(34675, UNDEFINED, len(info.icc), info.icc))
    chosen = [(CHOICE, "", info.chosen)] if info.chosen else []
    metadata = with_items(info.gdal_metadata, chosen) if chosen else info.gdal_metadata
    metadata = with_band_items(metadata, statistics)
    if metadata:
        fields.append(text(42112, metadata))
    return fields


def resolution_fields(info: Info, level: int) -> list[DirectoryField]:
    """The fields of the resolution, which halves with each level; empty if unknown.

    The unit is the centimetre, or the inch where the source has a density in inches.
    """
    if info.pixels_per_cm is None:
        return []
    y, x = (n / (1 << level) for n in info.pixels_per_cm)
    if not info.in_inches:
        return [rational(282, x), rational(283, y), field(296, SHORT, 3)]
    return [rational(282, round(x * 2.54, 6)), rational(283, round(y * 2.54, 6)), field(296, SHORT, 2)]


def ghost(masked: bool, layout: TiffForm = BIG) -> bytes:
    """GDAL's ghost header, which announces how the file is laid out; a directory may lie right behind it."""
    lines = (
        "LAYOUT=IFDS_BEFORE_DATA\nBLOCK_ORDER=ROW_MAJOR\nBLOCK_LEADER=SIZE_AS_UINT4\n"
        "BLOCK_TRAILER=LAST_4_BYTES_REPEATED\nKNOWN_INCOMPATIBLE_EDITION=NO\n "
    )
    if masked:
        lines += "MASK_INTERLEAVED_WITH_IMAGERY=YES\n"
    first = "GDAL_STRUCTURAL_METADATA_SIZE=%06d bytes\n"
    used = layout.header_bytes + len(first % 0) + len(lines)
    lines += " " * (round_up(used, 8) - used)
    return (first % len(lines) + lines).encode()


def frame(tile: bytes) -> tuple[bytes, bytes, bytes]:
    """The leader, the encoded tile itself, and the trailer."""
    return struct.pack("<I", len(tile)), tile, tile[-4:].rjust(4, b"\0")


@dataclass(frozen=True)
class TileSizes:
    """The sizes of the tiles of one level, row by row.

    Attributes
    ----------
    image : uint32, (tiles,): encoded bytes of each tile.
    mask : uint32, (tiles,): encoded bytes of each mask tile, or None for a level without mask.
    """

    image: NDArray[np.uint32]
    mask: NDArray[np.uint32] | None = None

    @classmethod
    def empty(cls, tiles: int, masked: bool) -> TileSizes:
        """Sizes of ``tiles`` tiles, all 0."""
        return cls(np.zeros(tiles, np.uint32), np.zeros(tiles, np.uint32) if masked else None)

    @property
    def cells(self) -> NDArray[np.uint64]:
        """uint64, (tiles,): bytes that each tile takes in the file with its mask, leaders and trailers."""
        cells = self.image.astype(np.uint64)
        cells += LEADER_BYTES + TRAILER_BYTES
        if self.mask is not None:
            cells += self.mask
            cells += LEADER_BYTES + TRAILER_BYTES
        return cells

    @property
    def total_bytes(self) -> int:
        """Bytes of the whole level."""
        return int(self.cells.sum())

    def offsets(self, start: int) -> NDArray[np.uint64]:
        """uint64, (tiles,): position of each tile's data when the first leader lies at ``start``."""
        cells = self.cells
        ends = np.cumsum(cells)
        ends -= cells
        ends += start + LEADER_BYTES
        return ends

    def mask_offsets(self, start: int) -> NDArray[np.uint64]:
        """uint64, (tiles,): position of each mask tile's data when the first leader lies at ``start``."""
        offsets = self.offsets(start)
        offsets += self.image
        offsets += LEADER_BYTES + TRAILER_BYTES
        return offsets


@dataclass(frozen=True)
class Level:
    """One level of a pyramid as its directories describe it.

    Attributes
    ----------
    fields : fields of the image's directory, without the tables of tiles.
    mask_fields : the same of the mask's directory; None for a level without mask.
    sizes : the sizes of all tiles.
    layout : BigTIFF or classic TIFF.
    """

    fields: list[DirectoryField]
    mask_fields: list[DirectoryField] | None
    sizes: TileSizes
    layout: TiffForm = BIG

    @property
    def directory_bytes(self) -> int:
        """Bytes of the directory of the image, and of the mask's where there is a mask."""
        return sum(directory_bytes(f, self.sizes.image.size, self.layout) for f in self._lists)

    @property
    def _lists(self) -> list[list[DirectoryField]]:
        return [self.fields] if self.mask_fields is None else [self.fields, self.mask_fields]

    def directories(self, position: int, start: int, *, last: bool) -> Iterator[bytes]:
        """The bytes of the directories of the level, which will lie at ``position`` one behind the other.

        ``start`` is the position of the first leader; ``last`` says that no other directory follows.
        """
        for i, fields in enumerate(self._lists):
            sizes = self.sizes.image if i == 0 else self.sizes.mask
            assert sizes is not None
            offsets = self.sizes.offsets(start) if i == 0 else self.sizes.mask_offsets(start)
            following = position + directory_bytes(fields, sizes.size, self.layout)
            end = last and i == len(self._lists) - 1
            entries = [*fields, *array_fields(offsets, sizes, self.layout)]
            yield from directory(entries, position, 0 if end else following, self.layout)
            position = following


def level_of(
    encoding: Encoding,
    height: int,
    width: int,
    sizes: TileSizes,
    *,
    overview: bool,
    extra: Sequence[DirectoryField] = (),
    layout: TiffForm = BIG,
) -> Level:
    """Describe a level of ``height`` x ``width`` pixels; ``extra`` are further fields of its image."""
    fields = [*level_fields(encoding, height, width, overview=overview), *extra]
    mask = mask_fields(encoding, height, width, overview=overview) if encoding.masked else None
    return Level(fields, mask, sizes, layout)


def tiles_of(height: int, width: int, tile: int) -> tuple[int, int]:
    """How many rows and columns of tiles an image of ``height`` x ``width`` pixels has."""
    return ceil_div(height, tile), ceil_div(width, tile)
