"""The curve that gives a picture the skewness of a painting's luminance."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from urst_tiles.nets import keep_colours, tones

WEIGHTS = np.array(keep_colours.LUMA)


def normal(mean, covariance, count=200_000, seed=0):
    """Normally distributed colours, float32 (1, 3, 1, count)."""
    values = np.random.default_rng(seed).multivariate_normal(mean, covariance, count)
    return torch.from_numpy(values.T[None, :, None].astype(np.float32))


def bent(colours, mean, covariance, skew):
    return tones.bend(colours.clone(), 1, tones.curve(mean, covariance, skew))


@pytest.fixture
def dark():
    """The mean and covariance of the colours of a dark painting."""
    spread = np.array([[0.13, 0.0, 0.0], [0.1, 0.04, 0.0], [0.06, 0.03, 0.03]])
    return np.array([0.22, 0.16, 0.12]), spread @ spread.T


@pytest.mark.parametrize("skew", [0.3, 1.0, 2.0, 3.5, -0.8])
def test_luminance_gets_the_skewness_and_keeps_mean_and_deviation(dark, skew):
    colours = normal(*dark)
    found = bent(colours, *dark, skew)[0, :, 0].double().numpy().T @ WEIGHTS
    before = colours[0, :, 0].double().numpy().T @ WEIGHTS
    assert abs(found.mean() - before.mean()) < 0.01 * before.std()
    assert abs(found.std() / before.std() - 1) < 0.02
    z = (found - found.mean()) / found.std()
    assert (z**3).mean() == pytest.approx(skew, rel=0.06)


def test_little_of_a_dark_picture_is_below_black(dark):
    colours = normal(*dark)
    below = [(c.double().numpy() < 0).mean() for c in (colours, bent(colours, *dark, 2.0))]
    assert below[0] > 0.03 and below[1] < 0.5 * below[0]


@pytest.mark.parametrize("skew", [0.5, 4.0, -4.0])
def test_order_of_the_tones_is_kept(dark, skew):
    """Of greys that reach from far below to far above those of the painting."""
    mean, covariance = np.full(3, 0.2), 0.02 * np.ones((3, 3))
    greys = torch.linspace(-0.6, 1.5, 999).expand(1, 3, 1, 999)
    found = bent(greys, mean, covariance, skew)
    assert (found.diff(dim=3) >= -1e-6).all()


def test_a_painting_whose_tones_are_even_changes_nothing(dark):
    assert tones.curve(*dark, 0.0) is None and tones.curve(*dark, 0.01) is None
    assert tones.curve(dark[0], np.zeros((3, 3)), 2.0) is None
    colours = normal(*dark, 100)
    assert tones.bend(colours, 1, None) is colours
    slight = bent(colours, *dark, 0.03)
    assert (slight - colours).abs().max() < 0.02 and not torch.equal(slight, colours)


def test_more_skewness_than_the_most_is_taken_for_that(dark):
    assert tones.curve(*dark, 9.0) == tones.curve(*dark, tones.MOST)
    assert tones.spread_of(tones.strength_for(tones.MOST))[2] == pytest.approx(tones.MOST, rel=1e-6)


def test_skewness_is_that_of_the_luminance():
    random = np.random.default_rng(0)
    image = random.gamma(2.0, 0.05, (300, 400, 1)) * np.ones(3)
    assert tones.skewness(image.astype(np.float32)) == pytest.approx(2 / np.sqrt(2.0), abs=0.05)
    assert tones.skewness(1 - image) == pytest.approx(-tones.skewness(image))
    assert tones.skewness(np.full((9, 9, 3), 0.3, np.float32)) == 0.0


@pytest.mark.parametrize("length", [1, 3, 7, 8, 15, 16, 31, 33, 1000])
def test_a_pixel_has_the_same_bits_wherever_it_lies(dark, length):
    """As a channels-last window, in whatever place of it."""
    pixels = normal(*dark, 1000)[0, :, 0].T.contiguous().view(1, 1, 1000, 3)
    curve = tones.curve(*dark, 1.7)
    whole = tones.bend(pixels.clone(), 3, curve)
    for start in (0, 1, 1000 - length):
        part = tones.bend(pixels[:, :, start : start + length].clone(), 3, curve)
        assert torch.equal(part, whole[:, :, start : start + length])
    planes = tones.bend(pixels.permute(0, 3, 1, 2).contiguous(), 1, curve)
    assert torch.equal(planes, whole.permute(0, 3, 1, 2))
