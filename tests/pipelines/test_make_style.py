"""The made-up style pictures: the same every time, and strong enough to be a style."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import pyvips

STYLES = ["swirls", "mosaic", "ink"]


@pytest.fixture(scope="module")
def make_style(pipeline: Callable[[str], ModuleType]) -> ModuleType:
    module = pipeline("make_style")
    module.LAYERS = [
        (count // 20, 2 * length, 2 * width) for count, length, width in module.LAYERS
    ]  # for speed
    return module


def test_these_are_all(make_style: ModuleType) -> None:
    assert list(make_style.STYLES) == STYLES


@pytest.mark.parametrize("name", STYLES)
def test_the_same_picture_every_time(make_style: ModuleType, name: str) -> None:
    first, again, other = (make_style.STYLES[name](96, seed) for seed in (1, 1, 2))
    assert first.shape == (96, 96, 3)
    assert np.array_equal(first, again)
    assert np.abs(first - other).mean() > 0.02


@pytest.mark.parametrize("name", STYLES)
def test_bold_contrast_and_colour(make_style: ModuleType, name: str, tmp_path: Path) -> None:
    path = tmp_path / "style.png"
    make_style.write_style(path, name, side=128)
    pixels = pyvips.Image.new_from_file(str(path)).numpy()
    assert pixels.shape == (128, 128, 3) and pixels.dtype == np.uint8
    assert pixels.std() > 50
    assert np.ptp(pixels.astype(int), axis=2).mean() > 30
