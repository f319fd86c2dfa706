"""Five kinds of TIFF, cut off and with single bits flipped: what is noticed, and what nobody could notice.

A file is *structure* (header, directories, tables) and *data* (what tiles and strips hold; JPEG's own tables
belong to it). Claimed is, for every cut and for every single flipped bit:

- no traceback, no hang, no huge allocation: pixels, or one sentence that names the file;
- a cut file is refused;
- a flip in deflate's data is refused or changes no pixel, since deflate carries a checksum; one in data that
  is plain, LZW or JPEG may change pixels, and nothing else;
- a flip in the structure is refused or changes no pixel, except where it makes another valid TIFF (`VALID`):
  another size with the same number of tiles, another meaning of the same samples, an optional tag that is no
  longer there; and except in LZW's byte counts, which have no checksum: one byte less may still decode.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import pyvips
import tifffile

from urst_tiles.errors import BadInput, DamagedFile
from urst_tiles.geometry import Box
from urst_tiles.source import open_source

NOISE = np.random.default_rng(5).integers(0, 256, (150, 200, 3), np.uint8)
PIXELS = np.asarray(pyvips.Image.new_from_array(NOISE).gaussblur(1).numpy())
PLACE = [(33550, 12, 3, (10.0, 10.0, 0.0), True), (33922, 12, 6, (0.0, 0.0, 0.0, 5e5, 5e6, 0.0), True)]
PLAIN = {"photometric": "rgb", "metadata": None}

#: What a flip may turn into another valid file: size and meaning (ImageWidth, ImageLength,
#: PhotometricInterpretation, Orientation, ExtraSamples), and the code of an optional tag (Predictor,
#: ExtraSamples).
VALID = {"256 value", "257 value", "262 value", "274 value", "338 value", "317 code", "338 code"}


def deflate_tiles(path: Path) -> None:
    tifffile.imwrite(
        path, PIXELS, tile=(64, 64), compression="deflate", predictor=True, extratags=PLACE, **PLAIN
    )


def plain_strips(path: Path) -> None:
    tifffile.imwrite(path, PIXELS, rowsperstrip=20, byteorder=">", **PLAIN)


def lzw_tiles(path: Path) -> None:
    alpha = np.full((*PIXELS.shape[:2], 1), 255, np.uint8)
    alpha[:40, :40] = 0
    tifffile.imwrite(
        path, np.dstack([PIXELS, alpha]), tile=(64, 64), compression="lzw", predictor=True, bigtiff=True,
        extrasamples=["unassalpha"], **PLAIN,
    )  # fmt: skip


def jpeg_tiles(path: Path) -> None:
    image = pyvips.Image.new_from_array(PIXELS)
    image.tiffsave(str(path), compression="jpeg", tile=True, tile_width=64, tile_height=64)


def deflate_planes(path: Path) -> None:
    wide = PIXELS.transpose(2, 0, 1).astype(np.uint16) * 200
    tifffile.imwrite(path, wide, planarconfig="separate", compression="zlib", rowsperstrip=30, **PLAIN)


#: Bytes of TIFF's data types, as far as these files use them.
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1, 12: 8, 16: 8}

KINDS: dict[str, Callable[[Path], None]] = {
    "deflate tiles": deflate_tiles,
    "plain strips": plain_strips,
    "LZW tiles, BigTIFF": lzw_tiles,
    "JPEG tiles": jpeg_tiles,
    "deflate planes": deflate_planes,
}


def labels(data: bytes) -> list[str]:
    """What every byte of a TIFF is: "data", "header", "directory", or a part of a tag: "256 value"."""
    order = "<" if data[:2] == b"II" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    link, wide, width, count = ("Q", 8, 20, "Q") if big else ("I", 4, 12, "H")
    found = ["data"] * len(data)
    found[: 2 * wide] = ["header"] * (2 * wide)
    (start,) = struct.unpack_from(order + link, data, wide)
    (entries,) = struct.unpack_from(order + count, data, start)
    first = start + struct.calcsize(count)
    end = first + entries * width
    found[start : end + wide] = ["directory"] * (end + wide - start)
    assert struct.unpack_from(order + link, data, end) == (0,), "one directory"
    for at in range(first, end, width):
        code, kind, number = struct.unpack_from(order + "HH" + link, data, at)
        size = number * SIZES[kind]
        value = at + 4 + wide
        for name, place, length in (("code", at, 2), ("type", at + 2, 2), ("count", at + 4, wide)):
            found[place : place + length] = [f"{code} {name}"] * length
        if size > wide:
            found[value : value + wide] = [f"{code} pointer"] * wide
            (value,) = struct.unpack_from(order + link, data, value)
        found[value : value + size] = ["data" if code == 347 else f"{code} value"] * size
    return found


def read(path: Path, folder: Path) -> np.ndarray | str:
    """All pixels, or the sentence that says why not."""
    try:
        source = open_source(path).prepare(folder, thumbnail=8)
        assert source.shape[0] * source.shape[1] < 1 << 22, "pixels that the file cannot hold"
        return source.read(Box(0, 0, *source.shape))
    except (DamagedFile, BadInput) as error:
        text = str(error)
        assert str(path) in text and "\n" not in text and len(text) < 400, text
        return text


def equal(a: np.ndarray | str, b: np.ndarray | str) -> bool:
    return not isinstance(a, str) and not isinstance(b, str) and a.dtype == b.dtype and np.array_equal(a, b)


class Case:
    """A good file, its bytes and what they are, its pixels; and where to put bad ones."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.folder, self.path = kind, folder, folder / "a.tif"
        KINDS[kind](self.path)
        self.bytes, self.pixels = self.path.read_bytes(), read(self.path, folder / "good")
        self.labels = labels(self.bytes)
        assert not isinstance(self.pixels, str), self.pixels
        self._count = 0

    def read(self, data: bytes) -> np.ndarray | str:
        self._count += 1
        self.path.write_bytes(data)
        return read(self.path, self.folder / str(self._count))

    def check_flip(self, at: int, bit: int) -> str:
        """What became of it: "refused", "the same", or "other pixels" where that is allowed."""
        data = bytearray(self.bytes)
        data[at] ^= 1 << bit
        found, label = self.read(bytes(data)), self.labels[at]
        if isinstance(found, str):
            return "refused"
        if equal(found, self.pixels):
            return "the same"
        where = f"bit {bit} of byte {at} ({label}) of {self.kind}"
        if label == "data":
            assert not self.kind.startswith("deflate"), where
            assert found.shape == self.pixels.shape and found.dtype == self.pixels.dtype, where
        else:
            assert label in VALID or (label == "325 value" and self.kind.startswith("LZW")), where
        return "other pixels"


@pytest.fixture(params=KINDS)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    return Case(request.param, tmp_path)


def test_a_hundred_corruptions(case: Case) -> None:
    """Of each kind 25 cuts, 50 flips in the structure and 25 in the data."""
    random = np.random.default_rng(11)
    for length in random.integers(9, len(case.bytes), 25):
        assert isinstance(case.read(case.bytes[:length]), str), f"cut to {length} bytes"
    structure = [at for at, label in enumerate(case.labels) if label != "data"]
    data = [at for at, label in enumerate(case.labels) if label == "data"]
    places = [*random.choice(structure, 50), *random.choice(data, 25)]
    became = [case.check_flip(int(at), int(random.integers(8))) for at in places]
    assert became.count("refused") >= 20


@pytest.mark.slow
def test_every_bit_of_the_structure(case: Case) -> None:
    became = [
        case.check_flip(at, bit)
        for at, label in enumerate(case.labels)
        for bit in range(8)
        if label != "data"
    ]
    assert became.count("refused") > 0.5 * len(became) > 10 * became.count("other pixels")


def entry(data: bytes, code: int) -> int:
    """Where the entry of a tag of a little-endian classic TIFF lies."""
    (start,) = struct.unpack_from("<I", data, 4)
    return next(at for at in range(start + 2, len(data), 12) if data[at : at + 2] == struct.pack("<H", code))


def table(data: bytes, code: int) -> Iterator[int]:
    """The places of a table's numbers."""
    _, kind, count, at = struct.unpack_from("<HHII", data, entry(data, code))
    return iter(range(at, at + count * {3: 2, 4: 4}[kind], {3: 2, 4: 4}[kind]))


def moved(data: bytearray, by: int) -> None:
    """Tile 1 lies ``by`` bytes from where tile 0 does."""
    first, second, *_ = table(data, 324)
    struct.pack_into("<I", data, second, struct.unpack_from("<I", data, first)[0] + by)


def number(code: int, value: int) -> Callable[[bytearray], None]:
    return lambda data: struct.pack_into("<H", data, entry(data, code) + 8, value)


CONTRADICTIONS: dict[str, tuple[Callable[[bytearray], None], str]] = {
    "a tile inside another": (lambda data: moved(data, 100), "where something else lies"),
    "a tile in the header": (
        lambda data: struct.pack_into("<I", data, next(table(data, 324)), 4), "where something else lies"
    ),
    "a tile in the directory": (
        lambda data: struct.pack_into("<I", data, next(table(data, 324)), entry(data, 256)),
        "where something else lies",
    ),
    "fewer tiles than the tables have": (number(256, 72), "needs 6 tiles or strips, but its tables list 12"),
    "fewer bands than the tiles have": (number(277, 1), "can be no colour"),
    "narrower tiles": (number(322, 48), "tables list 12"),
    "a band too many": (number(277, 4), "bytes, and its pixels take"),
    "no meaning of samples": (number(262, 999), "mean nothing that is known"),
    "bands neither side by side nor apart": (number(284, 7), "not 7"),
    "a width of a strange type": (
        lambda data: struct.pack_into("<H", data, entry(data, 256) + 2, 2), "must hold one whole number"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_what_contradicts_itself_is_noticed(name: str, tmp_path: Path) -> None:
    path, (change, words) = tmp_path / "a.tif", CONTRADICTIONS[name]
    deflate_tiles(path)
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)
    found = read(path, tmp_path / "job")
    assert isinstance(found, str) and words in found, found


def one_strip(path: Path, rows: int, stored: bytes, height: int = 4, width: int = 6) -> None:
    """A plain grey TIFF of two strips of ``rows`` rows, the second made of ``stored``."""
    first = bytes(range(rows * width))
    tags = [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
        (273, 4, 2, 8), (277, 3, 1, 1), (278, 4, 1, rows), (279, 4, 2, 16),
    ]  # fmt: skip
    tables = struct.pack("<4I", 200, 200 + len(first), len(first), len(stored))
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = struct.pack("<2sHI", b"II", 42, 24) + tables + struct.pack("<H", len(tags)) + entries + bytes(4)
    path.write_bytes(head.ljust(200, b"\0") + first + stored)


@pytest.mark.parametrize(("more", "fits"), [(0, True), (2, True), (12, True), (6, True), (-1, False)])
def test_a_last_strip_may_be_padded_or_whole(more: int, fits: bool, tmp_path: Path) -> None:
    """Three rows a strip, hence one in the last: alone, padded, with the two below, or with other bytes."""
    path = tmp_path / "a.tif"
    one_strip(path, 3, bytes(range(100, 106 + more)))
    found = read(path, tmp_path / "job")
    assert (not isinstance(found, str)) == fits, found
    if fits:
        np.testing.assert_array_equal(found[3, :, 0], np.arange(100, 106))


@pytest.mark.parametrize("compression", ["deflate", None])
def test_bottom_tiles_may_end_with_the_image(compression: str | None, tmp_path: Path) -> None:
    """As some writers leave the rows below the image out; and one stored tile may serve two places."""
    path, half = tmp_path / "a.tif", PIXELS[:, :64, 0]
    options = PLAIN | {"photometric": "minisblack", "compression": compression}
    tifffile.imwrite(path, np.hstack([half, half]), tile=(64, 64), **options)
    whole = read(path, tmp_path / "whole")
    data = bytearray(path.read_bytes())
    for code in (324, 325):
        first, second, third, *_ = table(data, code)
        data[second:third] = data[first:second]
    path.write_bytes(data)
    assert equal(read(path, tmp_path / "shared"), whole)
    if compression is None:
        *_, last = table(data, 325)
        struct.pack_into("<I", data, last, 22 * 64)
        path.write_bytes(data)
        assert equal(read(path, tmp_path / "short"), whole)
