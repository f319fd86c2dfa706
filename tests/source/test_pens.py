"""Marks of a pen on a slide are no tissue: they neither count nor change under ``--valid tissue``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from colours import E2, H2, E, H, slide, written

import urst_tiles as ut
from urst_tiles.source.pens import marks
from urst_tiles.source.tissue import grown, tissue_of

INKS = {
    "green": (30, 140, 80),
    "pale green": (100, 200, 120),
    "blue": (40, 80, 200),
    "dark blue": (25, 25, 110),
    "black": (30, 30, 35),
    "jet black": (12, 12, 13),
    "red": (215, 35, 45),
    "dark red": (150, 20, 30),
}

#: Optical densities of stains in red, green and blue (Ruifrok and Johnston 2001), and of the tests' scanners.
STAINS = {
    "hematoxylin and eosin": ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11)),
    "Macenko's": ((0.5626, 0.7201, 0.4062), (0.2159, 0.8012, 0.5581)),
    "hematoxylin and DAB": ((0.651, 0.701, 0.29), (0.269, 0.568, 0.778)),
    "of one scanner": (H, E),
    "of another": (H2, E2),
}


def drawn(image: np.ndarray, ink: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The image with strokes over tissue and glass, and where these are."""
    mark = np.zeros(image.shape[:2], bool)
    mark[30:44, 20:380] = True
    mark[100:260, 200:212] = True
    noise = np.random.default_rng(3).normal(0, 5, (*mark.shape, 3))
    return np.where(mark[..., None], np.clip(np.array(ink) + noise, 1, 255), image).astype(np.uint8), mark


@pytest.mark.parametrize("side", [1, 2, 3], ids=["full", "half", "third"])
@pytest.mark.parametrize("ink", INKS)
def test_a_mark_is_no_tissue_and_the_tissue_around_it_stays(ink: str, side: int) -> None:
    def small(pixels: np.ndarray) -> np.ndarray:
        h, w = (n // side * side for n in pixels.shape[:2])
        cells = pixels[:h, :w].reshape(h // side, side, w // side, side, -1)
        return cells.mean((1, 3))

    plain = slide(300, 400, 0)
    image, mark = drawn(plain, INKS[ink])
    found, without = tissue_of(small(image)), tissue_of(small(plain))
    mark = small(mark[..., None])[..., 0] > 0.5
    assert found[mark].mean() < 0.01
    away = ~grown(mark, 5)
    assert (found != without)[away].mean() < 0.01


@pytest.mark.parametrize("strength", [(0.6, 0.6), (1.2, 0.8), (2.0, 1.5)])
@pytest.mark.parametrize("stains", STAINS)
def test_stains_are_no_ink(stains: str, strength: tuple[float, float]) -> None:
    image = slide(300, 400, 0, tuple(map(np.array, STAINS[stains])), strength).astype(np.float32)
    dense, _ = marks(image, np.ones(image.shape[:2], bool))
    assert dense.mean() < 1e-3
    assert tissue_of(image).mean() > 0.5


def test_black_that_a_scanner_fills_up_with_is_no_ink_and_invalid_pixels_are_not_looked_at() -> None:
    image = slide(120, 160, 0)
    image[:, :20] = 0
    seen = np.ones(image.shape[:2], bool)
    assert not marks(image.astype(np.float32), seen)[1].any()
    image[50:, 100:] = INKS["red"]
    seen[50:, 100:] = False
    assert not marks(image.astype(np.float32), seen)[1].any()


@pytest.mark.parametrize("ink", ["green", "black", "red"])
def test_ink_neither_counts_nor_changes_in_a_job(ink: str, tmp_path: Path) -> None:
    """Tissue away from the marks gets the colours that it gets on the same slide without marks."""
    plain = slide(300, 400, 0)
    image, mark = drawn(plain, INKS[ink])
    made = []
    for name, pixels in (("plain", plain), ("drawn", image)):
        input, output = written(tmp_path / f"{name}.tif", pixels), tmp_path / f"{name}_out.tif"
        ut.stylize(input, output, "standard", model="stain", white="243,241,238", valid="tissue")
        made.append(tifffile.imread(output).astype(int))
    np.testing.assert_array_equal(made[1][mark], image[mark])
    away = ~grown(mark, 6)
    assert np.abs(made[1] - made[0])[away].mean() < 0.5
    changed = np.abs(made[1].astype(int) - image).max(-1) > 0
    assert changed[away].mean() > 0.4
