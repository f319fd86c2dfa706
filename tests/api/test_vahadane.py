"""The method vahadane, against the factorisation of all pixels of the tissue computed by numpy, without a
histogram."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import tifffile
from colours import E2, H2, E, H, slide, written
from stains import BETA, density_of, vahadane_fit

import urst_tiles as ut
from urst_tiles.errors import BadInput

TILED, WHOLE = {"block": 512, "tile": 64}, {"block": 2048, "tile": 2048}


def job(input: Path, output: Path, style=None, **options) -> np.ndarray:
    ut.stylize(input, output, style, model="stain", method="vahadane", overwrite=True, **options)
    assert ut.validate(output).valid
    return tifffile.imread(output)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("vahadane")
    image, other = slide(160, 530, 0), slide(150, 150, 7, (H2, E2), (0.8, 1.1))
    return image, other, written(folder / "in.tif", image), written(folder / "ref.tif", other)


def test_a_job_is_the_factorisation_and_tiled_equals_whole(pair, tmp_path: Path) -> None:
    image, other, input, reference = pair
    tiled = job(input, tmp_path / "t.tif", reference, white="240", **TILED)
    np.testing.assert_array_equal(tiled, job(input, tmp_path / "w.tif", reference, white="240", **WHOLE))
    _, amounts, most = vahadane_fit(image)
    stains, _, wanted = vahadane_fit(other)
    expected = np.clip(240 * np.exp(-(amounts * (wanted / most)) @ stains), 0, 255).reshape(image.shape)
    density = density_of(image).max(1).reshape(image.shape[:2])
    assert np.abs(expected - image)[density >= BETA].mean() > 5
    assert np.abs(tiled - expected)[density >= BETA].max() < 1.2
    np.testing.assert_array_equal(tiled[density < BETA / 2], image[density < BETA / 2])


def test_a_look_holds_the_stains_of_the_whole_reference(pair, tmp_path: Path) -> None:
    _, other, _, reference = pair
    look = ut.measure_look(reference, model="stain", method="vahadane", white="240")
    stains, _, most = vahadane_fit(other)
    np.testing.assert_allclose(look.statistics["stains"], stains, atol=2e-3)
    np.testing.assert_allclose(look.statistics["concentrations"], most, atol=5e-3)
    (tmp_path / "look.json").write_text(look.to_json())
    assert "99th percentiles" in look.to_json() and '"vahadane"' in look.to_json()


def test_stains_are_purer_than_those_of_macenko(pair) -> None:
    """Where most pixels hold one stain alone, the factorisation finds these."""
    nuclei = np.random.default_rng(0).random((300, 300)) < 0.3
    amounts = np.random.default_rng(1).uniform(0.4, 1.6, (300, 300, 1))
    density = amounts * np.where(nuclei[..., None], H, E)
    image = np.rint(240 * np.exp(-density)).astype(np.uint8)
    found = ut.measure_look(ut.array_source(image), model="stain", method="vahadane", white="240")
    angles = np.degrees(np.arccos((found.statistics["stains"] * [H, E]).sum(1)))
    assert (angles < 1.5).all()


def test_a_transform_of_patches_is_the_job(pair, tmp_path: Path) -> None:
    image, _, input, reference = pair
    whole = job(input, tmp_path / "o.tif", reference)
    transfer = ut.fit_colour(input, reference, method="vahadane")
    np.testing.assert_array_equal(transfer(image[40:140, 50:300]), whole[40:140, 50:300])


@pytest.mark.parametrize(
    ("strength", "said"), [((0.0, 0.0), "too little tissue"), ((1.2, 0.0), "its stains are not told apart")]
)
def test_a_slide_with_too_little_stain_is_told_and_not_torn(
    strength, said: str, pair, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image = slide(256, 256, 0, strength=strength)
    with caplog.at_level(logging.WARNING, "urst_tiles.told"):
        got = job(written(tmp_path / "in.tif", image), tmp_path / "o.tif", pair[3])
    assert any(said in record.getMessage() for record in caplog.records)
    assert np.abs(got.astype(int) - image).max() < (1 if not any(strength) else 150)


def test_references_that_show_no_two_stains_are_refused(pair, tmp_path: Path) -> None:
    glass = written(tmp_path / "g.tif", slide(128, 128, 0, strength=(0, 0)))
    with pytest.raises(BadInput, match=r"g\.tif: the reference does not show two stains; choose another$"):
        job(pair[2], tmp_path / "o.tif", glass)
    with pytest.raises(BadInput, match="no published look for --method vahadane"):
        job(pair[2], tmp_path / "o.tif", "standard")
