"""Jobs whose regions, or whose valid pixels, are told by files that lie on the ground."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile
from helpers import geotiff, picture
from rasterio.transform import Affine

import urst_tiles as ut
from urst_tiles.api.stylize import plan_job
from urst_tiles.errors import BadInput

SHAPE = (300, 400)
PLACE = Affine(10, 0, 500000, 0, -10, 5200000)
STYLES = {1: "munch-scream", 2: "roerich-mountains"}
TINY: dict[str, Any] = {
    "tile": 64, "block": 128, "precision": "float32", "device": "cpu", "threads": 1, "thumbnail": 96,
    "feather": 8,
}  # fmt: skip


def raster(path: Path, pixels: np.ndarray, place: Affine) -> Path:
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "crs": "EPSG:32632", "transform": place}
    with rasterio.open(path, "w", height=pixels.shape[0], width=pixels.shape[1], **profile) as file:
        file.write(pixels, 1)
    return path


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return geotiff(tmp_path / "scene.tif", picture(*SHAPE), tile=(64, 64))


@pytest.fixture
def regions() -> np.ndarray:
    """Region 1 on the left, 2 on the right, and nothing below."""
    numbers = np.ones(SHAPE, np.uint8)
    numbers[:, 170:] = 2
    numbers[210:] = 0
    return numbers


def test_each_form_of_the_same_regions_gives_the_same_bytes(
    tmp_path: Path, scene: Path, regions: np.ndarray
) -> None:
    """Without a place, with that of the image, larger than the image, and as polygons."""
    wide = np.full((500, 600), 1, np.uint8)
    wide[50:350, 100:500] = regions
    boxes = [(1, 0, 0, 170, 210), (2, 170, 0, 400, 210)]
    features = []
    for number, x0, y0, x1, y1 in boxes:
        ring = [PLACE @ place for place in ((x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0))]
        geometry = {"type": "Polygon", "coordinates": [ring]}
        features.append({"type": "Feature", "properties": {"class": number, "n": 7}, "geometry": geometry})
    member = {"type": "name", "properties": {"name": "EPSG:32632"}}
    (tmp_path / "regions.geojson").write_text(
        json.dumps({"type": "FeatureCollection", "features": features, "crs": member})
    )
    tifffile.imwrite(tmp_path / "plain.tif", regions)
    masks = {
        "plain": (tmp_path / "plain.tif", {}),
        "same": (raster(tmp_path / "same.tif", regions, PLACE), {}),
        "wide": (raster(tmp_path / "wide.tif", wide, PLACE @ Affine.translation(-100, -50)), {}),
        "burnt": (tmp_path / "regions.geojson", {"mask_attribute": "class"}),
    }
    made, identities = {}, {}
    for name, (path, more) in masks.items():
        out = tmp_path / f"{name}-out.tif"
        options = TINY | more | {"mask": path, "provenance": False}
        identities[name] = plan_job(scene, out, STYLES, **options)[0].identity["mask"]
        ut.stylize(scene, out, STYLES, **options)
        made[name] = tifffile.imread(out)
    assert len(set(identities.values())) == 4  # `same` and `plain` are files of other bytes
    for name in ("same", "wide", "burnt"):
        np.testing.assert_array_equal(made[name], made["plain"])
    assert np.abs(made["plain"][:200, :150].mean((0, 1)) - made["plain"][:200, 200:].mean((0, 1))).max() > 5


def test_a_part_and_a_resumed_job_and_a_preview_know_the_place(
    tmp_path: Path, scene: Path, regions: np.ndarray
) -> None:
    path = raster(tmp_path / "mask.tif", regions, PLACE @ Affine.translation(60, 20))
    options = TINY | {"mask": path}
    ut.stylize(scene, tmp_path / "whole.tif", STYLES, **options)
    whole = tifffile.imread(tmp_path / "whole.tif")
    ut.stylize(scene, tmp_path / "part.tif", STYLES, region=(150, 30, 130, 140), **options)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "part.tif"), whole[30:170, 150:280])
    small = ut.preview(scene, STYLES, folder=tmp_path, **options)
    assert small.shape[2] == 3 and small.std() > 10


def test_what_does_not_fit_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, scene: Path, regions: np.ndarray
) -> None:
    before = sorted(tmp_path.iterdir())
    far = raster(tmp_path / "far.tif", regions, PLACE @ Affine.translation(5000, 0))
    for options, words in (
        ({"mask": far}, "does not touch the image"),
        ({"mask": far, "mask_attribute": "class"}, "--mask-attribute is for polygons"),
    ):
        with pytest.raises(BadInput, match=words):
            ut.stylize(scene, tmp_path / "out.tif", STYLES, **TINY | options)
    with pytest.raises(BadInput, match="does not touch the image"):
        ut.stylize(scene, tmp_path / "out.tif", "munch-scream", **TINY | {"valid": far})
    with pytest.raises(
        BadInput, match="--mask-attribute names the numbers of polygons in the file of --mask"
    ):
        ut.stylize(scene, tmp_path / "out.tif", "munch-scream", **TINY | {"mask_attribute": "class"})
    assert sorted(tmp_path.iterdir()) == sorted([*before, far])


def test_valid_on_the_ground_is_valid_in_the_output(tmp_path: Path, scene: Path, regions: np.ndarray) -> None:
    path = raster(tmp_path / "valid.tif", regions, PLACE @ Affine.translation(60, 20))
    ut.stylize(scene, tmp_path / "out.tif", "munch-scream", **TINY | {"valid": path})
    expected = np.zeros(SHAPE, bool)
    expected[20:230, 60:] = True
    with rasterio.open(tmp_path / "out.tif") as file:
        np.testing.assert_array_equal(file.dataset_mask() > 0, expected)
    assert ut.validate(tmp_path / "out.tif").valid
