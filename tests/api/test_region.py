"""A part of an image: the same pixels as in the whole output, in the right place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile
from helpers import geotiff, picture

import urst_tiles as ut

TINY = {"tile": 128, "block": 256, "precision": "float32", "device": "cpu", "threads": 1, "thumbnail": 128}
SCENE = (700, 900)

#: Parts as x, y, w, h: on tiles and off them, at each edge, less than a tile, one pixel.
PARTS = [(128, 256, 384, 256), (101, 67, 333, 415), (0, 0, 130, 700), (771, 559, 129, 141), (450, 333, 1, 1)]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return geotiff(tmp_path_factory.mktemp("region") / "scene.tif", picture(*SCENE))


def read(path: Path) -> np.ndarray:
    return tifffile.imread(path)


def cut(pixels: np.ndarray, region: tuple[int, int, int, int]) -> np.ndarray:
    x, y, w, h = region
    return pixels[y : y + h, x : x + w]


@pytest.mark.parametrize(
    "options",
    [
        {"model": "lite"},
        {"model": "lite", "seam": "blend", "halo": 16},
        {"model": "lite", "statistics": "local", "local_scale": 300},
        {"model": "identity"},
    ],
    ids=lambda options: "-".join(str(value) for value in options.values()),
)
def test_a_part_has_the_bytes_of_the_whole(scene: Path, tmp_path: Path, options: dict) -> None:
    style = None if options["model"] == "identity" else "hokusai-wave"
    ut.stylize(scene, tmp_path / "whole.tif", style, **TINY, **options)
    whole = read(tmp_path / "whole.tif")
    assert whole.std() > 20
    for region in PARTS:
        report = ut.stylize(scene, tmp_path / "part.tif", style, region=region, overwrite=True, **TINY, **options)
        np.testing.assert_array_equal(read(tmp_path / "part.tif"), cut(whole, region), err_msg=str(region))
        assert ut.validate(tmp_path / "part.tif").valid
        assert report.plan.grid.made.shape == region[:1:-1]
