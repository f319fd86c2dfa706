"""Old-style JPEG is put together as libtiff does it, from whatever parts the file has."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from meaning import HEIGHT, RGB, WIDTH, assert_near, gdal, read, write

from urst_tiles.errors import DamagedFile

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

NAMES = {(1, 1): "444", (2, 1): "422", (2, 2): "420"}

#: How far GDAL may be off: it repeats colour differences, where libjpeg passes smoothly from one to the next.
SMOOTH = {(1, 1): 1, (2, 1): 6, (2, 2): 6}


def encoded(rgb: np.ndarray, subsampling: tuple[int, int]) -> bytes:
    spaces = {"colorspace": "RGB", "outcolorspace": "YCbCr"}
    return imagecodecs.jpeg8_encode(rgb.copy(), level=95, subsampling=NAMES[subsampling], **spaces)


def decoded(stream: bytes) -> np.ndarray:
    return np.asarray(imagecodecs.jpeg8_decode(stream, colorspace="YCbCr", outcolorspace="RGB"))


def tables_of(stream: bytes) -> tuple[bytes, dict[str, Any]]:
    """The tables of a stream one after another, and the tags that say where they lie behind byte 16."""
    data, more = b"", {}
    for code, tables in taken_apart(stream)[2].items():
        places = []
        for k in (0, 1, 1):
            places.append(16 + len(data))
            data += tables[k]
        more[f"_{519 + code}"] = places
    return data, more


def taken_apart(stream: bytes) -> tuple[int, bytes, dict[int, list[bytes]]]:
    """Where the scan of a JPEG stream begins, the scan, and tables: 0 quantisation, 1 DC and 2 AC codes."""
    at, tables = 2, {0: [b""] * 4, 1: [b""] * 4, 2: [b""] * 4}
    while stream[at + 1] != 0xDA:
        marker, (length,) = stream[at + 1], struct.unpack_from(">H", stream, at + 2)
        body, k = stream[at + 4 : at + 2 + length], 0
        while marker in (0xDB, 0xC4) and k < len(body):
            size = 64 if marker == 0xDB else 16 + sum(body[k + 1 : k + 17])
            tables[0 if marker == 0xDB else 1 + (body[k] >> 4)][body[k] & 15] = body[k + 1 : k + 1 + size]
            k += 1 + size
        at += 2 + length
    at += 2 + struct.unpack_from(">H", stream, at + 2)[0]
    return at, stream[at:-2], tables


@pytest.mark.parametrize("subsampling", [(1, 1), (2, 1), (2, 2)])
@pytest.mark.parametrize("form", ["a whole stream", "a header", "tables"])
def test_old_style_jpeg(form: str, subsampling: tuple[int, int], tmp_path: Path) -> None:
    stream = encoded(RGB, subsampling)
    at, scan, _ = taken_apart(stream)
    more: dict[str, Any] = {"_513": 16, "_514": len(stream)}
    data = stream
    if form == "a header":
        more = {"_513": 16, "_514": at, "_273": 16 + at, "_279": len(scan)}
    elif form == "tables":
        data, more = tables_of(stream)
        more |= {"_273": 16 + len(data), "_279": len(scan)}
        data += scan
    path = write(tmp_path / "a.tif", data, 6, _259=6, _512=1, _530=subsampling, **more)
    found = read(path)
    assert_near(found, gdal(path)[0], SMOOTH[subsampling])
    np.testing.assert_array_equal(found, decoded(stream))


def test_old_style_jpeg_in_strips_and_damaged(tmp_path: Path) -> None:
    """Strips are joined by the markers that restart decoding."""
    stream = imagecodecs.jpeg8_encode(RGB[..., 0].copy(), level=95)
    at, _, _ = taken_apart(stream)
    restart = stream[:at].replace(b"\xff\xda", b"\xff\xdd\x00\x04" + struct.pack(">H", 48) + b"\xff\xda", 1)
    upper, lower = (taken_apart(imagecodecs.jpeg8_encode(half.copy(), level=95))[1] for half in
                    (RGB[:32, :, 0], RGB[32:, :, 0]))  # fmt: skip
    at = 16 + len(restart)
    more = {"_278": 32, "_273": (at, at + len(upper)), "_279": (len(upper), len(lower)), "_513": 16}
    data = restart + upper + lower
    path = write(tmp_path / "a.tif", data, 1, (8,), _259=6, _512=1, _514=len(restart), **more)
    expected = imagecodecs.jpeg8_decode(stream)
    np.testing.assert_array_equal(read(path)[..., 0], expected)
    damaged = write(tmp_path / "b.tif", data, 1, (8,), _259=6, _512=1, _514=40, **more)
    with pytest.raises(DamagedFile, match=r"b\.tif"):
        read(damaged)


@pytest.mark.parametrize("subsampling", [(1, 1), (2, 1), (2, 2)])
def test_strips_of_which_the_first_begins_with_the_scans_header(
    subsampling: tuple[int, int], tmp_path: Path
) -> None:
    """The piece (tag 513) has tables and a frame and no scan: so does the fax software of Windows write."""
    whole = encoded(RGB, subsampling)
    halves = [encoded(half, subsampling) for half in (RGB[:32], RGB[32:])]
    start = whole.index(b"\xff\xda")
    upper, lower = halves[0][halves[0].index(b"\xff\xda") : -2], taken_apart(halves[1])[1]
    at, header = 16 + start, whole[:start]
    path = write(
        tmp_path / "a.tif", header + upper + lower, 6, _259=6, _512=1, _513=16, _514=start, _515=0,
        _278=32, _273=(at, at + len(upper)), _279=(len(upper), len(lower)), _530=subsampling,
    )  # fmt: skip
    found = read(path)
    assert_near(found, gdal(path)[0], SMOOTH[subsampling])
    np.testing.assert_array_equal(found[:24], decoded(whole)[:24])


@pytest.mark.parametrize("shared", ["tables", "a header"])
@pytest.mark.parametrize("subsampling", [(1, 1), (2, 2)])
def test_tiles(subsampling: tuple[int, int], shared: str, tmp_path: Path) -> None:
    """Each tile is a picture of its own; the last ones reach beyond the image."""
    padded = np.pad(RGB, ((0, 0), (0, 32), (0, 0)), "edge")
    streams = [encoded(padded[:, x : x + 64], subsampling) for x in (0, 64)]
    if shared == "tables":
        data, more = tables_of(streams[0])
    else:
        data = streams[0][: taken_apart(streams[0])[0]]
        more = {"_513": 16, "_514": len(data)}
    scans = [taken_apart(stream)[1] for stream in streams]
    places = [16 + len(data), 16 + len(data) + len(scans[0])]
    path = write(
        tmp_path / "a.tif", data + b"".join(scans), 6, tiled=True, _259=6, _512=1, _322=64, _323=HEIGHT,
        _324=places, _325=[len(scan) for scan in scans], _530=subsampling, **more,
    )  # fmt: skip
    expected = np.concatenate([decoded(stream) for stream in streams], axis=1)[:, :WIDTH]
    np.testing.assert_array_equal(read(path), expected)


def test_a_single_tile_is_as_in_gdal(tmp_path: Path) -> None:
    stream = encoded(RGB, (2, 2))
    data, more = tables_of(stream)
    scan = taken_apart(stream)[1]
    more |= {"_324": 16 + len(data), "_325": len(scan)}
    path = write(tmp_path / "a.tif", data + scan, 6, tiled=True, _259=6, _512=1, _530=(2, 2), **more)
    assert_near(read(path), gdal(path)[0], 6)


def test_a_strip_that_is_a_whole_stream_beside_a_piece_in_the_wrong_place(tmp_path: Path) -> None:
    stream = imagecodecs.jpeg8_encode(RGB[..., 0].copy(), level=95)
    path = write(tmp_path / "a.tif", stream, 1, (8,), _259=6, _513=22, _514=len(stream))
    np.testing.assert_array_equal(read(path)[..., 0], imagecodecs.jpeg8_decode(stream))


@pytest.mark.parametrize("more", [{"_262": 2}, {"_277": None}, {"_262": None}, {"_262": 2, "_277": None}])
def test_three_bands_are_ycbcr_whatever_the_directory_says_or_leaves_out(
    more: dict[str, Any], tmp_path: Path
) -> None:
    stream = encoded(RGB, (2, 1))
    path = write(
        tmp_path / "a.tif", stream, 6, _259=6, **{"_513": 16, "_514": len(stream), "_530": (2, 1)} | more
    )
    found = read(path)
    np.testing.assert_array_equal(found, decoded(stream))
    assert_near(found, gdal(path)[0], 6)


def test_black_and_white_are_those_of_the_directory(tmp_path: Path) -> None:
    stream = encoded(RGB // 2 + 60, (1, 1))
    black_and_white = (16, 1, 235, 1, 128, 1, 240, 1, 128, 1, 240, 1)
    path = write(
        tmp_path / "a.tif", stream, 6, _259=6, _513=16, _514=len(stream), _530=(1, 1), _532=black_and_white
    )
    found = read(path)
    assert_near(found, gdal(path)[0], 3)
    assert np.abs(found.astype(int) - decoded(stream)).max() > 5
