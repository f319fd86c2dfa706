"""Train lite, the network for any style whose weights come with the package.

    python pipelines/train_lite.py --settings pipelines/train_lite.toml --content PHOTOS --style PAINTINGS \
        --vgg vgg19_relu3_1.raw --distilled 5SE.pth --out runs/lite

Any setting may stand in the TOML file or on the command line, which takes precedence. The folder ``--out``
receives the checkpoint, the losses (``losses.csv``), a sheet of sample pictures (``samples.png``) and the
weights (``lite.safetensors``, the running average). The same command, given again, continues where the last
call stopped, and gives the same losses as if it had not stopped.

The program minimises for each picture the style loss of Huang and Belongie 2017 (that of each layer raised to
``style_power``), the content loss on normalised relu4_1, URST's stroke perceptual loss, the total variation,
and a penalty on the grid that networks on cells of pixels tend to draw. The targets of a fixed set of style
crops are computed once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor
from training import loop
from training.command import Program
from training.pictures import Crops, Pictures, patterns_of, random_window, sheet

from urst_tiles import losses, weights
from urst_tiles.learning.checkpoint import State, Training, once, trainable
from urst_tiles.learning.crops import crop, files_of, read, to_tensor
from urst_tiles.learning.features import Lowered, Statistics, lowered, statistics
from urst_tiles.losses import backbones
from urst_tiles.nets import lite
from urst_tiles.nets.base import DTYPES, Precision


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings; lengths are in pixels."""

    content: Path
    style: Path
    vgg: Path
    distilled: Path
    out: Path
    #: A file of weights to start from; empty for random weights.
    init: str = ""
    #: A file of patterns, one on each line; files whose names match a pattern are not trained on.
    held_out: str = ""
    steps: int = 100_000
    batch: int = 8
    size: int = 256
    style_crop: int = 256
    crops_per_style: int = 8
    #: Learning rates of Muon, for the weights of the blocks, and of Adam, for all other weights.
    rate: float = 5e-3
    rate_rest: float = 2e-3
    warmup: int = 100
    #: Steps at the end over which the rates fall to 0.
    cooldown: int = 30_000
    average: float = 0.999
    clip: float = 5.0
    style_weight: float = 1.0
    style_power: float = 0.5
    content_weight: float = 1.0
    stroke_weight: float = 0.0
    variation_weight: float = 0.0
    lattice_weight: float = 100.0
    precision: Precision = "bfloat16"
    device: str = "cpu"
    threads: int = 0
    seed: int = 0
    save_every: int = 200
    sample_every: int = 1000


# Styles


@dataclass
class Styles:
    """Crops of style images.

    Attributes
    ----------
    crops : the crops, uint8, (n, h, w, 3).
    targets : their statistics in the loss networks, by layer.
    """

    crops: NDArray[np.uint8]
    targets: Statistics

    def draw(self, settings: Settings, random: np.random.Generator) -> tuple[Tensor, Statistics]:
        """A random batch of crops, and their targets."""
        index = random.integers(len(self.crops), size=settings.batch)
        chosen = torch.from_numpy(index)
        targets = {k: (mean[chosen], std[chosen]) for k, (mean, std) in self.targets.items()}
        return to_tensor(list(self.crops[index]), settings.device), targets


def gather_styles(paths: Sequence[Path], settings: Settings, net: Lowered) -> Styles:
    """``crops_per_style`` crops of each painting, resized so that the short side is 1.2 to 2.8 crops long.

    They are saved in ``--out`` for the next call.
    """
    facts = [settings.seed, settings.style_crop, settings.crops_per_style, str(net.dtype), *map(str, paths)]
    tensors = once(settings.out, "styles", facts, lambda: style_tensors(paths, settings, net))
    targets = {k: (tensors[f"{k}.mean"], tensors[f"{k}.std"]) for k in backbones.LAYERS}
    on = {k: (mean.to(settings.device), std.to(settings.device)) for k, (mean, std) in targets.items()}
    return Styles(tensors["crops"].numpy(), on)


@torch.no_grad()
def style_tensors(paths: Sequence[Path], settings: Settings, net: Lowered) -> State:
    """The crops, and their statistics, as tensors by name."""
    random = np.random.default_rng([settings.seed, 1])
    crops, batches = [], []
    for path in paths:
        for _ in range(settings.crops_per_style):
            short = int(settings.style_crop * random.uniform(1.2, 2.8))
            crops.append(np.ascontiguousarray(crop(read(path, short), settings.style_crop, random)))
    for start in range(0, len(crops), 8):
        batch = to_tensor(crops[start : start + 8], settings.device)
        batches.append(statistics(net, batch, backbones.LAYERS))
    tensors = {"crops": torch.from_numpy(np.stack(crops))}
    for k in backbones.LAYERS:
        for i, part in enumerate(("mean", "std")):
            tensors[f"{k}.{part}"] = torch.cat([f[k][i] for f in batches]).cpu()
    return tensors


# The network in training: as `lite.LiteStyle`, with statistics that gradients flow through.


def colour_map(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Scale (n, 3, 3) and shift (n, 3, 1) that give ``x`` the colours of ``y``.

    This is the first site of the network. No weights come before it, so it takes no gradient.
    """
    maps = []
    for picture, style in zip(*(t.flatten(2).cpu().double().numpy() for t in (x, y)), strict=True):
        scale = lite.monge_kantorovich(np.cov(picture), np.cov(style), lite.COLOUR_EPS)
        maps.append((scale, style.mean(1, keepdims=True) - scale @ picture.mean(1, keepdims=True)))
    scales, shifts = (torch.from_numpy(np.stack(part)).to(x) for part in zip(*maps, strict=True))
    return scales, shifts


def recoloured(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """The pictures ``x`` after the colour map of `colour_map`."""
    return (scale @ x.flatten(2) + shift).view_as(x)


def describe(y: Tensor, state: State, dtype: torch.dtype) -> Statistics:
    """The statistics of a batch of style images at the site of every block."""
    by_site: Statistics = {}

    def look(name: str, h: Tensor) -> Tensor:
        by_site[name] = losses.mean_std(h, lite.EPS)
        return h

    lite.strokes(lowered(lite.to_cells(y), dtype), state, look)
    return by_site


def paint(
    x: Tensor, state: State, style: Statistics, dtype: torch.dtype, content: Statistics | None = None
) -> tuple[Tensor, Statistics]:
    """The stylised pictures of ``x``, and the statistics with which they are painted.

    ``x`` already has the colours of the style. The statistics are ``content``, for example those of a
    thumbnail, or else those of ``x``.
    """
    used: Statistics = {}

    def steer(name: str, h: Tensor) -> Tensor:
        used[name] = mean, std = content[name] if content else losses.mean_std(h, lite.EPS)
        want, spread = style[name]
        scale = spread / std
        return torch.addcmul((want - scale * mean).to(h)[:, :, None, None], h, scale.to(h)[:, :, None, None])

    painted = lite.strokes(lowered(lite.to_cells(x), dtype), state, steer)
    return x + F.pixel_shuffle(painted.float(), lite.STRIDE), used


# The recipe


@dataclass
class Lite:
    """The recipe: Muon trains the convolutions of the blocks, as matrices; Adam trains all other weights."""

    settings: Settings
    net: Lowered
    styles: Styles
    photographs: Crops
    training: Training

    @property
    def state(self) -> State:
        """The weights in training, in the shapes of the network."""
        shapes = lite.shapes()
        return {k: t.view(shapes[k]) for k, t in self.training.leaves.items()}

    def contents(self) -> tuple[Tensor, Tensor | None]:
        """A batch of photographs; and for strokes the same at twice the size, else None."""
        if self.settings.stroke_weight:
            return self.photographs.draw_large(self.training.random)
        return self.photographs.draw(self.training.random), None

    def objective(self) -> tuple[Tensor, dict[str, Tensor]]:
        x, large = self.contents()
        y, targets = self.styles.draw(self.settings, self.training.random)
        state, dtype = self.state, self.net.dtype
        style, colours = describe(y, state, dtype), colour_map(x, y)
        mapped = recoloured(x, *colours)
        out, used = paint(mapped, state, style, dtype)
        layers, parts = self.compared(x, mapped, out, targets)
        if large is not None:
            patch, at = random_window(large, self.settings.size, lite.STRIDE, self.training.random)
            patch, _ = paint(recoloured(patch, *colours), state, style, dtype, used)
            parts["stroke"] = losses.stroke_perceptual(self.net, patch, out, at).mean()
        style_total = (layers + 1e-3).pow(self.settings.style_power).sum(1).mean()
        total = self.settings.style_weight * style_total
        for name, part in parts.items():
            total = total + getattr(self.settings, f"{name}_weight") * part
        by_layer = {k: layers[:, i].mean() for i, k in enumerate(targets)}
        return total, {**parts, "style": layers.sum(1).mean(), **by_layer}

    def compared(
        self, x: Tensor, mapped: Tensor, out: Tensor, targets: Statistics
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The style losses, (n, layers), of a stylised batch ``out``, and the other losses by name.

        ``mapped`` are the photographs ``x`` with the colours of the styles.
        """
        features = self.net(out, backbones.LAYERS)
        with torch.no_grad():
            wanted = losses.normalised(self.net(x, ["relu4_1"])["relu4_1"])
        moments = {k: losses.mean_std(f) for k, f in features.items()}
        return losses.style_loss(moments, targets), {
            "content": losses.content_loss(losses.normalised(features["relu4_1"]), wanted).mean(),
            "variation": losses.total_variation(out).mean(),
            "lattice": losses.lattice(mapped, out, lite.STRIDE).mean(),
        }

    def share_of_rate(self, step: int) -> float:
        return loop.warm_and_cool(step, self.settings.steps, self.settings.warmup, self.settings.cooldown)

    def export(self) -> dict[str, bytes]:
        """The file of the running average of the weights."""
        return {lite.FILE: save(self.training.average)}

    @torch.inference_mode()
    def samples(self, count: int = 4) -> NDArray[np.uint8]:
        """A sheet of ``count`` photographs (first column), each in ``count`` styles (first row)."""
        random, side = np.random.default_rng(self.settings.seed), 2 * self.settings.size
        x = self.photographs.pictures.some(count, side, random)
        crops = self.styles.crops
        y = to_tensor([crops[i] for i in random.integers(len(crops), size=count)], "cpu")
        state = {k: t.cpu() for k, t in self.training.average.items()}
        style = describe(y, state, torch.float32)
        rows = [[torch.ones(3, side, side), *F.interpolate(y, (side, side), mode="bilinear")]]
        for photograph in x:
            same = photograph.expand(count, -1, -1, -1)
            painted, _ = paint(recoloured(same, *colour_map(same, y)), state, style, torch.float32)
            rows.append([photograph, *painted])
        return sheet(rows)


def is_inner(key: str) -> bool:
    """Whether a tensor is the weight of a convolution of a block."""
    return key.startswith("block") and key.endswith(".weight")


def flat(key: str, t: Tensor) -> Tensor:
    """The weight of a convolution of a block as a matrix, as Muon takes it; any other tensor as it is."""
    return t.flatten(1) if is_inner(key) else t


def start(settings: Settings) -> Training:
    """The training at the first step."""
    state = weights.load(Path(settings.init)) if settings.init else lite.initial(settings.seed)
    weights.check_keys(state, lite.shapes(), settings.init or "the start")
    leaves = trainable({k: flat(k, t) for k, t in state.items()}, settings.device)
    inner = [t for k, t in leaves.items() if is_inner(k)]
    rest = [t for k, t in leaves.items() if not is_inner(k)]
    optimizers = [
        torch.optim.Muon(inner, lr=settings.rate, weight_decay=0.0),
        torch.optim.Adam(rest, lr=settings.rate_rest, betas=(0.9, 0.99)),
    ]
    return Training(leaves, optimizers, settings.seed, state, settings.average)


def begin(settings: Settings) -> Lite:
    """The recipe at the first step."""
    dtype, held_out = DTYPES[settings.precision], patterns_of(settings.held_out)
    teachers = backbones.teachers(settings.vgg, settings.distilled, device=settings.device, dtype=dtype)
    net = Lowered(teachers, dtype)
    styles = gather_styles(files_of(settings.style, held_out), settings, net)
    pictures = Pictures(files_of(settings.content, held_out), 2 * settings.size)
    photographs = Crops(pictures, settings.batch, settings.size, settings.device)
    return Lite(settings, net, styles, photographs, start(settings))


PROGRAM = Program(
    "train_lite",
    "Train lite.",
    Settings,
    begin,
    ("style", "content", "stroke", "variation", "lattice", *backbones.LAYERS),
)

if __name__ == "__main__":
    sys.exit(PROGRAM.main())
