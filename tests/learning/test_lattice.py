"""Whether strokes sit on the network's cells: the same at every place of a cell, or not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from urst_tiles.learning.lattice import grams_by_place, lattice_distance
from urst_tiles.nets.painter_styles import STRIDE


def test_grams_at_places_are_those_of_every_fourth_pixel() -> None:
    x = torch.rand(2, 3, 19, 22, generator=torch.Generator().manual_seed(1))
    found = grams_by_place(x, 4)
    for place in range(16):
        part = x[:, :, place // 4 : 16 : 4, place % 4 : 20 : 4].flatten(2)
        torch.testing.assert_close(found[:, place], part @ part.mT / part.shape[2])


def test_dots_on_the_lattice_are_far_and_the_same_dots_anywhere_are_near() -> None:
    random = np.random.default_rng(2)
    on, off = torch.zeros(1, 2, 256, 256), torch.zeros(1, 2, 256, 256)
    for _ in range(1500):
        y, x, channel = *random.integers(1, 60, 2), random.integers(2)
        on[0, channel, STRIDE * y, STRIDE * x] = 1
        off[0, channel, STRIDE * y + random.integers(-2, 2), STRIDE * x + random.integers(-2, 2)] = 1
    gram = on.flatten(2) @ on.flatten(2).mT / 256**2
    power = {"a": gram.square().mean((1, 2))}
    far, near = (float(lattice_distance({"a": t}, 256, power)) for t in (on, off))
    assert near < 0.3 < 3 < far


def test_layers_whose_features_are_as_large_as_a_cell_do_not_count() -> None:
    x = torch.rand(2, 3, 64, 64)
    power = torch.tensor([0.1, 0.2])
    whole, half, quarter = x, x[:, :, ::2, ::2], x[:, :, ::4, ::4]
    features = {"a": whole, "b": half, "c": quarter}
    both = lattice_distance(features, 64, dict.fromkeys("abc", power))
    two = lattice_distance(features, 64, dict.fromkeys("ab", power))
    one = lattice_distance(features, 64, {"a": power})
    assert both == two > one > 0
    assert lattice_distance(features, 64, {"c": power}) == 0


def test_a_picture_with_an_odd_last_line_has_the_same_layers() -> None:
    x, power = torch.rand(1, 3, 65, 65), dict.fromkeys("ab", torch.tensor([0.1]))
    odd = lattice_distance({"a": x, "b": x[:, :, :64:2, :64:2]}, 65, power)
    even = lattice_distance({"a": x[:, :, :64, :64], "b": x[:, :, :64:2, :64:2]}, 64, power)
    assert odd == even


@pytest.mark.parametrize("value", [0.0, 0.7])
def test_a_flat_picture_has_no_lattice(value: float) -> None:
    flat = torch.full((1, 4, 32, 32), value, requires_grad=True)
    found = lattice_distance({"a": flat}, 32, {"a": torch.ones(1)})
    found.backward()
    assert found.item() < 0.01 and flat.grad is not None and bool(flat.grad.isfinite().all())
