"""Histograms of floats: keys and steps are exact, merge exactly, and match distributions as NumPy does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from urst_tiles.errors import BadInput
from urst_tiles.histogram import Histogram
from urst_tiles.nets.colour.float_histogram import (
    KEYS,
    STEPS,
    Division,
    distribution,
    divided,
    floats_of,
    lines,
    merged,
    ordered,
    see_keys,
    thinned,
)


def measured(values: np.ndarray) -> tuple[Division, Histogram, Histogram]:
    """The division of the values (bands, n), and what both passes count."""
    x = torch.from_numpy(values)
    keys = Histogram.of(see_keys(x).numpy(), KEYS)
    division = divided(keys)
    return division, keys, Histogram.of(division(x[None, :, None])[0, :, 0].floor().numpy(), STEPS)


def transferred(image: np.ndarray, reference: np.ndarray) -> np.ndarray:
    division, _, steps = measured(image)
    target = distribution(*measured(reference)[1:])
    return lines(steps, target)(division(torch.from_numpy(image)[None, :, None]))[0, :, 0].numpy()


def formula(image: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """scikit-image's ``_match_cumulative_cdf``, band by band."""
    out = np.empty(image.shape)
    for band, (x, ref) in enumerate(zip(image, reference, strict=True)):
        _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
        values, wanted = np.unique(ref, return_counts=True)
        out[band] = np.interp(np.cumsum(counts) / x.size, np.cumsum(wanted) / ref.size, values)[inverse]
    return out


EVERY = np.array([-3e38, -7.5, -1.0, -1e-30, 0.0, 1e-40, 1e-30, 0.3, 1.0, 1.0000001, 250.0, 3e38], np.float32)


def test_numbers_rise_with_the_floats_and_lead_back() -> None:
    numbers = ordered(torch.from_numpy(EVERY)).numpy().astype(np.int64)
    assert (np.diff(numbers) > 0).all() and ordered(torch.tensor([-0.0])).item() == 0
    np.testing.assert_array_equal(floats_of(numbers).astype(np.float32), EVERY)
    keys = see_keys(torch.tensor([[np.nan, np.inf, -np.inf, 0.0]])).numpy()
    np.testing.assert_array_equal(keys, [[np.nan, np.nan, np.nan, 32768]])


RANDOM = np.random.default_rng(0)
KINDS = {
    "reflectances": (RANDOM.beta(2, 5, 90000), RANDOM.beta(3, 4, 70000)),
    "around 0": (RANDOM.normal(0, 1, 90000), RANDOM.normal(-3, 0.1, 70000)),
    "far from 0": (RANDOM.normal(1e6, 2, 90000), RANDOM.normal(-2e5, 30, 70000)),
    "with extremes": (np.append(RANDOM.normal(0, 1, 90000), [1e30, -1e30]), RANDOM.normal(5, 1, 70000)),
    "skewed": (RANDOM.lognormal(0, 3, 90000), RANDOM.lognormal(1, 1, 70000)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_matched_is_what_numpy_matches(kind: str) -> None:
    image, reference = (values.astype(np.float32)[None] for values in KINDS[kind])
    got = transferred(image, reference)
    # a share of the pixels that is wrong by a 16384th, and a value by a 4096th of the range
    _, inverse, counts = np.unique(image, return_inverse=True, return_counts=True)
    values, wanted = np.unique(reference, return_counts=True)
    below, shares = np.cumsum(counts) / image.size, np.cumsum(wanted) / reference.size
    near = np.ptp(reference) / 4096
    low, high = (np.interp(below + d, shares, values)[inverse.ravel()] for d in (-1 / 16384, 1 / 16384))
    assert (got[0] >= low - near).all() and (got[0] <= high + near).all()
    assert np.abs(got - formula(image, reference)).mean() < 2e-5 * np.ptp(reference)
    in_order = np.argsort(image[0])
    assert (np.diff(got[0, in_order]) >= -1e-6 * np.abs(got).max()).all()


@pytest.mark.parametrize("count", [1, 2, 300, 5000])
@pytest.mark.parametrize("low", [-4000, 0, 123456])
def test_whole_numbers_are_matched_exactly(count: int, low: int) -> None:
    """Heights in metres, for one: as many ties as with levels."""
    random = np.random.default_rng(count)
    image = (low + np.minimum(random.integers(0, count, 40000), random.integers(0, count, 40000))).astype(
        np.float32
    )
    reference = (3 * random.integers(0, count, 30000) - 700).astype(np.float32)
    got, wanted = transferred(image[None], reference[None]), formula(image[None], reference[None])
    np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-3 if count > 1 else 0)


def test_an_image_matched_to_itself_stays_as_it_is() -> None:
    for values, _ in KINDS.values():
        image = values.astype(np.float32)[None]
        wrong = np.abs(transferred(image, image) - image)
        assert (wrong <= np.ptp(image) / 4096).all()
    whole = np.arange(-900, 70000, 7, dtype=np.float32)[None]
    np.testing.assert_array_equal(transferred(whole, whole), whole)


@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_as_fine_as_is_said(kind: str) -> None:
    image = KINDS[kind][0].astype(np.float32)[None]
    division, keys, steps = measured(image)
    total = int((division.slope * 65536).sum())
    assert total <= STEPS.size and steps.counts.sum() == keys.counts.sum() == image.size
    begins = division.values(0)
    assert len(begins) == total and (np.diff(begins) > 0).all()
    held = np.flatnonzero(steps.counts[0])
    most = np.maximum(np.ptp(image) / 16384, np.spacing(begins[held].astype(np.float32)))
    assert (begins[held + 1] - begins[held] <= most).all()
    some = most > np.spacing(begins[held].astype(np.float32))
    assert not some.any() or np.median(steps.counts[0][held[some]]) <= image.size / 16384


def test_any_floats_find_room() -> None:
    """Every key occurs: the steps are still no more than are counted."""
    bits = np.random.default_rng(0).integers(0, 1 << 32, 400000, dtype=np.uint64).astype(np.uint32)
    every = bits.view(np.float32)
    image = every[np.isfinite(every)][None]
    division, _, steps = measured(image)
    assert (division.slope * 65536).sum() <= STEPS.size and steps.counts.sum() == image.size


def test_parts_add_up_to_the_whole() -> None:
    image = KINDS["skewed"][0].astype(np.float32)[None]
    division, keys, steps = measured(image)
    parts = [Histogram.of(see_keys(torch.from_numpy(p)).numpy(), KEYS) for p in np.array_split(image, 7, 1)]
    np.testing.assert_array_equal(sum(parts[1:], parts[0]).counts, keys.counts)
    found = [
        Histogram.of(division(torch.from_numpy(p.copy())[None, :, None])[0, :, 0].floor().numpy(), STEPS)
        for p in np.array_split(image, 7, 1)
    ]
    np.testing.assert_array_equal(sum(found[1:], found[0]).counts, steps.counts)


def test_thinned_pairs_lie_on_the_same_curve() -> None:
    values = np.sort(np.random.default_rng(0).lognormal(0, 2, 50000))
    pairs = np.stack([values, np.ones(50000)], 1)
    some = thinned(pairs, 1000)
    assert len(some) <= 1000 and some[:, 1].sum() == 50000
    np.testing.assert_array_equal(some[[0, -1], 0], values[[0, -1]])
    np.testing.assert_array_equal(np.searchsorted(values, some[:, 0], "right"), np.cumsum(some[:, 1]))
    np.testing.assert_array_equal(thinned(pairs, 50000), pairs)


def test_references_of_any_size_count_by_their_weight() -> None:
    low, high = np.arange(100, dtype=np.float32)[None], np.arange(1000, 1900, dtype=np.float32)[None]
    both = merged([(distribution(*measured(one)[1:]), share) for one, share in ((low, 0.25), (high, 0.75))])
    shares = np.cumsum(both[0, :, 1]) / both[0, :, 1].sum()
    assert shares[both[0, :, 0] == 99] == pytest.approx(0.25)
    assert np.interp(0.625, shares, both[0, :, 0]) == pytest.approx(1449, abs=1.1)


def test_a_reference_without_a_valid_pixel_is_refused() -> None:
    with pytest.raises(BadInput, match="no valid pixel"):
        distribution(Histogram.empty(1, KEYS), Histogram.empty(1, STEPS))
