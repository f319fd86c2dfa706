"""Perceptual losses: two images are compared by the features that a network computes from them.

A content loss compares each feature at its place in the image. A style loss compares only statistics over the
image: mean and deviation, or the Gram matrix. The networks (`losses.backbones`) are feature nets. Activation
smoothing wraps a feature net in `Smooth`, so every loss here works with smoothing and without.

References
----------
1. X. Huang and S. Belongie, "Arbitrary Style Transfer in Real-time with Adaptive Instance Normalization",
   ICCV 2017: content and style loss, equations 12 and 13.
2. Z. Chen et al., "Towards Ultra-Resolution Neural Style Transfer via Thumbnail Instance Normalization", AAAI
   2022: the stroke perceptual loss, section 3.4.
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

#: Mean and deviation of the features of a layer, (n, C) each, float32 or wider.
MeanStd = tuple[Tensor, Tensor]

#: Added to variances by default.
EPS = 1e-5


class FeatureNet(Protocol):
    """A network with fixed weights, whose features the losses compare."""

    def __call__(self, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """The features, (n, C, h', w'), of each of ``layers`` for images ``x`` (n, 3, h, w) in 0..1; no layer
        beyond the last of them is computed."""


# Activation smoothing

#: How features are smoothed before a loss compares them: not at all; by a softmax over the channels at each
#: place; by a softmax over all channels and places [4]; or by a multiplication with `SCALE`.
Smoothing = Literal["none", "channels", "map", "scale"]
SMOOTHINGS: tuple[Smoothing, ...] = get_args(Smoothing)
#: The factor by which the released code of [4] multiplies the deep layers, instead of a softmax.
SCALE = 0.001


def smoothed(x: Tensor, how: Smoothing) -> Tensor:
    """Features (n, C, h, w), smoothed; after a softmax they are float32 or wider.

    Raises
    ------
    BadInput : ``how`` is none of ``SMOOTHINGS``.
    """
    if how not in SMOOTHINGS:
        raise BadInput(f"smoothing must be one of {', '.join(SMOOTHINGS)}, got {how!r}")
    if how == "none":
        return x
    if how == "scale":
        return SCALE * x
    x = wide(x)
    return x.softmax(1) if how == "channels" else x.flatten(1).softmax(1).view_as(x)


def wide(x: Tensor) -> Tensor:
    """``x`` in float32, or in its own type if that is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


@dataclass(frozen=True)
class Smooth:
    """A feature net with smoothed features.

    Parameters
    ----------
    net : the feature net.
    how : the kind of smoothing.
    layers : the layers whose features are smoothed; None for all layers.
    """

    net: FeatureNet
    how: Smoothing
    layers: Sequence[str] | None = None

    def __call__(self, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        features = self.net(x, layers)
        chosen = layers if self.layers is None else self.layers
        return {k: smoothed(values, self.how) if k in chosen else values for k, values in features.items()}


# Style


class _MeanStd(torch.autograd.Function):
    """Mean and deviation over an image, in a single pass forward and backward, with sums in float32 or
    wider."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> MeanStd:
        """Mean and deviation sqrt(variance + eps), from the biased variance."""
        count = x.shape[2] * x.shape[3]
        wide = torch.promote_types(x.dtype, torch.float32)
        mean = x.sum((2, 3), dtype=wide) / count
        square = torch.linalg.vector_norm(x, dim=(2, 3), dtype=wide).square() / count
        std = (square - mean * mean).clamp_min(0).add(eps).sqrt()
        ctx.save_for_backward(x, mean, std)
        return mean, std

    @staticmethod
    def backward(ctx: Any, grad_mean: Tensor, grad_std: Tensor) -> tuple[Tensor, None]:
        """The derivatives d mean/dx = 1/n and d std/dx = (x - mean)/(n std)."""
        x, mean, std = ctx.saved_tensors
        count = x.shape[2] * x.shape[3]
        scale = grad_std / (count * std)
        shift = grad_mean / count - scale * mean
        return torch.addcmul(shift.to(x)[:, :, None, None], x, scale.to(x)[:, :, None, None]), None


def mean_std(x: Tensor, eps: float = EPS) -> MeanStd:
    """Mean and deviation sqrt(variance + eps), (n, C) each and float32 or wider, of features (n, C, h, w)."""
    return _MeanStd.apply(x, eps)


def style_loss(statistics: Mapping[str, MeanStd], wanted: Mapping[str, MeanStd]) -> Tensor:
    """The style loss of each image and layer, (n, layers): the mean over channels of the squared distances of
    mean and deviation [1, equation 13]."""
    layers = []
    for k, (mean, std) in wanted.items():
        layers.append((statistics[k][0] - mean).square().mean(1) + (statistics[k][1] - std).square().mean(1))
    return torch.stack(layers, 1)


def gram(x: Tensor) -> Tensor:
    """The Gram matrix F F^T / (C h w), (n, C, C) and float32 or wider, of features (n, C, h, w).

    These are the sums of [3, equation 3], divided by the number of summands and of channels.
    """
    f = wide(x.flatten(2))
    return f @ f.mT / (f.shape[1] * f.shape[2])


def gram_loss(grams: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Tensor:
    """The style loss of each image and layer, (n, layers): the mean of the C x C squared distances of two
    Gram matrices. C^2 / 4 times it is E of [3, equation 4]."""
    return torch.stack([(grams[k] - g).square().mean((1, 2)) for k, g in wanted.items()], 1)


# Content, and losses on the image itself


def normalised(x: Tensor) -> Tensor:
    """Features with mean 0 and deviation 1 in each channel of each image, float32 or wider: they say where
    features are, not how strong."""
    mean, std = (t[:, :, None, None] for t in mean_std(x))
    return (wide(x) - mean) / std


def content_loss(features: Tensor, wanted: Tensor) -> Tensor:
    """The content loss of each image, (n,): the mean squared distance of features of the same layer [1,
    equation 12]."""
    return (wide(features) - wide(wanted)).square().mean((1, 2, 3))


def total_variation(x: Tensor) -> Tensor:
    """The total variation of each image, (n,): the mean squared difference of vertical neighbours plus that
    of horizontal neighbours."""
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
    """The stroke perceptual loss of each image, (n,) [2, section 3.4], which gives a patch the enlarged
    strokes of a thumbnail.

    Parameters
    ----------
    net : the feature net.
    patch : (n, 3, p, q), stylised at full size with the thumbnail's statistics.
    thumbnail : (n, 3, h, w), the whole image stylised at ``1 / factor`` of its size; it gets no gradient.
    at : (y, x) of the patch in the thumbnail enlarged by ``factor``.
    layers : the layers whose features are compared, with equal weights.
    factor : how much larger the patch's image is than the thumbnail.
    """
    target = enlarged_window(thumbnail.detach(), at, (patch.shape[2], patch.shape[3]), factor)
    with torch.no_grad():
        wanted = net(target, layers)
    features = net(patch, layers)
    return torch.stack([content_loss(features[k], wanted[k]) for k in layers]).sum(0)


def enlarged_window(thumbnail: Tensor, at: tuple[int, int], size: tuple[int, int], factor: int = 2) -> Tensor:
    """The window of ``size`` (h, w) at ``at`` (y, x) of the thumbnail, which is first enlarged bilinearly by
    ``factor``."""
    large = F.interpolate(thumbnail, scale_factor=factor, mode="bilinear", align_corners=False)
    return large[:, :, at[0] : at[0] + size[0], at[1] : at[1] + size[1]]


def lattice(x: Tensor, y: Tensor, period: int, cells: int = 4) -> Tensor:
    """How much each ``y`` differs from ``x`` by a pattern that repeats every ``period`` pixels, (n,).

    A network that works in cells of ``period`` pixels (pixel shuffle) draws a grid where its features are
    constant. Without a grid, the mean of the difference over ``cells`` x ``cells`` cells does not depend on
    the position within a cell; texture, which has no such period, averages out.
    """
    n, c, h, w = y.shape
    change = F.pixel_unshuffle((y - x).float(), period).view(n, c, period * period, h // period, w // period)
    means = F.avg_pool2d(change.flatten(1, 2), cells).unflatten(1, (c, period * period))
    return (means - means.mean(2, keepdim=True)).square().mean((1, 2, 3, 4))
