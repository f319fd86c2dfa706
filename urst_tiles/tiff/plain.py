"""A page as the specification would have it written, for tifffile's decoder.

tifffile parses a directory by itself and then decodes tiles and strips. Where a file does not keep to the
letter of the specification, it and this package could understand different things. So it never sees the
directory of the file, but one that is made from what this package has read: every number once, of the usual
type, without the tags that other readers ignore, such as a predictor beside a compression that has none.
"""

from __future__ import annotations

import copy
import functools
import io
import struct

import tifffile

from urst_tiles.errors import DamagedFile
from urst_tiles.tiff.bytes import FileBytes
from urst_tiles.tiff.directory import Directory
from urst_tiles.tiff.types import LONG, SHORT, UNDEFINED

#: Compressions in which libtiff uses the predictor (tag 317): LZW, deflate (two codes), LZMA, zstd.
PREDICTED = {5, 8, 32946, 34925, 50000}

#: Compressions whose streams have bits in the order of FillOrder (tag 266); in the others it is ignored.
ORDERED = {1, 2, 3, 4, 5, 8, 32946, 32773, 34925, 50000}

#: The compressions of fax machines, whose samples are white where they are 0.
GROUP_3 = 3
FAX = {2, GROUP_3, 4}

#: JPEG (tag 259).
JPEG = 7

#: Photometric interpretations (tag 262).
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6

#: Tags by their codes: the type of the value, and its numbers or bytes.
Tags = dict[int, tuple[int, tuple[int, ...] | bytes]]

#: Compressions of which tifffile need not see any of it: none, LZW, deflate, PackBits, zstd.
UNSEEN = {1, 5, 8, 32946, 32773, 50000}

#: How many bytes of the first segment are shown to tifffile: they tell whether a JPEG stream is JFIF.
FIRST_BYTES = 64


def compression_of(directory: Directory) -> int:
    """How the page is compressed (tag 259); 1 stands for not at all."""
    return directory.number(259, 1)


def photometric_of(directory: Directory) -> int:
    """What the samples mean (tag 262).

    Where the tag is missing, three colours are RGB, in JPEG what the stream says they are; fax is white where
    it is 0; all else is grey, black where it is 0, as in GDAL.
    """
    if 262 in directory.entries:
        return directory.number(262)
    extra = directory.entries.get(338)
    compression = compression_of(directory)
    if directory.bands - (extra.count if extra else 0) == 3:
        return YCBCR if compression == JPEG and not is_planar(directory) else RGB
    return WHITE_IS_ZERO if compression in FAX else BLACK_IS_ZERO


def is_planar(directory: Directory) -> bool:
    """Whether every band lies in segments of its own."""
    return directory.number(284, 1) == 2 and directory.bands > 1


def per_sample(directory: Directory, code: int) -> int | None:
    """The number of a tag that is given once for all samples or once per sample; None where they differ.

    A missing number is 1. Numbers beyond those of the samples are ignored.

    Raises
    ------
    DamagedFile : the tag does not hold whole numbers.
    """
    values = directory.whole_numbers(code, max(1, directory.bands))
    if not values.size:
        return 1
    return int(values[0]) if (values == values[0]).all() else None


def plain_page(file: FileBytes, directory: Directory) -> tifffile.TiffPage:
    """The page as tifffile parses it from a file in memory that holds its directory and no pixels.

    Separate planes become one grey picture: each of them is decoded as such.

    Raises
    ------
    DamagedFile : the directory lacks what every picture needs.
    """
    tags = _size_tags(directory) | _sample_tags(directory) | _codec_tags(directory)
    start = b"" if compression_of(directory) in UNSEEN else first_bytes(file, directory)
    return copy.copy(_parsed(_written(directory, tags, start)))  # whoever gets it changes it


@functools.lru_cache(maxsize=64)
def _parsed(content: bytes) -> tifffile.TiffPage:
    """The page of a TIFF in memory. Thousands of files of one image have the same."""
    with tifffile.TiffFile(io.BytesIO(content)) as tiff:
        page = tiff.pages.first
        assert isinstance(page, tifffile.TiffPage)
        return page


def first_bytes(file: FileBytes, directory: Directory) -> bytes:
    """The first ``FIRST_BYTES`` bytes of the first segment, fewer where the file ends."""
    first = directory.whole_numbers(directory.table_codes[0], 1)
    return file(int(first[0]), FIRST_BYTES) if first.size and int(first[0]) < file.size else b""


def _size_tags(directory: Directory) -> Tags:
    """How large the page and its segments are; the only segment that is listed stands for all."""
    height, width = directory.shape
    tags: Tags = {256: (LONG, (width,)), 257: (LONG, (height,))}
    rows, columns = directory.segment
    if directory.is_tiled:
        sides: Tags = {322: (LONG, (columns,)), 323: (LONG, (rows,))}
        return tags | sides | {324: (LONG, (8,)), 325: (LONG, (FIRST_BYTES,))}
    return tags | {273: (LONG, (8,)), 278: (LONG, (rows,)), 279: (LONG, (FIRST_BYTES,))}


def _sample_tags(directory: Directory) -> Tags:
    """What a pixel is made of."""
    planar, photometric = is_planar(directory), photometric_of(directory)
    tags: Tags = {
        258: (SHORT, _each(directory, 258)),
        262: (SHORT, (BLACK_IS_ZERO if planar else photometric,)),
        277: (SHORT, (1 if planar else directory.bands,)),
        284: (SHORT, (1,)),
        339: (SHORT, _each(directory, 339)),
    }
    if not planar and 338 in directory.entries:
        tags[338] = SHORT, tuple(directory.whole_numbers(338).tolist())
    if not planar and photometric == YCBCR and 530 in directory.entries:
        tags[530] = SHORT, tuple(directory.whole_numbers(530, 2).tolist())
    if not (directory.text(305) or "").startswith("Philips DP"):  # whose depths mean nothing
        for code in {32997, 32998} & directory.entries.keys():
            tags[code] = LONG, (directory.number(code, 1),)
    return tags


def _codec_tags(directory: Directory) -> Tags:
    """How the page is compressed, without what this compression does not use."""
    compression = compression_of(directory)
    tags: Tags = {259: (SHORT, (compression,))}
    if compression in ORDERED and directory.number(266, 1) == 2:
        tags[266] = SHORT, (2,)
    if compression in PREDICTED and directory.number(317, 1) != 1:
        tags[317] = SHORT, (directory.number(317),)
    if 347 in directory.entries and compression == JPEG:
        tags[347] = UNDEFINED, directory.raw(347)
    return tags


def _each(directory: Directory, code: int) -> tuple[int, ...]:
    """Bits per sample or the format of samples: one number where they are alike, as tifffile wants it."""
    number = per_sample(directory, code)
    if number is None:
        return tuple(directory.whole_numbers(code, directory.bands).tolist())
    if code == 339:
        text = directory.text(305) or ""
        if 339 not in directory.entries and text.startswith("IndicaLabsImageWriter"):
            return (3 if per_sample(directory, 258) == 32 else 1,)  # it writes floats and does not say so
        return (number if number in range(1, 7) and number != 4 else 1,)  # undefined samples are unsigned
    return (number,)


def _written(directory: Directory, tags: Tags, start: bytes) -> bytes:
    """A TIFF of one directory in the byte order of the file; ``start`` follows its header."""
    order = directory.order
    place = 8 + FIRST_BYTES
    free = place + 2 + 12 * len(tags) + 4
    entries, values = b"", b""
    for code, (kind, value) in sorted(tags.items()):
        letter = {SHORT: "H", LONG: "I"}.get(kind, "B")
        try:
            data = value if isinstance(value, bytes) else struct.pack(f"{order}{len(value)}{letter}", *value)
        except struct.error:
            raise DamagedFile(
                f"{directory.path}: a number of TIFF tag {code} is larger than it can be; it is damaged"
            ) from None
        entries += struct.pack(order + "HHI", code, kind, len(value))
        if len(data) <= 4:
            entries += data.ljust(4, b"\0")
        else:
            entries += struct.pack(order + "I", free + len(values))
            values += data + bytes(len(data) % 2)
    head = struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, place)
    count = struct.pack(order + "H", len(tags))
    return b"".join([head, start.ljust(FIRST_BYTES, b"\0"), count, entries, bytes(4), values])
