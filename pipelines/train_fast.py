"""Train fast: a feed-forward network for a single style.

    python pipelines/train_fast.py --settings pipelines/train_fast.toml --content PHOTOS --style STYLE.jpg \
        --backbone vgg19 --backbone-files vgg19-dcbb9e9d.pth --out runs/mosaic

Any setting may stand in the TOML file or on the command line, which takes precedence. The folder ``--out``
receives the checkpoint, the losses (``losses.csv``), a sheet of sample pictures (``samples.png``) and the
network (``fast.pth``, with the layout of pytorch/examples), for ``urst-tiles stylize --model fast --style
fast.pth``. The same command, given again, continues where the last call stopped, and gives the same losses as
if it had not stopped.

The program minimises [1] the distance of the features of one layer to those of the photograph, the distance
of the Gram matrices of four layers to those of the painting, and the total variation. With ``stroke_weight``
it also minimises URST's stroke perceptual loss [3]: a patch is painted with the statistics of the thumbnail,
through which gradients flow. Norms are instance norms [2], or batch norms as in [1]; the running statistics
of the latter go into the file.

References
----------
1. J. Johnson, A. Alahi, L. Fei-Fei, "Perceptual Losses for Real-Time Style Transfer and Super-Resolution",
   ECCV 2016.
2. D. Ulyanov, A. Vedaldi, V. Lempitsky, "Instance Normalization: The Missing Ingredient for Fast
   Stylization", 2016.
3. Z. Chen et al., "Towards Ultra-Resolution Neural Style Transfer via Thumbnail Instance Normalization",
   AAAI 2022: section 3.4.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from training import loop
from training.command import Program
from training.judge import Judge, judge, photographs
from training.perceptual import By
from training.pictures import Crops, sheet
from training.states import tensors_of

from urst_tiles import losses
from urst_tiles.errors import BadInput
from urst_tiles.learning.checkpoint import State, Training, torch_bytes, trainable
from urst_tiles.learning.features import Statistics
from urst_tiles.nets import fast, fast_layouts, live
from urst_tiles.nets.base import DTYPES, Precision

FILE = "fast.pth"
PARTS = ("style", "content", "stroke", "variation")
Layout = Literal["pytorch", "linder-noren"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings; lengths are in pixels. The defaults are those of [1], as in pytorch/examples."""

    content: Path
    #: The file of the painting.
    style: Path
    out: Path
    #: A checkpoint to start from; empty for random weights.
    init: str = ""
    #: A file of patterns, one on each line; photographs whose names match a pattern are not trained on.
    held_out: str = ""
    steps: int = 40_000
    batch: int = 4
    size: int = field(default=256, metadata={"least": 16})
    #: Short side of the painting.
    style_size: int = 256
    #: Width of the network as a fraction of the published width.
    width: float = 1.0
    norm: Literal["instance", "batch"] = "instance"
    #: The range of the values of pictures inside the network, and the layout of the file.
    layout: Layout = "pytorch"
    #: Learning rate of Adam.
    rate: float = 1e-3
    warmup: int = 0
    #: Steps at the end over which the rate falls to 0.
    cooldown: int = 0
    #: Share of the running average, which is written, that stays in each step; 0: it equals the weights.
    average: float = 0.0
    clip: float = 0.0
    #: The network of the losses. [1] uses VGG-16, "vgg16" here; VGG-19 has layers of the same names.
    backbone: str = "vgg19"
    backbone_files: tuple[Path, ...] = ()
    style_by: By = "gram"
    style_layers: tuple[str, ...] = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")
    content_layer: str = "relu2_2"
    stroke_layers: tuple[str, ...] = ("relu4_1",)
    stroke_factor: int = 2
    smoothing: losses.Smoothing = "none"
    style_weight: float = 1e10
    #: If 0, the style losses of the layers are summed. Else each is first divided by the loss of an empty
    #: picture and raised to this power; with 0.5 no layer drowns another.
    style_power: float = 0.0
    content_weight: float = 1e5
    #: Whether the mean and deviation of each channel are taken out before content is compared.
    content_normalised: bool = False
    stroke_weight: float = 0.0
    variation_weight: float = 0.0
    precision: Precision = "float32"
    device: str = "cpu"
    threads: int = 0
    seed: int = 0
    save_every: int = 500
    sample_every: int = 1000


# The network in training


def paint(
    x: Tensor,
    state: State,
    layout: str,
    dtype: torch.dtype,
    given: Statistics | None = None,
    batch_norm: bool = False,
) -> tuple[Tensor, Statistics]:
    """The stylised pictures of ``x``, and the statistics with which they are painted.

    The statistics are ``given``, for example those of a thumbnail, or else those of ``x``. Gammas and betas
    in ``state`` are (C,), or (n, C) to paint each picture in another style.
    """
    used: Statistics = {}

    def norm(name: str, y: Tensor) -> Tensor:
        used[name] = mean, std = given[name] if given else measured(y, batch_norm)
        scale = state[f"{name}.gamma"] / std
        shift = state[f"{name}.beta"] - scale * mean
        return torch.addcmul(shift.to(y)[:, :, None, None], y, scale.to(y)[:, :, None, None])

    x = x.contiguous(memory_format=torch.channels_last)
    return fast.paint(x, state, layout, norm, dtype), used


def measured(y: Tensor, batch_norm: bool) -> losses.MeanStd:
    """The mean and deviation of each picture, (n, C), or for a batch norm those of all together, (1, C)."""
    means, stds = losses.mean_std(y, fast_layouts.EPS)
    if not batch_norm:
        return means, stds
    mean = means.mean(0, keepdim=True)
    return mean, (stds.square() + (means - mean).square()).mean(0, keepdim=True).sqrt()


# The recipe


@dataclass
class Fast:
    """The recipe: Adam trains all weights; the running statistics of batch norms follow the batches."""

    settings: Settings
    judge: Judge
    photographs: Crops
    training: Training

    def paint(self, x: Tensor, given: Statistics | None = None) -> tuple[Tensor, Statistics]:
        """Paint pictures with the present weights; otherwise like the function `paint`."""
        settings = self.settings
        dtype, batch = DTYPES[settings.precision], settings.norm == "batch"
        return paint(x, self.training.leaves, settings.layout, dtype, given, batch)

    def objective(self) -> tuple[Tensor, dict[str, Tensor]]:
        settings, random = self.settings, self.training.random
        index = torch.zeros(settings.batch, dtype=torch.int64, device=settings.device)
        total, parts, used = self.judge.objective(self.photographs, random, index, self.paint)
        if settings.norm == "batch":
            follow(self.training.leaves, used, settings.batch * settings.size**2)
        return total, parts

    def share_of_rate(self, step: int) -> float:
        return loop.warm_and_cool(step, self.settings.steps, self.settings.warmup, self.settings.cooldown)

    def export(self) -> dict[str, bytes]:
        """The file of the running average of the weights."""
        state = {k: t.cpu() for k, t in self.training.average.items()}
        return {FILE: torch_bytes(fast_layouts.checkpoint(state, self.settings.layout))}

    @torch.inference_mode()
    def samples(self, count: int = 6) -> NDArray[np.uint8]:
        """A sheet of ``count`` photographs, each above the picture that the running average makes of it."""
        settings = self.settings
        x = self.photographs.pictures.some(count, 2 * settings.size, np.random.default_rng(settings.seed))
        style = fast.FastStyle({k: t.cpu() for k, t in self.training.average.items()}, settings.layout)
        return sheet([list(x), [style.forward(picture[None], live(style))[0] for picture in x]])


#: The weight of each batch in running statistics, which is the default of PyTorch.
MOMENTUM = 0.1


@torch.no_grad()
def follow(leaves: State, used: Statistics, pixels: int) -> None:
    """Update the running means and unbiased variances of batch norms with those of a batch of ``pixels``."""
    for name, (mean, std) in used.items():
        count = pixels / fast.strides(name) ** 2
        variance = (std.square() - fast_layouts.EPS) * count / (count - 1)
        leaves[f"{name}.mean"].lerp_(mean[0], MOMENTUM)
        leaves[f"{name}.variance"].lerp_(variance[0], MOMENTUM)


def first_weights(settings: Settings) -> State:
    """The weights of ``init``, or random weights.

    Raises
    ------
    BadInput : ``init`` has another layout or other norms than the settings.
    """
    batch = settings.norm == "batch"
    if not settings.init:
        state = fast.initial(settings.seed, settings.width)
        still = {"mean": torch.zeros_like, "variance": torch.ones_like} if batch else {}
        return state | {
            f"{k}.{part}": f(state[f"{k}.beta"]) for k in fast.NORMED for part, f in still.items()
        }
    state, layout = fast_layouts.read(tensors_of(Path(settings.init)), settings.init)
    if layout != settings.layout or ("conv1.mean" in state) != batch:
        kind = f"{layout} with {'batch' if 'conv1.mean' in state else 'instance'} norms"
        raise BadInput(f"--init {settings.init} is {kind}: say so by --layout and --norm")
    return state


def start(settings: Settings) -> Training:
    """The training at the first step."""
    state = first_weights(settings)
    leaves = trainable(state, settings.device)
    followed = {k for k in leaves if k.endswith((".mean", ".variance"))}
    for k in followed:
        leaves[k].requires_grad_(False)
    learned = [t for k, t in leaves.items() if k not in followed]
    adam = torch.optim.Adam(learned, lr=settings.rate)
    return Training(leaves, [adam], settings.seed, state, settings.average)


def begin(settings: Settings) -> Fast:
    """The recipe at the first step."""
    judged = judge(settings, fast.STRIDE, [settings.style], settings.style_size)
    return Fast(settings, judged, photographs(settings), start(settings))


PROGRAM = Program("train_fast", "Train fast.", Settings, begin, PARTS)

if __name__ == "__main__":
    sys.exit(PROGRAM.main())
