"""Histograms are counted exactly, merge exactly, and give NumPy's percentiles."""

from __future__ import annotations

import numpy as np
import pytest

from urst_tiles.histogram import LEVELS, Bins, Histogram, matched


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_level_is_counted_as_numpy_counts_it(dtype) -> None:
    top = np.iinfo(dtype).max
    pixels = np.random.default_rng(0).integers(0, top + 1, (3, 5000)).astype(dtype)
    counts = Histogram.of(pixels.astype(np.float32) / np.float32(top), LEVELS).counts
    step = 65535 // top
    for row, found in zip(pixels, counts, strict=True):
        np.testing.assert_array_equal(found[::step], np.bincount(row, minlength=top + 1))
    assert counts.sum() == pixels.size


def test_parts_merge_to_the_whole_and_weights_count() -> None:
    random = np.random.default_rng(1)
    values, weights = random.random((2, 900)).astype(np.float32), random.integers(0, 2, 900)
    whole = Histogram.of(values, LEVELS, weights)
    parts = Histogram.of(values[:, :300], LEVELS, weights[:300]) + Histogram.of(
        values[:, 300:], LEVELS, weights[300:]
    )
    np.testing.assert_array_equal(parts.counts, whole.counts)
    np.testing.assert_array_equal(whole.counts, Histogram.of(values[:, weights > 0], LEVELS).counts)
    assert whole.n == weights.sum()
    with pytest.raises(ValueError, match="do not merge"):
        whole + Histogram.empty(2, Bins(7))


def test_nan_is_not_counted_and_the_ends_take_what_lies_outside() -> None:
    found = Histogram.of(np.array([[np.nan, -3.0, 0.5, 9.0]], np.float32), Bins(5, 0.0, 2.0))
    np.testing.assert_array_equal(found.counts, [[1, 1, 0, 0, 1]])


@pytest.mark.parametrize("count", [1, 2, 7, 1000])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.77, 0.99, 1.0])
def test_a_quantile_is_numpys_percentile(count: int, share: float) -> None:
    values = np.random.default_rng(count).integers(0, 256, count) / 255
    found = Histogram.of(values[None].astype(np.float32), LEVELS).quantile(0, share)
    assert found == pytest.approx(np.percentile(values, 100 * share), abs=1e-9)


def test_the_quantile_of_nothing_is_nan_and_nothing_is_matched_to_nothing() -> None:
    nothing = Histogram.empty(1, LEVELS)
    assert np.isnan(nothing.quantile(0, 0.5))
    np.testing.assert_array_equal(matched(nothing, nothing), LEVELS.values[None])
