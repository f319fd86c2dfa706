"""What two images say of each other, and the one solve for all of them, on made-up numbers."""

from __future__ import annotations

import numpy as np
import pytest

from urst_tiles.adjustment import Whole, adjusted, connected
from urst_tiles.overlap import Overlap, compared

SPREAD = np.array([0.5, 0.5, 0.5])
GAIN, OFFSET = np.array([1.4, 0.8, 1.1]), np.array([-0.05, 0.1, 0.02])


def pair(n: int = 3000, noise: float = 0.004, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The same n places in two images, each with its own noise: the second is gain * first + offset."""
    random = np.random.default_rng(seed)
    true = random.uniform(0.1, 0.5, (n, 1)) + random.uniform(-0.08, 0.08, (n, 3))
    first = true + random.normal(0, noise, (n, 3))
    return first, GAIN * true + OFFSET + random.normal(0, noise, (n, 3)) * GAIN


def line(one: Overlap | None) -> tuple[np.ndarray, np.ndarray]:
    assert one is not None
    gain = one.deviation[1] / one.deviation[0]
    return gain, one.mean[1] - gain * one.mean[0]


def test_gain_and_offset_are_found_from_either_side() -> None:
    a, b = pair()
    gain, offset = line(compared(0, 1, a, b, SPREAD))
    np.testing.assert_allclose(gain, GAIN, rtol=0.005)
    np.testing.assert_allclose(offset, OFFSET, atol=0.003)
    back, _ = line(compared(1, 0, b, a, SPREAD))
    np.testing.assert_allclose(gain * back, 1, rtol=1e-3)


def test_noise_in_both_flattens_no_slope() -> None:
    """Ordinary least squares would find gains that are too small by a twentieth."""
    a, b = pair(20000, noise=0.03)
    gain, _ = line(compared(0, 1, a, b, SPREAD))
    np.testing.assert_allclose(gain, GAIN, rtol=0.015)
    plain = np.array([np.polyfit(a[:, k], b[:, k], 1)[0] for k in range(3)])
    assert (plain < 0.96 * GAIN).all()


@pytest.mark.parametrize("share", [0.1, 0.3, 0.45])
@pytest.mark.parametrize("where", ["first", "second", "both"])
def test_clouds_are_left_out(share: float, where: str) -> None:
    a, b = pair()
    random = np.random.default_rng(7)
    cloud = random.random(len(a)) < share
    bright = random.normal(0.85, 0.04, (int(cloud.sum()), 3))
    if where != "second":
        a[cloud] = bright
    if where != "first":
        b[cloud] = bright[::-1] + 0.03
    found = compared(0, 1, a, b, SPREAD)
    gain, offset = line(found)
    np.testing.assert_allclose(gain, GAIN, rtol=0.03)
    np.testing.assert_allclose(offset, OFFSET, atol=0.01)
    assert found.kept < 1 - 0.8 * share


def test_mostly_water_still_counts_the_land() -> None:
    """Nine tenths that do not vary say nothing of a gain; the tenth that varies is no outlier."""
    a, b = pair(6000)
    water = np.arange(6000) < 5400
    random = np.random.default_rng(1)
    a[water] = np.array([0.1, 0.12, 0.15]) + random.normal(0, 0.003, (5400, 3))
    b[water] = GAIN * np.array([0.1, 0.12, 0.15]) + OFFSET + random.normal(0, 0.003, (5400, 3))
    gain, offset = line(compared(0, 1, a, b, SPREAD))
    np.testing.assert_allclose(gain, GAIN, rtol=0.03)
    np.testing.assert_allclose(offset, OFFSET, atol=0.01)


def test_too_few_cells_say_nothing() -> None:
    a, b = pair(11)
    assert compared(0, 1, a, b, SPREAD) is None
    assert compared(0, 1, a[:0], b[:0], SPREAD) is None
    random = np.random.default_rng(2)
    alike, other = random.uniform(0, 1, (2, 40, 3))
    found = compared(0, 1, alike, other, SPREAD)
    assert found is None or found.kept < 0.5


def flat(first: int, second: int, means: np.ndarray, deviations: np.ndarray, **more: float) -> Overlap:
    facts = {"cells": 1000, "kept": 1.0} | more
    ones = np.ones(1)
    return Overlap(
        first, second, int(facts["cells"]), facts["kept"], means, deviations,
        ones * more.get("correlation", 1.0), ones * more.get("residual", 0.001),
    )  # fmt: skip


def block(
    gains: np.ndarray, offsets: np.ndarray, pairs: list[tuple[int, int]]
) -> tuple[Whole, list[Overlap]]:
    """N images of one channel, and overlaps of which each image sees (truth - offset) / gain."""
    random = np.random.default_rng(3)
    overlaps = []
    for i, j in pairs:
        mean, deviation = random.uniform(0.2, 0.6), random.uniform(0.05, 0.2)
        both = [i, j]
        means = (mean - offsets[both]) / gains[both]
        overlaps.append(flat(i, j, means[:, None], (deviation / gains[both])[:, None]))
    n = len(gains)
    return Whole(np.full(n, 5000.0), np.full((n, 1), 0.4), np.full((n, 1), 0.1)), overlaps


CHAIN = np.array([1.0, 1.3, 0.8, 1.1, 0.9, 1.2]), np.array([0.0, 0.02, -0.05, 0.01, 0.04, -0.02])


def test_a_chain_is_solved_to_its_end() -> None:
    gains, offsets = CHAIN
    whole, overlaps = block(gains, offsets, [(n, n + 1) for n in range(5)])
    found = adjusted(whole, overlaps, np.ones(1), fixed=0)
    np.testing.assert_allclose(found.gains[:, 0], gains, rtol=0.01)
    np.testing.assert_allclose(found.offsets[:, 0], offsets, atol=0.003)
    assert found.gains[0, 0] == pytest.approx(1, abs=1e-12)
    assert found.offsets[0, 0] == pytest.approx(0, abs=1e-12)


def test_without_a_fixed_image_the_mean_of_all_stays() -> None:
    gains, offsets = CHAIN
    whole, overlaps = block(gains, offsets, [(0, 1), (1, 2), (2, 0), (2, 3), (3, 4), (4, 5)])
    found = adjusted(whole, overlaps, np.ones(1))
    ratio = found.gains[:, 0] / gains
    np.testing.assert_allclose(ratio, ratio[0], rtol=0.01)
    assert found.gains.mean() == pytest.approx(1)
    assert (found.gains[:, 0] * 0.4 + found.offsets[:, 0]).mean() == pytest.approx(0.4)


def test_one_bad_overlap_of_a_ring_is_outvoted() -> None:
    gains, offsets = CHAIN
    whole, overlaps = block(gains, offsets, [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2), (1, 3)])
    one = overlaps[2]
    overlaps[2] = flat(
        2, 3, one.mean + np.array([[0.0], [0.2]]), one.deviation, residual=0.3, correlation=0.1
    )
    found = adjusted(whole, overlaps, np.ones(1), fixed=0)
    np.testing.assert_allclose(found.gains[:4, 0], gains[:4], rtol=0.02)
    np.testing.assert_allclose(found.offsets[:4, 0], offsets[:4], atol=0.01)


def test_noise_over_water_makes_no_gain() -> None:
    """Where an overlap shows nothing that varies, means become equal and the gain stays near 1."""
    whole, _ = block(*CHAIN, [(0, 1)])
    noise = flat(0, 1, np.array([[0.30], [0.40]]), np.array([[0.002], [0.004]]), correlation=0.0)
    found = adjusted(whole, [noise], np.ones(1), fixed=0)
    assert found.gains[1, 0] == pytest.approx(1, abs=0.02)
    assert found.gains[1, 0] * 0.4 + found.offsets[1, 0] == pytest.approx(0.3, abs=1e-6)


def test_images_by_themselves_stay_and_groups_are_told_apart() -> None:
    whole, overlaps = block(*CHAIN, [(0, 1), (3, 4)])
    found = adjusted(whole, overlaps, np.ones(1), fixed=0)
    assert found.groups == ((0, 1), (2,), (3, 4), (5,))
    for n in (2, 5):
        assert found.gains[n, 0] == 1 and found.offsets[n, 0] == 0
    assert connected(4, [(3, 1), (1, 2)]) == ((0,), (1, 2, 3))


def test_gains_alone_make_means_equal() -> None:
    gains = CHAIN[0]
    whole, overlaps = block(gains, np.zeros(6), [(n, n + 1) for n in range(5)])
    found = adjusted(whole, overlaps, np.ones(1), fixed=2, offsets=False)
    np.testing.assert_allclose(found.gains[:, 0], gains / gains[2], rtol=0.01)
    assert not found.offsets.any()
