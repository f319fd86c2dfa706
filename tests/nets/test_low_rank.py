"""What a style changes in the weights that all styles share."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from urst_tiles.nets import low_rank, painter, painter_styles
from urst_tiles.nets.base import State

FORM = painter_styles.Form(6, 5, 4)
LAYERS = painter_styles.convolutions(FORM)


def change_of(rank: int, size: float = 1.0, shape: tuple[int, int] = (24, 20)) -> torch.Tensor:
    """(24, 20, 3, 3) of that rank, whose components fall by a third each."""
    random = np.random.default_rng(rank)
    total = np.zeros((shape[0], shape[1] * 9))
    for k in range(rank):
        total += size * 0.67**k * np.outer(random.normal(size=shape[0]), random.normal(size=shape[1] * 9))
    return torch.from_numpy(total.reshape(*shape, 3, 3))


def back(state: State) -> torch.Tensor:
    return low_rank.changes(state)["a.0.weight"]


@pytest.mark.parametrize("size", [1e-6, 0.01, 300.0])
def test_a_change_of_few_components_is_kept(size: float) -> None:
    change = change_of(4, size)
    kept = back(low_rank.compressed(change, "a.0", 4))
    assert kept.shape == change.shape
    assert (kept - change).norm() < 0.025 * change.norm()


def test_what_is_cut_is_what_is_smallest() -> None:
    change = change_of(12)
    sizes = torch.linalg.svdvals(change.flatten(1))
    for rank in (2, 6):
        left = (back(low_rank.compressed(change, "a.0", rank)) - change).norm()
        best = sizes[rank:].square().sum().sqrt()
        assert torch.allclose((low_rank.largest(change, rank) - change).norm(), best)
        assert best <= left < best + 0.025 * change.norm()


def test_nothing_and_a_convolution_of_few_outputs_are_kept() -> None:
    assert not back(low_rank.compressed(torch.zeros(6, 5, 3, 3), "a.0")).any()
    few = change_of(3, shape=(3, 24))
    assert (back(low_rank.compressed(few, "a.0")) - few).norm() < 0.025 * few.norm()


def test_changes_are_exact_sums_of_outer_products() -> None:
    state = low_rank.compressed(change_of(12), "a.0")
    out, taps, exponents = (state[f"change.a.0.{part}"].tolist() for part in ("out", "in", "exponent"))
    got = back(state)
    for o, i, y, x in ((0, 0, 0, 0), (23, 19, 2, 2), (7, 11, 1, 2)):
        parts = zip(out, taps, exponents, strict=True)
        want = sum((Fraction(2) ** e * u[o] * v[i][y][x] for u, v, e in parts), Fraction(0))
        assert Fraction(got[o, i, y, x].item()) == want


@pytest.mark.parametrize("of_all", [False, True])
def test_more_components_change_nothing(of_all: bool) -> None:
    state = low_rank.seeded(LAYERS, 3, 0)
    given = state if of_all else {k: t[1] for k, t in state.items()}
    made = low_rank.widened(given, LAYERS, 5)
    assert low_rank.rank_of(made) == 5
    one = {k: t[1] for k, t in made.items()} if of_all else made
    assert {k: tuple(t.shape) for k, t in one.items()} == low_rank.shapes(LAYERS, 5)
    want = low_rank.changes({k: t[1] for k, t in state.items()})
    assert all(torch.equal(t, want[k]) for k, t in low_rank.changes(one).items())
    assert not any(t.any() for t in low_rank.changes(low_rank.widened({}, LAYERS, 5)).values())


def test_names_and_shapes_are_those_of_a_file() -> None:
    assert low_rank.shapes(LAYERS, 0) == {}
    wanted = low_rank.shapes(LAYERS, 5)
    made: State = {}
    for name, (outputs, inputs) in LAYERS.items():
        made |= low_rank.compressed(torch.randn(outputs, inputs, 3, 3), name, 5)
    assert {k: tuple(t.shape) for k, t in made.items()} == wanted
    assert all(t.dtype == torch.int8 for t in made.values())
    assert low_rank.rank_of(made) == 5 and low_rank.rank_of({}) == 0
    weights = {k: tuple(t.shape) for k, t in low_rank.changes(made).items()}
    assert weights == {f"{name}.weight": (o, i, 3, 3) for name, (o, i) in LAYERS.items()}


def test_seeded_changes_are_seen_and_do_not_rule() -> None:
    state = painter.seeded(0, 1 / 8)[painter.FILE]
    added = painter_styles.style_in(state, 0)
    for name in LAYERS:
        share = added[f"{name}.weight"].norm() / state[f"{name}.weight"].norm()
        assert 0.01 < share < 1, name
