"""Colour transfer, as a user gives it, against the formulas of the papers computed by numpy on the whole
image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from colours import METHODS, from_lab, scene, to_lab, written

import urst_tiles as ut
from urst_tiles.errors import BadInput, MissingFile

#: Blocks of 512 and windows of 64, against one block and one window.
TILED, WHOLE = {"block": 512, "tile": 64}, {"block": 2048, "tile": 2048}


# The formulas: images are float64 (n, 3) in 0..1


def mean_std(x, ref, floor):
    return (x - x.mean(0)) / x.std(0) * ref.std(0) + ref.mean(0)


def monge_kantorovich(x, ref, floor):
    def root(m, power):
        values, vectors = np.linalg.eigh(m)
        return vectors @ np.diag(values**power) @ vectors.T

    a, b = np.cov(x.T, ddof=0), np.cov(ref.T, ddof=0)
    half, inverse = root(a, 0.5), root(a, -0.5)
    return (x - x.mean(0)) @ (inverse @ root(half @ b @ half, 0.5) @ inverse).T + ref.mean(0)


LMS = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
LAB = np.diag(1 / np.sqrt([3, 6, 2])) @ [[1, 1, 1], [1, 1, -2], [1, -1, 0]]


def reinhard(x, ref, floor):
    there = [np.log10(np.maximum(a @ LMS.T, floor)) @ LAB.T for a in (x, ref)]
    return 10 ** (mean_std(*there, floor) @ np.linalg.inv(LAB).T) @ np.linalg.inv(LMS).T


def reinhard_lab(x, ref, floor):
    return from_lab(mean_std(to_lab(x), to_lab(ref), floor))


def histogram(x, ref, floor):
    """As scikit-image 0.25, ``_match_cumulative_cdf``."""
    out = np.empty_like(x)
    for c in range(3):
        _, inverse, counts = np.unique(x[:, c], return_inverse=True, return_counts=True)
        values, wanted = np.unique(ref[:, c], return_counts=True)
        below, shares = np.cumsum(counts) / len(x), np.cumsum(wanted) / len(ref)
        out[:, c] = np.interp(below, shares, values)[inverse]
    return out


FORMULAS = dict(zip(METHODS, (mean_std, monge_kantorovich, reinhard, reinhard_lab, histogram), strict=True))


def expected(method: str, image: np.ndarray, ref: np.ndarray, alpha: float = 1.0, of=None) -> np.ndarray:
    """The result in levels, float64; ``of`` are the pixels of the image that count."""
    top, top_ref = np.iinfo(image.dtype).max, np.iinfo(ref.dtype).max
    x, r = image.reshape(-1, 3) / top, ref.reshape(-1, 3) / top_ref
    y = FORMULAS[method](x, r, 1 / top)
    return (alpha * y + (1 - alpha) * x).clip(0, 1).reshape(image.shape) * top


@pytest.fixture(params=[np.uint8, np.uint16], ids=["uint8", "uint16"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[np.ndarray, np.ndarray, Path, Path]:
    return pair_of(request.param, tmp_path)


def pair_of(dtype, tmp_path: Path) -> tuple[np.ndarray, np.ndarray, Path, Path]:
    image = scene(530, 600, 0, (1.0, 0.8, 0.6), dtype)
    ref = scene(300, 410, 5, (0.7, 0.9, 1.0), dtype)
    return image, ref, written(tmp_path / "in.tif", image), written(tmp_path / "ref.tif", ref)


def job(input: Path, output: Path, style, **options) -> np.ndarray:
    ut.stylize(input, output, style, model=options.pop("model", "colour"), overwrite=True, **options)
    assert ut.validate(output).valid
    return tifffile.imread(output)


@pytest.mark.parametrize("method", METHODS)
def test_a_job_is_the_formula_and_tiled_equals_whole(method: str, pair, tmp_path: Path) -> None:
    """Within rounding in 8 bits; in 16 bits, where rounding to 8 bits would be 257 levels, within 2."""
    image, ref, input, reference = pair
    tiled = job(input, tmp_path / "t.tif", reference, method=method, **TILED)
    whole = job(input, tmp_path / "w.tif", reference, method=method, **WHOLE)
    assert tiled.dtype == image.dtype
    np.testing.assert_array_equal(tiled, whole)
    wanted = expected(method, image, ref)
    assert 0.05 < np.abs(wanted - image).mean() / np.ptp(image)
    assert np.abs(tiled - wanted).max() < (0.52 if image.dtype == np.uint8 else 2)


@pytest.mark.parametrize("method", METHODS)
def test_alpha_mixes_the_result_with_the_image(method: str, tmp_path: Path) -> None:
    image, ref, input, reference = pair_of(np.uint8, tmp_path)
    half = job(input, tmp_path / "h.tif", reference, method=method, alpha=0.4, **WHOLE)
    assert np.abs(half - expected(method, image, ref, 0.4)).max() < 0.52
    none = job(input, tmp_path / "n.tif", reference, method=method, alpha=0.0, **WHOLE)
    np.testing.assert_array_equal(none, image)


@pytest.mark.parametrize("method", METHODS)
def test_invalid_pixels_count_for_nothing_in_image_and_reference(method: str, tmp_path: Path) -> None:
    """What is transparent is as if it were not there: the left half alone gives the same colours."""
    image, ref = scene(256, 512, 0, (1.0, 0.8, 0.6)), scene(256, 512, 5, (0.7, 0.9, 1.0))
    half = job(
        written(tmp_path / "a.tif", image[:, :256]), tmp_path / "a_out.tif",
        written(tmp_path / "ra.tif", ref[:, :256]), method=method,
    )  # fmt: skip
    files = []
    for name, pixels in (("b", image), ("rb", ref)):
        alpha = np.full((256, 512, 1), 255, np.uint8)
        alpha[:, 256:] = 0
        other = np.concatenate([np.where(alpha > 0, pixels, 255 - pixels // 2), alpha], 2)
        files.append(written(tmp_path / f"{name}.tif", other, extrasamples=["unassalpha"]))
    masked = job(files[0], tmp_path / "b_out.tif", files[1], method=method)
    np.testing.assert_array_equal(masked[:, :256, :3], half)


QUICK = [
    ("histogram", "thumbnail"),
    ("reinhard", "sampled"),
    ("histogram", "local"),
    ("monge-kantorovich", "local"),
]
ALL = [(method, statistics) for method in METHODS for statistics in ("thumbnail", "sampled", "local")]


@pytest.mark.parametrize(
    ("method", "statistics"),
    [pytest.param(*one, marks=[] if one in QUICK else [pytest.mark.slow]) for one in ALL],
)
def test_other_statistics_tile_as_well(method: str, statistics: str, tmp_path: Path) -> None:
    image, ref, input, reference = pair_of(np.uint8, tmp_path)
    options = {"method": method, "statistics": statistics, "local_scale": 400, "thumbnail": 128}
    tiled = job(input, tmp_path / "t.tif", reference, **options, **TILED)
    whole = job(input, tmp_path / "w.tif", reference, **options, **WHOLE)
    assert np.abs(tiled.astype(int) - whole).max() <= (0 if statistics != "local" else 1)
    exact = expected(method, image, ref)
    assert np.abs(tiled - exact).mean() < 0.5 * np.abs(image - exact).mean()


def test_several_references_count_the_same_however_large(tmp_path: Path) -> None:
    image = scene(300, 300, 0, (1.0, 0.8, 0.6))
    small, large = scene(64, 64, 3, (0.5, 0.9, 1.0)), scene(512, 512, 4, (0.9, 0.4, 0.7))
    styles = [(written(tmp_path / "s.tif", small), 1.0), (written(tmp_path / "l.tif", large), 1.0)]
    got = job(written(tmp_path / "in.tif", image), tmp_path / "o.tif", styles, method="mean-std")
    a, b = small.reshape(-1, 3) / 255, large.reshape(-1, 3) / 255
    mean = (a.mean(0) + b.mean(0)) / 2
    std = np.sqrt(((a**2).mean(0) + (b**2).mean(0)) / 2 - mean**2)
    x = image / 255
    wanted = ((x - x.mean((0, 1))) / x.std((0, 1)) * std + mean).clip(0, 1) * 255
    assert np.abs(got - wanted).max() < 0.52


def test_a_reference_of_another_depth_has_the_same_colours(tmp_path: Path) -> None:
    image, ref = scene(200, 300, 0, (1.0, 0.8, 0.6)), scene(200, 300, 5, (0.7, 0.9, 1.0))
    input = written(tmp_path / "in.tif", image)
    eight = job(input, tmp_path / "8.tif", written(tmp_path / "r8.tif", ref), method="histogram")
    sixteen = job(
        input,
        tmp_path / "16.tif",
        written(tmp_path / "r16.tif", ref.astype(np.uint16) * 257),
        method="histogram",
    )
    np.testing.assert_array_equal(eight, sixteen)


@pytest.mark.parametrize("method", METHODS)
def test_a_flat_image_is_not_torn(method: str, tmp_path: Path) -> None:
    """It has no spread that could be scaled: it takes the reference's mean, or stays flat at least."""
    flat = np.full((128, 128, 3), (200, 100, 50), np.uint8)
    ref = scene(128, 128, 5, (0.7, 0.9, 1.0))
    got = job(
        written(tmp_path / "in.tif", flat),
        tmp_path / "o.tif",
        written(tmp_path / "r.tif", ref),
        method=method,
    )
    assert (np.ptp(got.reshape(-1, 3), axis=0) == 0).all()
    if method in ("mean-std", "monge-kantorovich"):
        assert np.abs(got[0, 0] - ref.reshape(-1, 3).mean(0)).max() < 1


@pytest.mark.parametrize("method", METHODS)
def test_a_grey_image_stays_smooth(method: str, tmp_path: Path) -> None:
    """Its colours lie on a line: directions without any spread are not amplified to noise."""
    grey = np.repeat(scene(200, 200, 0, (1.0, 1.0, 1.0))[..., :1], 3, 2)
    ref = scene(200, 200, 5, (0.7, 0.9, 1.0))
    got = job(
        written(tmp_path / "in.tif", grey),
        tmp_path / "o.tif",
        written(tmp_path / "r.tif", ref),
        method=method,
    )
    for level in np.unique(grey)[::20]:
        assert (np.ptp(got[grey[..., 0] == level], axis=0) == 0).all()
    assert (np.diff([got[grey[..., 0] == v].mean() for v in np.unique(grey)]) > -1).all()


def test_the_method_stands_in_the_output_and_another_is_another_job(tmp_path: Path) -> None:
    input = written(tmp_path / "in.tif", scene(200, 300, 0, (1.0, 0.8, 0.6)))
    ref = written(tmp_path / "ref.tif", scene(100, 100, 5, (0.7, 0.9, 1.0)))
    facts = {}
    for method in ("mean-std", "histogram"):
        plan = ut.stylize(input, tmp_path / f"{method}.tif", ref, model="colour", method=method).plan
        assert plan.identity["method"] == method and plan.statistics == "exact"
        with tifffile.TiffFile(tmp_path / f"{method}.tif") as file:
            facts[method] = file.pages[0].tags[42112].value
        assert f'"method": "{method}"' in facts[method].replace("&quot;", '"')
    assert facts["mean-std"] != facts["histogram"]


def test_uint16_keeps_its_values_and_floats_must_say_their_range(tmp_path: Path) -> None:
    """An image that is its own reference stays as it is, to the level."""
    image = scene(200, 300, 0, (1.0, 0.8, 0.6), np.uint16)
    input = written(tmp_path / "in.tif", image)
    for method in ("reinhard-lab", "histogram"):
        got = job(input, tmp_path / f"{method}.tif", input, method=method)
        assert np.abs(got.astype(int) - image).max() <= 1
    floats = written(tmp_path / "f.tif", image.astype(np.float32))
    with pytest.raises(BadInput, match=r"f\.tif.*float32.*--stretch LOW,HIGH"):
        ut.stylize(floats, tmp_path / "o.tif", input, model="colour")
    ut.stylize(floats, tmp_path / "o.tif", floats, model="colour", stretch="0,4000", dtype="uint16")
    got = tifffile.imread(tmp_path / "o.tif")
    assert np.abs(got - np.minimum(image / 4000, 1) * 65535).max() < 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"method": "reinhardt"},
            "monge-kantorovich, mean-std, reinhard, reinhard-lab, histogram, lut, gain-offset, got",
        ),
        ({"method": "macenko"}, "--model colour has the methods"),
        ({"stroke": 2}, "leave --stroke out"),
        ({"preserve_color": "luminance"}, "leave --preserve-color out"),
        ({"white": "240"}, "--white is the colour of the glass"),
        ({"model": "lite", "method": "mean-std"}, "--method is for --model colour"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_written(
    options, said, tmp_path: Path
) -> None:
    input = written(tmp_path / "in.tif", scene(64, 64, 0, (1.0, 0.8, 0.6)))
    with pytest.raises(BadInput, match=said):
        ut.stylize(input, tmp_path / "o.tif", input, **({"model": "colour"} | options))
    assert [p.name for p in tmp_path.iterdir()] == ["in.tif"]


def test_a_missing_reference_and_one_that_is_no_image(tmp_path: Path) -> None:
    input = written(tmp_path / "in.tif", scene(64, 64, 0, (1.0, 0.8, 0.6)))
    with pytest.raises(MissingFile, match=r"gone\.tif"):
        ut.stylize(input, tmp_path / "o.tif", tmp_path / "gone.tif", model="colour")
    (tmp_path / "text.tif").write_text("no image")
    with pytest.raises(BadInput, match=r"text\.tif"):
        ut.stylize(input, tmp_path / "o.tif", tmp_path / "text.tif", model="colour")
    with pytest.raises(BadInput, match="no style given"):
        ut.stylize(input, tmp_path / "o.tif", None, model="colour")
