"""Part files: whole or not there, provable, and small pyramids of their own."""

from __future__ import annotations

import errno
import os
import pickle
import resource
import tracemalloc

import numpy as np
import pytest
import rasterio
import tifffile

from urst_tiles.errors import BadInput, BadPlan, DamagedFile, DiskFull
from urst_tiles.geometry import Grid
from urst_tiles.pyramid import Encoding, part_bytes, write_bytes
from urst_tiles.pyramid import part as part_module
from urst_tiles.pyramid.parts import Parts, Receipt
from urst_tiles.pyramid.reduce import levels_below

GRID = Grid(150, 203, core=64, block=64, tile=16)
RGBA = Encoding(channels=4, validity="alpha", tile=16)


def picture(height=150, width=203, channels=4, dtype=np.uint8):
    top = np.iinfo(dtype).max
    pixels = np.random.default_rng(3).integers(1, top, (height, width, channels), dtype, endpoint=True)
    if channels == 4:
        pixels[..., 3] = np.where(pixels[..., 3] > top // 4, top, 0)
        pixels[pixels[..., 3] == 0] = 0
    return pixels


def parts_in(folder, grid=GRID, encoding=RGBA, fingerprint="f00d", **more):
    return Parts(folder, fingerprint, grid, encoding, **more)


def write(parts, index, pixels):
    return parts.write(index, pixels[parts.grid.block_box(index).slices])


@pytest.fixture
def one(tmp_path):
    parts = parts_in(tmp_path / "parts")
    write(parts, 5, picture())
    return parts


def test_what_is_written_is_done_and_the_rest_is_missing(one):
    assert len(GRID) == 12
    assert one.missing() == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    assert one.is_done(5) and not one.is_done(4)
    assert parts_in(one.folder / "none").missing() == list(range(12))


def test_a_receipt_names_the_part(tmp_path):
    parts = parts_in(tmp_path / "parts")
    receipt = write(parts, 3, picture())
    assert receipt == Receipt(3, parts.path(3).stat().st_size, parts.footer(3).checksum)


def test_nothing_but_the_part_is_left(one):
    assert os.listdir(one.folder) == [one.path(5).name]


@pytest.mark.parametrize("index", [0, 5, 11])
def test_a_part_is_a_small_pyramid_that_others_open(tmp_path, index):
    """Full and edge blocks: every level equal to that of the whole image."""
    parts = parts_in(tmp_path / "parts")
    write(parts, index, picture())
    box = GRID.block_box(index)
    levels = [picture(), *levels_below(picture(), 2)]
    with tifffile.TiffFile(parts.path(index)) as tif:
        assert len(tif.pages) == 3
        for n, page in enumerate(tif.pages):
            h, w = page.shape[:2]
            expected = levels[n][box.y0 >> n : (box.y0 >> n) + h, box.x0 >> n : (box.x0 >> n) + w]
            np.testing.assert_array_equal(page.asarray(), np.where(expected[..., 3:] > 0, expected, 0))
    np.testing.assert_array_equal(parts.read_level(index, 2), expected)


def test_gdal_opens_a_part(one):
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning), rasterio.open(one.path(5)) as data:
        assert data.overviews(1) == [2, 4]
        np.testing.assert_array_equal(data.read().transpose(1, 2, 0), picture()[GRID.block_box(5).slices])


def test_only_the_smallest_level_is_kept_without_loss(one):
    with pytest.raises(ValueError, match="level 2"):
        one.read_level(5, 1)


def test_seed_of_a_lossy_part_is_lossless(tmp_path):
    encoding = Encoding("jpeg", 50, channels=4, validity="alpha", tile=16)
    parts = parts_in(tmp_path / "parts", encoding=encoding)
    write(parts, 0, picture())
    expected = levels_below(picture()[:64, :64], 2, binary=True)[-1]
    np.testing.assert_array_equal(parts.read_level(0, 2), expected)


def test_another_jobs_part_is_missing(one):
    assert 5 in parts_in(one.folder, fingerprint="beef").missing()


def test_a_part_in_anothers_place_is_missing(one):
    one.path(5).rename(one.path(6))
    assert not one.is_done(6)


@pytest.mark.parametrize("tail", [32, 100, 10**6])
def test_a_footer_longer_than_what_is_read_first(one, monkeypatch, tail):
    """As those of blocks with very many tiles are."""
    whole, footer = one.path(5).read_bytes(), one.footer(5)
    monkeypatch.setattr(part_module, "_TAIL", tail)
    again = one.footer(5)
    assert (again.checksum, again.file_bytes, again.seed) == (footer.checksum, footer.file_bytes, footer.seed)
    assert [level.checksums.tolist() for level in again.levels] == [
        level.checksums.tolist() for level in footer.levels
    ]
    for changed in (whole[:-1], whole + b"x", whole[:20] + whole[21:], whole[:20] + b"x" + whole[20:]):
        one.path(5).write_bytes(changed)
        assert not one.is_done(5)


def test_no_truncation_passes(one):
    whole = one.path(5).read_bytes()
    for length in [0, 1, 16, len(whole) // 2, len(whole) - 29, len(whole) - 1]:
        one.path(5).write_bytes(whole[:length])
        assert not one.is_done(5)
    one.path(5).write_bytes(whole + b"\0")
    assert not one.is_done(5)
    one.path(5).write_bytes(whole)
    assert one.is_done(5)


def test_every_flipped_byte_that_matters_is_found(one):
    """Of tiles, seed and footer; the directories in between serve only who opens the part by itself."""
    whole = bytearray(one.path(5).read_bytes())
    footer = one.footer(5)
    last = footer.levels[-1]
    directories = range(last.start + last.sizes.total_bytes, footer.seed["offset"])
    for place in [*range(16, directories.start, 97), *range(directories.stop, len(whole), 7)]:
        broken = bytearray(whole)
        broken[place] ^= 0x10
        one.path(5).write_bytes(broken)
        assert one.drop_damaged() == [5], place
    one.path(5).write_bytes(whole)
    assert one.drop_damaged() == []


def test_every_cell_of_a_part_is_found_with_its_mask(tmp_path):
    """Wherever it lies: the footer's sizes are those of the directories, of tiles and of mask tiles."""
    grid = Grid(128, 128, core=128, block=128, tile=16)
    parts = parts_in(tmp_path / "parts", grid, Encoding(channels=4, validity="mask", tile=16))
    write(parts, 0, picture(128, 128))
    path, data = parts.path(0), parts.path(0).read_bytes()
    with tifffile.TiffFile(path) as file:
        pages = list(file.pages)
    levels = parts.footer(0).levels
    assert [level.checksums.size for level in levels] == [64, 16, 4, 1]
    for level, image, mask in zip(levels, pages[::2], pages[1::2], strict=True):
        assert level.sizes.image.tolist() == list(image.databytecounts)
        assert level.sizes.mask.tolist() == list(mask.databytecounts)
        ends = level.start + np.cumsum(level.sizes.cells)
        starts = [level.start, *ends[:-1]]
        assert [start + 4 for start in starts] == list(image.dataoffsets)  # behind a leader of 4 bytes
        for first in range(len(starts)):
            cells = part_module.read_cells(path, level, first, 5)
            assert cells == data[starts[first] : ends[min(first + 4, len(ends) - 1)]]
    last = levels[0].start + int(levels[0].sizes.cells[:60].sum())
    path.write_bytes(data[: last + 9] + bytes([data[last + 9] ^ 1]) + data[last + 10 :])
    assert parts.drop_damaged() == [0]


def test_wrong_pixels_are_refused(one):
    for pixels in (
        np.zeros((64, 63, 4), np.uint8),
        np.zeros((64, 64, 3), np.uint8),
        np.zeros((64, 64, 4), np.uint16),
    ):
        with pytest.raises(ValueError, match="block 5 must be"):
            one.write(5, pixels)


def test_grid_and_encoding_agree(tmp_path):
    with pytest.raises(BadPlan, match="512 px"):
        parts_in(tmp_path, encoding=Encoding())


def test_the_bytes_do_not_depend_on_threads_or_time(tmp_path):
    files = []
    for threads in (1, 2, 3):
        parts = parts_in(tmp_path / str(threads), threads=threads)
        write(parts, 1, picture())
        files.append(parts.path(1).read_bytes())
    assert files[0] == files[1] == files[2]


def test_parts_pickle(one):
    again = pickle.loads(pickle.dumps(one))
    assert again == one and again.is_done(5)


def test_a_full_disk_is_one_sentence_and_leaves_nothing(one, monkeypatch):
    def full(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFull, match=rf"no room left to write in {one.folder}.*again"):
        write(one, 6, picture())
    assert os.listdir(one.folder) == [one.path(5).name]


def test_a_quota_is_a_full_disk(one):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(DiskFull, match="no room left"):
            write(one, 6, picture())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(one.folder) == [one.path(5).name]


def test_no_rights_are_one_sentence(one, monkeypatch):
    def refuse(*arguments, **more):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(BadInput, match="no right to write"):
        write(one, 6, picture())


def test_a_failing_encoder_leaves_nothing(one, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("injected")

    monkeypatch.setattr("urst_tiles.pyramid.part.encode_tile", fail)
    with pytest.raises(RuntimeError, match="injected"):
        write(one, 6, picture())
    assert os.listdir(one.folder) == [one.path(5).name]


def test_an_unreadable_seed_says_so(one):
    whole = bytearray(one.path(5).read_bytes())
    whole[one.footer(5).seed["offset"]] ^= 1
    one.path(5).write_bytes(whole)
    with pytest.raises(DamagedFile, match="fails its checksum"):
        one.read_level(5, 2)


@pytest.mark.parametrize(
    "encoding",
    [
        Encoding(tile=256),
        Encoding("zstd", channels=4, validity="nodata", nodata=0, tile=256),
        Encoding("jpeg", channels=4, validity="mask", tile=256),
        Encoding("lzw", dtype="uint16", channels=4, validity="alpha", tile=256),
    ],
    ids=lambda e: f"{e.compression}-{e.dtype}-{e.validity}",
)
def test_memory_of_a_write_is_what_the_formula_says(tmp_path, encoding, monkeypatch):
    """NumPy and bytes objects are traced, the codecs' own memory is not: hence the lower bound of a half."""
    monkeypatch.setattr("urst_tiles.pyramid.reduce.mapped", np.zeros)  # pages of their own are not traced
    grid = Grid(2048, 2048, core=2048, block=2048, tile=256)
    parts = parts_in(tmp_path / "parts", grid, encoding)
    pixels = picture(2048, 2048, encoding.channels, np.dtype(encoding.dtype).type)
    tracemalloc.start()
    try:
        parts.write(0, pixels)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.5 * write_bytes(grid, encoding) < peak < write_bytes(grid, encoding)


@pytest.mark.parametrize("compression", ["deflate", "lzw", "zstd", "jpeg", "webp"])
def test_noise_at_full_quality_stays_below_the_bound(tmp_path, compression):
    encoding = Encoding(compression, 100, channels=4, validity="mask", tile=64)
    grid = Grid(200, 300, core=256, block=256, tile=64)
    parts = parts_in(tmp_path / "parts", grid, encoding)
    receipt = write(parts, 0, np.random.default_rng(0).integers(0, 256, (200, 300, 4), np.uint8))
    assert receipt.file_bytes < part_bytes(grid, encoding)
