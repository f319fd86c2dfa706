"""Jobs of which the user says what is valid: what counts, what is painted, what comes out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import rasterio.features
import tifffile
from helpers import geotiff, picture, sha

import urst_tiles as ut

TINY: dict[str, Any] = {
    "tile": 64, "block": 128, "precision": "float32", "device": "cpu", "threads": 1, "thumbnail": 96,
}  # fmt: skip
SHAPE = (300, 400)

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def valid_of(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.dataset_mask() > 0


def scene(folder: Path, invalid: np.ndarray | None = None) -> Path:
    """An RGB image; where ``invalid`` says so it is glaring, which would change every statistic."""
    pixels = picture(*SHAPE)
    if invalid is not None:
        pixels[invalid] = [255, 0, 255]
    return geotiff(folder / "scene.tif", pixels, tile=(64, 64))


def mask_file(folder: Path, valid: np.ndarray) -> Path:
    path = folder / "valid.png"
    path.write_bytes(imagecodecs.png_encode(valid.astype(np.uint8)))
    return path


HOLE = np.zeros(SHAPE, bool)
HOLE[:, 240:] = True
HOLE[70:100, 30:90] = True


@pytest.mark.parametrize(
    "more",
    [pytest.param({"statistics": "thumbnail"}, marks=pytest.mark.slow),
     pytest.param({"statistics": "exact"}, marks=pytest.mark.slow),
     pytest.param({"statistics": "local", "local_scale": 150}, marks=pytest.mark.slow),
     {"statistics": "sampled", "region": (20, 60, 300, 190)}],
    ids=["thumbnail", "exact", "local", "sampled-region"],
)  # fmt: skip
def test_a_mask_file_is_as_the_files_own_alpha(tmp_path: Path, more: dict[str, Any]) -> None:
    options = TINY | {"model": "lite"} | more
    path = scene(tmp_path, HOLE)
    ut.stylize(path, tmp_path / "out.tif", "hokusai-wave", valid=mask_file(tmp_path, ~HOLE), **options)
    alpha = np.where(HOLE, 0, 255).astype(np.uint8)
    own = geotiff(
        tmp_path / "own.tif", np.dstack([tifffile.imread(path), alpha]), tile=(64, 64),
        extrasamples=["unassalpha"],
    )  # fmt: skip
    ut.stylize(own, tmp_path / "own-out.tif", "hokusai-wave", **options)
    x, y, w, h = more.get("region", (0, 0, 400, 300))
    valid = ~HOLE[y : y + h, x : x + w]
    np.testing.assert_array_equal(valid_of(tmp_path / "out.tif"), valid)
    made = tifffile.imread(tmp_path / "out.tif")
    np.testing.assert_array_equal(made, tifffile.imread(tmp_path / "own-out.tif")[..., :3])
    assert (made[~valid] == 0).all() and made[valid].std() > 20
    assert ut.validate(tmp_path / "out.tif").valid


def polygons(path: Path, *rings: Any) -> Path:
    found = [{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}} for ring in rings]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": found}))
    return path


def test_an_area_of_interest_is_a_part_of_the_whole(tmp_path: Path, run: Any) -> None:
    path, out = tmp_path / "scene.tif", tmp_path / "out.tif"
    tifffile.imwrite(path, picture(*SHAPE), tile=(64, 64), photometric="rgb")
    rings = [[70, 40], [180, 60], [120, 200]], [[250, 30], [300, 30], [300, 90], [250, 90]]
    aoi = polygons(tmp_path / "aoi.geojson", *rings)
    options = TINY | {"model": "lite"}
    ut.stylize(path, out, "hokusai-wave", aoi=aoi, **options)
    ut.stylize(path, tmp_path / "again.tif", "hokusai-wave", aoi=aoi, region=None, **options)
    assert sha(out) == sha(tmp_path / "again.tif")
    made, valid = tifffile.imread(out), valid_of(out)
    assert made.shape == (170, 230, 3)  # the box around both: x from 70 to 300, y from 30 to 200
    geometry = [{"type": "Polygon", "coordinates": [[*ring, ring[0]]]} for ring in rings]
    expected = rasterio.features.rasterize(geometry, SHAPE)[30:200, 70:300] == 1
    np.testing.assert_array_equal(valid, expected)
    # the same validity from a mask gives the whole picture, of which this is the part
    whole = rasterio.features.rasterize(geometry, SHAPE) == 1
    ut.stylize(path, tmp_path / "whole.tif", "hokusai-wave", valid=mask_file(tmp_path, whole), **options)
    np.testing.assert_allclose(made, tifffile.imread(tmp_path / "whole.tif")[30:200, 70:300], atol=1)
    done = run(
        "stylize", path, tmp_path / "no.tif", "--aoi", aoi, "--region", "0,0,9,9", "--style", "hokusai-wave"
    )
    assert done.returncode == 2 and "--region and --aoi choose the same part" in done.stderr
    beyond = polygons(tmp_path / "far.geojson", [[900, 0], [950, 0], [950, 50]])
    done = run("stylize", path, tmp_path / "no.tif", "--aoi", beyond, "--style", "hokusai-wave")
    assert done.returncode == 2 and "lies outside of the image" in done.stderr


def slide(folder: Path) -> tuple[Path, np.ndarray]:
    """A stained round on glass."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    tissue = ((y - 150) / 100) ** 2 + ((x - 170) / 120) ** 2 < 1
    pixels = np.where(tissue[..., None], [196, 120, 170], [238, 237, 240])
    pixels = np.clip(pixels + random.normal(0, 4, (*SHAPE, 3)), 0, 255).astype(np.uint8)
    tifffile.imwrite(
        folder / "slide.tif", pixels, tile=(64, 64), photometric="rgb", resolution=(20000, 20000),
        resolutionunit="CENTIMETER",
    )  # fmt: skip
    return folder / "slide.tif", tissue


@pytest.mark.parametrize("compression", ["deflate", "jpeg"])
def test_tissue_is_painted_and_glass_stays(tmp_path: Path, compression: str) -> None:
    path, tissue = slide(tmp_path)
    before = tifffile.imread(path)
    options = TINY | {"model": "lite", "valid": "tissue", "compression": compression}
    ut.stylize(path, tmp_path / "out.tif", "hokusai-wave", **options)
    made, valid = tifffile.imread(tmp_path / "out.tif"), valid_of(tmp_path / "out.tif")
    assert (valid != tissue).mean() < 0.03 and valid[150, 170] and not valid[:30].any()
    difference = np.abs(made.astype(int) - before).mean(-1)
    if compression == "deflate":
        assert (difference[~valid] == 0).all()
    assert difference[~valid].mean() < 5 < 20 < difference[valid].mean()
    ut.stylize(path, tmp_path / "part.tif", "hokusai-wave", region=(101, 33, 200, 90), **options)
    if compression == "deflate":
        np.testing.assert_array_equal(tifffile.imread(tmp_path / "part.tif"), made[33:123, 101:301])
        np.testing.assert_array_equal(valid_of(tmp_path / "part.tif"), valid[33:123, 101:301])
    small = ut.preview(path, "hokusai-wave", folder=tmp_path, valid="tissue", thumbnail=96, device="cpu")
    assert small.shape == (96, 128, 4) and small[2, 2, :3].min() > 220 and small[2, 2, 3] == 0


def test_another_mask_is_another_job(tmp_path: Path) -> None:
    path, out = scene(tmp_path, HOLE), tmp_path / "out.tif"
    options = TINY | {"model": "identity"}
    mask = mask_file(tmp_path, ~HOLE)
    ut.save_job(tmp_path / "job", path, out, None, valid=mask, **options)
    with pytest.raises(ut.JobDiffers, match="valid was"):
        ut.stylize(path, out, None, job_dir=tmp_path / "job", valid="tissue", **options)
    before = mask.read_bytes()
    mask_file(tmp_path, HOLE)
    with pytest.raises(ut.JobDiffers, match="valid was"):
        ut.work_job(tmp_path / "job")
    mask.write_bytes(before)
    ut.work_job(tmp_path / "job")
    ut.assemble_job(tmp_path / "job")
    np.testing.assert_array_equal(valid_of(out), ~HOLE)


def test_a_table_of_jobs_has_a_mask_for_each_image(tmp_path: Path, run: Any) -> None:
    scene(tmp_path, HOLE)
    mask_file(tmp_path, ~HOLE).rename(tmp_path / "scene.png")
    (tmp_path / "jobs.toml").write_text(
        'inputs = "scene.tif"\noutput = "out-{stem}.tif"\n'
        'options = {model = "identity", tile = 64, block = 128, thumbnail = 96, valid = "{stem}.png"}\n'
    )
    assert run("run", tmp_path / "jobs.toml").returncode == 0
    np.testing.assert_array_equal(valid_of(tmp_path / "out-scene.tif"), ~HOLE)
    made = (tmp_path / "out-scene.tif").stat().st_mtime_ns
    assert run("run", tmp_path / "jobs.toml").returncode == 0
    assert (tmp_path / "out-scene.tif").stat().st_mtime_ns == made
    (tmp_path / "scene.png").write_bytes(imagecodecs.png_encode(HOLE.astype(np.uint8)))
    assert run("run", tmp_path / "jobs.toml").returncode == 1
    assert run("run", tmp_path / "jobs.toml", "--overwrite").returncode == 0
    np.testing.assert_array_equal(valid_of(tmp_path / "out-scene.tif"), HOLE)


def test_nothing_valid_is_one_sentence(tmp_path: Path, run: Any) -> None:
    path = scene(tmp_path)
    mask = mask_file(tmp_path, np.zeros(SHAPE))
    small = ["--tile", 64, "--block", 128, "--thumbnail", 96, "--model", "identity"]
    done = run("stylize", path, tmp_path / "out.tif", "--valid", mask, *small)
    assert done.returncode == 0 and done.stderr.count("\n") == 1 and "has no valid pixel" in done.stderr
    done = run("stylize", path, tmp_path / "b.tif", "--valid", tmp_path / "none.png", *small)
    assert done.returncode == 2 and "none.png" in done.stderr
