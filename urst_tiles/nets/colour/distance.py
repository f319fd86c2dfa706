"""How far a transfer moves the colours of an image, in CIELAB.

The distance of two colours is the Euclidean one in CIELAB, the difference Delta E of CIE 1976 (CIE 15); about
2 is the least that is seen. On slides the tissue alone counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from urst_tiles.nets.base import LocalNet
from urst_tiles.nets.colour.spaces import to_lab
from urst_tiles.nets.colour.stain import BETA, StainStyle, densities

Float = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Moved:
    """The colours of some pixels before and after a transfer; parts of an image can be added.

    Attributes
    ----------
    weight : the sum of the weights of the pixels.
    distance : the weighted sum of the distances between a pixel before and after.
    before, after : float64, (3,), the weighted sums of L*, a* and b*.
    """

    weight: float
    distance: float
    before: Float
    after: Float

    @classmethod
    def nothing(cls) -> Moved:
        """No pixels at all, the neutral element of ``+``."""
        return cls(0.0, 0.0, np.zeros(3), np.zeros(3))

    def __add__(self, other: Moved) -> Moved:
        if not isinstance(other, Moved):
            return NotImplemented
        return Moved(
            self.weight + other.weight, self.distance + other.distance, self.before + other.before,
            self.after + other.after,
        )  # fmt: skip

    def facts(self) -> dict[str, Any]:
        """The mean distance and the mean colours, as JSON holds them; empty where no pixel counts."""
        if not self.weight:
            return {}
        return {
            "moved": self.distance / self.weight,
            "before": (self.before / self.weight).tolist(),
            "after": (self.after / self.weight).tolist(),
        }


def moved_pixels(net: LocalNet, before: Tensor, after: Tensor, weight: Tensor) -> Moved:
    """How far pixels were moved by the frozen network of a transfer.

    Parameters
    ----------
    before, after : float32, (1, 3, h, w), red, green and blue in 0..1.
    weight : float32 or float64, (1, h, w), how much each pixel counts.
    """
    heavy = (weight * _counts(net, before)).double()
    one, other = to_lab(before).double(), to_lab(after).double()
    distance = (other - one).square().sum(1).sqrt()
    sums = [(heavy[:, None] * lab).sum((0, 2, 3)).numpy() for lab in (one, other)]
    return Moved(float(heavy.sum()), float((heavy * distance).sum()), *sums)


def _counts(net: LocalNet, x: Tensor) -> Tensor:
    """1 for pixels that count, else 0, (1, h, w): the tissue of a slide, and all of another image."""
    style, affines = getattr(net, "style", None), getattr(net, "affines", None)
    if not isinstance(style, StainStyle) or affines is None:
        return torch.ones_like(x[:, 0])
    return (densities(x, affines["white"]).amax(1) >= BETA).to(x)
