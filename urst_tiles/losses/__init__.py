"""Perceptual losses: two images compared by the features that a network sees in them.

Content keeps each feature where it is; style keeps only statistics over the image: mean and deviation, or the
Gram matrix. The networks (``losses.backbones``) are feature nets; activation smoothing wraps one of them
in `Smooth`, so that every loss here works with and without.

References
----------
1. X. Huang and S. Belongie, "Arbitrary Style Transfer in Real-time with Adaptive Instance Normalization",
   ICCV 2017: content and style loss, equations 12 and 13.
2. Z. Chen et al., "Towards Ultra-Resolution Neural Style Transfer via Thumbnail Instance Normalization",
   AAAI 2022: the stroke perceptual loss, section 3.4.
3. L. Gatys, A. Ecker, M. Bethge, "Image Style Transfer Using Convolutional Neural Networks", CVPR 2016: the
   Gram matrix and its loss, equations 3 and 4.
4. P. Wang, Y. Li, N. Vasconcelos, "Rethinking and Improving the Robustness of Image Style Transfer", CVPR
   2021 (SWAG): activation smoothing; code at github.com/peiwang062/swag.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from urst_tiles.errors import BadInput

#: (mean, deviation), each (n, C) float32, of one layer.
MeanStd = tuple[Tensor, Tensor]

EPS = 1e-5


class FeatureNet(Protocol):
    """A fixed network that losses look through."""

    def __call__(self, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """(n, 3, h, w) in 0..1 -> (n, C, h', w') for each of ``layers``; computes no further than it must."""


# Activation smoothing

#: What is done to the features before a loss compares them: nothing; softmax over the channels at each place;
#: softmax over the whole map, all channels and places [4]; times `SCALE`.
Smoothing = Literal["none", "channels", "map", "scale"]
SMOOTHINGS: tuple[Smoothing, ...] = get_args(Smoothing)
#: What the released code of [4] multiplies the deep layers by, in place of a softmax.
SCALE = 0.001


def smoothed(x: Tensor, how: Smoothing) -> Tensor:
    """(n, C, h, w) -> same, float32 at least where a softmax is taken; BadInput for another word."""
    if how not in SMOOTHINGS:
        raise BadInput(f"smoothing must be one of {', '.join(SMOOTHINGS)}, got {how!r}")
    if how == "none":
        return x
    if how == "scale":
        return SCALE * x
    x = wide(x)
    return x.softmax(1) if how == "channels" else x.flatten(1).softmax(1).view_as(x)


def wide(x: Tensor) -> Tensor:
    """In float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


@dataclass(frozen=True)
class Smooth:
    """A feature net whose features of ``layers`` (None: of all layers) come out smoothed."""

    net: FeatureNet
    how: Smoothing
    layers: Sequence[str] | None = None

    def __call__(self, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """The features of ``layers``."""
        found = self.net(x, layers)
        chosen = layers if self.layers is None else self.layers
        return {k: smoothed(f, self.how) if k in chosen else f for k, f in found.items()}


# Style


class _MeanStd(torch.autograd.Function):
    """Mean and deviation over an image in one pass each way, sums in float32 at least."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> MeanStd:
        """Biased variance, ``eps`` inside the root."""
        count = x.shape[2] * x.shape[3]
        wide = torch.promote_types(x.dtype, torch.float32)
        mean = x.sum((2, 3), dtype=wide) / count
        square = torch.linalg.vector_norm(x, dim=(2, 3), dtype=wide).square() / count
        std = (square - mean * mean).clamp_min(0).add(eps).sqrt()
        ctx.save_for_backward(x, mean, std)
        return mean, std

    @staticmethod
    def backward(ctx: Any, grad_mean: Tensor, grad_std: Tensor) -> tuple[Tensor, None]:
        """d mean/dx = 1/n, d std/dx = (x - mean)/(n std)."""
        x, mean, std = ctx.saved_tensors
        count = x.shape[2] * x.shape[3]
        scale = grad_std / (count * std)
        shift = grad_mean / count - scale * mean
        return torch.addcmul(shift.to(x)[:, :, None, None], x, scale.to(x)[:, :, None, None]), None


def mean_std(x: Tensor, eps: float = EPS) -> MeanStd:
    """(n, C, h, w) -> mean and deviation sqrt(variance + eps), each (n, C), float32 at least."""
    return _MeanStd.apply(x, eps)


def style_loss(found: Mapping[str, MeanStd], wanted: Mapping[str, MeanStd]) -> Tensor:
    """(n, layers): mean over channels of the squared distances of mean and deviation [1, equation 13]."""
    layers = []
    for k, (mean, std) in wanted.items():
        layers.append((found[k][0] - mean).square().mean(1) + (found[k][1] - std).square().mean(1))
    return torch.stack(layers, 1)


def gram(x: Tensor) -> Tensor:
    """(n, C, h, w) -> F F^T / (C h w), (n, C, C) float32 at least.

    The sums of [3, equation 3] divided by the number of summands and of channels.
    """
    f = wide(x.flatten(2))
    return f @ f.mT / (f.shape[1] * f.shape[2])


def gram_loss(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Tensor:
    """(n, layers): mean over the C x C squared distances of two Gram matrices; C^2 / 4 of it is E of [3,
    equation 4]."""
    return torch.stack([(found[k] - g).square().mean((1, 2)) for k, g in wanted.items()], 1)


# Content and the picture itself


def normalised(x: Tensor) -> Tensor:
    """float32, each channel of each image with mean 0 and deviation 1: what is where, not how strong."""
    mean, std = (t[:, :, None, None] for t in mean_std(x))
    return (wide(x) - mean) / std


def content_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """(n,): mean squared distance of two features of one layer [1, equation 12]."""
    return (wide(found) - wide(wanted)).square().mean((1, 2, 3))


def total_variation(x: Tensor) -> Tensor:
    """(n,): mean squared step between neighbouring pixels, down and across."""
    down = (x[:, :, 1:] - x[:, :, :-1]).square().mean((1, 2, 3))
    return down + (x[:, :, :, 1:] - x[:, :, :, :-1]).square().mean((1, 2, 3))


def stroke_perceptual(
    net: FeatureNet,
    patch: Tensor,
    thumbnail: Tensor,
    at: tuple[int, int],
    layers: Sequence[str] = ("relu4_1",),
    factor: int = 2,
) -> Tensor:
    """(n,): the stroke perceptual loss [2, section 3.4]: a patch shall have a thumbnail's enlarged strokes.

    Parameters
    ----------
    patch : (n, 3, p, q), stylised at full size with the thumbnail's statistics.
    thumbnail : (n, 3, h, w), the whole stylised at ``1 / factor`` of the size; takes no gradient.
    at : (y, x) of the patch in the thumbnail enlarged by ``factor``.
    layers : where the two are compared, each layer with the same weight.
    """
    target = enlarged_window(thumbnail.detach(), at, (patch.shape[2], patch.shape[3]), factor)
    with torch.no_grad():
        wanted = net(target, layers)
    found = net(patch, layers)
    return torch.stack([content_loss(found[k], wanted[k]) for k in layers]).sum(0)


def enlarged_window(thumbnail: Tensor, at: tuple[int, int], size: tuple[int, int], factor: int = 2) -> Tensor:
    """The window of ``size`` at ``at`` of the thumbnail enlarged bilinearly by ``factor``."""
    large = F.interpolate(thumbnail, scale_factor=factor, mode="bilinear", align_corners=False)
    return large[:, :, at[0] : at[0] + size[0], at[1] : at[1] + size[1]]


def lattice(x: Tensor, y: Tensor, period: int, cells: int = 4) -> Tensor:
    """(n,): how much ``y`` differs from ``x`` by a pattern that repeats every ``period`` pixels.

    A network that works in cells of ``period`` pixels (pixel shuffle) draws a grid where its features are
    constant. The mean of the difference over ``cells`` x ``cells`` cells must not depend on the place within
    a cell; texture, which has no such period, averages out.
    """
    n, c, h, w = y.shape
    places = F.pixel_unshuffle((y - x).float(), period).view(n, c, period * period, h // period, w // period)
    means = F.avg_pool2d(places.flatten(1, 2), cells).unflatten(1, (c, period * period))
    return (means - means.mean(2, keepdim=True)).square().mean((1, 2, 3, 4))
