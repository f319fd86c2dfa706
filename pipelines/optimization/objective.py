"""What image optimisation minimises, and the form of it that sees the whole image at once.

    total = content_weight * sum of shares * content loss          over the content layers
          + style_weight * sum of shares * Gram loss               over the style layers
          + variation_weight * total variation

The losses are those of `urst_tiles.losses`: all are means, so that weights mean the same at every size. From
those of [1] they differ by known factors: its E_l (equation 4) is C^2 / 4 times the Gram loss (``scale``
"gatys" multiplies by it, C being the layer's channels), and its content loss (equation 1) is half a sum
where ours is a mean.

What the optimisers descend is ``total`` times `unit`: times the number of pixels, since a pixel's share of a
mean shrinks with the image, and in units of the loss of an image without any style, since Gram matrices of a
softmax are tiny. Else the gradient drowns in Adam's epsilon and L-BFGS's tolerances.

References
----------
1. L. Gatys, A. Ecker, M. Bethge, "Image Style Transfer Using Convolutional Neural Networks", CVPR 2016.
2. P. Wang, Y. Li, N. Vasconcelos, "Rethinking and Improving the Robustness of Image Style Transfer", CVPR
   2021: smoothed activations in both losses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from urst_tiles import losses

Scale = Literal["gatys", "mean"]
#: Unweighted content, style and variation.
Parts = dict[str, Tensor]


@dataclass(frozen=True)
class Terms:
    """The weights of the sum, and what happens to features before they are compared.

    Parameters
    ----------
    content, style : share of each layer in its loss.
    scale : whether the Gram loss of a layer is multiplied by C^2 / 4 [1].
    smoothing : of [2], on the layers ``smooth``; None is every layer.
    """

    content: Mapping[str, float]
    style: Mapping[str, float]
    content_weight: float = 1.0
    style_weight: float = 1.0
    variation_weight: float = 0.0
    scale: Scale = "mean"
    smoothing: losses.Smoothing = "none"
    smooth: tuple[str, ...] | None = None

    @property
    def layers(self) -> tuple[str, ...]:
        """All layers that are looked at."""
        return tuple(dict.fromkeys((*self.style, *self.content)))

    def share(self, layer: str, channels: int) -> float:
        """Of the Gram loss of a style layer."""
        return self.style[layer] * (channels**2 / 4 if self.scale == "gatys" else 1.0)

    def smoothed(self, net: losses.FeatureNet) -> losses.FeatureNet:
        """``net`` with the smoothing."""
        return losses.Smooth(net, self.smoothing, self.smooth)

    def total(self, parts: Parts) -> Tensor:
        """The weighted sum."""
        return torch.stack(
            [
                self.content_weight * parts["content"],
                self.style_weight * parts["style"],
                self.variation_weight * parts["variation"],
            ]
        ).sum()


@torch.no_grad()
def style_targets(net: losses.FeatureNet, terms: Terms, style: Tensor) -> dict[str, Tensor]:
    """Gram matrix of each style layer, (C, C) float64, of a style image (1, 3, h, w)."""
    found = terms.smoothed(net)(style, tuple(terms.style))
    return {k: losses.gram(f)[0].double() for k, f in found.items()}


def style_part(terms: Terms, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Tensor:
    """The style loss of Gram matrices (C, C), in float64: squares of a softmax's would vanish in float32."""
    double = {k: g.double()[None] for k, g in found.items()}
    parts = losses.gram_loss(double, {k: wanted[k][None] for k in terms.style})[0]
    shares = [terms.share(k, wanted[k].shape[0]) for k in terms.style]
    return (parts * parts.new_tensor(shares)).sum()


def unit(terms: Terms, grams: Mapping[str, Tensor], pixels: int) -> float:
    """What the total is multiplied by before it is descended; ``grams`` are the `style_targets`."""
    nothing = {k: torch.zeros_like(g) for k, g in grams.items()}
    most = terms.style_weight * style_part(terms, nothing, grams).item()
    return pixels / most if most > 0 else float(pixels)


@dataclass(frozen=True)
class Whole:
    """The loss of an image (1, 3, h, w) in 0..1 that fits in memory; gradients flow through it.

    Parameters
    ----------
    net : the backbone, unsmoothed.
    grams : `style_targets`.
    wanted : smoothed features of the content image, by content layer.
    """

    net: losses.FeatureNet
    terms: Terms
    grams: Mapping[str, Tensor]
    wanted: Mapping[str, Tensor]

    @classmethod
    @torch.no_grad()
    def of(cls, net: losses.FeatureNet, terms: Terms, grams: Mapping[str, Tensor], content: Tensor) -> Whole:
        """With the features of the content image (1, 3, h, w)."""
        return cls(net, terms, grams, terms.smoothed(net)(content, tuple(terms.content)))

    def __call__(self, x: Tensor) -> tuple[Tensor, Parts]:
        """The total and its unweighted parts, float64."""
        terms = self.terms
        found = terms.smoothed(self.net)(x, terms.layers)
        distances = [
            share * losses.content_loss(found[k], self.wanted[k])[0].double()
            for k, share in terms.content.items()
        ]
        parts = {
            "content": torch.stack(distances).sum(),
            "style": style_part(terms, {k: losses.gram(found[k])[0] for k in terms.style}, self.grams),
            "variation": losses.total_variation(x)[0].double(),
        }
        return terms.total(parts), parts

    def slope(self, x: Tensor) -> tuple[Tensor, Parts]:
        """Gradient of ``unit * total``, the shape of ``x``, and the parts."""
        x = x.detach().requires_grad_()
        total, parts = self(x)
        (gradient,) = torch.autograd.grad(total * self.unit_of(x), x)
        return gradient, {k: t.detach() for k, t in parts.items()}

    def unit_of(self, x: Tensor) -> float:
        """`unit` of this loss at the size of ``x``."""
        return unit(self.terms, self.grams, x.shape[2] * x.shape[3])
