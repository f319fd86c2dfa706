"""Stain normalisation of slides, against the formulas of the papers computed by numpy on the whole image."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import tifffile
from colours import E2, H2, E, H, from_lab, slide, to_lab, written
from stains import BETA, density_of, macenko_fit

import urst_tiles as ut
from urst_tiles.errors import BadInput

TILED, WHOLE = {"block": 512, "tile": 64}, {"block": 2048, "tile": 2048}


def macenko(pixels, stains_ref, most_ref, white=240.0, white_ref=240.0):
    _, amounts, most = macenko_fit(pixels, white)
    y = white_ref * np.exp(-(stains_ref.T @ (amounts * (most_ref / most)[:, None]))).T
    return np.clip(y, 0, 255).reshape(pixels.shape), density_of(pixels, white).max(1).reshape(
        pixels.shape[:2]
    )


STANDARD = np.array([[0.5626, 0.7201, 0.4062], [0.2159, 0.8012, 0.5581]]), np.array([1.9705, 1.0308])


def job(input: Path, output: Path, style=None, **options) -> np.ndarray:
    ut.stylize(input, output, style, model="stain", overwrite=True, **options)
    assert ut.validate(output).valid
    return tifffile.imread(output)


@pytest.mark.parametrize("reference", [pytest.param("standard", marks=pytest.mark.slow), "slide"])
def test_macenko_is_the_formula_and_tiled_equals_whole(reference: str, tmp_path: Path) -> None:
    image, other = slide(530, 600, 0), slide(300, 300, 7, (H2, E2), (0.8, 1.1))
    input = written(tmp_path / "in.tif", image)
    style = "standard" if reference == "standard" else written(tmp_path / "ref.tif", other)
    tiled = job(input, tmp_path / "t.tif", style, white="240", **TILED)
    np.testing.assert_array_equal(tiled, job(input, tmp_path / "w.tif", style, white="240", **WHOLE))
    target = STANDARD if reference == "standard" else macenko_fit(other)[::2]
    wanted, density = macenko(image, *target)
    tissue = density >= BETA
    assert 0.3 < tissue.mean() < 0.8
    assert np.abs(wanted - image)[tissue].mean() > 5
    assert np.abs(tiled - wanted)[tissue].max() < 0.7
    np.testing.assert_array_equal(tiled[density < BETA / 2], image[density < BETA / 2])


def test_sixteen_bits_are_not_rounded_to_eight(tmp_path: Path) -> None:
    image = slide(256, 256, 0).astype(np.uint16) * 257 + 60
    got = job(written(tmp_path / "in.tif", image), tmp_path / "o.tif", white="240")
    wanted, density = macenko(image / 257, *STANDARD)
    tissue = density >= BETA
    assert got.dtype == np.uint16 and np.abs(got / 257 - wanted)[tissue].max() < 0.15
    assert len(np.unique(got[tissue] % 257)) > 200


def test_the_white_is_estimated_from_the_glass(tmp_path: Path) -> None:
    image = slide(400, 400, 0, white=(231, 226, 218))
    input = written(tmp_path / "in.tif", image)
    auto, given = job(input, tmp_path / "a.tif"), job(input, tmp_path / "g.tif", white="231,226,218")
    assert np.abs(auto.astype(int) - given).mean() < 0.6
    assert np.abs(auto.astype(int) - job(input, tmp_path / "x.tif", white="255")).mean() > 3


@pytest.mark.parametrize("method", ["macenko", "reinhard"])
def test_glass_neither_counts_nor_changes(method: str, tmp_path: Path) -> None:
    """More glass around the same tissue gives the same tissue, and the glass stays to the byte."""
    image, ref = slide(256, 256, 0), written(tmp_path / "r.tif", slide(256, 256, 7, (H2, E2)))
    wide = np.full((256, 1024, 3), (243, 241, 238), np.uint8)
    wide[:, :256] = image
    one = job(
        written(tmp_path / "a.tif", image), tmp_path / "ao.tif", ref, method=method, white="243,241,238"
    )
    two = job(written(tmp_path / "b.tif", wide), tmp_path / "bo.tif", ref, method=method, white="243,241,238")
    assert np.abs(one.astype(int) - two[:, :256]).max() <= 1
    np.testing.assert_array_equal(two[:, 256:], wide[:, 256:])


def test_reinhard_is_the_formula_over_tissue_alone(tmp_path: Path) -> None:
    image, ref = slide(300, 400, 0), slide(300, 300, 7, (H2, E2), (0.7, 1.1))
    got = job(
        written(tmp_path / "in.tif", image), tmp_path / "o.tif", written(tmp_path / "r.tif", ref),
        method="reinhard", white="240", **TILED,
    )  # fmt: skip
    labs = []
    for pixels in (image, ref):
        tissue = density_of(pixels, 240.0).max(1) >= BETA
        labs.append((to_lab(pixels.reshape(-1, 3) / 255), tissue))
    (x, inside), (r, inside_ref) = labs
    a, b = x[inside], r[inside_ref]
    wanted = from_lab((a - a.mean(0)) / a.std(0) * b.std(0) + b.mean(0)).clip(0, 1) * 255
    assert np.abs(got.reshape(-1, 3)[inside] - wanted).max() < 0.7
    glass = density_of(image, 240.0).max(1) < BETA / 2
    np.testing.assert_array_equal(got.reshape(-1, 3)[glass], image.reshape(-1, 3)[glass])


@pytest.mark.parametrize("method", ["macenko", "reinhard"])
def test_two_scanners_come_together(method: str, tmp_path: Path) -> None:
    """The same tissue in two stains, one of them faint: their mean colours come nearer by a factor of 5."""
    reference = written(tmp_path / "ref.tif", slide(300, 300, 3, (H2, E2), (0.9, 1.0)))
    before, after = [], []
    for name, stains, strength in (("a", (H, E), (1.3, 0.7)), ("b", (H2, E2), (0.6, 0.6))):
        image = slide(400, 400, 0, stains, strength, white=(240, 240, 240))
        got = job(
            written(tmp_path / f"{name}.tif", image), tmp_path / f"{name}o.tif", reference, method=method
        )
        tissue = density_of(image, 240.0).max(1) >= BETA
        before.append(image.reshape(-1, 3)[tissue].mean(0))
        after.append(got.reshape(-1, 3)[tissue].mean(0))
    distance = [np.linalg.norm(pair[0] - pair[1]) for pair in (before, after)]
    assert distance[0] > 20 and distance[1] < distance[0] / 5


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("glass", r"too little tissue to normalise: 0 % of"),
        ("faint", r"it has little hematoxylin: .*99th percentile.*reference 1\.97; it is scaled by 3"),
        ("one stain", r"its stains are not told apart"),
    ],
)
def test_a_slide_with_too_little_stain_is_told_and_not_torn(
    kind: str, said: str, tmp_path: Path, caplog
) -> None:
    strengths = {"glass": (0.0, 0.0), "faint": (0.3, 0.3), "one stain": (1.2, 0.0)}
    image = slide(300, 300, 0, strength=strengths[kind])
    with caplog.at_level(logging.WARNING, "urst_tiles.told"):
        got = job(written(tmp_path / "in.tif", image), tmp_path / "o.tif")
    import re

    assert any(re.search(said, record.getMessage()) for record in caplog.records)
    if kind == "glass":
        np.testing.assert_array_equal(got, image)
    moved = np.abs(got.astype(int) - image)
    density = density_of(image, np.array([243.0, 241, 238])).reshape(image.shape)
    after = density_of(got, np.array([243.0, 241, 238])).reshape(image.shape)
    assert (after <= 3.5 * density.max(2, keepdims=True) + 0.2).all() and moved.max() < 150


def test_a_reference_without_tissue_and_looks_of_others_are_refused(tmp_path: Path) -> None:
    input, glass = written(tmp_path / "in.tif", slide(128, 128, 0)), slide(128, 128, 0, strength=(0, 0))
    with pytest.raises(BadInput, match=r"g\.tif: the reference does not show two stains"):
        job(input, tmp_path / "o.tif", written(tmp_path / "g.tif", glass))
    with pytest.raises(BadInput, match="no published look for --method reinhard"):
        job(input, tmp_path / "o.tif", "standard", method="reinhard")
    with pytest.raises(BadInput, match="stains of the whole slide"):
        job(input, tmp_path / "o.tif", "standard", statistics="local")
    with pytest.raises(BadInput, match="--white must be auto"):
        job(input, tmp_path / "o.tif", "standard", white="300")


@pytest.mark.parametrize("statistics", ["thumbnail", "sampled"])
def test_statistics_of_a_small_slide_are_exact_in_every_way(statistics: str, tmp_path: Path) -> None:
    """Its thumbnail, and the sample of its windows, are the slide itself."""
    input = written(tmp_path / "in.tif", slide(200, 230, 0))
    exact = job(input, tmp_path / "e.tif")
    other = job(input, tmp_path / "o.tif", statistics=statistics)
    assert np.abs(exact.astype(int) - other).max() <= 1


def test_several_slides_make_a_mean_reference(tmp_path: Path) -> None:
    """Mean stains, of length 1, and mean amounts."""
    files = [
        written(tmp_path / f"{k}.tif", slide(200, 200, k, strength=(0.7 + 0.2 * k, 0.9))) for k in (0, 1)
    ]
    both = ut.measure_look(files, model="stain").statistics
    singles = [ut.measure_look(file, model="stain").statistics for file in files]
    np.testing.assert_allclose(both["concentrations"], np.mean([one["concentrations"] for one in singles], 0))
    mean = np.mean([one["stains"] for one in singles], 0)
    np.testing.assert_allclose(both["stains"], mean / np.linalg.norm(mean, axis=1, keepdims=True))
    one = ut.measure_look(files[0], model="stain", white="240").statistics
    stains, _, most = macenko_fit(tifffile.imread(files[0]))
    np.testing.assert_allclose(one["stains"], stains, atol=5e-4)
    np.testing.assert_allclose(one["concentrations"], most, atol=2e-3)
