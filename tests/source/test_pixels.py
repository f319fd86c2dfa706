"""Thumbnail, stretch, padding, fill, spool, zarr view: each against a plain computation of the same thing."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import pyvips
import tifffile
import zarr
from hypothesis import given
from hypothesis import strategies as st
from zarr.core.buffer import default_buffer_prototype

from urst_tiles.errors import BadInput, DamagedFile
from urst_tiles.geometry import Box
from urst_tiles.source import Fill, Source, array_source, open_source, read_padded
from urst_tiles.source.spool import Shape
from urst_tiles.source.stretch import Stretch, parse_stretch, resolve
from urst_tiles.source.thumbnail import average, best_level, thumbnail_shape
from urst_tiles.source.valid import Samples
from urst_tiles.source.zarr_view import SourceStore

RANDOM = np.random.default_rng(3)


def noise(*shape: int, dtype: str = "uint8") -> np.ndarray:
    return RANDOM.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def tiled(path: Path, pixels: np.ndarray, **options: object) -> Path:
    settings = {"tile": (64, 64), "compression": "deflate", "photometric": "rgb", "metadata": None}
    tifffile.imwrite(path, pixels, **(settings | options))
    return path


# --- thumbnail


sides = st.integers(1, 10**6)


@given(sides, sides, st.integers(1, 2048))
def test_thumbnail_shape(height: int, width: int, side: int) -> None:
    h, w = thumbnail_shape((height, width), side)
    assert 1 <= h <= height and 1 <= w <= width
    assert (h, w) == thumbnail_shape((width, height), side)[::-1]
    assert h * w <= 4 * side * side
    if min(height, width) <= side and height * width <= 4 * side * side:
        assert (h, w) == (height, width)
    elif max(height, width) <= 4 * min(height, width) and min(height, width) >= side:
        assert min(h, w) == side


def shares(length: int, small: int) -> np.ndarray:
    """(small, length): how much of each pixel falls into each cell, the plain way."""
    edges = np.arange(small + 1) * length / small
    pixel = np.arange(length)
    overlap = np.minimum(pixel + 1, edges[1:, None]) - np.maximum(pixel, edges[:-1, None])
    return np.maximum(overlap, 0)


@given(st.integers(1, 60), st.integers(1, 60), st.data())
def test_average_is_the_area_average(height: int, width: int, data: st.DataObject) -> None:
    shape = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    cell = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 30))
    kind = data.draw(st.sampled_from(["uint8", "uint16", "int16", "float32"]))
    weighted = data.draw(st.sampled_from(["none", "binary", "alpha"]))
    values = RANDOM.integers(0, 250, (height, width, 3)).astype(kind)
    weight = None
    if weighted != "none":
        weight = noise(height, width) if weighted == "alpha" else noise(height, width) // 128 * np.uint8(255)
        if kind == "float32":
            values[weight == 0] = np.nan

    def read(box: Box) -> Samples:
        return Samples(values[box.slices], None if weight is None else weight[box.slices])

    made = average(read, (height, width), shape, cell, bands=3, has_valid=weight is not None, origin="")
    heavy = np.ones((height, width)) if weight is None else weight / 255
    rows, columns = shares(height, shape[0]), shares(width, shape[1])
    total = rows @ heavy @ columns.T
    sums = np.einsum(
        "ay,bx,yxc->abc", rows, columns, np.where(heavy[..., None] > 0, values, 0) * heavy[..., None]
    )
    expected = sums / np.where(total > 0, total, 1)[..., None]
    np.testing.assert_allclose(made.colour, expected, rtol=2e-5, atol=2e-4)
    if weight is not None:
        assert made.weight is not None
        np.testing.assert_allclose(made.weight, total / (height * width / (shape[0] * shape[1])), atol=1e-5)


def test_an_overview_serves_from_four_times_on() -> None:
    levels = [(4000, 3000), (2000, 1500), (1000, 750)]
    assert best_level((250, 187), levels) == 2 and best_level((250, 188), levels) == 1
    assert best_level((1001, 700), levels) is None and best_level((5, 5), []) is None


def test_the_thumbnail_is_kept_and_the_same(tmp_path: Path) -> None:
    source = open_source(tiled(tmp_path / "a.tif", noise(300, 500, 3)))
    first = source.prepare(tmp_path / "job", thumbnail=50)
    names = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "job").iterdir()}
    stages: list[str] = []
    again = source.prepare(tmp_path / "job", thumbnail=50, progress=lambda stage, *_: stages.append(stage))
    assert not stages and names == {p.name: p.stat().st_mtime_ns for p in (tmp_path / "job").iterdir()}
    np.testing.assert_array_equal(first.thumbnail, again.thumbnail)
    assert first.thumbnail.shape == (50, 83, 3) and first.thumbnail_origin == "one streamed pass"
    small = source.prepare(None, thumbnail=1000)
    assert small.thumbnail_origin == "the image itself"
    np.testing.assert_array_equal(small.thumbnail, source.read(Box(0, 0, 300, 500)))


def test_one_pixel(tmp_path: Path) -> None:
    source = open_source(tiled(tmp_path / "a.tif", noise(1, 1, 3))).prepare(tmp_path)
    assert source.thumbnail.shape == source.read(Box(0, 0, 1, 1)).shape == (1, 1, 3)
    assert read_padded(source, Box(0, 0, 5, 7)).shape == (5, 7, 3)


def test_progress_reaches_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    pyvips.Image.new_from_array(noise(300, 200, 3)).write_to_file(str(path))
    told: dict[str, tuple[int, int]] = {}
    open_source(path).prepare(
        tmp_path / "job", thumbnail=20, progress=lambda s, d, t: told.update({s: (d, t)})
    )
    size = path.stat().st_size
    assert told == {
        "reading": (size, size), "spooling": (60000, 60000), "thumbnail": (60000, 60000)
    }  # fmt: skip


def test_reading_is_told_in_bytes_and_only_when_it_is_done(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise(1200, 1500, 3), tile=(256, 256), photometric="rgb", metadata=None)
    with path.open("ab") as file:
        file.truncate(70 << 20)
    tiled(tmp_path / "a.tif.msk", noise(1200, 1500, 1)[..., 0], photometric="minisblack")
    size = sum((tmp_path / name).stat().st_size for name in ("a.tif", "a.tif.msk"))
    told: list[tuple[int, int]] = []

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "reading":
            told.append((done, total))

    open_source(path).prepare(tmp_path / "job", thumbnail=20, progress=progress)
    assert told[-1] == (size, size) and {total for _, total in told} == {size}
    assert [done for done, _ in told] == sorted({done for done, _ in told}) and 5 <= len(told) < 20
    told.clear()
    open_source(path).prepare(tmp_path / "job", thumbnail=20, progress=progress)
    assert not told


# --- stretch


def test_percentiles_over_valid_pixels() -> None:
    colour = np.arange(101, dtype=np.float32).reshape(101, 1, 1)
    assert resolve(parse_stretch("2%,98%"), colour, None) == ((2.0, 98.0),)
    weight = (colour[..., 0] <= 50).astype(np.float32)
    assert resolve(parse_stretch("0%,100%"), colour, weight) == ((0.0, 50.0),)
    assert resolve(parse_stretch("10,98%"), colour, None) == ((10.0, 98.0),)
    assert resolve(parse_stretch("2%,98%"), colour, weight * 0) == ((0.0, 1.0),)


@pytest.mark.parametrize(
    "text", ["", "1", "1,2,3", "a,b", "5,5", "9,2", "-1%,50%", "2%,101%", "nan,1", "0,inf"]
)
def test_a_stretch_that_makes_no_sense(text: str) -> None:
    with pytest.raises(BadInput, match="--stretch"):
        parse_stretch(text)


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int64", "float32", "float64"]
)
def test_tables_and_formula_agree(dtype: str) -> None:
    kind = np.dtype(dtype)
    low, high = (-1.5, 300.25) if kind.kind != "u" else (1.5, 100.25)
    values = (RANDOM.random((50, 40, 2)) * 500 - (200 if kind.kind != "u" else 0)).astype(kind)
    found = Stretch(((low, high), (low, high)), kind)(values)
    expected = np.clip((values.astype(np.float64) - low) / (high - low), 0, 1) * 65535
    assert found.dtype == np.uint16
    np.testing.assert_allclose(found, expected, atol=0.51)


def test_a_scene_of_ten_thousand_is_not_black(tmp_path: Path) -> None:
    values = RANDOM.integers(200, 9800, (300, 300, 3), dtype=np.uint16)
    source = open_source(tiled(tmp_path / "a.tif", values)).prepare(tmp_path, thumbnail=300)
    pixels = source.read(Box(0, 0, 300, 300))
    assert source.stretch is not None and all(
        150 < low < 500 and 9300 < high < 9900 for low, high in source.stretch
    )
    assert 30000 < pixels.mean() < 36000 and pixels.min() == 0 and pixels.max() == 65535


# --- padding and fill


@given(st.integers(1, 20), st.integers(1, 20), st.data())
def test_padding_is_reflection(height: int, width: int, data: st.DataObject) -> None:
    pixels = noise(height, width, 3)
    y1, x1 = data.draw(st.integers(1, 50)), data.draw(st.integers(1, 50))
    box = Box(data.draw(st.integers(0, y1 - 1)), data.draw(st.integers(0, x1 - 1)), y1, x1)
    grown = np.pad(pixels, ((0, 60), (0, 0), (0, 0)), mode="reflect" if height > 1 else "edge")
    grown = np.pad(grown, ((0, 0), (0, 60), (0, 0)), mode="reflect" if width > 1 else "edge")
    np.testing.assert_array_equal(read_padded(array_source(pixels), box), grown[box.slices])


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_fill_is_exact_in_tiles_and_keeps_valid_pixels(dtype: str) -> None:
    image = noise(150, 230, 4, dtype=dtype)
    image[..., 3] = np.where(image[..., 3] % 3 == 0, 0, image[..., 3])
    image[20:90, 100:200, 3] = 0
    source = array_source(image).prepare(None, thumbnail=17)
    fill = Fill(source.thumbnail, source.shape)
    whole = fill.apply(image, Box(0, 0, 150, 230))
    assert whole.dtype == image.dtype
    valid = image[..., 3] > 0
    np.testing.assert_array_equal(whole[valid], image[valid][:, :3])
    parts = np.zeros_like(whole)
    for box in Box(0, 0, 150, 230).cells(47):
        parts[box.slices] = fill.apply(image[box.slices], box)
    np.testing.assert_array_equal(parts, whole)
    padded = Box(100, 180, 190, 290)
    filled_then_padded = read_padded(array_source(whole), padded)
    np.testing.assert_array_equal(fill.apply(read_padded(source, padded), padded), filled_then_padded)


def test_a_hole_takes_the_colour_around_it() -> None:
    thumbnail = np.zeros((20, 20, 4), np.uint8)
    thumbnail[...] = (200, 100, 50, 255)
    thumbnail[5:15, 5:15] = 0
    fill = Fill(thumbnail, (200, 200))
    filled = fill.apply(np.zeros((200, 200, 4), np.uint8), Box(0, 0, 200, 200))
    assert (filled == (200, 100, 50)).all()


def test_nothing_valid_gives_no_nan(tmp_path: Path) -> None:
    source = array_source(np.zeros((40, 30, 4), np.uint8)).prepare(None, thumbnail=8)
    assert not source.thumbnail.any()
    assert (
        not Fill(source.thumbnail, source.shape)
        .apply(source.read(Box(0, 0, 40, 30)), Box(0, 0, 40, 30))
        .any()
    )
    path = tiled(tmp_path / "a.tif", np.full((80, 80), np.nan, np.float32), photometric="minisblack")
    blank = open_source(path).prepare(tmp_path, thumbnail=8)
    assert not blank.read(Box(0, 0, 80, 80)).any() and blank.stretch == ((0.0, 1.0),)


# --- spool


def spooled(tmp_path: Path, pixels: np.ndarray) -> tuple[Source, Path]:
    path = tmp_path / "a.png"
    pyvips.Image.new_from_array(pixels).write_to_file(str(path))
    source = open_source(path).prepare(tmp_path / "job", thumbnail=16)
    return source, next((tmp_path / "job").glob("spool-*"))


def test_a_spool_holds_every_pixel_and_is_found_again(tmp_path: Path) -> None:
    pixels = noise(1100, 1300, 4)
    pixels[:1024, :1024] = 0  # an all-fill chunk is stored, not left out
    source, folder = spooled(tmp_path, pixels)
    np.testing.assert_array_equal(source.read(Box(0, 0, 1100, 1300)), pixels)
    assert sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) <= source.spool_bytes
    assert len(list((folder / "colour" / "c").rglob("0"))) >= 4
    stamp = folder.stat().st_mtime_ns
    open_source(source.path).prepare(tmp_path / "job", thumbnail=16)
    assert folder.stat().st_mtime_ns == stamp and len(list((tmp_path / "job").glob("spool-*"))) == 1


def flip(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:1000] + bytes([data[1000] ^ 1]) + data[1001:])


HARMS = {
    "flipped": flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:50]),
    "empty": lambda path: path.write_bytes(b""),
    "gone": Path.unlink,
    "FIFO": lambda path: (path.unlink(), os.mkfifo(path)),
    "link": lambda path: (path.rename(path.with_name("x")), path.symlink_to(path.with_name("x"))),
    "all gone": lambda path: shutil.rmtree(path.parents[2]),
}


@pytest.mark.parametrize("how", HARMS)
def test_a_damaged_spool_is_made_again_and_never_fill(tmp_path: Path, how: str) -> None:
    """Only what is damaged is decoded and written again, and it is the same to the bit."""
    pixels = noise(2500, 1100, 4)
    source, folder = spooled(tmp_path, pixels)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and "c" in path.parts}
    HARMS[how](folder / "colour" / "c" / "1" / "0" / "0")
    np.testing.assert_array_equal(source.read(Box(0, 0, 2500, 1100)), pixels)
    for path, content in before.items():
        assert path.read_bytes() == content and not path.is_symlink()
    assert not list(folder.parent.glob(".spool-*"))


def test_a_damaged_spool_without_its_file_raises(tmp_path: Path) -> None:
    pixels = noise(200, 300, 3)
    source, folder = spooled(tmp_path, pixels)
    chunk = folder / "colour" / "c" / "0" / "0" / "0"
    image = source.path.rename(tmp_path / "away.png")
    flip(chunk)
    with pytest.raises(DamagedFile, match="is damaged, and cannot be made again: .*a.png"):
        source.read(Box(0, 0, 10, 10))
    chunk.unlink()
    pyvips.Image.new_from_array(noise(200, 300, 3)).write_to_file(str(source.path))
    with pytest.raises(DamagedFile, match="is damaged, and cannot be made again: .*changed"):
        source.read(Box(0, 0, 10, 10))
    image.replace(source.path)
    np.testing.assert_array_equal(source.read(Box(0, 0, 200, 300)), pixels)


def test_a_spool_of_somebody_else_runs_no_code(tmp_path: Path) -> None:
    """Its metadata name a pickle; what a spool is made of is known beforehand, whatever lies there."""
    pixels = noise(200, 300, 3)
    source, folder = spooled(tmp_path, pixels)
    mark = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(mark),)

    shutil.rmtree(folder / "colour")
    array = {"zarr_format": 2, "shape": [200, 300, 3], "chunks": [200, 300, 3], "dtype": "|O", "order": "C"}
    array |= {"compressor": None, "filters": [{"id": "pickle", "protocol": 5}], "fill_value": 0}
    (folder / "colour").mkdir()
    (folder / "colour" / ".zarray").write_text(json.dumps(array))
    (folder / "colour" / "0.0.0").write_bytes(pickle.dumps(Evil()))
    (folder / "colour" / "c" / "0" / "0").mkdir(parents=True)
    (folder / "colour" / "c" / "0" / "0" / "0").write_bytes(pickle.dumps(Evil()))
    np.testing.assert_array_equal(source.read(Box(0, 0, 200, 300)), pixels)
    assert not mark.exists()


def test_what_a_killed_spool_left_is_cleared(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    pyvips.Image.new_from_array(noise(100, 100, 3)).write_to_file(str(path))
    open_source(path).prepare(tmp_path / "x")
    name = next((tmp_path / "x").glob("spool-*")).name
    left = tmp_path / "job" / f".{name}.999999999.abcd"
    left.mkdir(parents=True)
    (left / "half").write_bytes(b"half")
    open_source(path).prepare(tmp_path / "job")
    assert not left.exists()


def test_a_wide_spool_has_flat_bands() -> None:
    assert Shape((5000, 5000), 3, "uint8", False).chunk == (1024, 1024)
    wide = Shape((5000, 1_000_000), 3, "uint8", True)
    assert wide.rows * 1_000_000 * wide.pixel_bytes <= 128 << 20 and wide.chunk[0] * wide.chunk[1] == 1 << 20


def test_an_unprepared_file_without_random_access_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    pyvips.Image.new_from_array(noise(100, 100, 3)).write_to_file(str(path))
    with pytest.raises(BadInput, match="prepare"):
        open_source(path).read(Box(0, 0, 1, 1))
    with pytest.raises(BadInput, match="folder"):
        open_source(path).prepare(None)


# --- zarr view


def test_the_zarr_view_is_the_image(tmp_path: Path) -> None:
    pixels = noise(1500, 1100, 3)
    source = open_source(tiled(tmp_path / "a.tif", pixels, tile=(256, 256)))
    view = source.array
    assert view.shape == (1500, 1100, 3) and view.chunks == (1024, 1024, 3) and view.read_only
    np.testing.assert_array_equal(view[:], pixels)
    np.testing.assert_array_equal(view[900:1200, 1000:1100, 1], pixels[900:1200, 1000:1100, 1])
    again = pickle.loads(pickle.dumps(view))
    np.testing.assert_array_equal(again[3:5], pixels[3:5])
    with pytest.raises(ValueError, match="read.only"):
        view[:1] = 0


def test_a_view_over_a_spool_does_not_wait_for_itself(tmp_path: Path) -> None:
    pixels = noise(3000, 6000, 3)
    source, _ = spooled(tmp_path, pixels)
    np.testing.assert_array_equal(source.array[:], pixels)


def test_a_chunk_that_fails_raises(tmp_path: Path) -> None:
    path = tiled(tmp_path / "a.tif", noise(300, 300, 3), compression="deflate")
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        at = file.pages[0].dataoffsets[0] + 40
    data[at] ^= 8
    path.write_bytes(data)
    with pytest.raises(DamagedFile):
        open_source(path).array[:]


def test_the_store_keeps_its_promises() -> None:
    store = SourceStore(array_source(noise(1030, 20, 3)))

    async def check() -> None:
        names = [key async for key in store.list()]
        assert names == ["zarr.json", "c/0/0/0", "c/1/0/0"]
        assert [key async for key in store.list_dir("")] == ["zarr.json", "c"]
        assert [key async for key in store.list_dir("c")] == ["0", "1"]
        assert await store.exists("c/1/0/0") and not await store.exists("c/2/0/0")
        for wrong in ("c/2/0/0", "c/0/1/0", "c/01/0/0", "c/0/0/1", "c/0/0", "zattrs", "c/-1/0/0", "c/x/0/0"):
            assert await store.get(wrong, default_buffer_prototype()) is None
        whole = await store.get("c/1/0/0", default_buffer_prototype())
        assert whole is not None and len(whole) == 1024 * 1024 * 3

    asyncio.run(check())
    with pytest.raises(ValueError):
        store.with_read_only(False)


# --- arrays, threads, options


def test_arrays_as_sources(tmp_path: Path) -> None:
    pixels = noise(40, 50, 4, dtype="uint16")
    source = array_source(pixels)
    assert (
        isinstance(source, Source)
        and source.channels == 4
        and source.stretch is None
        and source.info.validity == "alpha"
    )
    np.testing.assert_array_equal(source.read(Box(3, 4, 30, 44)), pixels[3:30, 4:44])
    np.testing.assert_array_equal(source.thumbnail, pixels)
    kept = zarr.create_array(store=str(tmp_path / "z"), data=pixels, chunks=(16, 16, 4))
    other = pickle.loads(pickle.dumps(array_source(kept)))
    np.testing.assert_array_equal(other.read(Box(3, 4, 30, 44)), pixels[3:30, 4:44])
    assert other.fingerprint == source.fingerprint != array_source(pixels + np.uint16(1)).fingerprint
    for wrong in (noise(4, 4), noise(4, 4, 2), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(BadInput, match="array must be"):
            array_source(wrong)


def test_many_threads_read_at_once(tmp_path: Path) -> None:
    pixels = noise(700, 900, 3)
    source = open_source(tiled(tmp_path / "a.tif", pixels))
    boxes = [
        Box(y, x, min(700, y + 180), min(900, x + 260)) for y in range(0, 700, 90) for x in range(0, 900, 130)
    ]
    start = threading.Barrier(8)

    def read(k: int) -> None:
        start.wait()
        for box in boxes[k::8]:
            np.testing.assert_array_equal(source.read(box), pixels[box.slices])

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(read, range(8)))


def test_fingerprints_tell_files_apart(tmp_path: Path) -> None:
    pixels = noise(200, 200, 3)
    path = tiled(tmp_path / "a.tif", pixels)
    first = open_source(path).fingerprint
    copy = tmp_path / "copy.tif"
    copy.write_bytes(path.read_bytes())
    assert open_source(copy).fingerprint == first
    (tmp_path / "copy.tfw").write_text("10\n0\n0\n-10\n5\n-5\n")
    assert open_source(copy).fingerprint != first and len(open_source(copy).info.geo) == 2
    pixels[100, 100] ^= 1
    assert open_source(tiled(tmp_path / "b.tif", pixels)).fingerprint != first


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_of_a_photo(orientation: int, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    image = pyvips.Image.new_from_array(noise(90, 70, 3)).gaussblur(1).copy(interpretation="srgb")
    image.set_type(pyvips.GValue.gint_type, "orientation", orientation)
    image.jpegsave(str(path))
    source = open_source(path).prepare(tmp_path / "job", thumbnail=10)
    expected = pyvips.Image.new_from_file(str(path)).autorot().numpy()
    np.testing.assert_array_equal(source.read(Box(0, 0, *source.shape)), expected)
    assert (source.thumbnail.shape[0] > source.thumbnail.shape[1]) == (expected.shape[0] > expected.shape[1])


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_photos(suffix: str, tmp_path: Path) -> None:
    image = pyvips.Image.new_from_array(noise(90, 70, 3)).gaussblur(1).copy(interpretation="srgb")
    path = tmp_path / f"a{suffix}"
    image.icc_transform("cmyk", input_profile="srgb").write_to_file(str(path))
    source = open_source(path).prepare(tmp_path / "job", thumbnail=10)
    expected = pyvips.Image.new_from_file(str(path)).icc_transform("srgb", embedded=True).numpy()
    assert source.channels == 3 and source.info.icc is None
    np.testing.assert_array_equal(source.read(Box(0, 0, 90, 70)), expected)


def test_a_pixel_that_is_valid_in_its_smallest_part_stays_valid_in_the_thumbnail() -> None:
    pixels = np.zeros((600, 600, 4), np.uint8)
    pixels[333, 111] = (9, 99, 199, 255)
    thumbnail = array_source(pixels).prepare(None, thumbnail=8).thumbnail
    assert np.argwhere(thumbnail[..., 3]).tolist() == [[4, 1]]
    np.testing.assert_array_equal(thumbnail[4, 1], (9, 99, 199, 1))
