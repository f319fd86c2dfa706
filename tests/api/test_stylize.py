"""The main job, from a file to a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import pyvips
import rasterio
import tifffile
from helpers import geotiff, picture, sha
from PIL import Image

import urst_tiles as ut

SMALL = {"tile": 128, "block": 512, "precision": "float32"}
TINY = {"tile": 128, "block": 256, "precision": "float32"}


def test_identity_returns_the_pixels_and_the_place(files: Path, tmp_path: Path) -> None:
    report = ut.stylize(
        files / "scene.tif", tmp_path / "out.tif", files / "style.png", model="identity", **SMALL
    )
    assert report.blocks_run == len(report.plan.grid) == 6
    with rasterio.open(files / "scene.tif") as before, rasterio.open(tmp_path / "out.tif") as after:
        np.testing.assert_array_equal(before.read(), after.read())
        assert after.crs == before.crs and after.transform == before.transform
        assert after.overviews(1) == [2, 4]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.tif"]
    assert ut.validate(tmp_path / "out.tif").valid


@pytest.mark.parametrize("statistics", ["thumbnail", "exact"])
def test_tiled_equals_whole(files: Path, weights_dir: Path, tmp_path: Path, statistics: str) -> None:
    outputs = []
    for name, options in (("tiled", TINY), ("whole", {"tile": 512, "block": 512, "precision": "float32"})):
        ut.stylize(
            files / "small.tif", tmp_path / f"{name}.tif", files / "style.png", model="microast",
            weights=weights_dir, statistics=statistics, thumbnail=128, style_size=128, **options,
        )  # fmt: skip
        outputs.append(tifffile.imread(tmp_path / f"{name}.tif").astype(int))
    assert outputs[0].std() > 20
    assert np.abs(outputs[0] - outputs[1]).max() <= 1


def test_the_same_plan_gives_the_same_bytes(files: Path, weights_dir: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        ut.stylize(
            files / "small.tif", tmp_path / f"{name}.tif", files / "style.png", model="microast",
            weights=weights_dir, thumbnail=128, style_size=128, **TINY,
        )  # fmt: skip
    assert sha(tmp_path / "one.tif") == sha(tmp_path / "two.tif")


@pytest.mark.parametrize("size", [(1, 1), (3, 700), (513, 5)])
def test_odd_sizes(files: Path, weights_dir: Path, tmp_path: Path, size: tuple[int, int]) -> None:
    geotiff(tmp_path / "in.tif", picture(*size))
    ut.stylize(
        tmp_path / "in.tif", tmp_path / "out.tif", files / "style.png", model="microast", weights=weights_dir,
        thumbnail=128, style_size=64, **SMALL,
    )  # fmt: skip
    assert tifffile.imread(tmp_path / "out.tif").shape == (*size, 3)
    opened = pyvips.Image.new_from_file(str(tmp_path / "out.tif"))
    assert (opened.height, opened.width) == size and opened.avg() > 0


def test_sixteen_bits_stay_sixteen(files: Path, tmp_path: Path) -> None:
    pixels = picture(300, 400).astype(np.uint16) * 40
    geotiff(tmp_path / "in.tif", pixels)
    ut.stylize(
        tmp_path / "in.tif",
        tmp_path / "out.tif",
        files / "style.png",
        model="identity",
        stretch="0,65535",
        **SMALL,
    )
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), pixels)
    ut.stylize(
        tmp_path / "in.tif", tmp_path / "eight.tif", files / "style.png", model="identity", stretch="0,10200",
        dtype="uint8", compression="jpeg", **SMALL,
    )  # fmt: skip
    assert tifffile.imread(tmp_path / "eight.tif").dtype == np.uint8
    with pytest.raises(ut.BadPlan, match="--dtype uint8"):
        ut.stylize(
            tmp_path / "in.tif",
            tmp_path / "no.tif",
            files / "style.png",
            model="identity",
            compression="jpeg",
            **SMALL,
        )
    assert not (tmp_path / "no.tif").exists()


@pytest.mark.parametrize("compression", ["deflate", "jpeg"])
def test_alpha_goes_through(files: Path, tmp_path: Path, compression: str) -> None:
    pixels = np.dstack([picture(600, 700), np.full((600, 700), 255, np.uint8)])
    pixels[:200, :300, 3] = 0
    geotiff(tmp_path / "in.tif", pixels, extrasamples=["unassalpha"])
    output = tmp_path / "out.tif"
    ut.stylize(
        tmp_path / "in.tif", output, files / "style.png", model="identity", compression=compression, **SMALL
    )
    with rasterio.open(output) as after:
        np.testing.assert_array_equal(after.dataset_mask() > 0, pixels[..., 3] > 0)


def test_an_image_without_a_valid_pixel_comes_out_invalid(files: Path, tmp_path: Path) -> None:
    geotiff(tmp_path / "in.tif", np.zeros((600, 700, 4), np.uint8), extrasamples=["unassalpha"])
    ut.stylize(tmp_path / "in.tif", tmp_path / "out.tif", files / "style.png", model="identity", **SMALL)
    with rasterio.open(tmp_path / "out.tif") as after:
        assert not after.dataset_mask().any()


def test_blending_is_smoother_than_cutting(files: Path, weights_dir: Path, tmp_path: Path) -> None:
    pictures = {}
    for name, options in (("whole", {}), ("blend", {"halo": 16}), ("cut", {"halo": 16, "seam": "cut"})):
        ut.stylize(
            files / "small.tif", tmp_path / f"{name}.tif", files / "style.png", model="microast",
            weights=weights_dir, thumbnail=128, style_size=128, **TINY, **options,
        )  # fmt: skip
        pictures[name] = tifffile.imread(tmp_path / f"{name}.tif").astype(int)
    errors = {name: pictures[name] - pictures["whole"] for name in ("blend", "cut")}
    assert np.abs(errors["blend"]).max() < np.abs(errors["cut"]).max()
    steps = {name: np.abs(np.diff(error, axis=1))[:, 127:499:128].mean() for name, error in errors.items()}
    assert steps["blend"] < 0.5 * steps["cut"]


def test_preview_is_the_stylised_thumbnail(files: Path, weights_dir: Path, tmp_path: Path) -> None:
    pixels = ut.preview(
        files / "small.tif", files / "style.png", folder=tmp_path, model="microast", weights=weights_dir,
        thumbnail=200, style_size=128, precision="float32",
    )  # fmt: skip
    assert pixels.shape == (200, 250, 3) and pixels.dtype == np.uint8 and pixels.std() > 20


@pytest.mark.parametrize("coarsest", [512, 48])
@pytest.mark.parametrize("valid", ["RGB", "RGBA"])
def test_a_preview_of_a_painting_is_what_a_job_makes_of_the_thumbnail(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, coarsest: int, valid: str
) -> None:
    """With its noise, and on levels, so that the coarsest strokes are as large as those of the whole."""
    monkeypatch.setattr("urst_tiles.recipe.COARSEST", coarsest)
    monkeypatch.setattr("urst_tiles.recipe.SMALLEST", 16)
    square = np.array(Image.open(files / "style.png").convert(valid))[:96, :128]
    square[20:90, 30:120, :3] = 40
    if valid == "RGBA":
        square[:40, :40, 3] = 0
    Image.fromarray(square).save(tmp_path / "square.png")
    options = ut.Options(model="painter", precision="float32", device="cpu")
    ut.stylize(tmp_path / "square.png", tmp_path / "made.png", "hokusai-wave", options)
    shown = ut.preview(tmp_path / "square.png", "hokusai-wave", options, folder=tmp_path)
    made = np.array(Image.open(tmp_path / "made.png")).astype(int)
    assert made.shape == shown.shape and np.abs(made - shown)[..., :3].max() <= 1


def test_an_existing_output_is_kept_unless_told_otherwise(files: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.tif"
    output.write_text("mine")
    with pytest.raises(ut.BadInput, match="--overwrite"):
        ut.stylize(files / "scene.tif", output, files / "style.png", model="identity", **SMALL)
    assert output.read_text() == "mine"
    ut.stylize(files / "scene.tif", output, files / "style.png", model="identity", overwrite=True, **SMALL)
    assert ut.validate(output).valid


def test_own_statistics_per_window_leave_seams(files: Path, weights_dir: Path, tmp_path: Path) -> None:
    made = {}
    for statistics in ("thumbnail", "tile"):
        ut.stylize(
            files / "small.tif", tmp_path / f"{statistics}.tif", files / "style.png", model="microast",
            weights=weights_dir, thumbnail=128, style_size=128, statistics=statistics, **TINY,
        )  # fmt: skip
        made[statistics] = tifffile.imread(tmp_path / f"{statistics}.tif").astype(int)
    steps = {name: np.abs(np.diff(pixels, axis=1)) for name, pixels in made.items()}
    at_lines = {name: step[:, 127:499:128].mean() / step.mean() for name, step in steps.items()}
    assert at_lines["tile"] > 1.1 * at_lines["thumbnail"]
