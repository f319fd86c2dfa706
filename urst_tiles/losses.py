"""Perceptual losses, and the networks whose features they compare.

A perceptual loss compares two images by the features that a network trained on photographs sees in them.
Content keeps each feature where it is; style keeps only its mean and deviation over the image.

References
----------
1. X. Huang and S. Belongie, "Arbitrary Style Transfer in Real-time with Adaptive Instance Normalization",
   ICCV 2017: content and style loss, equations 12 and 13.
2. Z. Chen et al., "Towards Ultra-Resolution Neural Style Transfer via Thumbnail Instance Normalization",
   AAAI 2022: the stroke perceptual loss, section 3.4.
3. H. Wang et al., "Collaborative Distillation for Ultra-Resolution Universal Style Transfer", CVPR 2020: a
   VGG-19 of a sixteenth of the weights, with heads that give the features of the full one.
4. K. Simonyan and A. Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR
   2015.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from urst_tiles.errors import BadWeights, MissingFile
from urst_tiles.weights import check_keys, load

State = dict[str, Tensor]
#: (mean, deviation), each (n, C) float32, of one layer.
MeanStd = tuple[Tensor, Tensor]

#: The layers of a style loss: the first of each of VGG-19's five stages.
LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
EPS = 1e-5


class FeatureNet(Protocol):
    """A fixed network that losses look through."""

    def __call__(self, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """(n, 3, h, w) in 0..1 -> (n, C, h', w') for each of ``layers``; computes no further than it must."""


#: Convolutions of each stage of VGG-19 [4, table 1, column E], and its channels.
STAGES = {1: (2, 64), 2: (2, 128), 3: (4, 256), 4: (4, 512), 5: (4, 512)}
#: Colour means of ImageNet, in levels of 0..255, that VGG-19 subtracts.
IMAGENET = (123.68, 116.78, 103.94)
#: Mean activation of VGG-19's layers on photographs, by which they are divided, so that each weighs alike.
ACTIVATION = {"relu1_1": 20.6, "relu2_1": 113.0, "relu3_1": 113.0}


def convolutions(last: str) -> Iterator[tuple[str, int, int]]:
    """("1_1", inputs, outputs) of every convolution of VGG-19 up to ``last`` ("3_1", say)."""
    inputs = 3
    for stage, (count, outputs) in STAGES.items():
        for k in range(1, count + 1):
            yield f"{stage}_{k}", inputs, outputs
            if f"{stage}_{k}" == last:
                return
            inputs = outputs


@dataclass
class VGG19:
    """VGG-19 up to some layer, zero padding as in the original, each layer divided by ``ACTIVATION``.

    ``weights`` has keys "conv1_1.weight" (O, I, 3, 3) and "conv1_1.bias".
    """

    weights: State

    def __call__(self, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """The features of ``layers``."""
        found: dict[str, Tensor] = {}
        x = x * 255 - torch.tensor(IMAGENET).to(x)[:, None, None]
        for name, _, _ in convolutions(deepest(layers)):
            if name.endswith("_1") and name != "1_1":
                x = F.max_pool2d(x, 2)
            weight, bias = (self.weights[f"conv{name}.{part}"] for part in ("weight", "bias"))
            x = F.relu(F.conv2d(x, weight, bias, padding=1))
            if f"relu{name}" in layers:
                found[f"relu{name}"] = x / ACTIVATION.get(f"relu{name}", 1.0)
        return found


@dataclass
class DistilledVGG19:
    """The encoder of [3], reflection padding, with 1x1 heads that stand in for VGG-19's own features.

    ``weights`` has the keys of the original ``5SE.pth``: "conv0", "conv11", ..., "conv51", "conv11_aux", ...
    """

    weights: State

    def __call__(self, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """The features of ``layers``, first of a stage each, scaled to a mean activation near 1."""
        found: dict[str, Tensor] = {}
        x = F.conv2d(x, *self._layer("conv0"))
        for name, _, _ in convolutions(deepest(layers)):
            if name.endswith("_1") and name != "1_1":
                x = F.max_pool2d(x, 2)
            key = f"conv{name.replace('_', '')}"
            x = F.relu(F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), *self._layer(key)))
            if f"relu{name}" in layers:
                found[f"relu{name}"] = F.relu(F.conv2d(x, *self._layer(f"{key}_aux")))
        return found

    def _layer(self, key: str) -> tuple[Tensor, Tensor]:
        return self.weights[f"{key}.weight"], self.weights[f"{key}.bias"]


@dataclass
class Together:
    """Several networks, each asked for the layers it is listed with."""

    parts: Sequence[tuple[FeatureNet, frozenset[str]]]

    def __call__(self, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """The features of ``layers``, of the first network that has them each."""
        found: dict[str, Tensor] = {}
        for net, known in self.parts:
            wanted = [name for name in layers if name in known and name not in found]
            if wanted:
                found |= net(x, wanted)
        return found


def deepest(layers: Sequence[str]) -> str:
    """ "4_1" of ("relu1_1", "relu4_1")."""
    return max(name.removeprefix("relu") for name in layers)


def vgg19_raw(path: Path, last: str = "3_1", **placed: Any) -> VGG19:
    """VGG-19 from little-endian float32 in one file: weights OIHW, then bias, layer by layer up to ``last``.

    ``placed`` goes to ``Tensor.to``: device, dtype.
    """
    values = torch.from_numpy(np.fromfile(_there(path), "<f4"))
    sizes = [(name, (o, i, 3, 3)) for name, i, o in convolutions(last)]
    expected = sum(int(np.prod(shape)) + shape[0] for _, shape in sizes)
    if len(values) != expected:
        raise BadWeights(f"{path} holds {len(values)} numbers, VGG-19 to conv{last} has {expected}")
    state: State = {}
    for name, shape in sizes:
        for part, want in (("weight", shape), ("bias", shape[:1])):
            count = int(np.prod(want))
            state[f"conv{name}.{part}"], values = values[:count].reshape(want), values[count:]
    return VGG19(place(state, **placed))


def distilled_vgg19(path: Path, **placed: Any) -> DistilledVGG19:
    """The encoder and heads of [3] from its published ``5SE.pth``."""
    state = load(_there(path), "model")
    check_keys(state, distilled_shapes(), path)
    return DistilledVGG19(place(state, **placed))


def distilled_shapes() -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of the encoder of [3]."""
    shapes: dict[str, tuple[int, ...]] = {"conv0.weight": (3, 3, 1, 1), "conv0.bias": (3,)}
    small, inputs = {64: 16, 128: 32, 256: 64, 512: 128}, 3
    for name, _, outputs in convolutions("5_1"):
        narrow = small[outputs] if not name.startswith("5") else 128
        key = f"conv{name.replace('_', '')}"
        shapes |= {f"{key}.weight": (narrow, inputs, 3, 3), f"{key}.bias": (narrow,)}
        if name.endswith("_1"):
            shapes |= {f"{key}_aux.weight": (outputs, narrow, 1, 1), f"{key}_aux.bias": (outputs,)}
        inputs = narrow
    return shapes


def place(state: Mapping[str, Tensor], **placed: Any) -> State:
    """``state`` on a device and in a type, convolutions in channels_last memory."""
    moved = {name: t.to(**placed) for name, t in state.items()}
    return {
        k: t.contiguous(memory_format=torch.channels_last) if t.ndim == 4 else t for k, t in moved.items()
    }


def teachers(vgg: Path, distilled: Path, **placed: Any) -> Together:
    """VGG-19 itself for relu1_1, 2_1 and 3_1, its stand-in for relu4_1 and 5_1."""
    return Together(
        [
            (vgg19_raw(vgg, **placed), frozenset(LAYERS[:3])),
            (distilled_vgg19(distilled, **placed), frozenset(LAYERS[3:])),
        ]
    )


def _there(path: Path) -> Path:
    if not Path(path).is_file():
        raise MissingFile(f"the loss network {path} is missing")
    return Path(path)


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


def normalised(x: Tensor) -> Tensor:
    """float32, each channel of each image with mean 0 and deviation 1: what is where, not how strong."""
    mean, std = (t[:, :, None, None] for t in mean_std(x))
    return (x.float() - mean) / std


def content_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """(n,): mean squared distance of two features of one layer [1, equation 12]."""
    return (found.float() - wanted.float()).square().mean((1, 2, 3))


def total_variation(x: Tensor) -> Tensor:
    """(n,): mean squared step between neighbouring pixels, down and across."""
    down = (x[:, :, 1:] - x[:, :, :-1]).square().mean((1, 2, 3))
    return down + (x[:, :, :, 1:] - x[:, :, :, :-1]).square().mean((1, 2, 3))


def stroke_perceptual(net: FeatureNet, patch: Tensor, thumbnail: Tensor, at: tuple[int, int]) -> Tensor:
    """(n,): the stroke perceptual loss [2, section 3.4]: a patch shall have a thumbnail's enlarged strokes.

    Parameters
    ----------
    patch : (n, 3, p, p), stylised at full size with the thumbnail's statistics.
    thumbnail : (n, 3, h, w), the whole stylised at a smaller size; takes no gradient.
    at : (y, x) of the patch in the thumbnail enlarged so that both have one scale; the enlargement is p over
        the thumbnail's share of the patch, a factor of 2 in [2].
    """
    n, _, p, q = patch.shape
    target = enlarged_window(thumbnail.detach(), at, (p, q))
    with torch.no_grad():
        wanted = net(target, ["relu4_1"])["relu4_1"]
    return content_loss(net(patch, ["relu4_1"])["relu4_1"], wanted)


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
