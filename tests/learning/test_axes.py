"""Whether fine strokes run along the axes of a picture more than others do."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from urst_tiles.learning.axes import BANDS, along_axes, axes_distance, sectors

#: As much as beside the axes.
NOTHING = torch.zeros(1, len(BANDS), 2)


def noise(height: int = 192, width: int = 256) -> Tensor:
    random = torch.Generator().manual_seed(3)
    return 0.1 * torch.rand(1, 1, height, width, generator=random).expand(1, 3, -1, -1)


def hairlines(period: float, angle: float, height: int = 192, width: int = 256) -> Tensor:
    """Lines that lie level, turned by an angle in degrees."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    across = y * math.cos(math.radians(angle)) + x * math.sin(math.radians(angle))
    return (0.1 * torch.sin(2 * math.pi * across / period)).expand(1, 3, -1, -1)


@pytest.mark.parametrize(("period", "band"), [(3.1, 1), (5.7, 0)])
@pytest.mark.parametrize(("angle", "axis"), [(0, 1), (90, 0)])
def test_hairlines_are_told_by_their_band_and_their_axis(
    period: float, band: int, angle: float, axis: int
) -> None:
    found = along_axes(0.5 + noise() + hairlines(period, angle))[0]
    assert found[band, axis] > 3
    found[band, axis] = 0
    assert found.abs().max() < 0.3


@pytest.mark.parametrize("angle", [20, 45, 70])
def test_lines_that_are_turned_are_not_on_the_axes(angle: float) -> None:
    assert axes_distance(0.5 + noise() + hairlines(3.1, angle), noise(), NOTHING) < 0.1


def test_what_the_guide_or_the_painting_has_is_due() -> None:
    plain, lined = 0.5 + noise(), 0.5 + noise() + hairlines(3.1, 0)
    far = axes_distance(lined, plain, NOTHING)
    assert far == pytest.approx(along_axes(lined).clamp(min=0).mean().item(), rel=0.2)
    assert axes_distance(lined, lined, NOTHING) == axes_distance(lined, plain, along_axes(lined)) == 0
    assert axes_distance(plain, lined, NOTHING) < 0.02
    assert axes_distance(lined, plain, NOTHING - 1) == far


def test_each_picture_has_its_own_numbers() -> None:
    both = torch.cat([0.5 + noise(), 0.5 + noise() + hairlines(3.1, 90)])
    torch.testing.assert_close(along_axes(both), torch.cat([along_axes(each[None]) for each in both]))


@pytest.mark.parametrize("size", [(64, 64), (65, 130)])
def test_sectors_are_filled_and_apart(size: tuple[int, int]) -> None:
    for on, beside in sectors(*size):
        assert on.shape == (size[0], size[1] // 2 + 1)
        assert on.any() and beside.any() and not (on & beside).any()


def test_a_flat_picture_has_no_lines_and_a_gradient() -> None:
    flat = torch.full((1, 3, 64, 64), 0.4, requires_grad=True)
    far = axes_distance(flat, flat.detach(), NOTHING)
    far.backward()
    assert far < 1e-6 and flat.grad is not None and bool(flat.grad.isfinite().all())
