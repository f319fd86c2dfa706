"""OME-Zarr 0.4 and 0.5, and plain Zarr arrays, as images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from helpers import picture
from zarr_files import NAMES, ome

import urst_tiles as ut
from urst_tiles.errors import BadInput, DamagedFile
from urst_tiles.geometry import Box
from urst_tiles.source import open_source
from urst_tiles.source.contents import contents_of
from urst_tiles.source.ome_zarr_opener import ZarrReader
from urst_tiles.tiff.choice import Choice

SMALL = {"model": "identity", "tile": 128, "block": 512, "thumbnail": 64}


def read(path: Path, **chosen: object) -> np.ndarray:
    source = open_source(path, stretch="0,65535", **chosen)
    return source.read(Box(0, 0, *source.shape))


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_channels_planes_and_levels(version: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    cube = random.integers(0, 65536, (2, 4, 5, 200, 150)).astype(np.uint16)  # t, c, z, y, x
    path = ome(tmp_path / "a.ome.zarr", [cube, cube[..., ::2, ::2]], "tczyx", version)
    source = open_source(path)
    assert (
        source.told
        == "z 3 of 5, t 1 of 2; channels 3 (TRITC), 2 (FITC) and 1 (DAPI) of 4 as red, green and blue"
    )
    assert source.overviews == [(100, 75)] and source.info.microns_per_pixel == pytest.approx((0.5, 0.25))
    np.testing.assert_array_equal(read(path), np.moveaxis(cube[0, [2, 1, 0], 2], 0, -1))
    chosen = read(path, channels=("Cy5", 2, "DAPI"), page=9)  # t 2, z 4
    np.testing.assert_array_equal(chosen, np.moveaxis(cube[1, [3, 1, 0], 3], 0, -1))
    np.testing.assert_array_equal(read(path, channels=("Cy5",))[..., 0], cube[0, 3, 2])
    np.testing.assert_array_equal(read(path, level=1), np.moveaxis(cube[0, [2, 1, 0], 2, ::2, ::2], 0, -1))
    assert open_source(path, level=1).info.microns_per_pixel == pytest.approx((1.0, 0.5))
    found = contents_of(path)
    assert len(found.pages) == 10 and [c.name for c in found.channels] == NAMES
    for wrong, words in (({"page": 11}, "no page '11'"), ({"channels": ("GFP",)}, "no channel 'GFP'")):
        with pytest.raises(BadInput, match=words):
            open_source(path, **wrong)


@pytest.mark.parametrize("layout", ["grey", "last", "first", "rgba", "v2"])
def test_plain_arrays(layout: str, tmp_path: Path) -> None:
    pixels = picture(130, 170)
    alpha = np.concatenate([pixels, picture(130, 170, 1)[..., :1]], -1)
    stored = {"grey": pixels[..., 0], "last": pixels, "first": np.moveaxis(pixels, -1, 0), "rgba": alpha,
              "v2": pixels}[layout]  # fmt: skip
    made = zarr.create_array(tmp_path / "a.zarr", shape=stored.shape, dtype="u1", chunks=(50,) * stored.ndim,
                             zarr_format=2 if layout == "v2" else 3)  # fmt: skip
    made[:] = stored
    expected = {"grey": np.repeat(pixels[..., :1], 3, -1), "rgba": alpha}.get(layout, pixels)
    np.testing.assert_array_equal(read(tmp_path / "a.zarr"), expected)


def test_a_job_on_a_folder(tmp_path: Path) -> None:
    pixels = picture(300, 260)
    path = ome(
        tmp_path / "a.zarr", [np.moveaxis(pixels, -1, 0)], "cyx", "0.5", ["FF0000", "00FF00", "0000FF", ""]
    )
    ut.stylize(path, tmp_path / "out.tif", None, **SMALL)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), pixels)
    before = open_source(path).prepare(tmp_path / "job", thumbnail=32)
    zarr.open_group(path, mode="r+")["0"][0, 0, 0] = 255 - pixels[0, 0, 0]
    assert open_source(path).fingerprint != before.fingerprint
    with pytest.raises(DamagedFile, match="was changed while in use"):
        before.read(Box(0, 0, 9, 9))


def test_codecs_that_run_code_are_refused(tmp_path: Path) -> None:
    made = zarr.create_array(tmp_path / "a.zarr", shape=(9, 9), dtype="u1", zarr_format=2)
    made[:] = 1
    metadata = json.loads((tmp_path / "a.zarr" / ".zarray").read_text())
    for wrong in ({"filters": [{"id": "pickle"}]}, {"dtype": "|O"}, {"shape": [0, 9]}):
        (tmp_path / "a.zarr" / ".zarray").write_text(json.dumps(metadata | wrong))
        with pytest.raises((BadInput, DamagedFile), match=r"a\.zarr"):
            open_source(tmp_path / "a.zarr")


def test_damaged_chunks_and_metadata(tmp_path: Path) -> None:
    path = ome(tmp_path / "a.zarr", [picture(100, 90)[..., 0]], "yx", "0.5")
    chunk = next(p for p in (path / "0" / "c").rglob("*") if p.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-20])
    with pytest.raises(DamagedFile, match="cannot be decoded"):
        read(path)
    told = json.loads((path / "zarr.json").read_text())
    told["attributes"]["ome"]["multiscales"][0]["datasets"][0]["path"] = "../../b.zarr"
    (path / "zarr.json").write_text(json.dumps(told))
    with pytest.raises(DamagedFile, match="make no sense"):
        open_source(path)
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(BadInput, match="is a folder"):
        open_source(tmp_path / "empty.zarr")


@pytest.mark.parametrize("shape", [(100, 80, 3), (128, 96, 3)])
def test_pixels_are_read_straight_into_an_array(shape: tuple[int, int, int], tmp_path: Path) -> None:
    """As the samples of a cell, where a chunk is not stored too."""
    pixels = picture(*shape[:2])
    made = zarr.create_array(tmp_path / "a.zarr", shape=shape, dtype="u1", chunks=(32, 32, 3), fill_value=7)
    made[:], made[32:64, 32:64] = pixels, 7
    shutil.rmtree(tmp_path / "a.zarr" / "c" / "1" / "1")
    reader = ZarrReader(tmp_path / "a.zarr", Choice())
    assert reader.into is not None
    for box in (Box(0, 0, *shape[:2]), Box(20, 31, 90, 70), Box(99, 79, 100, 80)):
        out = np.zeros((box.y1 - box.y0 + 2, box.x1 - box.x0 + 3, 3), np.uint8)
        reader.into(box, 0, out[1:-1, 2:-1])
        np.testing.assert_array_equal(out[1:-1, 2:-1], reader.cell(box).colour)
        np.testing.assert_array_equal(out[1:-1, 2:-1], np.asarray(made)[box.slices])
    assert ZarrReader(tmp_path / "a.zarr", Choice(channels=(2,))).into is None
    content = bytearray((tmp_path / "a.zarr" / "c" / "0" / "0" / "0").read_bytes())
    (tmp_path / "a.zarr" / "c" / "0" / "0" / "0").write_bytes(content[:20])
    with pytest.raises(DamagedFile, match="rows 0 to 32, columns 0 to 32"):
        reader.into(Box(0, 0, 32, 32), 0, np.zeros((32, 32, 3), np.uint8))
