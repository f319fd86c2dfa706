"""``--stains``: the amounts of hematoxylin and eosin as bands, against the formulas computed by numpy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile
from colours import E, H, slide, written
from helpers import geotiff
from stains import BETA, density_of, macenko_fit, vahadane_fit

import urst_tiles as ut
from urst_tiles.api.stylize import plan_job
from urst_tiles.errors import BadInput, BadPlan

SCALE = 1e-4
TILED, WHOLE = {"block": 512, "tile": 64}, {"block": 2048, "tile": 2048}


def maps(input: Path, output: Path, stains: str = "H,E", **options) -> np.ndarray:
    ut.stylize(input, output, None, model="stain", stains=stains, overwrite=True, **options)
    assert ut.validate(output).valid
    return tifffile.imread(output)


@pytest.mark.parametrize("method", ["macenko", "vahadane"])
def test_maps_are_the_amounts_of_the_formula_and_tiled_equals_whole(method: str, tmp_path: Path) -> None:
    image = slide(160, 530, 0)
    input = written(tmp_path / "in.tif", image)
    got = maps(input, tmp_path / "t.tif", method=method, white="240", **TILED)
    np.testing.assert_array_equal(got, maps(input, tmp_path / "w.tif", method=method, white="240", **WHOLE))
    amounts = macenko_fit(image)[1].T if method == "macenko" else vahadane_fit(image)[1]
    assert got.shape == (160, 530, 2) and got.dtype == np.uint16
    tissue = density_of(image).max(1) >= BETA
    wrong = np.abs(got.reshape(-1, 2) * SCALE - np.maximum(amounts, 0))
    assert wrong[tissue].max() < 0.012 and wrong.max() < 0.02
    assert np.ptp(got[..., 0] * SCALE) > 1


def test_rebuilt_from_its_maps_a_slide_is_the_slide(tmp_path: Path) -> None:
    """Stains times amounts are its optical densities, but for noise."""
    image = slide(300, 300, 0)
    input = written(tmp_path / "in.tif", image)
    amounts = maps(input, tmp_path / "o.tif", white="240") * SCALE
    look = ut.measure_look(input, model="stain", white="240")
    rebuilt = 240 * np.exp(-amounts @ look.statistics["stains"]) - 1
    tissue = density_of(image).reshape(image.shape).max(2) >= BETA
    assert np.abs(rebuilt - image)[tissue].mean() < 1.5


def test_bands_say_what_they_are_and_other_programs_read_them(tmp_path: Path) -> None:
    image = slide(700, 600, 0)
    input = geotiff(tmp_path / "in.tif", image, tile=(64, 64))
    output = tmp_path / "o.tif"
    both = maps(input, output)
    with rasterio.open(output) as data, rasterio.open(input) as before:
        assert (data.count, data.dtypes, data.descriptions) == (2, ("uint16",) * 2, ("hematoxylin", "eosin"))
        assert data.scales == (SCALE, SCALE) and data.offsets == (0, 0)
        assert data.units == ("optical density (natural logarithm)",) * 2
        assert (data.crs, data.transform) == (before.crs, before.transform)
        np.testing.assert_array_equal(data.read().transpose(1, 2, 0), both)
        assert data.overviews(1) == [2]
        half = data.read(out_shape=(2, 350, 300)).transpose(1, 2, 0)
    mean = both.reshape(350, 2, 300, 2, 2).mean((1, 3))
    assert np.abs(half - mean).max() <= 0.5
    eosin = maps(input, tmp_path / "e.tif", "eosin")
    np.testing.assert_array_equal(eosin, both[..., 1])
    np.testing.assert_array_equal(maps(input, tmp_path / "eh.tif", "e, h"), both[..., ::-1])


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("mark", ["alpha", "nodata"])
def test_invalid_pixels_count_for_nothing_and_are_invalid(mark: str, tmp_path: Path) -> None:
    image = slide(256, 512, 0)
    alone = maps(written(tmp_path / "a.tif", image[:, :256]), tmp_path / "ao.tif", white="240")
    if mark == "alpha":
        alpha = np.full((256, 512, 1), 255, np.uint8)
        alpha[:, 256:] = 0
        pixels = np.where(alpha > 0, image, 90).astype(np.uint8)
        input = written(tmp_path / "b.tif", np.concatenate([pixels, alpha], 2), extrasamples=["unassalpha"])
    else:
        pixels = image.copy()
        pixels[:, 256:] = 0
        input = written(tmp_path / "b.tif", pixels, extratags=[(42113, "s", 2, "0", True)])
    maps(input, tmp_path / "bo.tif", white="240")
    with rasterio.open(tmp_path / "bo.tif") as data:
        valid = (data.read(3) if mark == "alpha" else data.dataset_mask()) > 0
        assert not valid[:, 256:].any() and valid[:, :256].mean() > 0.5
        got = data.read([1, 2]).transpose(1, 2, 0)
    np.testing.assert_array_equal(got[valid], np.pad(alone, ((0, 0), (0, 256), (0, 0)))[valid])


def test_a_part_and_a_saved_plan_have_the_bytes_of_the_whole(tmp_path: Path) -> None:
    input = written(tmp_path / "in.tif", slide(600, 700, 0))
    whole = maps(input, tmp_path / "o.tif", block=512, tile=256)
    part = maps(input, tmp_path / "p.tif", region=(100, 50, 300, 400), block=512, tile=256)
    np.testing.assert_array_equal(part, whole[50:450, 100:400])
    options = ut.Options(model="stain", stains="H,E", block=512, tile=256)
    plan, _ = plan_job(input, tmp_path / "q.tif", None, options)
    assert (plan.colours, plan.channels, plan.dtype) == (2, 2, "uint16")
    assert json.loads(json.dumps(dict(plan.identity)))["stains"] == "hematoxylin,eosin"


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"stains": "H,X"}, BadInput, "--stains takes H"),
        ({"stains": ""}, BadInput, "--stains takes H"),
        ({"stains": "H,hematoxylin"}, BadInput, "--stains takes H"),
        ({"method": "reinhard"}, BadInput, "macenko or vahadane, got --model stain --method reinhard"),
        ({"model": "colour"}, BadInput, "--stains writes amounts"),
        ({"alpha": 0.5}, BadInput, "leave --alpha out"),
        ({"dtype": "uint8"}, BadPlan, "leave --dtype out"),
        ({"compression": "jpeg"}, BadPlan, "red, green and blue only"),
        ({"format": "png"}, BadPlan, r"2 band\(s\): choose a name that ends in .tif"),
    ],
)
def test_what_does_not_go_together_is_refused(options, error, said: str, tmp_path: Path) -> None:
    input = written(tmp_path / "in.tif", slide(64, 64, 0))
    output = tmp_path / ("o.png" if options.get("format") else "o.tif")
    with pytest.raises(error, match=said):
        ut.stylize(input, output, None, **({"model": "stain", "stains": "H,E"} | options))
    assert [p.name for p in tmp_path.iterdir()] == ["in.tif"]


@pytest.mark.parametrize("method", ["macenko", "vahadane"])
def test_floats_are_the_amounts_themselves(method: str, tmp_path: Path) -> None:
    """Neither rounded nor cut off at 0; in uint16 they are the nearest levels."""
    image = slide(160, 330, 0)
    input = written(tmp_path / "in.tif", image)
    options = {"method": method, "white": "240"}
    got = maps(input, tmp_path / "f.tif", dtype="float32", **options, **TILED)
    amounts = macenko_fit(image)[1].T if method == "macenko" else vahadane_fit(image)[1]
    assert got.dtype == np.float32 and got.shape == (160, 330, 2)
    assert np.abs(got.reshape(-1, 2) - amounts).max() < 0.02
    assert (got.min() < -0.01) == (method == "macenko")
    levels = maps(input, tmp_path / "u.tif", **options, **WHOLE)
    assert np.abs(levels - np.clip(got / SCALE, 0, None)).max() < 0.501
    np.testing.assert_array_equal(got, maps(input, tmp_path / "w.tif", dtype="float32", **options, **WHOLE))
    blended = maps(input, tmp_path / "b.tif", dtype="float32", seam="blend", **options, **TILED)
    np.testing.assert_allclose(blended, got, atol=1e-6)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("mark", ["alpha", "nodata"])
def test_floats_say_what_they_are_and_invalid_pixels_are_marked(mark: str, tmp_path: Path) -> None:
    pixels = slide(200, 260, 0)
    pixels[:, 200:] = 0
    if mark == "nodata":
        input = written(tmp_path / "in.tif", pixels, extratags=[(42113, "s", 2, "0", True)])
    else:
        alpha = np.full((200, 260, 1), 255, np.uint8)
        alpha[:, 200:] = 0
        input = written(tmp_path / "in.tif", np.concatenate([pixels, alpha], 2), extrasamples=["unassalpha"])
    maps(input, tmp_path / "o.tif", dtype="float32", white="240", blocksize=128)
    with rasterio.open(tmp_path / "o.tif") as data:
        assert data.dtypes[:2] == ("float32",) * 2
        assert (data.descriptions[:2], data.scales[:2], data.units[:2]) == (
            ("hematoxylin", "eosin"), (1, 1), ("optical density (natural logarithm)",) * 2,
        )  # fmt: skip
        marked = data.read(3) > 0 if mark == "alpha" else data.dataset_mask() > 0
        assert np.isnan(data.nodata) if mark == "nodata" else data.nodata is None
        assert not marked[:, 200:].any() and marked[:, :200].all()
        half = data.read([1, 2], out_shape=(2, 100, 130))[:, :, :100]
        np.testing.assert_allclose(
            half, data.read([1, 2])[:, :, :200].reshape(2, 100, 2, 100, 2).mean((2, 4)), atol=1e-5
        )


def test_stains_of_pure_pixels_fall_into_their_own_band(tmp_path: Path) -> None:
    amounts = np.random.default_rng(1).uniform(0.4, 1.6, (256, 256, 1))
    nuclei = np.random.default_rng(0).random((256, 256)) < 0.3
    image = np.rint(240 * np.exp(-amounts * np.where(nuclei[..., None], H, E))).astype(np.uint8)
    input = written(tmp_path / "in.tif", image)
    got = maps(input, tmp_path / "o.tif", method="vahadane", white="240") * SCALE
    assert np.abs(got[nuclei][:, 0] - amounts[nuclei][:, 0]).max() < 0.06
    assert got[nuclei][:, 1].max() < 0.08 and got[~nuclei][:, 0].max() < 0.08
