"""Small files that ask for all memory or time: each is one sentence, at once, in little memory."""

from __future__ import annotations

import os
import resource
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile

from urst_tiles.errors import BadInput, DamagedFile, UrstError
from urst_tiles.geometry import Box
from urst_tiles.pyramid import validate
from urst_tiles.source import open_source
from urst_tiles.source.picture import read_picture
from urst_tiles.tiff.budget import MOST_TEXT_BYTES
from urst_tiles.tiff.metadata import clean_gdal_metadata
from urst_tiles.tiff.streams import SIZES, Size, check_size

#: What no file of a few kilobytes or megabytes may take beyond what this process has.
MOST_BYTES, MOST_SECONDS = 400 << 20, 20.0


@contextmanager
def bounded() -> Iterator[None]:
    """The block takes little time, and little more memory than this process held before."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.thread_time()
    yield
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert more < MOST_BYTES and time.thread_time() - start < MOST_SECONDS


def stored(path: Path, data: bytes, compression: int, side: int = 64, *, bits: int = 8, strip: bool = False,
           more: tuple[tuple[int, int, int, int], ...] = (), bands: int = 3) -> Path:  # fmt: skip
    """A TIFF of ``side`` x ``side`` pixels whose only tile or strip has these bytes."""
    place = [(273, 4, 1, 8), (278, 4, 1, side), (279, 4, 1, len(data))]
    if not strip:
        place = [(322, 4, 1, side), (323, 4, 1, side), (324, 4, 1, 8), (325, 4, 1, len(data))]
    meaning = 6 if compression in (6, 7) and bands == 3 else 2 if bands == 3 else 1
    tags = [(256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, bits), (259, 3, 1, compression),
            (262, 3, 1, meaning), (277, 3, 1, bands), *place, *more]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    data += bytes(len(data) % 2)
    head = struct.pack("<2sHI", b"II", 42, 8 + len(data))
    path.write_bytes(head + data + struct.pack("<H", len(tags)) + entries + bytes(4))
    return path


def read_all(path: Path) -> np.ndarray:
    source = open_source(path).prepare(path.parent / f"{path.name}.job", thumbnail=8)
    return source.read(Box(0, 0, *source.shape))


def jpeg(side: int) -> bytes:
    """A JPEG of 64 x 64 pixels that says it has ``side`` x ``side``."""
    data = bytearray(imagecodecs.jpeg8_encode(np.full((64, 64, 3), 99, np.uint8)))
    struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, side, side)
    return bytes(data)


def flat(codec: str, side: int, bands: int = 3, **options: Any) -> bytes:
    """A flat picture of ``side`` x ``side`` pixels, which every codec makes very small."""
    return bytes(getattr(imagecodecs, f"{codec}_encode")(np.zeros((side, side, bands), np.uint8), **options))


def jpeg2000(side: int) -> bytes:
    data = bytearray(flat("jpeg2k", 64))
    place = data.index(b"\xff\x4f\xff\x51") + 8
    struct.pack_into(">II", data, place, side, side)
    struct.pack_into(">II", data, place + 16, side, side)  # a single tile
    return bytes(data)


def lerc(side: int) -> bytes:
    data = bytearray(flat("lerc", 64))
    struct.pack_into("<II", data, 14, side, side)
    return bytes(data)


def jpeg_xl(side: int) -> bytes:
    """Only the header: 0xFF0A, not small, 18 bits of the height, ratio 1:1, the usual metadata."""
    bits = 0 | 2 << 1 | (side - 1) << 3 | 1 << 21 | 1 << 24
    return b"\xff\x0a" + bits.to_bytes(16, "little")


#: Compression, and a stream of it that says it holds so many pixels on each side.
STREAMS: dict[str, tuple[int, Callable[[int], bytes]]] = {
    "JPEG": (7, jpeg),
    "WebP": (50001, lambda side: flat("webp", side, lossless=True)),
    "JPEG 2000": (34712, jpeg2000),
    "JPEG XL": (50002, jpeg_xl),
    "JPEG XL in boxes": (50002, lambda side: struct.pack(">I4sII4s", 12, b"JXL ", 0x0D0A870A, 0, b"jxlc")
                         + jpeg_xl(side)),
    "LERC": (34887, lerc),
    "LERC in many blobs": (34887, lambda side: flat("lerc", 64) * 400),
}  # fmt: skip


@pytest.mark.parametrize("strip", [False, True])
@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_that_says_it_is_larger_than_its_tile_is_refused(
    name: str, strip: bool, tmp_path: Path
) -> None:
    code, make = STREAMS[name]
    side = 65000 if name != "WebP" else 3000
    path = stored(tmp_path / "a.tif", make(side), code, strip=strip)
    with bounded(), pytest.raises(DamagedFile, match="instead of 64 x 64 of 3"):
        read_all(path)
    with bounded():
        assert "instead of 64 x 64 of 3" in str(validate(path)) or strip


@pytest.mark.parametrize(("name", "options"), [
    ("jpeg8", {}), ("webp", {"lossless": True}), ("webp", {"level": 50, "lossless": False}), ("jpeg2k", {}),
    ("jpeg2k", {"codecformat": 0}), ("jpegxl", {}), ("jpegxl", {"usecontainer": True}), ("lerc", {}),
])  # fmt: skip
@pytest.mark.parametrize("shape", [(64, 64, 3), (37, 91, 3), (300, 513, 3), (1000, 8, 3)])
def test_the_size_of_every_honest_stream_is_read(
    name: str, options: dict[str, Any], shape: tuple[int, int, int]
) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, shape, np.uint8)
    data = bytes(getattr(imagecodecs, f"{name}_encode")(pixels, **options))
    code = {"jpeg8": 7, "webp": 50001, "jpeg2k": 34712, "jpegxl": 50002, "lerc": 34887}[name]
    sizes = list(SIZES[code](data))
    assert sizes and all((size.height, size.width) == shape[:2] and size.bands in (3, 4) for size in sizes)
    check_size(code, data, Size(*shape))
    with pytest.raises(ValueError, match="instead of"):
        check_size(code, data, Size(shape[0] - 20, shape[1], 3))
    for length in range(0, min(len(data), 200), 7):  # a header that is cut off never raises anything else
        with suppress(ValueError):
            list(SIZES[code](data[:length]))


def test_the_size_may_lie_in_the_jpeg_tables_and_scans_are_counted(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="65000 x 65000"):
        check_size(7, jpeg(64), Size(64, 64, 3), jpeg(65000))
    with pytest.raises(ValueError, match="more than 500 scans"):
        check_size(7, jpeg(64) + b"\xff\xda\0\2" * 600, Size(64, 64, 3))


@pytest.mark.parametrize(("code", "pack"), [
    (8, lambda n: zlib.compress(bytes(60 * n), 1)), (32946, lambda n: zlib.compress(bytes(60 * n), 1)),
    (5, lambda n: imagecodecs.lzw_encode(bytes(n))),
    (50000, lambda n: imagecodecs.zstd_encode(bytes(60 * n), 1)),
    (34925, lambda n: imagecodecs.lzma_encode(bytes(n), 0)), (32773, lambda n: b"\x81\0" * (n // 128)),
])  # fmt: skip
def test_a_bomb_is_unpacked_no_further_than_its_tile(
    code: int, pack: Callable[[int], bytes], tmp_path: Path
) -> None:
    path = stored(tmp_path / "a.tif", bytes(pack(2_000_000)), code)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DamagedFile, match="cannot be decoded"):
        read_all(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def test_a_tile_of_far_more_bytes_than_pixels_is_refused(tmp_path: Path) -> None:
    path = stored(tmp_path / "a.tif", b"", 8, more=())
    data = bytearray(path.read_bytes())
    at = data.index(struct.pack("<HHII", 325, 4, 1, 0))
    struct.pack_into("<HHII", data, at, 325, 4, 1, 1 << 30)
    struct.pack_into("<HHII", data, at - 12, 324, 4, 1, 4096)
    path.write_bytes(data)
    os.truncate(path, (1 << 30) + 8192)  # a hole, which takes no disk
    with bounded(), pytest.raises(DamagedFile, match="its pixels take 12288 when"):
        read_all(path)


def directories(path: Path, count: int, entries: int, overlap: bool) -> Path:
    """A chain of directories; where they overlap, each begins 12 bytes after the last."""
    each = 12 if overlap else 2 + 12 * entries + 4
    data = bytearray(8 + count * each + 12 * entries + 1000)
    struct.pack_into("<2sHI", data, 0, b"II", 42, 8)
    for i in range(count):
        at = 8 + i * each
        struct.pack_into("<H", data, at, entries)
        end = at + 2 + 12 * entries
        if end + 4 <= len(data) and not overlap:
            struct.pack_into("<I", data, end, at + each if i + 1 < count else 0)
    if overlap:  # links and counts share bytes: a large file of zeros would do as well
        for i in range(count):
            struct.pack_into("<I", data, 8 + i * each + 2 + 12 * entries, 8 + (i + 1) * each)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("overlap", [False, True])
def test_very_many_entries_are_refused(overlap: bool, tmp_path: Path) -> None:
    path = directories(tmp_path / "a.tif", 300, 30_000 if overlap else 9_000, overlap)
    for act in (open_source, validate, lambda p: read_picture(p, 64)):
        with bounded():
            try:
                report = act(path)
                assert not report.valid
            except UrstError as error:
                assert str(path) in str(error)


@pytest.mark.parametrize("code", [40000, 324, 270])
def test_tags_that_are_each_the_whole_file_are_refused(code: int, tmp_path: Path) -> None:
    """40 000 tags of 2 MB, as private tags with codes of their own, or the same tag again and again."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((64, 64, 3), np.uint8), tile=(64, 64), photometric="rgb", metadata=None)
    data = bytearray(path.read_bytes().ljust(2 << 20, b"\0"))
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    kind, size = (4, 500_000) if code == 324 else (2, 2_000_000)
    more = [(code + i if code == 40000 else code, kind, size, 8) for i in range(20_000)]
    entries = data[start + 2 : start + 2 + 12 * count] + b"".join(struct.pack("<HHII", *tag) for tag in more)
    struct.pack_into("<I", data, 4, len(data))
    path.write_bytes(data + struct.pack("<H", count + len(more)) + entries + bytes(4))
    with bounded(), pytest.raises(DamagedFile, match="damaged or made to harm"):
        open_source(path)


@pytest.mark.parametrize("xml", [
    f'<GDALMetadata><Item name="A">{"&amp;" * 700_000}</Item></GDALMetadata>',
    f'<GDALMetadata><Item name="A">{"a&#10;" * 600_000}</Item></GDALMetadata>',
    f"<GDALMetadata>{'<Item/>' * 300_000}</GDALMetadata>",
    f"<GDALMetadata>{'<a>' * 500_000}",
    "<GDALMetadata>" + "&amp;" * (MOST_TEXT_BYTES // 4),
    "<GDALMetadata><Item " + " ".join(f"a{i}=''" for i in range(150_000)) + "/></GDALMetadata>",
], ids=["entities", "characters", "items", "depth", "length", "attributes"])  # fmt: skip
def test_metadata_takes_no_more_time_than_its_length(xml: str) -> None:
    with bounded():
        try:
            clean_gdal_metadata(xml, "scene.tif")
        except BadInput as error:
            assert "scene.tif" in str(error) and "42112" in str(error)


def test_a_long_text_of_gdals_is_read() -> None:
    """10 MB, as of files that were converted with all their attributes."""
    items = "".join(f'<Item name="NC_GLOBAL#{i}">{"history " * 12}</Item>' for i in range(80_000))
    with bounded():
        kept = clean_gdal_metadata(f"<GDALMetadata>{items}</GDALMetadata>", "scene.tif")
    assert kept is not None and kept.count("<Item ") == 80_000


def test_a_microscopes_file_with_megabytes_of_xml_and_a_thousand_pages_opens(tmp_path: Path) -> None:
    """OME-XML names each plane of a plate; it was read once for each page, and refused above 64 MB."""
    plane = (
        '<Plane TheC="0" TheT="0" TheZ="0" DeltaT="1.25" ExposureTime="0.01" PositionX="1" PositionY="2"/>'
    )
    path, page = tmp_path / "plate.ome.tif", np.full((64, 64, 3), 9, np.uint8)
    xml = f"<OME><Image><Pixels>{plane * 120_000}</Pixels></Image></OME>"
    with tifffile.TiffWriter(path) as writer:
        for i in range(1000):
            more = {"description": xml} if i == 0 else {}
            writer.write(page, tile=(64, 64), photometric="rgb", metadata=None, contiguous=False, **more)
    with bounded():
        assert open_source(path).shape == (64, 64)
    assert len(xml) > 10 << 20


def test_a_recording_of_a_hundred_thousand_pages_opens(tmp_path: Path) -> None:
    assert open_source(chain(tmp_path / "a.tif", 100_000)).shape == (16, 16)


@pytest.mark.slow
def test_masks_without_end_are_refused(tmp_path: Path) -> None:
    """A hundred thousand pages that say only that they are masks, in 2 MB."""
    with bounded(), pytest.raises(DamagedFile, match="none that fits"):
        open_source(chain(tmp_path / "a.tif", 100_000, [(254, 4, 1, 4)]))


def chain(path: Path, count: int, more: list[tuple[int, int, int, int]] | None = None) -> Path:
    """A TIFF of ``count`` pages of 16 x 16 pixels, all the same; behind the first all have the tags
    ``more``, if given."""
    tags = [(256, 4, 1, 16), (257, 4, 1, 16), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1),
            (322, 4, 1, 16), (323, 4, 1, 16), (324, 4, 1, 8), (325, 4, 1, 256)]  # fmt: skip
    out, at = [struct.pack("<2sHI", b"II", 42, 264), bytes(256)], 264
    for i in range(count):
        here = tags if more is None or i == 0 else more
        body = struct.pack("<H", len(here)) + b"".join(struct.pack("<HHII", *tag) for tag in here)
        at += len(body) + 4
        out += [body, struct.pack("<I", at if i + 1 < count else 0)]
    path.write_bytes(b"".join(out))
    return path


def test_a_huge_tag_is_hashed_and_never_taken_into_memory(tmp_path: Path) -> None:
    """As Photoshop's layers (tag 37724); where it is text that is read, it is named instead."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((64, 64, 3), np.uint8), tile=(64, 64), photometric="rgb", metadata=None,
                     extratags=[(37724, 1, 4, b"abcd", True), (42112, 2, 8, "metadata", True)])  # fmt: skip
    data = bytearray(path.read_bytes())
    size = 300 << 20
    for code, kind in ((37724, 1), (42112, 2)):
        at = next(i for i in range(len(data)) if data[i : i + 4] == struct.pack("<HH", code, kind))
        struct.pack_into("<II", data, at + 4, size, 1 << 16)
        path.write_bytes(data)
        os.truncate(path, size + (1 << 17))
        with bounded():
            if code == 37724:
                assert open_source(path).shape == (64, 64)
            else:
                with pytest.raises(BadInput, match="tiffset -u 42112"):
                    open_source(path)
