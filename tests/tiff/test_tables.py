"""Entries and tables of strips and tiles: what is put up with, and what is damage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiff_zoo import BLACK, RGB, Kind, Tags, specimen, write

from urst_tiles.errors import DamagedFile
from urst_tiles.geometry import Box
from urst_tiles.source import open_source
from urst_tiles.tiff.pages import TiffFile
from urst_tiles.tiff.streams import ended, jpeg_ends

STRIPS = Kind(BLACK, compression="deflate", layout="strips")
PLAIN = Kind(BLACK, layout="strips")


def opened(kind: Kind, folder: Path, change: Callable[[Tags, list[bytes]], None]) -> np.ndarray:
    tags, segments = specimen(kind)
    change(tags, segments)
    path = write(folder / "a.tif", tags, segments, kind.order, kind.big)
    source = open_source(path).prepare(folder / "job", thumbnail=8)
    return source.read(Box(0, 0, *source.shape))


def put(code: int, kind: int, *values: int) -> Callable[[Tags, list[bytes]], None]:
    return lambda tags, segments: tags.update({code: (kind, list(values))})


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        (PLAIN, put(262, 3, 1, 0), "must hold one whole number"),
        (PLAIN, put(256, 4, 53, 9), "must hold one whole number"),
        (PLAIN, put(256, 11, 53), "must hold one whole number"),
        (PLAIN, put(256, 9, -53), "no page of this TIFF has any pixel"),
        (PLAIN, put(279, 4, 530, 530, 529, 371), "has 529 bytes, and its pixels take 530"),
        (PLAIN, put(279, 4, 530, 530, 530), "list 4 places and 3 sizes"),
        (PLAIN, put(273, 4, 8, 538, 1068, 90_000), "it is cut off or damaged"),
        (PLAIN, put(273, 4, 8, 538, 1068, 1100), "where something else lies"),
        (PLAIN, put(273, 4, 0, 538, 1068, 1598), "strip 0"),
        (STRIPS, put(279, 4, 90_000, 1, 1, 1), "it is cut off or damaged"),
        (STRIPS, put(279, 4, 9, 9, 9, 9), "cannot be decoded"),
    ],
)
def test_what_is_damage(
    kind: Kind, change: Callable[[Tags, list[bytes]], None], words: str, tmp_path: Path
) -> None:
    with pytest.raises(DamagedFile, match=words):
        opened(kind, tmp_path, change)


def test_a_narrow_number_with_more_behind_it_was_a_wide_one(tmp_path: Path) -> None:
    """In a big-endian file a SHORT whose type became BYTE would be read as 0, a width of 256 as 1."""
    tags, segments = specimen(Kind(RGB, order=">"))
    data = bytearray(write(tmp_path / "a.tif", tags, segments, ">").read_bytes())
    (directory,) = TiffFile(tmp_path / "a.tif").directories
    data[directory.offset + 2 + 12 * sorted(tags).index(262) + 3] = 1
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(DamagedFile, match="tag 262 must hold one whole number"):
        open_source(tmp_path / "a.tif")


@pytest.mark.parametrize("compression", ["none", "deflate"])
def test_a_size_of_0_is_left_out_only_at_place_0(compression: str, tmp_path: Path) -> None:
    kind = Kind(BLACK, compression=compression, layout="strips")

    def change(tags: Tags, segments: list[bytes]) -> None:
        segments[2] = b""  # written with place 0 and size 0
        tags[279] = 4, [0, len(segments[1]), 0, 0]

    found = opened(kind, tmp_path, change)
    assert found.shape[-1] == 4
    rows = np.arange(found.shape[0]) // 10
    np.testing.assert_array_equal(found[..., 3] > 0, np.broadcast_to((rows != 2)[:, None], found.shape[:2]))


def test_where_streams_end() -> None:
    jpeg = b"\xff\xd8\xff\xe1\x00\x06\xff\xd8\xff\xd9\xff\xda\x00\x02scan\xff\xd9"
    assert jpeg_ends(jpeg) and jpeg_ends(jpeg + bytes(5000))
    assert not jpeg_ends(jpeg[:-2]) and not jpeg_ends(jpeg[:-2] + bytes(5000)), (
        "the end is that of a thumbnail"
    )
    assert ended(32773, b"\x02abc\xfed" + b"\x07rest", (6, 6)) == b"\x02abc\xfed"
    assert ended(32773, b"\x02abc\xfed", (9, 9)) == b"\x02abc\xfed"
    assert ended(5, b"any", (1, 1)) == b"any"
