"""Damage and bad input: one clear sentence, never pixels, never a bomb going off."""

from __future__ import annotations

import os
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import pyvips
import tifffile

from urst_tiles.errors import BadInput, DamagedFile, DiskFull, DoesNotFit, MissingFile, UrstError
from urst_tiles.geometry import Box
from urst_tiles.source import open_source

RANDOM = np.random.default_rng(7)
NOISE = RANDOM.integers(0, 255, (256, 256, 3), dtype=np.uint8)
SMOOTH = np.asarray(pyvips.Image.new_from_array(NOISE).gaussblur(3).numpy())


def tiff(path: Path, pixels: np.ndarray = SMOOTH, **options: object) -> Path:
    settings = {
        "tile": (64, 64),
        "compression": "deflate",
        "predictor": True,
        "photometric": "rgb",
        "metadata": None,
    }
    tifffile.imwrite(path, pixels, **(settings | options))
    return path


def read_all(path: Path, folder: Path) -> np.ndarray:
    source = open_source(path).prepare(folder, thumbnail=32)
    return source.read(Box(0, 0, *source.shape))


def one_sentence(error: BaseException, path: Path) -> None:
    text = str(error)
    assert str(path) in text and "\n" not in text and len(text) < 400, text


def test_a_folder_an_empty_file_a_text_and_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty.tif").touch()
    (tmp_path / "text.tif").write_text("This is no image, whatever its name says.\n" * 9)
    (tmp_path / "table.csv").write_text("1,2,3\n4,5,6\n")
    (tmp_path / "drawing.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')
    cases = {
        ".": "folder",
        "empty.tif": "empty",
        "text.tif": "no image",
        "table.csv": "no image",
        "drawing.svg": "is an SVG drawing",
    }
    for name, word in cases.items():
        with pytest.raises(BadInput, match=word) as caught:
            open_source(tmp_path / name)
        one_sentence(caught.value, tmp_path)
    for name in ("gone.tif", "text.tif/under"):
        with pytest.raises(MissingFile, match="no file"):
            open_source(tmp_path / name)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadInput, match="regular"):
        open_source(tmp_path / "pipe")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_rights(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif")
    path.chmod(0)
    with pytest.raises(MissingFile, match="may not be read"):
        open_source(path)


@pytest.mark.parametrize("share", [0.0005, 0.01, 0.3, 0.7, 0.9, 0.99, 0.9999])
@pytest.mark.parametrize(
    "kind", ["tiled", "strips", "jpeg tiles", "plain", "big", "jpg", "png", "webp", "progressive"]
)
def test_a_cut_off_file(kind: str, share: float, tmp_path: Path) -> None:
    path = (
        tmp_path
        / f"a.{kind if kind in ('jpg', 'png', 'webp') else 'jpeg' if kind == 'progressive' else 'tif'}"
    )
    image = pyvips.Image.new_from_array(SMOOTH)
    if kind in ("jpg", "png", "webp", "progressive"):
        image.write_to_file(str(path), **({"interlace": True} if kind == "progressive" else {}))
    elif kind == "jpeg tiles":
        image.tiffsave(str(path), compression="jpeg", tile=True, tile_width=64, tile_height=64)
    else:
        options: dict[str, dict[str, object]] = {
            "tiled": {},
            "strips": {"tile": None, "rowsperstrip": 20},
            "big": {"bigtiff": True, "byteorder": ">"},
            "plain": {"compression": None, "predictor": None},
        }
        tiff(path, **options[kind])
    data = path.read_bytes()
    path.write_bytes(data[: max(9, int(len(data) * share))])
    with pytest.raises((DamagedFile, BadInput)) as caught:
        read_all(path, tmp_path / "job")
    one_sentence(caught.value, path)


@pytest.mark.parametrize("tile", [(64, 64), None])
def test_every_flipped_byte_in_deflate_is_noticed(tile: tuple[int, int] | None, tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", tile=tile, **({} if tile else {"rowsperstrip": 30}))
    expected = read_all(path, tmp_path / "good")
    with tifffile.TiffFile(path) as file:
        offsets, counts = file.pages[0].dataoffsets, file.pages[0].databytecounts
    data = path.read_bytes()
    for i in range(60):
        k = int(RANDOM.integers(len(offsets)))
        at = offsets[k] + int(RANDOM.integers(counts[k]))
        path.write_bytes(data[:at] + bytes([data[at] ^ (1 << int(RANDOM.integers(8)))]) + data[at + 1 :])
        try:
            found = read_all(path, tmp_path / f"job{i}")
        except DamagedFile as error:
            one_sentence(error, path)
        else:  # only a bit that means nothing (zlib's level hint) may pass, and then no pixel differs
            np.testing.assert_array_equal(found, expected)


def test_a_flipped_byte_in_png_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    pyvips.Image.new_from_array(SMOOTH).write_to_file(str(path))
    data = path.read_bytes()
    for i in range(15):
        at = int(RANDOM.integers(60, len(data) - 20))
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(DamagedFile):
            read_all(path, tmp_path / f"job{i}")


def patched(path: Path, change: Callable[[bytearray, dict[int, int]], None]) -> Path:
    """Change a little-endian classic TIFF, given its bytes and where each tag's 12-byte entry lies."""
    data = bytearray(path.read_bytes())
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    entries = {
        struct.unpack_from("<H", data, start + 2 + 12 * i)[0]: start + 2 + 12 * i for i in range(count)
    }
    entries[0] = start + 2 + 12 * count  # the link to the next directory
    change(data, entries)
    path.write_bytes(data)
    return path


def put(code: int, value: int) -> Callable[[bytearray, dict[int, int]], None]:
    return lambda data, entries: struct.pack_into("<I", data, entries[code] + 8, value)


def long_put(code: int, value: int) -> Callable[[bytearray, dict[int, int]], None]:
    def change(data: bytearray, entries: dict[int, int]) -> None:
        struct.pack_into("<HII", data, entries[code] + 2, 4, 1, value)

    return change


def at(data: bytearray, place: int) -> int:
    return int(struct.unpack_from("<I", data, place)[0])


CHANGES = {
    "a loop of directories": lambda d, e: struct.pack_into("<I", d, e[0], struct.unpack_from("<I", d, 4)[0]),
    "a directory beyond the file": lambda d, e: struct.pack_into("<I", d, e[0], 1 << 30),
    "no directory": lambda d, e: struct.pack_into("<I", d, 4, 0),
    "a first directory beyond the file": lambda d, e: struct.pack_into("<I", d, 4, 1 << 31),
    "a table beyond the file": put(324, 1 << 30),
    "a table of a billion": lambda d, e: struct.pack_into("<I", d, e[324] + 4, 1 << 30),
    "a table of too few": lambda d, e: struct.pack_into("<I", d, e[324] + 4, 3),
    "a tile beyond the file": lambda d, e: struct.pack_into("<I", d, at(d, e[324] + 8), 1 << 31),
    "no width": long_put(256, 0),
    "no height": long_put(257, 0),
    "tiles without width": long_put(322, 0),
    "a width of four billion": long_put(256, (1 << 32) - 1),
    "tiles of many GB": lambda d, e: (long_put(322, 1 << 17)(d, e), long_put(323, 1 << 17)(d, e)),
    "a count of bits that nobody has": put(258, 1 << 20),
    "a compression that nobody has": put(259, 4242),
    "a table of strings": lambda d, e: struct.pack_into("<H", d, e[324] + 2, 2),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_a_broken_directory(name: str, tmp_path: Path) -> None:
    path = patched(tiff(tmp_path / "a.tif"), CHANGES[name])
    with pytest.raises((DamagedFile, BadInput)) as caught:
        read_all(path, tmp_path / "job")
    one_sentence(caught.value, path)


def test_random_damage_to_the_header_never_escapes(tmp_path: Path) -> None:
    good = tiff(tmp_path / "a.tif", SMOOTH[:128, :128], extratags=[(42113, 2, 2, "0", True)]).read_bytes()
    path = tmp_path / "b.tif"
    for i in range(300):
        data = bytearray(good)
        for _ in range(int(RANDOM.integers(1, 4))):
            data[int(RANDOM.integers(4, 300))] = int(RANDOM.integers(256))
        path.write_bytes(data)
        try:
            source = open_source(path)
            if source.shape[0] * source.shape[1] < 1 << 22:
                source = source.prepare(tmp_path / f"job{i}", thumbnail=16)
                source.read(Box(0, 0, *source.shape))
        except UrstError as error:
            one_sentence(error, path)


def test_a_strip_of_many_gigabytes_is_refused_before_decoding(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", tile=None, rowsperstrip=256)
    patched(
        path,
        lambda d, e: (long_put(256, 60000)(d, e), long_put(257, 60000)(d, e), long_put(278, 60000)(d, e)),
    )
    with pytest.raises(BadInput, match=r"10\.8 GB") as caught:
        open_source(path)
    one_sentence(caught.value, path)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(path: Path, width: int, height: int, interlace: int, size: int) -> Path:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, interlace)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", bytes(size)) + _chunk(b"IEND", b"")
    )
    return path


def test_png_bombs(tmp_path: Path) -> None:
    with pytest.raises(DamagedFile, match="more than its"):
        open_source(_png(tmp_path / "a.png", 100_000, 100_000, 0, 1000))
    with pytest.raises(BadInput, match="decoded whole"):
        open_source(_png(tmp_path / "b.png", 30_000, 30_000, 1, 3_000_000))
    source = open_source(_png(tmp_path / "c.png", 30_000, 30_000, 0, 3_000_000))
    assert source.spool_bytes > 2.7e9


def test_progressive_jpeg_bomb(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    pyvips.Image.new_from_array(SMOOTH).jpegsave(str(path), interlace=True)
    data = bytearray(path.read_bytes())
    at = data.index(b"\xff\xc2")
    struct.pack_into(">HH", data, at + 5, 60000, 60000)
    path.write_bytes(data)
    with pytest.raises(BadInput, match="decoded whole"):
        open_source(path)


def test_xml_with_entities_is_refused(tmp_path: Path) -> None:
    laughs = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]>'
    laughs += '<GDALMetadata><Item name="A">&b;</Item></GDALMetadata>'
    path = tiff(tmp_path / "a.tif", extratags=[(42112, 2, len(laughs) + 1, laughs, True)])
    with pytest.raises(BadInput, match="entities") as caught:
        open_source(path)
    one_sentence(caught.value, path)


def test_a_disk_too_small_is_told_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    pyvips.Image.new_from_array(SMOOTH).write_to_file(str(path))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(DoesNotFit, match="GB are free"):
        open_source(path).prepare(tmp_path / "job")
    assert not list((tmp_path / "job").iterdir())


def test_a_disk_that_fills_up_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    pyvips.Image.new_from_array(SMOOTH).write_to_file(str(path))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("urst_tiles.source.spool._write", full)
    with pytest.raises(DiskFull, match="No space left"):
        open_source(path).prepare(tmp_path / "job")
    assert not list((tmp_path / "job").iterdir())


def test_errors_pickle(tmp_path: Path) -> None:
    with pytest.raises(MissingFile) as caught:
        open_source(tmp_path / "gone.tif")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_compression_nobody_decodes_is_not_called_damage(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", compression="png", predictor=None)
    with pytest.raises(BadInput, match="cannot be read here"):
        open_source(path)


def test_a_damaged_thumbnail_is_noticed(tmp_path: Path) -> None:
    source = open_source(tiff(tmp_path / "a.tif")).prepare(tmp_path / "job", thumbnail=32)
    (kept,) = (tmp_path / "job").glob("thumbnail-*")
    data = bytearray(kept.read_bytes())
    data[len(data) // 2] ^= 1
    kept.write_bytes(data)
    with pytest.raises(DamagedFile, match="is damaged"):
        _ = source.thumbnail
