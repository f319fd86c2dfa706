"""Two ways to keep the colours of the image (Gatys et al., "Controlling Perceptual Factors in Neural Style
Transfer", CVPR 2017, section 5).

``luminance``: the result has the luminance of the stylised image and the colour of the input. ``coral``: the
style image is first given the colours of the input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from urst_tiles.geometry import Box
from urst_tiles.moments import Moments
from urst_tiles.nets.base import Affine, At, LocalNet, Precision, Site, State, Style

#: Weights of red, green and blue in the luminance Y of YIQ, ITU-R BT.601.
LUMA = (0.299, 0.587, 0.114)

#: Added to colour variances (0.0001 is a deviation of 0.01), so that smaller ones are not amplified further.
RIDGE = 1e-4


class ColourStatistics:
    """A style that changes nothing, whose only site measures the colours of the image."""

    name, halo, stride, minimum, plain_bytes = "colours", 0, 1, 1, 36.0
    sites: tuple[Site, ...] = (Site("colours", 3, 1, 0.0, 0, full=True),)
    fingerprint = "colours"

    def forward(self, x: Tensor, at: At) -> Tensor:
        return at(self.sites[0], x)

    def affine(self, site: Site, moments: Moments) -> Affine:
        return Affine.identity(site.channels)

    def state(self) -> tuple[State, dict[str, Any]]:
        return {}, {}


@dataclass(frozen=True)
class ColourRecipe:
    """The recipe of `ColourStatistics`."""

    def build(self) -> Style:
        """The style; no file is needed."""
        return ColourStatistics()


class Luminance(LocalNet):
    """A network whose output has the luminance of another network's output and the colour (I and Q) of the
    input: x + Y(net(x)) - Y(x)."""

    def __init__(self, net: LocalNet):
        super().__init__()
        self.net = net
        self.family, self.halo, self.stride, self.minimum = net.family, net.halo, net.stride, net.minimum
        self.splittable, self.selective = net.splittable, net.selective

    def forward(
        self, x: Tensor, boxes: Sequence[Box] | None = None, keep: Sequence[Box] | None = None
    ) -> Tensor:
        y = self.net(x, boxes, keep) if self.selective else self.net(x, boxes)
        weights = torch.tensor(LUMA, dtype=x.dtype, device=x.device)
        image = x[:, :3]
        return image + torch.einsum("c,nchw->nhw", weights, y - image)[:, None]

    def bytes_per_pixel(self, precision: Precision) -> float:
        """The bytes of the inner network, at least two images (24), and 28 more for the mixture."""
        return max(self.net.bytes_per_pixel(precision), 24.0) + 28.0

    def to_precision(self, precision: Precision) -> LocalNet:
        return Luminance(self.net.to_precision(precision))

    def saved(self) -> tuple[State, dict[str, Any]]:
        """The inner network's tensors and values, the latter under "net"."""
        tensors, values = self.net.saved()
        return tensors, {"family": self.family, "kind": "luminance", "net": values}


def recoloured(
    image: NDArray[np.float32], mean: NDArray[np.float64], covariance: NDArray[np.float64]
) -> NDArray[np.float32]:
    """A style image (h, w, 3) in 0..1 with the colour ``mean`` (3,) and ``covariance`` (3, 3) of another
    image.

    The colours s become C^1/2 S^-1/2 (s - mean_s) + mean, clipped to 0..1, where C is ``covariance`` and S
    that of the style image.
    """
    pixels = image.reshape(-1, 3).astype(np.float64)
    centre = pixels.mean(0)
    spread = np.cov(pixels.T, ddof=0)
    matrix = _power(covariance, 0.5) @ _power(spread, -0.5)
    return np.clip((pixels - centre) @ matrix.T + mean, 0, 1).reshape(image.shape).astype(np.float32)


def _power(covariance: NDArray[np.float64], exponent: float) -> NDArray[np.float64]:
    values, vectors = np.linalg.eigh(covariance + RIDGE * np.eye(3))
    return (vectors * values**exponent) @ vectors.T
