"""Train MSG-Net: a network for many styles, which the Gram matrix of a style image steers.

    python pipelines/train_msgnet.py --settings pipelines/train_msgnet.toml --content PHOTOS \
        --style PAINTINGS --backbone vgg19 --backbone-files vgg19-dcbb9e9d.pth --out runs/msgnet

Any setting may stand in the TOML file or on the command line, which takes precedence. The folder ``--out``
receives the checkpoint, the losses (``losses.csv``), a sheet of pictures (``samples.png``) and the network,
in the layout of the authors' program (``21styles.model``, however many styles it has seen). ``urst-tiles
weights add msgnet runs/msgnet/21styles.model`` makes it the weights of ``--model msgnet``. The same command,
given again, continues where the last call stopped, and gives the same losses as if it had not stopped.

Every step takes the next painting for the whole batch. After each round of all paintings they are shown at
the next of ``style_sizes``, from which the network learns that a larger style image means larger strokes [1].

The program minimises for each picture [1] the content loss on relu2_2, the distances of Gram matrices on
relu1_2, 2_2, 3_3 and 4_3, and the total variation. With ``stroke_weight`` it also minimises the stroke
perceptual loss [2, section 3.4]: the thumbnail of a photograph and a patch of the photograph are both
stylised with the statistics that the instance norms took of the thumbnail. Gradients flow through these
statistics and through the Gram matrix of the style, but not through the stylised thumbnail with which the
patch is compared. The loss network of [1] is VGG-16 (``--backbone vgg16 --backbone-files vgg16.safetensors``,
or torchvision's ``vgg16-397923af.pth``). By default VGG-19, which has layers of the same names, takes its
part.

References
----------
1. H. Zhang and K. Dana, "Multi-style Generative Network for Real-time Transfer", ECCV Workshops 2018; their
   program: github.com/zhanghang1989/PyTorch-Multi-Style-Transfer.
2. Z. Chen et al., "Towards Ultra-Resolution Neural Style Transfer via Thumbnail Instance Normalization", AAAI
   2022.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from training import perceptual as looks
from training.command import Program
from training.perceptual import By, Look
from training.pictures import Crops, Pictures, drawn, patterns_of, random_window, sheet

from urst_tiles import losses, weights
from urst_tiles.errors import BadInput, MissingFile
from urst_tiles.learning.checkpoint import State, Training, torch_bytes, trainable
from urst_tiles.learning.crops import files_of, to_tensor
from urst_tiles.learning.features import Statistics, weighted
from urst_tiles.nets import msgnet
from urst_tiles.nets.base import Precision


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings; lengths are in pixels. The defaults are those of [1] and of the authors' program."""

    content: Path
    #: A folder of the paintings to learn.
    style: Path
    out: Path
    #: The number of paintings to learn, in the order of their names; 0 for all.
    styles: int = 0
    #: A ``21styles.model`` to start from; empty for random weights.
    init: str = ""
    #: A file of patterns, one on each line; files whose names match a pattern are not trained on.
    held_out: str = ""
    #: Width of the network as a fraction of the published width; ``init`` takes precedence over it.
    width: float = 1.0
    #: The default is about two epochs of MS-COCO.
    steps: int = 40_000
    batch: int = 4
    size: int = 256
    #: Short sides at which paintings are shown, in turn.
    style_sizes: tuple[int, ...] = (256, 512, 768)
    #: Learning rate of Adam, which is constant.
    rate: float = 1e-3
    clip: float = 0.0
    content_weight: float = 1.0
    #: The value 5 is for features of pictures in 0..255, as in [1]. The content loss grows with the square of
    #: the scale of the features, and the style loss with the fourth power: torchvision's VGG-19, or a
    #: backbone with a mean activation of 1, needs about 1e5.
    style_weight: float = 5.0
    #: The value of [1], which does not say in what unit; the authors' program has no such term.
    variation_weight: float = 1e-6
    stroke_weight: float = 0.0
    backbone: str = "vgg19"
    backbone_files: tuple[Path, ...] = ()
    style_by: By = "gram"
    style_layers: tuple[str, ...] = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")
    content_layer: str = "relu2_2"
    stroke_layers: tuple[str, ...] = ("relu4_1",)
    stroke_factor: int = 2
    smoothing: losses.Smoothing = "none"
    #: Precision of the backbone; the network is float32.
    precision: Precision = "float32"
    device: str = "cpu"
    threads: int = 0
    seed: int = 0
    save_every: int = 500
    sample_every: int = 2000


# The network in training: as `msgnet.MSGNetStyle`, with statistics that gradients flow through.


def paint(
    x: Tensor, state: State, gram: Tensor, content: Statistics | None = None
) -> tuple[Tensor, Statistics]:
    """The pictures ``x`` in the style of a Gram matrix (C, C), and the statistics of every instance norm.

    The statistics are ``content``, for example those of a thumbnail, or else those of ``x``.
    """
    used: Statistics = {}

    def norm(name: str, h: Tensor) -> Tensor:
        used[name] = content[name] if content else losses.mean_std(h, msgnet.EPS)
        mean, std = (t[:, :, None, None] for t in used[name])
        return (h - mean) / std

    # crops come channels last, and the gradient of a narrow network's convolutions then crashes in oneDNN
    f = msgnet.encode(x.contiguous(), state, norm)
    steer = state[f"{msgnet.COMATCH}.weight"][0] @ gram
    return msgnet.decode((steer.mT @ f.flatten(2)).view_as(f), state, norm), used


def describe(y: Tensor, state: State) -> Tensor:
    """The Gram matrix, (C, C), of the features that the encoder makes of a style picture, (1, 3, h, w)."""
    return losses.gram(msgnet.encode(y, state, lambda name, h: F.instance_norm(h, eps=msgnet.EPS)))[0]


# The recipe


@dataclass
class Paintings:
    """The paintings at each of their sizes, with the targets of the style loss.

    Attributes
    ----------
    sizes : the paintings at each size.
    device, look : the device of the tensors, and the loss.
    targets : the targets of the paintings seen so far, by number of the size and of the painting; each takes
        1.4 MiB with Gram matrices of VGG-19.
    """

    sizes: list[Pictures]
    device: str
    look: Look
    targets: dict[tuple[int, int], looks.Style] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.sizes[0])

    def show(self, size: int, index: int) -> Tensor:
        """Painting ``index`` at size number ``size``, (1, 3, h, w), cropped to whole cells of the encoder."""
        y = to_tensor([self.sizes[size][index]], self.device)
        h, w = (side // msgnet.STRIDE * msgnet.STRIDE for side in y.shape[2:])
        return y[:, :, :h, :w].contiguous()

    def turn(self, step: int) -> tuple[Tensor, looks.Style]:
        """The painting whose turn it is in ``step``, and its target."""
        size, index = step // len(self) % len(self.sizes), step % len(self)
        y = self.show(size, index)
        if (size, index) not in self.targets:
            self.targets[size, index] = self.look.target(y)
        return y, self.targets[size, index]


@dataclass
class MSGNet:
    """The recipe, in which Adam trains all weights at the same rate."""

    settings: Settings
    look: Look
    paintings: Paintings
    photographs: Crops
    training: Training

    def objective(self) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a new batch in the style whose turn it is, and the unweighted parts of the loss."""
        settings, state, random = self.settings, self.training.leaves, self.training.random
        x, large = drawn(self.photographs, random, settings.stroke_factor if settings.stroke_weight else 0)
        y, target = self.paintings.turn(self.training.step)
        gram = describe(y, state)
        out, used = paint(x, state, gram)
        features = self.look.features(out)
        parts = {
            "style": self.look.style_loss(features, target).sum(1).mean(),
            "content": self.look.content_loss(features, self.look.content(x)).mean(),
            "variation": losses.total_variation(out).mean(),
        }
        if large is not None:
            patch, at = random_window(large, settings.size, msgnet.STRIDE, random)
            patch, _ = paint(patch, state, gram, used)
            parts["stroke"] = self.look.stroke_loss(patch, out, at).mean()
        return weighted(parts, {name: getattr(settings, f"{name}_weight") for name in parts}), parts

    def share_of_rate(self, step: int) -> float:
        return 1.0

    def export(self) -> dict[str, bytes]:
        """The file of the family; shared modules also have their second names of the authors' program."""
        state = {k: t.detach().cpu() for k, t in self.training.leaves.items()}
        encoder = {f"model1.{k[8:]}": t for k, t in state.items() if k.startswith("model.0.")}
        twice = encoder | {"ins.weight": state[f"{msgnet.COMATCH}.weight"]}
        return {msgnet.FILE: torch_bytes(state | twice)}

    @torch.no_grad()
    def samples(self, count: int = 4) -> NDArray[np.uint8]:
        """A sheet of ``count`` photographs (first column), each in up to ``count`` styles (first row).

        The paintings are shown at the middle of their sizes.
        """
        random, side = np.random.default_rng(self.settings.seed), 2 * self.settings.size
        x = self.photographs.pictures.some(count, side, random).to(self.settings.device)
        middle = len(self.paintings.sizes) // 2
        styles = [self.paintings.show(middle, i) for i in range(min(count, len(self.paintings)))]
        columns = [torch.cat([torch.ones_like(x[:1]), x])]
        for y in styles:
            painted, _ = paint(x, self.training.leaves, describe(y, self.training.leaves))
            columns.append(torch.cat([square(y, side), painted]))
        return sheet([[column[i] for column in columns] for i in range(count + 1)])


def square(y: Tensor, side: int) -> Tensor:
    """The middle square of a picture (1, 3, h, w), resized to ``side`` pixels."""
    short = min(y.shape[2:])
    top, left = ((n - short) // 2 for n in y.shape[2:])
    return F.interpolate(y[:, :, top : top + short, left : left + short], (side, side), mode="bilinear")


def start(settings: Settings) -> Training:
    """The training at the first step.

    Raises
    ------
    MissingFile : the file ``init`` does not exist.
    """
    path = Path(settings.init)
    if settings.init and not path.is_file():
        raise MissingFile(f"there are no weights {path} to start from")
    state = weights.load(path) if settings.init else msgnet.seeded(settings.seed, settings.width)[msgnet.FILE]
    msgnet.check(state, msgnet.FILE, path if settings.init else Path(f"--width {settings.width}"))
    leaves = trainable({k: t.float() for k, t in msgnet.needed(state).items()}, settings.device)
    return Training(leaves, [torch.optim.Adam(leaves.values(), settings.rate)], settings.seed)


def check_sizes(settings: Settings) -> None:
    """Raise BadInput for sizes that the network cannot take, or whose results would have another size."""
    if settings.size % msgnet.STRIDE or settings.size < 2 * msgnet.MINIMUM:
        least = 2 * msgnet.MINIMUM
        raise BadInput(f"--size must be a multiple of {msgnet.STRIDE}, at least {least}, got {settings.size}")
    if not settings.style_sizes or min(settings.style_sizes) < 2 * msgnet.MINIMUM:
        raise BadInput(
            f"--style-sizes must be at least {2 * msgnet.MINIMUM}, got {list(settings.style_sizes)}"
        )


def begin(settings: Settings) -> MSGNet:
    """The recipe at the first step."""
    check_sizes(settings)
    look, held_out = looks.look(settings), patterns_of(settings.held_out)
    files = files_of(settings.style, held_out)
    files = files[: settings.styles or len(files)]
    paintings = Paintings([Pictures(files, side) for side in settings.style_sizes], settings.device, look)
    short_side = max(2, settings.stroke_factor) * settings.size
    pictures = Pictures(files_of(settings.content, held_out), short_side)
    photographs = Crops(pictures, settings.batch, settings.size, settings.device)
    return MSGNet(settings, look, paintings, photographs, start(settings))


PROGRAM = Program(
    "train_msgnet", "Train MSG-Net.", Settings, begin, ("style", "content", "stroke", "variation")
)

if __name__ == "__main__":
    sys.exit(PROGRAM.main())
