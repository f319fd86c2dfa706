"""EXIF and GPS directories: read from a TIFF or from the block of another format, freed from what is false.

A block of EXIF, as JPEG, PNG, WebP and JPEG 2000 have it, is a small TIFF without pixels. References: EXIF
2.32 (CIPA DC-008-2019), sections 4.6.5 and 4.6.6; TIFF 6.0.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tifffile

from urst_tiles.tiff.header import Header, Order
from urst_tiles.tiff.metadata import Tag
from urst_tiles.tiff.types import ASCII, BYTE, RATIONALS, TYPES, UNDEFINED, WIDTHS, fractions

#: Tags of a main directory that lead to the EXIF and to the GPS directory.
EXIF_IFD, GPS_IFD = 34665, 34853

#: Tags of the EXIF directory that describe the encoding of the old file, which the new one tells itself: its
#: size, components, colour space, interoperability, sound, the identity of the image.
ABOUT_FILE = {37121, 37122, 40961, 40962, 40963, 40964, 40965, 41484, 42016, 34856, 42240}

#: Tags about what the camera did to the colours of the old pixels, and about places in them: white balance,
#: contrast, saturation, sharpness, gain, rendering, settings, filter array, subject area and location.
ABOUT_PIXELS = {37396, 41492, 41730, 41985, 41987, 41991, 41992, 41993, 41994, 41995}

#: The maker's note. It holds offsets into the old file, and would be read wrongly in any other.
MAKER_NOTE = 37500

#: UserComment, whose text may have the byte order of its file.
USER_COMMENT = 37510

#: The most entries of a directory, and the most bytes of all their values, that are taken over.
MOST_TAGS, MOST_BYTES = 512, 2 << 20

#: Reads so many bytes from a position on, fewer where the data ends.
ReadAt = Callable[[int, int], bytes]


@dataclass(frozen=True)
class Exif:
    """What a file says in EXIF.

    Attributes
    ----------
    main : tags of the block's first directory by code; empty where the file is a TIFF.
    exif, gps : tags of the EXIF and of the GPS directory that are true for new pixels, values little-endian.
    lost : what is not taken over, in words.
    """

    main: Mapping[int, Tag] = field(default_factory=dict)
    exif: tuple[Tag, ...] = ()
    gps: tuple[Tag, ...] = ()
    lost: tuple[str, ...] = ()


def read_tags(read: ReadAt, offset: int, header: Header) -> tuple[dict[int, Tag], int]:
    """The tags of a directory by code, and the offset of the next one.

    Values become little-endian bytes. Entries that lead nowhere or are of unknown types are left out, and so
    are those beyond ``MOST_BYTES`` in all, and a directory of more than ``MOST_TAGS`` entries.

    Parameters
    ----------
    read : reads bytes of the TIFF.
    offset : position of the directory in bytes.
    header : the header of the TIFF.
    """
    head, each, room = struct.calcsize(header.counting), header.entry_bytes, header.inline_bytes
    start = read(offset, head)
    count = struct.unpack(header.counting, start)[0] if len(start) == head else 0
    if not 0 < count <= MOST_TAGS:
        return {}, 0
    body, tags, left = read(offset + head, count * each + room), dict[int, Tag](), MOST_BYTES
    for at in range(0, min(len(body) // each, count) * each, each):
        code, dtype, number = struct.unpack_from(header.entry, body, at)
        value = _value(read, body[at + each - room : at + each], dtype, number, header, left)
        if value is not None and code not in tags:
            left -= len(value)
            tags[code] = Tag(code, dtype, number, _in_order(code, value, dtype, header.order))
    rest = body[count * each :]
    return tags, struct.unpack(header.link, rest)[0] if len(rest) == room else 0


def _value(read: ReadAt, inline: bytes, dtype: int, count: int, header: Header, most: int) -> bytes | None:
    """The bytes of a value as they lie in the file; None where there are none, or more than ``most``."""
    if dtype not in TYPES or not count:
        return None
    size = count * WIDTHS[dtype]
    if size <= len(inline):
        return inline[:size]
    if size > most:
        return None
    data = read(struct.unpack(header.link, inline)[0], size)
    return data if len(data) == size else None


def _in_order(code: int, value: bytes, dtype: int, order: str) -> bytes:
    """The bytes of a value in little-endian order."""
    if order == "<":
        return value
    if code == USER_COMMENT and value.startswith(b"UNICODE\0") and len(value) % 2 == 0:
        return value[:8] + np.frombuffer(value[8:], ">u2").astype("<u2").tobytes()
    kind = np.dtype(TYPES[dtype])
    return np.frombuffer(value, kind.newbyteorder(">")).astype(kind.newbyteorder("<")).tobytes()


def of_block(block: bytes) -> Exif:
    """What a block of EXIF says; nothing where it is none."""
    block = block.removeprefix(b"Exif\0\0")
    if block[:4] not in (b"II*\0", b"MM\0*") or len(block) < 8:
        return Exif()
    order: Order = "<" if block[:2] == b"II" else ">"
    header = Header(order, False, struct.unpack_from(order + "I", block, 4)[0])

    def read(offset: int, count: int) -> bytes:
        return block[offset : offset + count]

    main, following = read_tags(read, header.first, header)
    offsets = (_offset(main.get(code)) for code in (EXIF_IFD, GPS_IFD))
    found = from_offsets(read, *offsets, header=header)
    thumbnail = ("the thumbnail",) if 0 < following < len(block) else ()
    return Exif(main, found.exif, found.gps, (*thumbnail, *found.lost))


def from_offsets(read: ReadAt, exif: int, gps: int, *, header: Header) -> Exif:
    """What the EXIF and the GPS directory at these offsets say; 0 stands for none."""
    tags = read_tags(read, exif, header)[0] if exif else {}
    lost = [
        *(["the maker's note"] if MAKER_NOTE in tags else []),
        *(["how the camera processed the old colours (white balance and the like)"]
          if ABOUT_PIXELS & tags.keys() else []),
    ]  # fmt: skip
    kept = _sorted(tag for tag in tags.values() if tag.code not in ABOUT_FILE | ABOUT_PIXELS | {MAKER_NOTE})
    return Exif({}, kept, _sorted(read_tags(read, gps, header)[0].values() if gps else ()), tuple(lost))


def numbers(tag: Tag | None) -> list[float]:
    """The numbers of a tag whose value is little-endian bytes, fractions divided; empty for text or None."""
    if tag is None or not isinstance(tag.value, bytes):
        return []
    values = np.frombuffer(tag.value, np.dtype(TYPES[tag.dtype]).newbyteorder("<"))
    if values.dtype.kind == "S":
        return []
    if tag.dtype in RATIONALS:
        return list(fractions(values.reshape(-1, 2)))
    return [float(value) for value in values]


def _offset(tag: Tag | None) -> int:
    found = numbers(tag)
    return int(found[0]) if found else 0


def _sorted(tags: Iterable[Tag]) -> tuple[Tag, ...]:
    return tuple(sorted(tags, key=lambda tag: tag.code))


def items(block: Exif) -> list[tuple[str, str, str]]:
    """The EXIF and GPS tags as items of GDAL's metadata, (name, domain, text), as it names those of a JPEG.

    GDAL takes the EXIF directory of a BigTIFF for one of a classic TIFF, and reads nothing true from it.
    """
    named: list[tuple[Any, Any]] = [(tifffile.TIFF.EXIF_TAGS, tag) for tag in block.exif]
    named += [(tifffile.TIFF.GPS_TAGS, tag) for tag in block.gps]
    found = []
    for names, tag in named:
        name, text = names.get(tag.code, None), _as_text(tag)
        if name and text:
            found.append((f"EXIF_{name}", "", text))
    return found


def _as_text(tag: Tag) -> str:
    """The value of a tag as GDAL writes it: fractions in brackets, bytes in hexadecimal."""
    value = tag.value if isinstance(tag.value, bytes) else b""
    if tag.dtype == ASCII or (tag.code in (36864, 40960) and value.isalnum()):
        return value.split(b"\0", 1)[0].decode("utf-8", "replace").strip()
    if tag.dtype in (BYTE, UNDEFINED):
        return " ".join(f"0x{byte:02x}" for byte in value) if len(value) <= 32 else ""
    form = "({:g})" if tag.dtype in RATIONALS else "{:g}"
    return " ".join(form.format(number) for number in numbers(tag)[:32])
