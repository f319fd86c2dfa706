"""Train cin: one feed-forward network for several styles, that differ in their norms alone.

    python pipelines/train_cin.py --settings pipelines/train_cin.toml --content PHOTOS --style PAINTINGS \
        --backbone teachers --backbone-files vgg19_relu3_1.raw,5SE.pth --out runs/cin

Any setting may stand in the TOML file or on the command line, which wins. ``--out`` takes the checkpoint, the
losses (``losses.csv``), a sheet of sample pictures (``samples.png``) and the network (``cin.safetensors``),
for ``urst-tiles weights add cin cin.safetensors`` and ``urst-tiles stylize --model cin --style NAME``. The
same command again goes on where the last one stopped, and gives the same losses as if it had not.

What is minimised is what `train_fast` minimises, each picture of a batch in another style [1]: convolutions
are shared, a style is a row of every norm's gammas and betas. ``--only-new`` with ``--init`` adds styles to a
trained network [1, section 3.2]: only their rows are learned, in a few hundred steps; the styles that are
there stay as they are, to the bit.

References
----------
1. V. Dumoulin, J. Shlens, M. Kudlur, "A Learned Representation For Artistic Style", ICLR 2017.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor
from train_fast import PARTS, Layout, paint
from training import loop
from training.checkpoint import State, Training, trainable
from training.command import Program
from training.features import Statistics
from training.judge import Judge, judge, photographs
from training.perceptual import By
from training.pictures import Crops, files_of, read, sheet, to_tensor
from training.states import tensors_of

from urst_tiles import losses
from urst_tiles.errors import BadInput
from urst_tiles.nets import cin, fast
from urst_tiles.nets.base import DTYPES, Precision


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What can be set; lengths in pixels. The defaults are those of [1] where it gives them, else those of
    `train_fast`."""

    content: Path
    #: A folder of paintings.
    style: Path
    #: Which of them, and what they are called: "NAME=FILE", or "FILE" without its suffix, which is the name
    #: then; none: all of them.
    styles: tuple[str, ...] = ()
    out: Path
    #: A ``cin.safetensors`` to start from; empty for random weights.
    init: str = ""
    #: Learn the styles that ``init`` does not have, and nothing else.
    only_new: bool = False
    #: A file of patterns of names of photographs, one a line, that are not trained on.
    held_out: str = ""
    steps: int = 40_000
    batch: int = 16
    size: int = 256
    #: Short side of the paintings.
    style_size: int = 256
    #: Of the network, in shares of the published one.
    width: float = 1.0
    #: The range that pictures are in, inside the network and its file.
    layout: Layout = "linder-noren"
    #: Of Adam, on all but what follows Muon.
    rate: float = 1e-3
    #: Of Muon on the weights of the inner convolutions; 0: they follow Adam.
    rate_inner: float = 0.0
    warmup: int = 0
    #: Steps at the end over which the rates fall to 0.
    cooldown: int = 0
    #: What the running average of the weights, which is written, keeps each step; 0: the weights themselves.
    average: float = 0.0
    clip: float = 0.0
    #: [1] looks through VGG-16, the backbone "vgg16"; VGG-19 has layers of the same names.
    backbone: str = "vgg19"
    backbone_files: tuple[Path, ...] = ()
    style_by: By = "gram"
    style_layers: tuple[str, ...] = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")
    content_layer: str = "relu3_3"
    stroke_layers: tuple[str, ...] = ("relu4_1",)
    stroke_factor: int = 2
    smoothing: losses.Smoothing = "none"
    style_weight: float = 1e10
    #: As in `train_fast`.
    style_power: float = 0.0
    content_weight: float = 1e5
    content_normalised: bool = False
    stroke_weight: float = 0.0
    variation_weight: float = 0.0
    precision: Precision = "float32"
    device: str = "cpu"
    threads: int = 0
    seed: int = 0
    save_every: int = 500
    sample_every: int = 1000


# Styles


def named(settings: Settings) -> dict[str, Path]:
    """Name -> painting, in order; BadInput for one that is not there, or twice."""
    files = files_of(settings.style)
    words = [word.partition("=") for word in settings.styles] or [(path.stem, "", "") for path in files]
    found: dict[str, Path] = {}
    for name, _, stem in words:
        if name in found:
            raise BadInput(f"two styles are called {name!r}: give --styles as NAME=FILE")
        of_stem = [path for path in files if path.stem == (stem or name)]
        if not of_stem:
            raise BadInput(f"the folder {settings.style} holds no painting {stem or name!r}")
        found[name] = of_stem[0]
    return found


def split(state: State) -> tuple[State, State]:
    """The convolutions, and the norms, which have a row for each style."""
    rows = {k: t for k, t in state.items() if k.endswith((".gamma", ".beta"))}
    return {k: t for k, t in state.items() if k not in rows}, rows


@dataclass(frozen=True)
class Trained:
    """What stays as it is: convolutions, and the norms of the styles called ``names``; nothing at first."""

    names: tuple[str, ...] = ()
    shared: State = field(default_factory=dict)
    rows: State = field(default_factory=dict)


#: What stays, what learns, and the styles that learn, in the order of their rows.
Network = tuple[Trained, State, tuple[str, ...]]


def network(settings: Settings, names: Sequence[str]) -> Network:
    """A random one for the paintings called ``names``, or that of ``init``, at its first step."""
    if settings.init:
        return taken_up(settings, names)
    if settings.only_new:
        raise BadInput("--only-new needs --init, the trained network that gets new styles")
    shared, rows = split(fast.initial(settings.seed, settings.width))
    return Trained(), shared | {k: t.repeat(len(names), 1) for k, t in rows.items()}, tuple(names)


def taken_up(settings: Settings, names: Sequence[str]) -> Network:
    """The network of ``init``; a new style starts as the mean of those that are there.

    Raises
    ------
    BadInput : it is in another layout, or its styles do not fit the paintings. BadWeights : it is none.
    """
    state = tensors_of(Path(settings.init))
    cin.check(state, cin.FILE, Path(settings.init))
    if (layout := cin.LAYOUTS[int(state["layout"])]) != settings.layout:
        raise BadInput(f"--init {settings.init} has pictures in the layout {layout}: say so by --layout")
    old = cin.names_of(state)
    shared, rows = split({k: t for k, t in state.items() if k not in ("layout", "styles")})
    new = tuple(name for name in names if name not in old)
    fresh = {k: t.mean(0, keepdim=True).repeat(len(new), 1) for k, t in rows.items()}
    if settings.only_new and not new:
        raise BadInput(f"--only-new finds nothing new: {settings.init} has {', '.join(names)} already")
    if settings.only_new:
        return Trained(tuple(old), shared, rows), fresh, new
    if missing := [name for name in old if name not in names]:
        raise BadInput(f"{settings.init} has the style {missing[0]!r}, --style has no painting of that name")
    return Trained(), shared | {k: torch.cat([t, fresh[k]]) for k, t in rows.items()}, (*old, *new)


# The recipe


@dataclass
class Cin:
    """All weights follow Adam, or those of the inner convolutions, as matrices, Muon."""

    settings: Settings
    judge: Judge
    trained: Trained
    #: The styles that learn, by the order of their rows.
    paintings: dict[str, Path]
    photographs: Crops
    training: Training

    def state(self, index: Tensor) -> State:
        """The weights in training, in the network's shapes, with the rows of ``index``."""
        leaves = {k: t.view_as(self.training.average[k]) for k, t in self.training.leaves.items()}
        shared, rows = split(leaves)
        return self.trained.shared | shared | {k: t[index] for k, t in rows.items()}

    def paint(self, index: Tensor, x: Tensor, given: Statistics | None = None) -> tuple[Tensor, Statistics]:
        """Each picture in the style of its row."""
        settings = self.settings
        return paint(x, self.state(index), settings.layout, DTYPES[settings.precision], given)

    def objective(self) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a new batch, and its parts, unweighted; styles differ within a batch as far as there
        are enough."""
        settings, random, count = self.settings, self.training.random, len(self.paintings)
        drawn = random.choice(count, settings.batch, replace=settings.batch > count)
        index = torch.from_numpy(drawn).to(settings.device)
        total, parts, _ = self.judge.objective(self.photographs, random, index, partial(self.paint, index))
        return total, parts

    def share_of_rate(self, step: int) -> float:
        """Of the rates."""
        return loop.warm_and_cool(step, self.settings.steps, self.settings.warmup, self.settings.cooldown)

    def export(self) -> dict[str, bytes]:
        """The running average, behind the styles that were there before."""
        kept, learned = self.trained, {k: t.cpu() for k, t in self.training.average.items()}
        rows = {k: torch.cat([t, learned[k]]) for k, t in kept.rows.items()}
        whole = {k: t.cpu() for k, t in kept.shared.items()} | learned | rows
        names = (*kept.names, *self.paintings)
        return {cin.FILE: save(cin.checkpoint(whole, self.settings.layout, names))}

    @torch.inference_mode()
    def samples(self, count: int = 4) -> NDArray[np.uint8]:
        """``count`` photographs, each in all styles that are learned, below the paintings."""
        settings, side = self.settings, 2 * self.settings.size
        x = self.photographs.pictures.some(count, side, np.random.default_rng(settings.seed))
        state = self.trained.shared | self.training.average
        rows = [[torch.ones(3, side, side), *(square(path, side) for path in self.paintings.values())]]
        for one in x.to(settings.device):
            same = one.expand(len(self.paintings), -1, -1, -1)
            rows.append([one, *paint(same, state, settings.layout, torch.float32)[0]])
        return sheet([[picture.cpu() for picture in row] for row in rows])


def square(path: Path, side: int) -> Tensor:
    """The middle of a painting, (3, side, side)."""
    y = to_tensor([read(path, side)], "cpu")[0]
    top, left = ((n - side) // 2 for n in y.shape[1:])
    return y[:, top : top + side, left : left + side]


def is_inner(key: str) -> bool:
    """Whether a tensor is the weight of a convolution from features to features."""
    return key.endswith(".weight") and key.split(".")[0] not in ("conv1", "deconv3")


def flat(key: str, t: Tensor) -> Tensor:
    """Inner weights as matrices, which is what Muon takes."""
    return t.flatten(1) if is_inner(key) else t


def optimizers(settings: Settings, leaves: State) -> list[torch.optim.Optimizer]:
    """Adam, and Muon where it has a rate."""
    muons = {k for k in leaves if is_inner(k)} if settings.rate_inner else set()
    inner, rest = ([t for k, t in leaves.items() if (k in muons) == it] for it in (True, False))
    found: list[torch.optim.Optimizer] = [torch.optim.Adam(rest, lr=settings.rate)]
    if inner:
        found.append(torch.optim.Muon(inner, lr=settings.rate_inner, weight_decay=0.0))
    return found


def begin(settings: Settings) -> Cin:
    """The recipe at its first step."""
    known = named(settings)
    trained, state, names = network(settings, list(known))
    leaves = trainable(
        {k: flat(k, t) if settings.rate_inner else t for k, t in state.items()}, settings.device
    )
    training = Training(leaves, optimizers(settings, leaves), settings.seed, state, settings.average)
    paintings = {name: known[name] for name in names}
    judged = judge(settings, fast.STRIDE, list(paintings.values()), settings.style_size)
    on = replace(trained, shared={k: t.to(settings.device) for k, t in trained.shared.items()})
    return Cin(settings, judged, on, paintings, photographs(settings), training)


PROGRAM = Program("train_cin", "Train cin.", Settings, begin, PARTS)

if __name__ == "__main__":
    sys.exit(PROGRAM.main())
