"""What libraries warn of although no pixel is damaged is read; what is damaged is still noticed."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import pyvips
from tiff_zoo import WHITE, Kind, specimen, write

from urst_tiles.errors import BadInput, DamagedFile
from urst_tiles.geometry import Box
from urst_tiles.source import open_source

Y, X = np.mgrid[:120, :160]
PIXELS = np.stack([X, 2 * Y, X + Y], -1).astype(np.uint8)


def jpeg(progressive: bool = False) -> bytes:
    image = pyvips.Image.new_from_array(PIXELS)
    return bytes(image.jpegsave_buffer(Q=90, keep="none", interlace=progressive))


def behind_start(part: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data[:2] + part + data[2:]


def spectral_bounds(data: bytes) -> bytes:
    scan = data.find(b"\xff\xda")
    end = scan + 2 + struct.unpack_from(">H", data, scan + 2)[0]
    return data[: end - 3] + bytes(3) + data[end:]


HARMLESS: dict[str, Callable[[bytes], bytes]] = {
    "spectral bounds of 0": spectral_bounds,
    "bytes between markers": behind_start(b"\0\0"),
    "a version of JFIF that nobody has defined": behind_start(
        b"\xff\xe0\0\x10JFIF\0\x09\x09\0\0\x01\0\x01\0\0"
    ),
    "a transform of Adobe that nobody has defined": behind_start(b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\x07"),
    "bytes before the end": lambda data: data[:-2] + b"\0\0\0" + data[-2:],
    "bytes behind the end": lambda data: data + b"padding" * 99,
    "metadata that makes no sense": behind_start(b"\xff\xe1\0\x10Exif\0\0II*\0\xff\xff\xff\xff"),
}


def read(path: Path, folder: Path) -> np.ndarray:
    source = open_source(path).prepare(folder, thumbnail=8)
    return source.read(Box(0, 0, *source.shape))


@pytest.mark.parametrize("name", HARMLESS)
def test_a_jpeg_with_a_harmless_fault_is_read(name: str, tmp_path: Path) -> None:
    good, odd, cut = (tmp_path / f"{word}.jpg" for word in ("good", "odd", "cut"))
    good.write_bytes(jpeg())
    odd.write_bytes(HARMLESS[name](jpeg()))
    cut.write_bytes(HARMLESS[name](jpeg()[: len(jpeg()) * 2 // 3]))
    np.testing.assert_array_equal(read(odd, tmp_path / "a"), read(good, tmp_path / "b"))
    with pytest.raises(DamagedFile):
        read(cut, tmp_path / "c")


def test_the_scans_of_a_progressive_jpeg_keep_their_bounds(tmp_path: Path) -> None:
    good, odd = tmp_path / "good.jpg", tmp_path / "odd.jpg"
    good.write_bytes(jpeg(progressive=True))
    odd.write_bytes(HARMLESS["bytes between markers"](jpeg(progressive=True)))
    np.testing.assert_array_equal(read(odd, tmp_path / "a"), read(good, tmp_path / "b"))


def test_a_fax_with_any_other_tag_is_read_and_one_that_is_cut_is_noticed(tmp_path: Path) -> None:
    kind = Kind(WHITE, "uint1", compression="fax4", layout="one strip")
    tags, segments = specimen(kind)
    good = read(write(tmp_path / "good.tif", dict(tags), segments), tmp_path / "a")
    odd = {305: (2, b"Scan\0Soft\0"), 279: (4, [0]), 65000: (9, [-1]), 274: (3, [1, 1]), -262: (3, [1])}
    path = write(tmp_path / "odd.tif", tags | odd, segments)
    np.testing.assert_array_equal(read(path, tmp_path / "b"), good)
    cut = write(tmp_path / "cut.tif", tags, [segments[0][: len(segments[0]) // 2]])
    with pytest.raises(DamagedFile, match="its fax codes are damaged"):
        read(cut, tmp_path / "c")


def test_a_group_3_fax_without_ends_of_lines_is_refused_with_the_true_reason(tmp_path: Path) -> None:
    """libtiff reads it, with a warning that stands for damage elsewhere: nothing could be told apart."""
    kind = Kind(WHITE, "uint1", compression="fax4", layout="one strip")
    tags, _ = specimen(kind)
    white = bytes([0b01001101, 0b10011011] * 40)  # white runs of T.4, and no end of a line
    path = write(tmp_path / "a.tif", tags | {259: (3, [3])}, [white])
    with pytest.raises(BadInput, match=r"a\.tif: the rows of its fax picture .* tiffcp -c g4"):
        read(path, tmp_path / "job")
    begins = write(tmp_path / "b.tif", tags | {259: (3, [3])}, [b"\0\x10" + white])
    with pytest.raises(DamagedFile, match="its fax codes are damaged"):
        read(begins, tmp_path / "job")
