"""Transfer between images of any number of bands, against the formulas computed by numpy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import tifffile
from rasterio.transform import Affine

import urst_tiles as ut
from urst_tiles.errors import BadInput, BadPlan

METHODS = ("mean-std", "histogram", "monge-kantorovich")
TILED, WHOLE = {"block": 256, "tile": 64}, {"block": 1024, "tile": 1024}
ALL = ("all",)


def scene(h: int, w: int, bands: int, seed: int, dtype=np.uint16, gain: float = 1.0) -> np.ndarray:
    """Reflectances times 10000, as Sentinel-2 has them, in bands that are correlated and not alike."""
    random, (y, x) = np.random.default_rng(seed), np.mgrid[:h, :w]
    number = np.arange(bands)
    common = np.sin(x / 31 + seed) * np.cos(y / 47)
    own = np.sin(x[..., None] / (9.0 + 7 * number) + y[..., None] / (50.0 - 2 * number))
    image = 1500 + 600 * common[..., None] * (1 + 0.1 * number) + 250 * own
    image = gain * (image + random.normal(0, 60, (h, w, bands)))
    return np.clip(image / (1 if dtype == np.uint16 else 12), 1, np.iinfo(dtype).max).astype(dtype)


def written(path: Path, pixels: np.ndarray, **options) -> Path:
    h, w, bands = pixels.shape
    more = {"photometric": "minisblack", "tiled": True, "blockxsize": 128, "blockysize": 128} | options
    more = {"transform": Affine(10.0, 0.0, 5e5, 0.0, -10.0, 5e6)} | more
    with rasterio.open(
        path, "w", driver="GTiff", height=h, width=w, count=bands, dtype=pixels.dtype, crs="EPSG:32632",
        **more,
    ) as data:  # fmt: skip
        data.write(pixels.transpose(2, 0, 1))
    return path


def root(matrix: np.ndarray, power: float) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return vectors @ np.diag(values**power) @ vectors.T


def formula(method: str, x: np.ndarray, ref: np.ndarray) -> np.ndarray:
    """The result for pixels (n, bands) that count, float64."""
    if method == "mean-std":
        return (x - x.mean(0)) / x.std(0) * ref.std(0) + ref.mean(0)
    if method == "histogram":
        out = np.empty_like(x)
        for band in range(x.shape[1]):
            _, inverse, counts = np.unique(x[:, band], return_inverse=True, return_counts=True)
            values, wanted = np.unique(ref[:, band], return_counts=True)
            new = np.interp(np.cumsum(counts) / len(x), np.cumsum(wanted) / len(ref), values)
            out[:, band] = new[inverse]
        return out
    a, b = (np.atleast_2d(np.cov(pixels.T, ddof=0)) for pixels in (x, ref))
    half, inverse = root(a, 0.5), root(a, -0.5)
    return (x - x.mean(0)) @ (inverse @ root(half @ b @ half, 0.5) @ inverse).T + ref.mean(0)


def job(input: Path, output: Path, style, bands=ALL, **options) -> np.ndarray:
    ut.stylize(input, output, style, model="colour", bands=bands, overwrite=True, **options)
    assert ut.validate(output).valid
    with rasterio.open(output) as data:
        return data.read().transpose(1, 2, 0)


KINDS = [(12, np.uint16), (4, np.uint8), (2, np.uint16), (1, np.uint8), (1, np.uint16), (5, np.uint8)]


@pytest.mark.parametrize(
    ("bands", "dtype", "method"),
    [(n, d, m) for k, (n, d) in enumerate(KINDS) for j, m in enumerate(METHODS) if n == 12 or j == k % 3],
)
def test_a_job_is_the_formula_and_tiled_equals_whole(bands: int, dtype, method: str, tmp_path: Path) -> None:
    image, ref = scene(300, 330, bands, 0, dtype), scene(200, 220, bands, 5, dtype, 0.8)
    input, reference = written(tmp_path / "in.tif", image), written(tmp_path / "ref.tif", ref)
    got = job(input, tmp_path / "t.tif", reference, method=method, **TILED)
    wanted = formula(method, image.reshape(-1, bands).astype(float), ref.reshape(-1, bands).astype(float))
    wanted = wanted.clip(0, np.iinfo(dtype).max).reshape(image.shape)
    assert got.dtype == dtype and got.shape == image.shape
    assert np.abs(wanted - image).mean() > 5
    assert np.abs(got - wanted).max() < 0.52
    if bands == 12:
        np.testing.assert_array_equal(got, job(input, tmp_path / "w.tif", reference, method=method, **WHOLE))
        with rasterio.open(tmp_path / "t.tif") as data, rasterio.open(input) as before:
            assert (data.crs, data.transform, data.overviews(1)) == (before.crs, before.transform, [2])
            assert "alpha" not in [kind.name for kind in data.colorinterp]
            half = data.read(out_shape=(12, 150, 165)).transpose(1, 2, 0)
        mean = got.reshape(150, 2, 165, 2, 12).mean((1, 3))
        assert np.abs(half - mean).max() <= 0.5


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("mark", ["nodata", "mask", "alpha"])
def test_invalid_pixels_count_for_nothing_and_stay_invalid(mark: str, tmp_path: Path) -> None:
    image, ref = scene(256, 300, 5, 0), scene(200, 220, 5, 5, gain=0.8)
    valid = np.ones((256, 300), bool)
    valid[:, 200:] = False
    holed = np.where(valid[..., None], image, 0 if mark == "nodata" else 4000).astype(np.uint16)
    input, mask = tmp_path / "in.tif", tmp_path / "mask.tif"
    options = {}
    if mark == "alpha":
        alpha = np.where(valid, 65535, 0).astype(np.uint16)[..., None]
        kinds = ["unspecified"] * 4 + ["unassalpha"]  # GDAL would make it the second
        every = np.concatenate([holed, alpha], 2)
        tifffile.imwrite(input, every, photometric="minisblack", tile=(128, 128), extrasamples=kinds)
    else:
        written(input, holed, **({"nodata": 0} if mark == "nodata" else {}))
    if mark == "mask":
        written(mask, valid.astype(np.uint8)[..., None])
        options["valid"] = mask
    reference = written(tmp_path / "ref.tif", ref)
    job(input, tmp_path / "o.tif", reference, method="monge-kantorovich", **options, **TILED)
    with rasterio.open(tmp_path / "o.tif") as data:
        got = data.read(list(range(1, 6))).transpose(1, 2, 0)
        # in a file of six bands GDAL takes alpha for no mask
        np.testing.assert_array_equal((data.read(6) if mark == "alpha" else data.dataset_mask()) > 0, valid)
    wanted = formula("monge-kantorovich", image[valid].astype(float), ref.reshape(-1, 5).astype(float))
    assert np.abs(got[valid] - wanted).max() < 0.52


def test_bands_are_chosen_in_their_order_and_thumbnails_sample_the_same(tmp_path: Path) -> None:
    image, ref = scene(200, 230, 6, 0), scene(200, 220, 6, 5, gain=0.8)
    input, reference = written(tmp_path / "in.tif", image), written(tmp_path / "ref.tif", ref)
    every = job(input, tmp_path / "o.tif", reference, method="mean-std")
    some = job(input, tmp_path / "s.tif", reference, bands=(6, 1, 2, 5), method="mean-std")
    np.testing.assert_array_equal(some, every[..., [5, 0, 1, 4]])
    for statistics in ("thumbnail", "sampled"):
        other = job(input, tmp_path / "u.tif", reference, method="mean-std", statistics=statistics)
        assert np.abs(other.astype(int) - every).max() <= 1
    part = job(input, tmp_path / "p.tif", reference, method="mean-std", region=(20, 30, 100, 90))
    np.testing.assert_array_equal(part, every[30:120, 20:120])


def test_the_names_of_bands_are_kept(tmp_path: Path) -> None:
    input = written(tmp_path / "in.tif", scene(64, 64, 4, 0))
    with rasterio.open(input, "r+") as data:
        data.descriptions = ("B2, 490 nm", "B3", None, "B8 & more")
    job(input, tmp_path / "o.tif", input, bands=(4, "B3", 3, 1), method="mean-std")
    job(input, tmp_path / "rgb.tif", input, bands=(1, 2, 3), method="mean-std")
    with rasterio.open(tmp_path / "o.tif") as data, rasterio.open(tmp_path / "rgb.tif") as colours:
        assert data.descriptions == ("B8 & more", "B3", None, "B2, 490 nm")
        assert colours.descriptions == (None, None, None)


@pytest.mark.parametrize(
    ("bands", "dtype", "nodata"),
    [(5, np.uint8, None), (2, np.uint8, None), (4, np.uint16, 0), (6, np.float32, -1.0), (3, np.uint16, 0)],
)
def test_an_output_for_each_input_has_all_bands(bands: int, dtype, nodata, tmp_path: Path) -> None:
    """Each has the pixels of the whole at its place, and the names of the bands of its input."""
    image = scene(200, 330, bands, 0, np.uint16 if dtype == np.float32 else dtype).astype(dtype)
    if nodata is not None:
        image[:, 120:140] = nodata
    names, tiles = tuple(f"band {n}" for n in range(bands)), tmp_path / "tiles"
    tiles.mkdir()
    boxes = {"west.tif": (0, 0, 200, 180), "east.tif": (40, 180, 200, 330)}
    for name, (y0, x0, y1, x1) in boxes.items():
        place = Affine(10.0, 0.0, 5e5 + 10 * x0, 0.0, -10.0, 5e6 - 10 * y0)
        with rasterio.open(
            written(tiles / name, image[y0:y1, x0:x1], transform=place, nodata=nodata), "r+"
        ) as data:
            data.descriptions = names
    reference = written(
        tmp_path / "ref.tif", np.flip(image, 2) if nodata is None else image // 2, nodata=nodata
    )
    options = {"method": "mean-std", "model": "colour", "bands": (1, 2, 3) if bands == 3 else ALL, **TILED}
    ut.stylize(tiles, tmp_path / "whole.tif", reference, **options)
    ut.stylize(tiles, tmp_path / "out", reference, tiles="same", **options)
    with rasterio.open(tmp_path / "whole.tif") as data:
        whole, valid = data.read(), data.dataset_mask() > 0
    assert np.ptp(whole[:, valid], axis=1).min() > 10
    for name, (y0, x0, y1, x1) in boxes.items():
        with rasterio.open(tmp_path / "out" / name) as data:
            np.testing.assert_array_equal(data.read(), whole[:, y0:y1, x0:x1])
            np.testing.assert_array_equal(data.dataset_mask() > 0, valid[y0:y1, x0:x1])
            assert data.descriptions == (names if bands != 3 else (None,) * 3)
        assert ut.validate(tmp_path / "out" / name).valid


def test_a_look_and_a_transform_of_patches_know_the_bands(tmp_path: Path) -> None:
    image, ref = scene(200, 230, 4, 0), scene(200, 220, 4, 5, gain=0.8)
    input, reference = written(tmp_path / "in.tif", image), written(tmp_path / "ref.tif", ref)
    whole = job(input, tmp_path / "o.tif", reference, method="histogram")
    look = ut.measure_look(reference, model="colour", method="histogram", bands=ALL)
    (tmp_path / "look.json").write_text(look.to_json())
    np.testing.assert_array_equal(whole, job(input, tmp_path / "l.tif", tmp_path / "look.json"))
    transfer = ut.fit_colour(input, reference, model="colour", method="histogram", bands=ALL)
    np.testing.assert_array_equal(transfer(image[20:90, 30:200]), whole[20:90, 30:200])
    with pytest.raises(BadInput, match=r"\(\.\.\., height, width, 4\)"):
        transfer(image[..., :3])


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"method": "reinhard"}, BadInput, r"knows red, green and blue, and 5 band\(s\) are asked for"),
        ({"model": "lite"}, BadInput, "--bands all is for --model colour"),
        ({"model": "lite", "bands": (1, 2)}, BadInput, "takes one or three bands"),
        ({"bands": (1, 2, 9, 4)}, BadInput, "in.tif"),
        ({"bands": (1, 2, 3, 4)}, BadInput, r"few.tif"),
        ({"format": "png"}, BadPlan, r"5 band\(s\): choose a name that ends in .tif"),
        ({"compression": "webp"}, BadPlan, "red, green and blue only"),
    ],
)
def test_what_does_not_go_together_is_refused(options, error, said: str, tmp_path: Path) -> None:
    input = written(tmp_path / "in.tif", scene(64, 64, 5, 0))
    reference = written(tmp_path / "few.tif", scene(64, 64, 2 if "few" in said else 5, 1))
    output = tmp_path / ("o.png" if "format" in options else "o.tif")
    with pytest.raises(error, match=said):
        ut.stylize(input, output, reference, **({"model": "colour", "bands": ALL} | options))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["few.tif", "in.tif"]


def floats(h: int, w: int, bands: int, seed: int, gain: float = 1.0) -> np.ndarray:
    """Each band in a unit of its own, and some values below 0."""
    unit = np.linspace(0.5, 300, bands, dtype=np.float32)
    return (scene(h, w, bands, seed, gain=gain) / np.float32(10000) - np.float32(0.12)) * unit


@pytest.mark.parametrize(
    ("bands", "method"),
    [(4, "mean-std"), (4, "monge-kantorovich"), (1, "mean-std"), (3, "monge-kantorovich"), (4, "histogram")],
)
def test_floats_stay_floats_in_their_unit(bands: int, method: str, tmp_path: Path) -> None:
    image, ref = floats(300, 330, bands, 0), floats(200, 220, bands, 5, 0.8)
    input, reference = written(tmp_path / "in.tif", image), written(tmp_path / "ref.tif", ref)
    got = job(input, tmp_path / "t.tif", reference, method=method, **TILED)
    assert got.dtype == np.float32
    wanted = formula(method, image.reshape(-1, bands).astype(float), ref.reshape(-1, bands).astype(float))
    wanted = wanted.reshape(image.shape)
    close = (1e-6 if method != "histogram" else 1e-3) * np.abs(wanted).max((0, 1))
    assert (np.abs(image - wanted).max((0, 1)) > 100 * close).all()
    assert (np.abs(got - wanted).max((0, 1)) < close).all()
    np.testing.assert_array_equal(got, job(input, tmp_path / "w.tif", reference, method=method, **WHOLE))
    blended = job(input, tmp_path / "b.tif", reference, method=method, seam="blend", **TILED)
    assert (np.abs(got - blended).max((0, 1)) < close).all()
    with rasterio.open(tmp_path / "t.tif") as data, tifffile.TiffFile(tmp_path / "t.tif") as file:
        half = data.read(out_shape=(bands, 150, 165)).transpose(1, 2, 0)
        assert file.pages[0].tags["Predictor"].value == 3
        np.testing.assert_array_equal(file.asarray().reshape(got.shape), got)
        top = float(data.tags(bands)["STATISTICS_MAXIMUM"])
    assert (np.abs(half - got.reshape(150, 2, 165, 2, bands).mean((1, 3))) < close).all()
    assert top == pytest.approx(got[..., -1].max(), rel=0.05)


@pytest.mark.parametrize("nodata", [-9999.0, np.nan, None])
def test_invalid_floats_count_for_nothing(nodata: float | None, tmp_path: Path) -> None:
    """Without a nodata value NaN marks them."""
    image, ref, valid = floats(256, 300, 4, 0), floats(200, 220, 4, 5, 0.8), np.ones((256, 300), bool)
    valid[:, 200:] = False
    holed = np.where(valid[..., None], image, np.float32(np.nan if nodata is None else nodata))
    input, reference = written(tmp_path / "in.tif", holed, nodata=nodata), written(tmp_path / "r.tif", ref)
    exact = job(input, tmp_path / "o.tif", reference, method="mean-std", **TILED)
    with rasterio.open(tmp_path / "o.tif") as data:
        np.testing.assert_array_equal(data.dataset_mask() > 0, valid)
        assert nodata is None or repr(data.nodata) == repr(nodata)
    wanted = formula("mean-std", image[valid].astype(float), ref.reshape(-1, 4).astype(float))
    assert np.abs(exact[valid] - wanted).max() < 1e-6 * np.abs(wanted).max()
    small = job(input, tmp_path / "s.tif", reference, method="mean-std", statistics="thumbnail")
    assert np.abs(small[valid] - wanted).max() < 1e-4 * np.abs(wanted).max()
    half = job(input, tmp_path / "h.tif", reference, method="mean-std", region=(100, 20, 150, 200))
    np.testing.assert_array_equal(half, exact[20:220, 100:250])


@pytest.mark.parametrize("method", METHODS)
def test_local_statistics_know_every_band(method: str, tmp_path: Path) -> None:
    """They even out what differs from place to place, in each band as in a picture of three bands."""
    image = scene(300, 280, 5, 0)
    image[:150] //= 3
    input = written(tmp_path / "in.tif", image)
    reference = written(tmp_path / "ref.tif", scene(200, 220, 5, 5, gain=0.8))
    options = {"method": method, "statistics": "local", "local_scale": 100}
    got = job(input, tmp_path / "o.tif", reference, **options, **TILED)
    assert got.shape == image.shape and got.dtype == np.uint16
    one = job(input, tmp_path / "w.tif", reference, **options, **WHOLE)
    assert np.abs(one.astype(int) - got).max() <= 1
    exact = job(input, tmp_path / "e.tif", reference, method=method)
    halves = [pixels.reshape(2, 150, 280, 5).mean((1, 2)) for pixels in (got, exact)]
    assert (np.abs(np.diff(halves[0], axis=0)) < 0.7 * np.abs(np.diff(halves[1], axis=0))).all()
    if method != "monge-kantorovich":
        three = job(input, tmp_path / "p.tif", reference, (5, 1, 2), **options, **TILED)
        assert np.abs(three.astype(int) - got[..., [4, 0, 1]]).max() <= 1


@pytest.mark.parametrize("bands", [1, 4])
def test_local_statistics_of_floats_are_in_their_unit(bands: int, tmp_path: Path) -> None:
    """What is multiplied comes out multiplied, below 0 and above 1 too."""
    image, ref = floats(300, 320, bands, 0), floats(200, 220, bands, 5, 0.8)
    options = {"method": "mean-std", "statistics": "local", **TILED}
    got, other = (
        job(
            written(tmp_path / "in.tif", image * unit), tmp_path / "o.tif",
            written(tmp_path / "ref.tif", ref * unit), **options,
        )
        for unit in (np.float32(1), np.float32(1024))
    )  # fmt: skip
    assert got.dtype == np.float32 and got.shape == image.shape and (got.min((0, 1)) < 0).all()
    np.testing.assert_allclose(other, 1024 * got, rtol=1e-4, atol=1e-3 * 1024 * ref.std())
    assert np.abs(got.std((0, 1)) / ref.std((0, 1)) - 1).max() < 0.2


def test_floats_and_levels_are_not_in_one_unit(tmp_path: Path) -> None:
    image = floats(128, 140, 4, 0)
    input, levels = written(tmp_path / "in.tif", image), written(tmp_path / "u.tif", scene(90, 90, 4, 1))
    with pytest.raises(BadInput, match="not in the same unit"):
        job(input, tmp_path / "o.tif", levels, method="mean-std")
    with pytest.raises(BadInput, match="which of its values, float32, are black and white"):
        job(input, tmp_path / "o.tif", input, method="reinhard")
    with pytest.raises(BadInput, match="those of the whole image; choose --statistics exact"):
        job(input, tmp_path / "o.tif", input, method="histogram", statistics="local")
    with pytest.raises(BadPlan, match="--dtype uint8 cannot be made"):
        job(input, tmp_path / "o.tif", input, method="mean-std", dtype="uint8")
    with pytest.raises(BadPlan, match="leave it out"):
        job(levels, tmp_path / "o.tif", levels, method="mean-std", dtype="float32")
    look = ut.measure_look(input, model="colour", method="mean-std", bands=ALL)
    (tmp_path / "look.json").write_text(look.to_json())
    np.testing.assert_allclose(look.statistics["mean"], image.mean((0, 1)), rtol=1e-5)
    with pytest.raises(BadInput, match="not in the same unit"):
        job(levels, tmp_path / "o.tif", tmp_path / "look.json")
    got = job(input, tmp_path / "o.tif", tmp_path / "look.json")
    np.testing.assert_allclose(got, image, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_a_look_and_a_transform_of_patches_know_floats(method: str, tmp_path: Path) -> None:
    """What a patch gets is what the file has, in its unit: neither cut to 0..1 nor rounded."""
    image, ref = floats(200, 230, 4, 0), floats(200, 220, 4, 5, 0.8)
    input, reference = written(tmp_path / "in.tif", image), written(tmp_path / "ref.tif", ref)
    whole = job(input, tmp_path / "o.tif", reference, method=method)
    options = {"model": "colour", "method": method, "bands": ALL}
    look = ut.measure_look(reference, **options)
    (tmp_path / "look.json").write_text(look.to_json())
    np.testing.assert_array_equal(whole, job(input, tmp_path / "l.tif", tmp_path / "look.json"))
    transfer = ut.fit_colour(input, reference, **options)
    got = transfer(image[20:90, 30:200])
    assert got.dtype == np.float32 and got.min() < -10 and got.max() > 10
    np.testing.assert_array_equal(got, whole[20:90, 30:200])
    small = ut.fit_colour(input, reference, statistics="thumbnail", **options)(image)
    assert np.abs(small - whole).mean() < 0.01 * whole.std()
    with pytest.raises(BadInput, match="floats in the unit of the image, got uint16"):
        transfer(scene(20, 20, 4, 0))


@pytest.mark.parametrize("damage", ["order", "weight", "bands", "none"])
def test_a_damaged_look_of_floats_is_refused(damage: str, tmp_path: Path) -> None:
    input = written(tmp_path / "in.tif", floats(90, 80, 2, 0))
    look = json.loads(ut.measure_look(input, model="colour", method="histogram", bands=ALL).to_json())
    pairs = look["statistics"]["distribution"]
    if damage == "order":
        pairs[0][3][0] = 1e9
    elif damage == "weight":
        pairs[1][0][1] = -1.0
    else:
        look["statistics"]["distribution"] = [pairs[0], []] if damage == "none" else [[]]
    (tmp_path / "look.json").write_text(json.dumps(look))
    with pytest.raises(BadInput, match=r"look.json"):
        job(input, tmp_path / "o.tif", tmp_path / "look.json")


def test_histograms_of_floats_leave_out_what_is_invalid_and_merge(tmp_path: Path) -> None:
    image, ref, valid = floats(256, 300, 3, 0), floats(200, 220, 3, 5, 0.8), np.ones((256, 300), bool)
    valid[:, 200:] = False
    holed = np.where(valid[..., None], image, np.float32(-9999))
    input, reference = written(tmp_path / "in.tif", holed, nodata=-9999), written(tmp_path / "r.tif", ref)
    got = job(input, tmp_path / "o.tif", reference, method="histogram", **TILED)
    wanted = formula("histogram", image[valid].astype(float), ref.reshape(-1, 3).astype(float))
    assert (np.abs(got[valid] - wanted).max(0) < 1e-3 * np.abs(wanted).max(0)).all()
    assert (got[~valid] == -9999).all()
    half = job(input, tmp_path / "h.tif", reference, method="histogram", alpha=0.5)
    np.testing.assert_allclose(half[valid], (got[valid] + image[valid]) / 2, rtol=1e-5, atol=1e-5)
    both = ut.measure_look([reference, input], model="colour", method="histogram", bands=ALL)
    shares = both.statistics["distribution"][..., 1].sum(1)
    np.testing.assert_allclose(shares, shares[0])
    middle = [np.median(one) for one in (ref[..., 0], image[valid][:, 0])]
    pairs = both.statistics["distribution"][0]
    half = np.interp(0.5, np.cumsum(pairs[:, 1]) / shares[0], pairs[:, 0])
    assert min(middle) < half < max(middle)
