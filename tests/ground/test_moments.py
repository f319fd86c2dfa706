"""Merged statistics are the statistics of the whole, whatever the parts."""

from __future__ import annotations

from functools import reduce
from operator import add

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from urst_tiles.moments import Moments


@st.composite
def weighted_parts(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Features (C, N), weights (N,) between 0 and 1 (some zero), and where to cut."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    channels, count = draw(st.integers(1, 5)), draw(st.integers(1, 60))
    features = rng.normal(draw(st.sampled_from([0.0, 3.0, 1e4])), 2.0, (channels, count))
    weights = rng.choice([0.0, 0.25, 1.0, rng.random()], count)
    cuts = sorted(draw(st.lists(st.integers(0, count), max_size=5)))
    return features, weights, cuts


def gather(features: np.ndarray, weights: np.ndarray, cuts: list[int], *, full: bool) -> Moments:
    edges = [0, *cuts, features.shape[1]]
    parts = [
        Moments.of(features[:, a:b], weights[a:b], full=full) for a, b in zip(edges, edges[1:], strict=False)
    ]
    return reduce(add, parts, Moments.empty(len(features), full=full))


@pytest.mark.parametrize("full", [False, True])
@given(weighted_parts())
def test_merged_parts_equal_the_whole(full: bool, drawn: tuple[np.ndarray, np.ndarray, list[int]]) -> None:
    features, weights, cuts = drawn
    whole, merged = Moments.of(features, weights, full=full), gather(features, weights, cuts, full=full)
    assert merged.n == pytest.approx(whole.n)
    assert_allclose(merged.mean, whole.mean, rtol=1e-12, atol=1e-12)
    assert_allclose(merged.m2, whole.m2, rtol=1e-9, atol=1e-9)


@given(weighted_parts())
def test_against_numpy(drawn: tuple[np.ndarray, np.ndarray, list[int]]) -> None:
    features, weights, cuts = drawn
    moments = gather(features, weights, cuts, full=True)
    if weights.sum() == 0:
        return
    assert_allclose(moments.mean, np.average(features, axis=1, weights=weights))
    covariance = np.atleast_2d(np.cov(features, aweights=weights, ddof=0))
    assert_allclose(moments.covariance(), covariance, rtol=1e-8, atol=1e-8)
    assert_allclose(moments.variance(), np.diagonal(covariance), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("full", [False, True])
def test_equal_weights_change_the_weight_alone(full: bool) -> None:
    """Where all are one there is a shorter way; the features given stay as they are."""
    features = np.random.default_rng(0).normal(5.0, 2.0, (3, 50))
    before = features.copy()
    plain, ones, twos = (Moments.of(features, w, full=full) for w in (None, np.ones(50), np.full(50, 2.0)))
    assert (plain.n, ones.n, twos.n) == (50, 50, 100)
    np.testing.assert_array_equal(plain.m2, ones.m2)
    assert_allclose(twos.mean, plain.mean, rtol=1e-14)
    assert_allclose(twos.m2, 2 * plain.m2, rtol=1e-13)
    np.testing.assert_array_equal(features, before)


def test_unbiased_as_torch_has_it() -> None:
    x = np.random.default_rng(0).normal(size=(3, 50))
    moments = Moments.of(x)
    assert_allclose(moments.variance(ddof=1), x.var(axis=1, ddof=1))
    assert_allclose(moments.std(eps=1e-5, ddof=1), np.sqrt(x.var(axis=1, ddof=1) + 1e-5))
    assert_allclose(Moments.of(x, full=True).covariance(ddof=1), np.cov(x))


@given(weighted_parts())
def test_a_zero_weight_is_as_good_as_absent(drawn: tuple[np.ndarray, np.ndarray, list[int]]) -> None:
    features, weights, _ = drawn
    there, absent = Moments.of(features, weights), Moments.of(features[:, weights > 0], weights[weights > 0])
    assert_allclose(there.mean, absent.mean)
    assert_allclose(there.m2, absent.m2, atol=1e-9)


def test_a_large_offset_costs_no_precision() -> None:
    x = np.random.default_rng(1).normal(1e8, 1.0, (1, 100_000))
    parts = [Moments.of(part) for part in np.split(x, 100, axis=1)]
    assert_allclose(reduce(add, parts).variance(), x.var(axis=1), rtol=1e-9)


@pytest.mark.parametrize("full", [False, True])
def test_empty_is_neutral(full: bool) -> None:
    empty, some = Moments.empty(2, full=full), Moments.of([[1.0, 2.0], [3.0, 5.0]], full=full)
    assert (empty + some) is some
    assert (some + empty) is some
    assert (empty + empty).n == 0
    assert (empty.variance(1) == 0).all() and (empty.std(1e-5, 1) > 0).all()


def test_nothing_valid_is_empty() -> None:
    moments = Moments.of(np.ones((3, 4)), np.zeros(4))
    assert moments.n == 0 and moments.channels == 3
    assert np.isfinite(moments.std(1e-5, ddof=1)).all()


@pytest.mark.parametrize("weights", [[1.0], [0.5], [0.25, 0.5], [0.5, 0.5 + 1e-12], [1e-9, 1.0]])
def test_less_than_two_vectors_give_finite_unbiased_statistics(weights: list[float]) -> None:
    features = np.arange(3.0 * len(weights)).reshape(3, -1)
    moments = Moments.of(features, weights, full=True)
    bound = 2 * moments.variance()
    assert (moments.variance(ddof=1) <= bound + 1e-15).all()
    assert np.isfinite(moments.covariance(ddof=1)).all()


def test_only_like_merges_with_like() -> None:
    with pytest.raises(ValueError, match=r"\(2,\) and \(3,\) do not merge"):
        Moments.empty(2) + Moments.empty(3)
    with pytest.raises(ValueError, match=r"\(2,\) and \(2, 2\) do not merge"):
        Moments.empty(2) + Moments.empty(2, full=True)
    with pytest.raises(TypeError):
        Moments.empty(2) + 1  # type: ignore[operator]


def test_variances_are_no_covariance() -> None:
    with pytest.raises(ValueError, match="gather them with full=True"):
        Moments.empty(2).covariance()
