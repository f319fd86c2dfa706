"""Sums where the features are: what runs on a card is compared here, on the processor, with numpy's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from urst_tiles import nets
from urst_tiles.engine import site_moments
from urst_tiles.engine.site_moments import SiteMoments, cell_weights, summed
from urst_tiles.errors import DoesNotFit
from urst_tiles.geometry import Box
from urst_tiles.moments import Moments
from urst_tiles.nets import Site
from urst_tiles.nets.composition import composed

WEIGHTS = {
    "none": None,
    "ones": np.ones(640),
    "fractions": np.random.default_rng(1).integers(0, 17, 640) / 16,
}


@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
@pytest.mark.parametrize("full", [False, True])
def test_torchs_sums_are_numpys(weights: np.ndarray | None, full: bool) -> None:
    cells = np.random.default_rng(0).normal(3.0, 2.0, (7, 640)).astype(np.float32)
    expected = Moments.of(cells, weights, full=full)
    found = summed(torch.from_numpy(cells), weights, full=full)
    assert found.n == expected.n
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-13)
    np.testing.assert_allclose(found.m2, expected.m2, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("some_invalid", [False, True])
def test_a_window_without_room_is_measured_in_halves(
    monkeypatch: pytest.MonkeyPatch, some_invalid: bool
) -> None:
    """Of a card, say, that has room for 200 rows."""
    random = np.random.default_rng(0)
    style = nets.seeded("lite", [(random.random((64, 64, 3), np.float32), 1.0)])
    over, site, window = composed(style), style.sites[1], Box(0, 0, 384, 256)
    pixels = random.integers(0, 255, (384, 256, 3), np.uint8)
    maps = over.mixtures(
        {"colour": site_moments.MemberMoments({0: Moments.of(random.random((3, 50)), full=True)})}
    )
    core = Box(48, 48, 336, 208)
    weights = random.integers(0, 3, core.area // site.stride**2) / 2 if some_invalid else None
    look, plain, rows = SiteMoments(over, site, maps), site_moments.to_tensor, list[int]()
    whole = look.moments(pixels, window, core, weights).parts[0]

    def small(windows: np.ndarray, device: torch.device) -> torch.Tensor:
        rows.append(windows.shape[1])
        if rows[-1] > 200:
            raise torch.OutOfMemoryError
        return plain(windows, device)

    monkeypatch.setattr(site_moments, "to_tensor", small)
    halves = look.moments(pixels, window, core, weights).parts[0]
    assert len(rows) > 2 and max(rows[-2:]) <= 200
    assert halves.n == whole.n
    np.testing.assert_allclose(halves.mean, whole.mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(halves.m2, whole.m2, rtol=1e-4)


def test_no_room_at_all_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    style = nets.seeded("lite", [(np.random.default_rng(0).random((64, 64, 3), np.float32), 1.0)])
    box = Box(0, 0, 64, 64)

    def full(windows: np.ndarray, device: torch.device) -> torch.Tensor:
        raise MemoryError

    monkeypatch.setattr(site_moments, "to_tensor", full)
    with pytest.raises(DoesNotFit, match="more memory than cpu has left"):
        SiteMoments(composed(style), style.sites[0], {}).moments(
            np.zeros((64, 64, 3), np.uint8), box, box, None
        )


def test_a_pixel_counts_however_faint_its_validity_is() -> None:
    """Alpha of 1 is as valid as alpha of 255; a cell counts as much as it has valid pixels."""
    valid = np.array([[1, 255, 0, 0], [128, 2, 0, 7]], np.uint8)
    assert cell_weights(valid, 2).tolist() == [1.0, 0.25]
    assert cell_weights(np.full((4, 4), 3, np.uint16), 4).tolist() == [1.0]
    assert cell_weights(np.zeros((4, 8), np.uint8), 4).tolist() == [0.0, 0.0]


def test_invalid_cells_count_for_no_member_of_a_field() -> None:
    """The weight of a cell at a member is its share times the valid part of the cell."""
    cells = torch.from_numpy(np.random.default_rng(2).normal(1.0, 2.0, (5, 12)).astype(np.float32))
    share = np.linspace(0.0, 1.0, 12, dtype=np.float32).reshape(3, 4)
    valid = np.where(np.arange(12) % 3 == 0, 0.0, 0.75)
    field = SimpleNamespace(
        active=lambda box: (4, 7), weights=lambda box, stride: ((4, 7), np.stack([share, 1 - share]))
    )
    over: Any = SimpleNamespace(field=field)
    site = Site("here", 5, 4, 1e-5, 0)
    found = site_moments.shared(over, site, cells, valid, Box(0, 0, 12, 16))
    for member, part in ((4, share), (7, 1 - share)):
        expected = Moments.of(cells.numpy(), part.ravel().astype(np.float64) * valid)
        assert found.parts[member].n == pytest.approx(expected.n)
        np.testing.assert_allclose(found.parts[member].mean, expected.mean, rtol=1e-12)
