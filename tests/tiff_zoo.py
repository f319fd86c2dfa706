"""A zoo of TIFFs: all combinations that the format allows, written byte by byte, with samples that are known.

Files are written by this module alone, with codecs of imagecodecs, so that every tag can be anything. What
is right of them says `tiff_right`.
"""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pyvips
import tifffile

HEIGHT, WIDTH, TILE, ROWS = 37, 53, (16, 32), 10

WHITE, BLACK, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
COLOURS = {WHITE: 1, BLACK: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3}

#: Kinds of samples: name -> (SampleFormat, bits, dtype of the stored numbers).
SAMPLES: dict[str, tuple[int, int, str]] = {
    "uint1": (1, 1, "u1"), "uint2": (1, 2, "u1"), "uint4": (1, 4, "u1"), "uint6": (1, 6, "u1"),
    "uint8": (1, 8, "u1"), "uint10": (1, 10, "u2"), "uint12": (1, 12, "u2"), "uint14": (1, 14, "u2"),
    "uint16": (1, 16, "u2"), "uint24": (1, 24, "u4"), "uint32": (1, 32, "u4"), "uint64": (1, 64, "u8"),
    "int8": (2, 8, "i1"), "int16": (2, 16, "i2"), "int32": (2, 32, "i4"), "int64": (2, 64, "i8"),
    "float16": (3, 16, "f2"), "float24": (3, 24, "f4"), "float32": (3, 32, "f4"), "float64": (3, 64, "f8"),
    "void8": (4, 8, "u1"), "void16": (4, 16, "u2"),
    "cint16": (5, 32, "i2"), "complex64": (6, 64, "c8"),
}  # fmt: skip

#: Compressions (tag 259) of bytes, and of pictures.
BYTES = {
    "none": 1,
    "lzw": 5,
    "deflate": 8,
    "old deflate": 32946,
    "packbits": 32773,
    "lzma": 34925,
    "zstd": 50000,
}
PICTURES = {"jpeg": 7, "webp": 50001, "jpeg2000": 34712, "lerc": 34887, "jpegxl": 50002, "fax4": 4}
COMPRESSIONS = BYTES | PICTURES
PREDICTED = {"lzw", "deflate", "old deflate", "lzma", "zstd"}

#: Kinds of extra samples (tag 338).
EXTRA = {"unspecified": 0, "associated": 1, "unassociated": 2}

#: TIFF data type -> (struct letter, bytes).
TYPES = {
    1: ("B", 1), 2: ("s", 1), 3: ("H", 2), 4: ("I", 4), 6: ("b", 1), 7: ("s", 1), 8: ("h", 2), 9: ("i", 4),
    11: ("f", 4), 12: ("d", 8), 16: ("Q", 8), 17: ("q", 8),
}  # fmt: skip

#: A tag: its type and its numbers, or its bytes.
Tags = dict[int, tuple[int, Any]]


@dataclass(frozen=True)
class Kind:
    """One kind of TIFF; the fields are the axes of the zoo."""

    photometric: int = RGB
    samples: str = "uint8"
    planar: bool = False
    compression: str = "none"
    predictor: int = 1
    order: str = "<"
    big: bool = False
    layout: str = "tiles"
    sparse: bool = False
    extra: str = ""
    reverse: bool = False

    @property
    def name(self) -> str:
        meaning = {
            WHITE: "white",
            BLACK: "black",
            RGB: "rgb",
            PALETTE: "palette",
            CMYK: "cmyk",
            YCBCR: "ycbcr",
        }
        words = [
            meaning[self.photometric],
            self.samples,
            self.extra,
            "planes" * self.planar,
            self.compression,
            f"predictor {self.predictor}" * (self.predictor > 1),
            self.layout,
            "sparse" * self.sparse,
            "reversed" * self.reverse,
            "BigTIFF" * self.big,
            "MM" if self.order == ">" else "II",
        ]
        return " ".join(word for word in words if word)

    @property
    def bands(self) -> int:
        return COLOURS[self.photometric] + bool(self.extra)

    @property
    def format(self) -> tuple[int, int, np.dtype[Any]]:
        form, bits, kind = SAMPLES[self.samples]
        return form, bits, np.dtype(kind)


def exists(kind: Kind) -> bool:
    """Whether such a file makes sense at all."""
    form, bits, dtype = kind.format
    if kind.planar and kind.bands == 1:
        return False
    if kind.photometric == PALETTE and (form != 1 or bits > 8 or kind.extra):
        return False
    if kind.photometric == CMYK and (form != 1 or bits not in (8, 16)):
        return False
    if kind.photometric == WHITE and form != 1:
        return False
    if kind.photometric == YCBCR and kind.compression != "jpeg":
        return False
    if kind.photometric == CMYK and kind.extra == "associated":
        return False
    if kind.extra in ("associated", "unassociated") and (form != 1 or bits not in (8, 16)):
        return False
    if kind.predictor > 1 and kind.compression not in (*PREDICTED, "none", "packbits"):
        return False
    if kind.predictor == 3 and form != 3 and kind.compression in PREDICTED:
        return bits in (8, 16)
    if kind.reverse and kind.compression not in BYTES:
        return False
    if kind.layout == "one strip" and kind.sparse:
        return False
    if kind.compression == "lerc" and form == 3 and kind.order == ">":
        return False  # floats whose bytes are swapped may be NaN, of which LERC keeps no bits
    return _codec_has(kind)


def _codec_has(kind: Kind) -> bool:
    """Whether a compression of pictures has these samples."""
    form, bits, _ = kind.format
    each = 1 if kind.planar else kind.bands
    grey = each == 1 and kind.photometric in (WHITE, BLACK)
    match kind.compression:
        case "jpeg":
            fits = kind.photometric in (BLACK, RGB, YCBCR) and kind.samples == "uint8" and each in (1, 3)
            return fits and not kind.extra and not (kind.planar and kind.photometric == YCBCR)
        case "webp":
            return kind.photometric == RGB and kind.samples == "uint8" and each in (3, 4)
        case "jpeg2000":
            return kind.samples in ("uint8", "uint16") and kind.photometric in (BLACK, RGB) and each in (1, 3)
        case "jpegxl":
            return (
                kind.samples in ("uint8", "uint16")
                and (grey or each == 3)
                and kind.photometric in (BLACK, RGB)
            )
        case "lerc":
            return bits in (8, 16, 32, 64) and form in (1, 2, 3) and kind.samples not in (
                "float16", "uint64", "int64"
            ) and kind.photometric in (BLACK, RGB)  # fmt: skip
        case "fax4":
            return kind.samples == "uint1" and grey and kind.layout != "tiles" and not kind.extra
    return True


def palette(bits: int) -> np.ndarray:
    """The palette of a file, (entries, 3), 16 bits."""
    index = np.arange(1 << bits)[:, None]
    return (index * np.array([40503, 30011, 9973]) + 700) % 65536


def samples_of(kind: Kind) -> np.ndarray:
    """The stored samples, (HEIGHT, WIDTH, bands): a soft picture that uses the whole range."""
    form, bits, dtype = kind.format
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    soft = np.stack([np.sin(x / (9 + 4 * b) + y / (13 - 2 * b) + b) for b in range(kind.bands)], -1) / 2 + 0.5
    if form == 3:
        return np.clip(soft, 0, 1).astype(np.float16 if bits == 24 else dtype).astype(dtype)
    if form == 5:
        return np.rint(np.repeat(soft, 2, -1) * 1000).astype(dtype)
    if form == 6:
        return (soft + 1j * soft[::-1]).astype(dtype)
    top = float(2.0**bits - 1)
    low = -(2.0 ** (bits - 1)) if form == 2 else 0.0
    if bits == 64:
        top = float(2**53)  # as far as float64 counts
    return np.clip(np.rint(soft * top + low), low, low + top).astype(dtype)


def segments_of(kind: Kind, pixels: np.ndarray) -> Iterator[np.ndarray]:
    """The segments, (rows, columns, samples), in the order of the tables; those of tiles are padded."""
    planes = (
        [pixels[..., b : b + pixels.shape[-1] // kind.bands] for b in range(kind.bands)]
        if kind.planar
        else [pixels]
    )
    for plane in planes:
        if kind.layout == "tiles":
            for top, left in itertools.product(range(0, HEIGHT, TILE[0]), range(0, WIDTH, TILE[1])):
                tile = plane[top : top + TILE[0], left : left + TILE[1]]
                room = TILE[0] - tile.shape[0], TILE[1] - tile.shape[1]
                yield np.pad(tile, ((0, room[0]), (0, room[1]), (0, 0)), mode="edge")
        else:
            rows = ROWS if kind.layout == "strips" else HEIGHT
            for top in range(0, HEIGHT, rows):
                yield plane[top : top + rows]


def packed(kind: Kind, segment: np.ndarray) -> bytes:
    """The bytes of a segment before it is compressed: predicted, in the byte order of the file, packed."""
    form, bits, dtype = kind.format
    data = np.ascontiguousarray(segment)
    if kind.compression in PREDICTED and kind.predictor == 2:
        whole = data.view(f"u{dtype.itemsize}")
        data = np.concatenate([whole[:, :1], np.diff(whole, axis=1)], axis=1).view(dtype)
    elif kind.compression in PREDICTED and kind.predictor == 3 and form == 3:
        wide = data.astype(np.float32).view(np.uint32)
        whole = _float24(wide, ">") if bits == 24 else data.astype(data.dtype.newbyteorder(">")).tobytes()
        return _floats_predicted(data, whole)
    if bits == 24:
        wide = data.astype(np.float32).view(np.uint32) if form == 3 else data
        # Whole numbers as GDAL has them: highest byte first in a little-endian file, last in the other.
        return _float24(wide, kind.order) if form == 3 else _bits(wide, 24, "<" if kind.order == ">" else ">")
    if bits in (8, 16, 32, 64) or form > 4:
        return data.astype(data.dtype.newbyteorder(kind.order)).tobytes()
    return _bits(data, bits, ">")


def _bits(data: np.ndarray, bits: int, order: str) -> bytes:
    """Numbers of so many bits, each row filled up to a whole byte; of 24 bits in a byte order."""
    flat = data.reshape(data.shape[0], -1).astype(np.uint64)
    each = (flat[..., None] >> np.arange(bits - 1, -1, -1, dtype=np.uint64) & np.uint64(1)).astype(np.uint8)
    rows = np.packbits(each.reshape(data.shape[0], -1), axis=1)
    if bits == 24 and order == "<":
        rows = rows.reshape(data.shape[0], -1, 3)[..., ::-1]
    return rows.tobytes()


def _float24(wide: np.ndarray, order: str) -> bytes:
    """Floats of 24 bits (1, 7 and 16 of sign, exponent and fraction; Adobe's TIFF technical note 3)."""
    sign, exponent, fraction = wide >> 31, (wide >> 23 & 255).astype(np.int64), wide & 0x7FFFFF
    narrow = np.where(
        exponent > 64, sign << 23 | (exponent - 64).astype(np.uint32) << 16 | fraction >> 7, sign << 23
    )
    return _bits(narrow.astype(np.uint32), 24, order)


def _floats_predicted(data: np.ndarray, whole: bytes) -> bytes:
    """The floating-point predictor (Adobe's TIFF technical note 3): bytes by weight, then differences.

    ``whole`` is the floats of ``data`` in big-endian bytes.
    """
    height, width, samples = data.shape
    big = np.frombuffer(whole, np.uint8).reshape(height, width * samples, -1)
    rows = big.transpose(0, 2, 1).reshape(height, -1, samples)
    return np.concatenate([rows[:, :1], np.diff(rows, axis=1)], axis=1).tobytes()


def compressed(kind: Kind, segment: np.ndarray) -> bytes:
    """The bytes of a segment as they are stored."""
    picture = np.ascontiguousarray(segment[..., 0] if segment.shape[-1] == 1 else segment)
    match kind.compression:
        case "jpeg":
            space = {3: "RGB" if kind.photometric == RGB else "YCBCR", 1: "GRAYSCALE"}[segment.shape[-1]]
            given = "RGB" if segment.shape[-1] == 3 else "GRAYSCALE"
            return bytes(
                imagecodecs.jpeg_encode(picture, 98, colorspace=given, outcolorspace=space, subsampling="444")
            )
        case "webp":
            return bytes(imagecodecs.webp_encode(picture, lossless=True))
        case "jpeg2000":
            return bytes(
                imagecodecs.jpeg2k_encode(picture, level=0, codecformat="j2k", reversible=True, mct=False)
            )
        case "jpegxl":
            return bytes(imagecodecs.jpegxl_encode(picture, lossless=True))
        case (
            "lerc"
        ):  # libtiff swaps the bytes of a big-endian file before it encodes them, and after decoding
            picture = picture.byteswap() if kind.order == ">" else picture
            return bytes(imagecodecs.lerc_encode(picture, level=0))
        case "fax4":
            return _faxed(picture)
    data = packed(kind, segment)
    match kind.compression:
        case "lzw":
            data = bytes(imagecodecs.lzw_encode(data))
        case "deflate" | "old deflate":
            data = zlib.compress(data)
        case "packbits":
            each = len(data) // segment.shape[0]
            data = b"".join(
                bytes(imagecodecs.packbits_encode(data[i : i + each])) for i in range(0, len(data), each)
            )
        case "lzma":
            data = bytes(imagecodecs.lzma_encode(data))
        case "zstd":
            data = bytes(imagecodecs.zstd_encode(data))
    return bytes(imagecodecs.bitorder_encode(data)) if kind.reverse else data


def _faxed(bits: np.ndarray) -> bytes:
    """Bits, (h, w), in T.6, by libvips, which writes a TIFF of one strip that is white where it is 0."""
    image = pyvips.Image.new_from_array((1 - bits) * np.uint8(255)).copy(interpretation="b-w")
    tiff = image.tiffsave_buffer(compression="ccittfax4", bitdepth=1, miniswhite=True)
    with tifffile.TiffFile(io.BytesIO(tiff)) as file:
        page = file.pages.first
        assert page.photometric == WHITE and len(page.dataoffsets) == 1
        return tiff[page.dataoffsets[0] :][: page.databytecounts[0]]


def left_out(kind: Kind, index: int) -> bool:
    """Whether a sparse file does not store this segment: of each plane the second one."""
    return kind.sparse and index % _per_plane(kind) == 1


def _per_plane(kind: Kind) -> int:
    down = -(-HEIGHT // {"tiles": TILE[0], "strips": ROWS, "one strip": HEIGHT}[kind.layout])
    return down * (-(-WIDTH // TILE[1]) if kind.layout == "tiles" else 1)


def specimen(kind: Kind) -> tuple[Tags, list[bytes]]:
    """The tags of a file and its segments, ready for `write`."""
    form, bits, _ = kind.format
    pixels = samples_of(kind)
    segments = [
        b"" if left_out(kind, i) else compressed(kind, segment)
        for i, segment in enumerate(segments_of(kind, pixels))
    ]
    tags: Tags = {
        256: (4, [WIDTH]), 257: (4, [HEIGHT]), 258: (3, [bits] * kind.bands),
        259: (3, [COMPRESSIONS[kind.compression]]), 262: (3, [kind.photometric]), 277: (3, [kind.bands]),
        284: (3, [2 if kind.planar else 1]), 339: (3, [form] * kind.bands),
    }  # fmt: skip
    if kind.layout == "tiles":
        tags |= {322: (4, [TILE[1]]), 323: (4, [TILE[0]]), 324: (16 if kind.big else 4, None), 325: (4, None)}
    else:
        rows = ROWS if kind.layout == "strips" else HEIGHT
        tags |= {273: (16 if kind.big else 4, None), 278: (4, [rows]), 279: (4, None)}
    if kind.predictor > 1:
        tags[317] = 3, [kind.predictor]
    if kind.reverse:
        tags[266] = 3, [2]
    if kind.extra:
        tags[338] = 3, [EXTRA[kind.extra]]
    if kind.photometric == PALETTE:
        tags[320] = 3, palette(bits).T.ravel().tolist()
    if kind.photometric == YCBCR:
        tags[530] = 3, [1, 1]
    return tags, segments


def write(path: Path, tags: Tags, segments: list[bytes], order: str = "<", big: bool = False) -> Path:
    """Write a TIFF of one directory, with the segments before it.

    Tables whose value is None are filled with the places or sizes of the segments. A key may be negative:
    such a tag is written after the one with that code, as a second one.
    """
    link, wide = ("Q", 8) if big else ("I", 4)
    out = bytearray((b"II" if order == "<" else b"MM") + struct.pack(order + "H", 43 if big else 42))
    out += struct.pack(order + "HHQ", 8, 0, 0) if big else bytes(4)
    places = []
    for segment in segments:
        out += bytes(len(out) % 2)
        places.append(len(out) if segment else 0)
        out += segment
    entries = []
    for code, (kind, value) in sorted(tags.items(), key=lambda item: (abs(item[0]), item[0] < 0)):
        if value is None:
            value = places if code in (273, 324) else [len(segment) for segment in segments]
        letter, size = TYPES[kind]
        data = value if isinstance(value, bytes) else struct.pack(f"{order}{len(value)}{letter}", *value)
        inline = data.ljust(wide, b"\0")
        if len(data) > wide:
            out += bytes(len(out) % 2)
            inline = struct.pack(order + link, len(out))
            out += data
        entries.append(struct.pack(order + "HH" + link, abs(code), kind, len(data) // size) + inline)
    out += bytes(len(out) % 2)
    struct.pack_into(order + link, out, wide, len(out))
    out += struct.pack(order + ("Q" if big else "H"), len(entries)) + b"".join(entries) + bytes(wide)
    path.write_bytes(out)
    return path


def all_kinds() -> list[Kind]:
    """A few thousand kinds; neighbours differ in few axes.

    Meaning, samples, planes, compression and predictor are combined fully; the byte order, the size of
    offsets, strips or tiles, whether it is sparse, the order of bits, and extra samples go round.
    """
    codes = [(name, 1) for name in COMPRESSIONS] + [
        (name, predictor) for name in (*sorted(PREDICTED), "none", "packbits") for predictor in (2, 3)
    ]
    rest = itertools.cycle(
        itertools.product(
            ("<", ">"), (False, True), ("tiles", "strips", "one strip"), (False, True),
            ("", "unassociated", "", "associated", "unspecified"), (False, False, True),
        )
    )  # fmt: skip
    simpler: list[dict[str, Any]] = [
        {},
        {"extra": ""},
        {"extra": "", "reverse": False},
        {"extra": "", "reverse": False, "sparse": False},
    ]
    kinds: dict[Kind, None] = {}
    for main in itertools.product(COLOURS, SAMPLES, (False, True), codes):
        meaning, samples, planar, (code, predictor) = main
        for _ in range(4):
            *_, (order, big, layout, sparse, extra, reverse) = itertools.islice(
                rest, 7
            )  # 7 is prime to all axes
            kind = Kind(meaning, samples, planar, code, predictor, order, big, layout, sparse, extra, reverse)
            made = (replace(kind, **less) for less in simpler)
            if (fits := next(filter(exists, made), None)) is not None:
                kinds[fits] = None
    return list(kinds)


def sample(count: int) -> list[Kind]:
    """At least ``count`` kinds, always the same: spread evenly, and with every value of every axis."""
    kinds = all_kinds()
    chosen = dict.fromkeys(kinds[i * len(kinds) // count] for i in range(count))
    for axis in fields(Kind):
        seen = {getattr(kind, axis.name) for kind in chosen}
        for kind in kinds:
            if getattr(kind, axis.name) not in seen:
                seen.add(getattr(kind, axis.name))
                chosen[kind] = None
    return list(chosen)
