"""One tiny file per way of being wrong, and good ones that pass."""

from __future__ import annotations

import shutil
import struct

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import tifffile
from rasterio.errors import NotGeoreferencedWarning

from urst_tiles.errors import MissingFile
from urst_tiles.geometry import Grid
from urst_tiles.pyramid import Encoding, assemble, validate
from urst_tiles.pyramid.parts import Parts
from urst_tiles.tiff.metadata import Info
from urst_tiles.tiff.pages import TiffFile

PIXELS = np.random.default_rng(0).integers(0, 256, (100, 130, 4), np.uint8)
PIXELS[..., 3] = np.where(np.hypot(*np.mgrid[-50:50, -60:70]) < 40, 255, 0)


def ours(folder, compression="deflate", validity="mask"):
    encoding = Encoding(compression, channels=4, validity=validity, nodata=0, tile=32)
    parts = Parts(folder / "job", "f", Grid(100, 130, core=64, block=64, tile=32), encoding)
    for index in parts.missing():
        parts.write(index, PIXELS[parts.grid.block_box(index).slices])
    assemble(parts, Info(), folder / "out.tif")
    return folder / "out.tif"


@pytest.fixture
def good(tmp_path):
    return ours(tmp_path)


def problems(path, **options):
    return " | ".join(validate(path, **options).problems)


def directories(path):
    return TiffFile(path).directories


def entry_at(path, page, code):
    """Position of a tag's value, and the directory's position."""
    directory = directories(path)[page]
    return directory.entries[code].offset, directory.offset


def poke(path, position, form, *values):
    with path.open("r+b") as file:
        file.seek(position)
        file.write(struct.pack(form, *values))


@pytest.mark.parametrize("validity", ["alpha", "mask", "nodata"])
@pytest.mark.parametrize("compression", ["deflate", "lzw", "zstd", "jpeg", "webp"])
def test_ours_are_valid(tmp_path, compression, validity):
    report = validate(ours(tmp_path, compression, validity))
    assert report.valid and report.problems == ()
    assert report.levels == ((100, 130), (50, 65), (25, 33), (13, 17))
    masked = compression in ("jpeg", "webp") or validity == "mask"
    assert report.tiles == (20 + 6 + 2 + 1) * (1 + masked)
    assert str(report).endswith("valid (4 levels: 130 x 100, 65 x 50, 33 x 25, 17 x 13)")


def test_gdals_own_are_valid(tmp_path):
    """A plain tiled file from rasterio, and its cloud-optimised copy."""
    plain, path = tmp_path / "plain.tif", tmp_path / "cog.tif"
    profile = {"count": 3, "dtype": "uint8", "width": 700, "height": 600, "driver": "GTiff"}
    with pytest.warns(NotGeoreferencedWarning), rasterio.open(plain, "w", **profile) as data:
        data.write(np.random.default_rng(0).integers(0, 9, (3, 600, 700), np.uint8))
        data.write_mask(np.eye(600, 700, dtype=bool))
    rasterio.shutil.copy(plain, path, driver="COG", blocksize=128, compress="DEFLATE", num_threads=1)
    assert problems(path) == ""
    assert "strips" in problems(plain)


def test_nothing_there(tmp_path):
    with pytest.raises(MissingFile):
        validate(tmp_path / "none.tif")


def test_something_else(tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(b"GIF89a and so on")
    assert "not a TIFF" in problems(path)
    path.write_bytes(b"\x89PNG\r\n\x1a\n and so on")
    assert "fails its checksum or is cut off" in problems(path)
    path.write_bytes(struct.pack("<2sHI", b"II", 42, 0))
    assert "no image" in problems(path)


def test_strips_and_no_overviews(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", PIXELS[..., :3], photometric="rgb")
    assert "strips, not in tiles" in problems(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "a.tif", PIXELS[..., :3], photometric="rgb", tile=(32, 32))
    assert "has no overviews" in problems(tmp_path / "a.tif")


def test_overviews_in_the_wrong_order(tmp_path):
    """As tifffile writes them: full resolution first, hence directories between the tiles."""
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        tif.write(PIXELS[::2, ::2, :3], photometric="rgb", tile=(32, 32))
        tif.write(PIXELS[..., :3], photometric="rgb", tile=(32, 32))
    found = problems(tmp_path / "a.tif")
    for words in ("must be smaller", "not marked as an overview", "before the last directory", "not ordered"):
        assert words in found


def test_a_truncated_file(good):
    whole = good.read_bytes()
    for length, words in [(len(whole) - 5, "tile 19 of"), (2000, "beyond the end"), (30, "beyond the end")]:
        good.write_bytes(whole[:length])
        assert words in problems(good)


def test_damage_in_a_tile(good):
    offset, _ = entry_at(good, 0, 324)
    place = int(directories(good)[0].array(324)[7])
    poke(good, place + 40, "<4B", 1, 2, 3, 4)
    assert problems(good, deep=False) == ""
    assert "tile 7 of the 130 x 100 level cannot be decoded" in problems(good)


def test_offsets_beyond_the_file(good):
    place, _ = entry_at(good, 0, 324)
    poke(good, place + 8, "<Q", 2**63)
    assert "tile 1 of the 130 x 100 level lies beyond the end" in problems(good)


def test_a_tile_without_bytes_and_a_lying_leader(good):
    place, _ = entry_at(good, 0, 325)
    poke(good, place, "<I", 0)
    found = problems(good, deep=False)
    assert "tile 0 of the 130 x 100 level has no bytes" in found
    assert "not preceded by its size" in found


def test_too_few_tiles(good):
    _, position = entry_at(good, 0, 257)
    height, _ = entry_at(good, 0, 257)
    poke(good, height, "<I", 400)
    assert "20 tiles instead of 65" in problems(good, deep=False)


def test_no_pixels(good):
    height, _ = entry_at(good, 0, 257)
    poke(good, height, "<I", 0)
    assert "has no pixels" in problems(good, deep=False)


def test_a_mask_overview_that_contradicts(good):
    """Its tiles exchanged with those of a fully valid mask: every tile decodes, the picture is wrong."""
    pages = directories(good)
    assert pages[-1].number(254) == 5
    offset, count = entry_at(good, len(pages) - 1, 324)[0], entry_at(good, len(pages) - 1, 325)[0]
    first = directories(good)[1]
    source, length = int(first.array(324)[0]), int(first.array(325)[0])
    poke(good, offset, "<Q", source)
    poke(good, count, "<I", length)
    found = problems(good)
    assert "contradicts the mask" in found and "cannot be decoded" not in found


def test_a_missing_mask(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        for n in (1, 2, 4):
            tif.write(PIXELS[::n, ::n, :3], photometric="rgb", tile=(32, 32), subfiletype=n > 1)
        tif.write(PIXELS[..., 3] > 0, tile=(32, 32), subfiletype=4)
    assert "1 masks for 3 levels" in problems(tmp_path / "a.tif")


def test_a_bomb_is_not_decoded(good):
    """A tile that claims 900 MB."""
    for code in (322, 323):
        place, _ = entry_at(good, 0, code)
        poke(good, place, "<H", 17408)
    for code in (324, 325):
        place, directory = entry_at(good, 0, code)
        entries = list(directories(good)[0].entries)
        poke(good, directory + 8 + 20 * entries.index(code) + 4, "<Q", 1)
        if code == 324:
            poke(good, directory + 8 + 20 * entries.index(code) + 12, "<Q", 600)
    assert "too large to decode" in problems(good)


def test_sentences_are_cut_short(good):
    place, _ = entry_at(good, 0, 324)
    poke(good, place, "<20Q", *[2**40] * 20)
    found = validate(good).problems
    assert len(found) < 10 and "and more of the same" in found


def test_a_changed_copy_of_gdal_is_noticed(good, tmp_path):
    copy = tmp_path / "copy.tif"
    shutil.copy(good, copy)
    data = copy.read_bytes()
    copy.write_bytes(data[:16] + b"X" + data[17:])  # the ghost header no longer begins as it must
    assert "not behind the header" in problems(copy, deep=False)


@pytest.mark.parametrize(
    "name", ["rasterio__cogeo.tif", "rio-tiler__cog_rgb_mask.tif", "rio-tiler__mosaic_cog1.tif"]
)
def test_real_cogs_are_valid(inputs, name):
    assert problems(inputs / "geotiff" / name) == ""


@pytest.mark.parametrize("name", ["scan/libvips__sample.tif", "geotiff/rasterio__alpha.tif"])
def test_real_others_are_not(inputs, name):
    assert not validate(inputs / name).valid
