"""Train cin: a feed-forward network for several styles, which differ only in the norms of the network.

    python pipelines/train_cin.py --settings pipelines/train_cin.toml --content PHOTOS --style PAINTINGS \
        --backbone teachers --backbone-files vgg19_relu3_1.raw,5SE.pth --out runs/cin

Any setting may stand in the TOML file or on the command line, which takes precedence. The folder ``--out``
receives the checkpoint, the losses (``losses.csv``), a sheet of sample pictures (``samples.png``) and the
network (``cin.safetensors``), for ``urst-tiles weights add cin cin.safetensors`` and ``urst-tiles stylize
--model cin --style NAME``. The same command, given again, continues where the last call stopped, and gives
the same losses as if it had not stopped.

The program minimises what `train_fast` minimises, with another style for each picture of a batch [1]. All
styles share the convolutions; a style is a row of the gammas and betas of every norm. ``--only-new`` with
``--init`` adds styles to a trained network [1, section 3.2]: only the rows of the new styles are learned, in
a few hundred steps, and the earlier styles stay as they are, to the bit.

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
from training.command import Program
from training.judge import Judge, judge, photographs
from training.perceptual import By
from training.pictures import Crops, sheet, square
from training.states import tensors_of

from urst_tiles import losses
from urst_tiles.errors import BadInput
from urst_tiles.learning.checkpoint import State, Training, trainable
from urst_tiles.learning.crops import files_of
from urst_tiles.learning.features import Statistics
from urst_tiles.nets import cin, fast
from urst_tiles.nets.base import DTYPES, Precision


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings; lengths are in pixels.

    The defaults are those of [1], or those of `train_fast` for settings that [1] does not give.
    """

    content: Path
    #: A folder of paintings.
    style: Path
    #: The paintings to learn, each as "NAME=FILE", with the name of the style, or as "FILE", which is then
    #: also the name; FILE has no suffix. If it is empty, all paintings are learned.
    styles: tuple[str, ...] = ()
    out: Path
    #: A ``cin.safetensors`` to start from; empty for random weights.
    init: str = ""
    #: Whether only the styles that ``init`` does not have are learned.
    only_new: bool = False
    #: A file of patterns, one on each line; photographs whose names match a pattern are not trained on.
    held_out: str = ""
    steps: int = 40_000
    batch: int = 16
    size: int = field(default=256, metadata={"least": 16})
    #: Short side of the paintings.
    style_size: int = 256
    #: Width of the network as a fraction of the published width.
    width: float = 1.0
    #: The range of the values of pictures inside the network, and the layout of the file.
    layout: Layout = "linder-noren"
    #: Learning rate of Adam, for all weights that Muon does not train.
    rate: float = 1e-3
    #: Learning rate of Muon for the weights of the inner convolutions; 0: Adam trains them.
    rate_inner: float = 0.0
    warmup: int = 0
    #: Steps at the end over which the rates fall to 0.
    cooldown: int = 0
    #: Share of the running average, which is written, that stays in each step; 0: it equals the weights.
    average: float = 0.0
    clip: float = 0.0
    #: The network of the losses. [1] uses VGG-16, "vgg16" here; VGG-19 has layers of the same names.
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
    """The paths of the paintings by name of the style, in the order of the settings.

    Raises
    ------
    BadInput : a painting does not exist, or two styles have the same name.
    """
    files = files_of(settings.style)
    words = [word.partition("=") for word in settings.styles] or [(path.stem, "", "") for path in files]
    paintings: dict[str, Path] = {}
    for name, _, stem in words:
        if name in paintings:
            raise BadInput(f"two styles are called {name!r}: give --styles as NAME=FILE")
        of_stem = [path for path in files if (stem or name) in (path.stem, path.name)]
        if not of_stem:
            raise BadInput(f"the folder {settings.style} holds no painting {stem or name!r}")
        paintings[name] = of_stem[0]
    return paintings


def split(state: State) -> tuple[State, State]:
    """The tensors of the convolutions, and those of the norms, which have a row for each style."""
    rows = {k: t for k, t in state.items() if k.endswith((".gamma", ".beta"))}
    return {k: t for k, t in state.items() if k not in rows}, rows


@dataclass(frozen=True)
class Trained:
    """The part of a trained network that does not learn; empty if the whole network learns.

    Attributes
    ----------
    names : names of the styles in this part.
    shared : tensors of the convolutions.
    rows : tensors of the norms, with a row for each of ``names``.
    """

    names: tuple[str, ...] = ()
    shared: State = field(default_factory=dict)
    rows: State = field(default_factory=dict)


#: The part that does not learn, the tensors that do, and the names of the styles that do, in order of the
#: rows.
Network = tuple[Trained, State, tuple[str, ...]]


def network(settings: Settings, names: Sequence[str]) -> Network:
    """The network at the first step: random weights for the styles ``names``, or the network of ``init``.

    Raises
    ------
    BadInput : ``only_new`` is given without ``init``, or see `taken_up`.
    """
    if settings.init:
        return taken_up(settings, names)
    if settings.only_new:
        raise BadInput("--only-new needs --init, the trained network that gets new styles")
    shared, rows = split(fast.initial(settings.seed, settings.width))
    return Trained(), shared | {k: t.repeat(len(names), 1) for k, t in rows.items()}, tuple(names)


def taken_up(settings: Settings, names: Sequence[str]) -> Network:
    """The network of ``init``; a new style starts as the mean of the styles in it.

    Raises
    ------
    BadInput : the network is in another layout, or its styles do not fit the paintings.
    BadWeights : the file is not a network of this kind.
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
    """The recipe: Adam trains all weights, or Muon those of the inner convolutions, as matrices."""

    settings: Settings
    judge: Judge
    trained: Trained
    #: The paths of the paintings of the styles that learn, by name, in the order of the rows.
    paintings: dict[str, Path]
    photographs: Crops
    training: Training

    def state(self, index: Tensor) -> State:
        """The weights in training, in the shapes of the network, with the rows ``index`` of the norms."""
        leaves = {k: t.view_as(self.training.average[k]) for k, t in self.training.leaves.items()}
        shared, rows = split(leaves)
        return self.trained.shared | shared | {k: t[index] for k, t in rows.items()}

    def paint(self, index: Tensor, x: Tensor, given: Statistics | None = None) -> tuple[Tensor, Statistics]:
        """Paint each picture of ``x`` in the style of the row that ``index`` gives; otherwise like
        `train_fast.paint`."""
        settings = self.settings
        return paint(x, self.state(index), settings.layout, DTYPES[settings.precision], given)

    def objective(self) -> tuple[Tensor, dict[str, Tensor]]:
        # The styles of a batch all differ if there are enough of them.
        settings, random, count = self.settings, self.training.random, len(self.paintings)
        drawn = random.choice(count, settings.batch, replace=settings.batch > count)
        index = torch.from_numpy(drawn).to(settings.device)
        total, parts, _ = self.judge.objective(self.photographs, random, index, partial(self.paint, index))
        return total, parts

    def share_of_rate(self, step: int) -> float:
        return loop.warm_and_cool(step, self.settings.steps, self.settings.warmup, self.settings.cooldown)

    def export(self) -> dict[str, bytes]:
        """The file of the running average of the weights, in which styles that do not learn come first."""
        trained, learned = self.trained, {k: t.cpu() for k, t in self.training.average.items()}
        rows = {k: torch.cat([t, learned[k]]) for k, t in trained.rows.items()}
        whole = {k: t.cpu() for k, t in trained.shared.items()} | learned | rows
        names = (*trained.names, *self.paintings)
        return {cin.FILE: save(cin.checkpoint(whole, self.settings.layout, names))}

    @torch.inference_mode()
    def samples(self, count: int = 4) -> NDArray[np.uint8]:
        """A sheet of ``count`` photographs (first column), each in all styles that learn (first row)."""
        settings, side = self.settings, 2 * self.settings.size
        x = self.photographs.pictures.some(count, side, np.random.default_rng(settings.seed))
        state = self.trained.shared | self.training.average
        rows = [[torch.ones(3, side, side), *(square(path, side) for path in self.paintings.values())]]
        for photograph in x.to(settings.device):
            same = photograph.expand(len(self.paintings), -1, -1, -1)
            rows.append([photograph, *paint(same, state, settings.layout, torch.float32)[0]])
        return sheet([[picture.cpu() for picture in row] for row in rows])


def is_inner(key: str) -> bool:
    """Whether a tensor is the weight of a convolution from features to features."""
    return key.endswith(".weight") and key.split(".")[0] not in ("conv1", "deconv3")


def flat(key: str, t: Tensor) -> Tensor:
    """The weight of an inner convolution as a matrix, as Muon takes it; any other tensor as it is."""
    return t.flatten(1) if is_inner(key) else t


def optimizers(settings: Settings, leaves: State) -> list[torch.optim.Optimizer]:
    """Adam, and Muon too if it has a learning rate."""
    muons = {k for k in leaves if is_inner(k)} if settings.rate_inner else set()
    inner, rest = ([t for k, t in leaves.items() if (k in muons) == it] for it in (True, False))
    both: list[torch.optim.Optimizer] = [torch.optim.Adam(rest, lr=settings.rate)]
    if inner:
        both.append(torch.optim.Muon(inner, lr=settings.rate_inner, weight_decay=0.0))
    return both


def begin(settings: Settings) -> Cin:
    """The recipe at the first step."""
    by_name = named(settings)
    trained, state, names = network(settings, list(by_name))
    leaves = trainable(
        {k: flat(k, t) if settings.rate_inner else t for k, t in state.items()}, settings.device
    )
    training = Training(leaves, optimizers(settings, leaves), settings.seed, state, settings.average)
    paintings = {name: by_name[name] for name in names}
    judged = judge(settings, fast.STRIDE, list(paintings.values()), settings.style_size)
    on = replace(trained, shared={k: t.to(settings.device) for k, t in trained.shared.items()})
    return Cin(settings, judged, on, paintings, photographs(settings), training)


PROGRAM = Program("train_cin", "Train cin.", Settings, begin, PARTS)

if __name__ == "__main__":
    sys.exit(PROGRAM.main())
