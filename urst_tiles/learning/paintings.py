"""How far pictures are from paintings: statistics of paintings by a loss network, and distances from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from urst_tiles import losses
from urst_tiles.learning.axes import along_axes
from urst_tiles.learning.checkpoint import State
from urst_tiles.learning.crops import read, to_tensor
from urst_tiles.learning.painting import Colours, moments
from urst_tiles.losses import vgg
from urst_tiles.nets import tones

#: Sides of the squares that colours are averaged over before their moments are compared.
BLURS = (2, 8, 32)
#: The largest distance of one layer that still gives a gradient.
CLAMP = 4.0


@dataclass(frozen=True)
class Teacher:
    """A loss network that takes float32 pictures, with the layers of the style and the one of the content."""

    net: losses.FeatureNet
    style: tuple[str, ...]
    content: str

    def __call__(self, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """The features of ``layers``."""
        return self.net(x.contiguous(memory_format=torch.channels_last), layers)


def vgg16_teacher(file: Path, **placed: Any) -> Teacher:
    """VGG-16 from a file: relu1_2 to relu4_3 for the style, relu3_3 for the content; ``placed`` are the
    ``device`` and ``dtype`` of its weights."""
    return Teacher(vgg.trained(file, 16, **placed), vgg.LAYERS16[:4], vgg.CONTENT16)


def grams(features: Tensor) -> Tensor:
    """(n, C, h, w) -> (n, C, C) float32: means of products over places, multiplied in the features' type."""
    n, c, h, w = features.shape
    rows = features.permute(0, 2, 3, 1).reshape(n, h * w, c)
    return torch.bmm(rows.mT, rows).float() / (h * w)


def blurred_moments(x: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Mean (n, 3) and covariance (n, 3, 3) of colours, of the picture averaged over each of `BLURS`."""
    found = []
    for side in BLURS:
        rows = F.avg_pool2d(x, side).flatten(2)
        mean = rows.mean(2, keepdim=True)
        found.append((mean[:, :, 0], (rows - mean) @ (rows - mean).mT / rows.shape[2]))
    return found


@dataclass(frozen=True)
class Paintings:
    """What pictures in each of S styles are to meet.

    Attributes
    ----------
    files : by name, in the order of the rows.
    mean, covariance : (S, 3) and (S, 3, 3), of the colours.
    skewness : (S,), of the luminance.
    gram : (S, C, C) by layer.
    power : (S,) by layer, the mean square of the Gram matrix.
    blurred : means and covariances as `blurred_moments` gives them.
    axes : (S, bands, 2), how much runs level and upright, as `axes.along_axes` gives it.
    """

    files: Mapping[str, Path]
    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]
    skewness: NDArray[np.float64]
    gram: State
    power: State
    blurred: list[tuple[Tensor, Tensor]]
    axes: Tensor

    def colours(self, rows: NDArray[np.int64] | slice = slice(None)) -> Colours:
        """Mean, covariance and skewness of all paintings, or of those in some rows."""
        return self.mean[rows], self.covariance[rows], self.skewness[rows]

    def one(self, row: int) -> Paintings:
        """That painting by itself, without its name."""
        at = slice(row, row + 1)
        gram, power = ({k: t[at] for k, t in part.items()} for part in (self.gram, self.power))
        blurred = [(mean[at], covariance[at]) for mean, covariance in self.blurred]
        return Paintings({}, *self.colours(at), gram, power, blurred, self.axes[at])


def gather(files: Mapping[str, Path], short_side: int, teacher: Teacher, device: str) -> Paintings:
    """The statistics of the paintings at that short side, cropped to multiples of the largest blur."""
    return measured(files, (read(path, short_side) for path in files.values()), teacher, device)


@torch.no_grad()
def measured(
    files: Mapping[str, Path], images: Iterable[NDArray[np.uint8]], teacher: Teacher, device: str
) -> Paintings:
    """The statistics of paintings whose pixels are given, uint8 (h, w, 3), in the order of their files."""
    colours, skewness, matrices, blurred, axes = [], [], [], [], []
    for image in images:
        x = to_tensor([image], device)
        h, w = (side // BLURS[-1] * BLURS[-1] for side in x.shape[2:])
        x = x[:, :, :h, :w]
        colours.append(moments(x))
        skewness.append(tones.skewness(x[0].permute(1, 2, 0).cpu().numpy()))
        matrices.append({k: grams(f) for k, f in teacher(x, teacher.style).items()})
        blurred.append(blurred_moments(x))
        axes.append(along_axes(x))
    mean, covariance = (np.concatenate(part) for part in zip(*colours, strict=True))
    gram = {k: torch.cat([by_layer[k] for by_layer in matrices]) for k in teacher.style}
    power = {k: g.square().mean((1, 2)) for k, g in gram.items()}
    levels = [
        (torch.cat([m for m, _ in level]), torch.cat([c for _, c in level]))
        for level in zip(*blurred, strict=True)
    ]
    return Paintings(files, mean, covariance, np.array(skewness), gram, power, levels, torch.cat(axes))


def distance(features: Mapping[str, Tensor], paintings: Paintings, index: Tensor) -> Tensor:
    """(n,): the sum over layers of the distances of Gram matrices, relative to the paintings'."""
    total = torch.zeros((), device=index.device)
    for k, wanted in paintings.gram.items():
        square = (grams(features[k]) - wanted[index]).square().mean((1, 2)) / paintings.power[k][index]
        total = total + (square + 1e-4).sqrt().clamp(max=CLAMP)
    return total


def colour_distance(x: Tensor, paintings: Paintings, index: Tensor) -> Tensor:
    """(): distances of blurred colours, relative to the painting's deviation, clamped."""
    total = x.new_zeros(())
    for (mean, covariance), (means, covariances) in zip(blurred_moments(x), paintings.blurred, strict=True):
        variance = torch.diagonal(covariances[index], dim1=1, dim2=2).sum(1)
        shift = (mean - means[index]).square().sum(1) / variance
        spread = ((covariance - covariances[index]).square().sum((1, 2)) + 1e-9).sqrt() / variance
        total = total + (0.5 * shift.clamp(max=1) + spread.clamp(max=2)).mean()
    return total


def normal(f: Tensor) -> Tensor:
    """float32, each channel of each picture with mean 0 and deviation 1, weak ones not amplified."""
    f = f.float()
    return (f - f.mean((2, 3), keepdim=True)) / (f.var((2, 3), keepdim=True) + 1e-2).sqrt()


def outside(x: Tensor) -> Tensor:
    """(): how far values lie outside 0..1, on average."""
    return (F.relu(x - 1) + F.relu(-x)).mean()
