"""Train LinearWCT, in three parts: a decoder, the networks that predict the matrix, and larger strokes.

    python pipelines/train_linear.py --part decoder --encoder VGG19 --content PHOTOS --style PAINTINGS --out A
    python pipelines/train_linear.py --part matrix --init A --content PHOTOS --style PAINTINGS --out B
    python pipelines/train_linear.py --part strokes --init B --content PHOTOS --style PAINTINGS --out C

``--out`` takes the checkpoint, the losses (``losses.csv``), a sheet of pictures (``samples.png``) and the
family's files so far (``vgg_r31.pth``, ``dec_r31.pth``, ``r31.pth``): a later part begins with those of an
earlier one, or with the published ones. After the second, ``urst-tiles weights add linear-r31 B/*r31.pth``
makes them the weights of ``--model linear-r31``. The same command again goes on where the last one stopped.

The encoder is VGG-19 normalised to a mean activation of 1 on each channel [3]: a file of the family's or of
AdaIN's, or torchvision's or the original's, which is rescaled over crops of the photographs.

What is minimised, per picture:

- decoder: the squared distance of a picture and its reconstruction, and of their features [2, section 3.1].
- matrix: content and style of the stylised picture [1], encoder and decoder fixed; and, where
  ``stroke_weight`` is not 0, the stroke perceptual loss [4, section 3.4].
- strokes: the same, but the decoder learns and all else is fixed, as in the program of [4].

For the strokes a photograph's thumbnail and a patch of the photograph are both stylised with the thumbnail's
mean and matrix, through which gradients flow; the stylised thumbnail that the patch is compared with takes
none.

References
----------
1. X. Li, S. Liu, J. Kautz, M.-H. Yang, "Learning Linear Transformations for Fast Image and Video Style
   Transfer", CVPR 2019. The style loss of their program (github.com/sunshineatnoon/LinearStyleTransfer) sums
   the squared distances of means and of Gram matrices.
2. Y. Li et al., "Universal Style Transfer via Feature Transforms", NIPS 2017: the decoder.
3. L. Gatys, A. Ecker, M. Bethge, "Texture Synthesis Using Convolutional Neural Networks", NIPS 2015.
4. Z. Chen et al., "Towards Ultra-Resolution Neural Style Transfer via Thumbnail Instance Normalization", AAAI
   2022.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from training import loop
from training.checkpoint import State, Training, torch_bytes, trainable
from training.command import Program
from training.encoders import normalised
from training.features import weighted
from training.perceptual import By, Features, Look, look
from training.pictures import Crops, Pictures, files_of, patterns_of, random_window, sheet
from training.states import as_file, tensors_of

from urst_tiles import losses, weights
from urst_tiles.errors import BadInput, MissingFile
from urst_tiles.losses import vgg
from urst_tiles.nets import linear
from urst_tiles.nets.base import Precision

Layer = Literal["r31", "r41"]
Part = Literal["decoder", "matrix", "strokes"]
#: What learns in each part.
LEARNS = {"decoder": "decoder", "matrix": "matrix", "strokes": "decoder"}
#: Convolution of VGG-19 that the encoder ends with.
LAST = {"r31": "3_1", "r41": "4_1"}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What can be set; lengths in pixels. Left out, it is as in [1] and [4]."""

    content: Path
    style: Path
    out: Path
    part: Part
    layer: Layer = "r31"
    #: VGG-19, where ``init`` has none: .raw, torchvision's, AdaIN's normalised, or of the family.
    encoder: Path = Path()
    #: A folder with the family's files to begin with, as many as there are.
    init: str = ""
    #: A file of patterns of file names, one a line, that are not trained on.
    held_out: str = ""
    steps: int = 100_000
    batch: int = 8
    size: int = 256
    #: Of Adam; divided by 1 + ``decay`` times the step. The programs of [1] and [4] have a decay of 1e-5.
    rate: float = 1e-4
    decay: float = 5e-5
    clip: float = 0.0
    content_weight: float = 1.0
    style_weight: float = 0.02
    #: 1 in [4]; 0, with the part "matrix", is the training of [1].
    stroke_weight: float = 1.0
    variation_weight: float = 0.0
    #: Of the reconstruction and of its features, in the part "decoder" [2].
    pixel_weight: float = 1.0
    feature_weight: float = 1.0
    backbone: str = "vgg19-normalised"
    backbone_files: tuple[Path, ...] = ()
    style_by: By = "gram"
    style_layers: tuple[str, ...] = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
    content_layer: str = "relu4_1"
    stroke_layers: tuple[str, ...] = ()
    stroke_factor: int = 2
    smoothing: losses.Smoothing = "none"
    #: Photographs over which an encoder is rescaled.
    activation_pictures: int = 256
    #: Of the backbone; what learns is float32.
    precision: Precision = "float32"
    device: str = "cpu"
    threads: int = 0
    seed: int = 0
    save_every: int = 500
    sample_every: int = 2000


# What a training begins with


def load_parts(settings: Settings) -> dict[str, State]:
    """The family's files that are in ``--init``, by part; MissingFile where that is no folder."""
    found: dict[str, State] = {}
    if settings.init and not Path(settings.init).is_dir():
        raise MissingFile(f"there is no folder {settings.init} to begin with")
    for part, file in linear.files(settings.layer).items():
        path = Path(settings.init) / file
        if settings.init and path.is_file():
            found[part] = weights.load(path)
            linear.check(settings.layer, found[part], file, path)
    return found


def read_encoder(settings: Settings, photographs: Crops) -> State:
    """The family's encoder from its own file, or from VGG-19 in any layout; conv1 prepares the colours."""
    if settings.encoder == Path():
        raise BadInput("give --encoder a file of VGG-19, or --init a folder with the family's files")
    if settings.encoder.suffix != ".raw" and "conv1.weight" in (state := tensors_of(settings.encoder)):
        file = linear.files(settings.layer)["encoder"]
        linear.check(settings.layer, state, file, settings.encoder)
        return state
    last = LAST[settings.layer]
    found = as_file(normalised(settings, photographs.pictures, last).weights)
    names = ["0", *(name for name, _, _ in vgg.convolutions(last))]
    pairs = [(k, name, part) for k, name in enumerate(names, 1) for part in ("weight", "bias")]
    return {f"conv{k}.{part}": found[f"conv{name}.{part}"] for k, name, part in pairs}


def fresh(part: str, shapes: Mapping[str, tuple[int, ...]], seed: int) -> State:
    """Random weights of a part.

    The matrix networks start as PyTorch's layers do, uniform up to 1 over the root of a layer's inputs: their
    first matrices nearly vanish, and the pictures are flat. They multiply each other and the features: with a
    variance of 2 over the inputs, which the decoder has, the first losses have 13 digits.
    """
    random, state = torch.Generator().manual_seed(seed), {}
    for key, shape in shapes.items():
        root = np.prod(shapes[key.replace(".bias", ".weight")][1:]) ** 0.5
        if part == "matrix":
            state[key] = (2 * torch.rand(shape, generator=random) - 1) / root
        else:
            spread = 2**0.5 / root if key.endswith(".weight") else 0.0
            state[key] = torch.randn(shape, generator=random) * spread
    return dimmed(state) if part == "decoder" else state


def dimmed(decoder: State) -> State:
    """Fresh weights so that the first pictures are nearly grey: contrasts of several times those of a picture
    take hundreds of steps to go. The last layer alone has three outputs."""
    weak = {k: 0.1 * t if k.endswith(".weight") else t + 0.5 for k, t in decoder.items() if len(t) == 3}
    return decoder | weak


def gather(settings: Settings, photographs: Crops) -> dict[str, State]:
    """The family's tensors by part, what this part is the first to train drawn at random.

    Raises
    ------
    MissingFile : what an earlier part trains is not there.
    """
    parts, names = load_parts(settings), linear.files(settings.layer)
    if "encoder" not in parts:
        parts["encoder"] = read_encoder(settings, photographs)
    width = linear.channels(settings.layer, parts["encoder"], names["encoder"])
    shapes = linear.shapes(settings.layer, width / linear.WIDTHS[settings.layer][-1])
    needed = {"decoder": ["decoder"], "matrix": ["decoder", "matrix"], "strokes": ["decoder", "matrix"]}
    for part in needed[settings.part]:
        if part not in parts and part != settings.part:
            raise MissingFile(
                f"--part {settings.part} needs {names[part]} in --init: train --part {part} first"
            )
        parts[part] = parts.get(part) or fresh(part, shapes[names[part]], settings.seed)
    linear.check_widths(settings.layer, {names[part]: state for part, state in parts.items()})
    return parts


# The network in training: as `linear.LinearStyle`, with statistics that gradients flow through.

#: Mean (n, C) and predicted matrix (n, 32, 32), as `linear.describe` gives them.
Described = tuple[Tensor, Tensor]


def paint(
    x: Tensor, state: State, layer: Layer, style: Described, content: Described | None = None
) -> tuple[Tensor, Described]:
    """The stylised pictures of ``x``, and what of them they were painted with: ``content``, of a thumbnail
    say, or their own."""
    with torch.no_grad():
        f = linear.encode(x, state, layer)
    used = content or linear.describe(f, state, "cnet")
    z = linear.conv(f - used[0].to(f)[:, :, None, None], state, "matrix.compress")
    z = ((style[1] @ used[1]).to(z) @ z.flatten(2)).view_as(z)
    z = linear.conv(z, state, "matrix.unzip") + style[0].to(z)[:, :, None, None]
    return linear.decode(z, state, layer), used


def describe(y: Tensor, state: State, layer: Layer) -> Described:
    """Mean and matrix of style pictures."""
    with torch.no_grad():
        f = linear.encode(y, state, layer)
    return linear.describe(f, state, "snet")


def style_sums(look: Look, features: Features, wanted: Features) -> Tensor:
    """(n, layers): squared distances of means and Gram matrices (or, by moments, of means and deviations),
    summed over the channels as [1] has it, not averaged."""
    layers = look.style_loss(features, look.style(wanted))
    channels = layers.new_tensor([features[k].shape[1] for k in look.style_layers])
    if look.by == "moments":
        return channels * layers
    means = [
        (losses.mean_std(features[k])[0] - losses.mean_std(wanted[k])[0]).square().sum(1)
        for k in look.style_layers
    ]
    return channels.square() * layers + torch.stack(means, 1)


# The recipes


@dataclass
class Network:
    """All weights, keys as in the family: "encoder.*", "decoder.*" and, once there, "matrix.*"."""

    layer: Layer
    fixed: State
    #: What learns.
    leaves: State

    @property
    def state(self) -> State:
        """Both together."""
        return {**self.fixed, **self.leaves}

    def files(self) -> dict[str, bytes]:
        """The family's files, as many as there are."""
        found = {}
        for part, file in linear.files(self.layer).items():
            own = {k: t for k, t in self.state.items() if k.startswith(f"{part}.")}
            if own:
                tensors = {k.removeprefix(f"{part}."): t.detach().cpu() for k, t in own.items()}
                found[file] = torch_bytes(tensors)
        return found


@dataclass
class Decoder:
    """The decoder learns to give back what the encoder saw."""

    settings: Settings
    network: Network
    training: Training
    photographs: Crops
    paintings: Crops

    def objective(self) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a new batch, photographs and paintings in turn, and its parts."""
        settings, state = self.settings, self.network.state
        x = (self.photographs, self.paintings)[self.training.step % 2].draw(self.training.random)
        with torch.no_grad():
            wanted = linear.encode(x, state, settings.layer)
        y = linear.decode(wanted, state, settings.layer)
        found = linear.encode(y, state, settings.layer)
        pixel, feature = losses.content_loss(y, x).mean(), losses.content_loss(found, wanted).mean()
        total = settings.pixel_weight * pixel + settings.feature_weight * feature
        return total, {"pixel": pixel, "feature": feature}

    def share_of_rate(self, step: int) -> float:
        """Of the rate."""
        return loop.inverse_decay(step, self.settings.decay)

    def export(self) -> dict[str, bytes]:
        """The family's files so far."""
        return self.network.files()

    @torch.no_grad()
    def samples(self, count: int = 4) -> NDArray[np.uint8]:
        """Photographs and paintings, each above its reconstruction."""
        random, state, layer = (
            np.random.default_rng(self.settings.seed),
            self.network.state,
            self.network.layer,
        )
        rows = []
        for crops in (self.photographs, self.paintings):
            x = some(crops, count, random)
            rows += [list(x), list(linear.decode(linear.encode(x, state, layer), state, layer))]
        return sheet(rows)


@dataclass
class Transfer:
    """The matrix networks, or the decoder, learn to stylise."""

    settings: Settings
    network: Network
    training: Training
    photographs: Crops
    paintings: Crops
    look: Look

    def objective(self) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a new batch, and its parts, unweighted."""
        settings, layer, random = self.settings, self.network.layer, self.training.random
        x, large = self.contents(random)
        y, state = self.paintings.draw(random), self.network.state
        style = describe(y, state, layer)
        out, used = paint(x, state, layer, style)
        parts = self.compared(x, y, out)
        if large is not None:
            patch, at = random_window(large, settings.size, linear.STRIDE[layer], random)
            patch, _ = paint(patch, state, layer, style, used)
            parts["stroke"] = self.look.stroke_loss(patch, out, at).mean()
        return weighted(parts, {name: getattr(settings, f"{name}_weight") for name in parts}), parts

    def contents(self, random: np.random.Generator) -> tuple[Tensor, Tensor | None]:
        """A batch of photographs, and, where strokes are compared, the same at full size."""
        if self.settings.stroke_weight:
            return self.photographs.draw_large(random, self.settings.stroke_factor)
        return self.photographs.draw(random), None

    def compared(self, x: Tensor, y: Tensor, out: Tensor) -> dict[str, Tensor]:
        """Style, content and variation of a stylised batch."""
        features = self.look.features(out)
        with torch.no_grad():
            wanted = self.look.features(y)
        return {
            "style": style_sums(self.look, features, wanted).sum(1).mean(),
            "content": self.look.content_loss(features, self.look.content(x)).mean(),
            "variation": losses.total_variation(out).mean(),
        }

    def share_of_rate(self, step: int) -> float:
        """Of the rate."""
        return loop.inverse_decay(step, self.settings.decay)

    def export(self) -> dict[str, bytes]:
        """The family's three files."""
        return self.network.files()

    @torch.no_grad()
    def samples(self, count: int = 4) -> NDArray[np.uint8]:
        """``count`` photographs, each in ``count`` styles; first row and column are what went in."""
        random, state, layer = (
            np.random.default_rng(self.settings.seed),
            self.network.state,
            self.network.layer,
        )
        x, y = (some(crops, count, random) for crops in (self.photographs, self.paintings))
        style = describe(y, state, layer)
        rows = [[torch.ones_like(y[0]), *y]]
        for one in x:
            rows.append([one, *paint(one.expand(count, -1, -1, -1), state, layer, style)[0]])
        return sheet(rows)


def some(crops: Crops, count: int, random: np.random.Generator) -> Tensor:
    """Pictures for a sheet, twice as large as those that are learnt from."""
    return crops.pictures.some(count, 2 * crops.size, random).to(crops.device)


def check_sizes(settings: Settings) -> None:
    """BadInput for a size that the decoder would not give back."""
    stride, least = linear.STRIDE[settings.layer], linear.MINIMUM[settings.layer]
    if settings.size % stride or settings.size < least:
        raise BadInput(f"--size must be a multiple of {stride}, at least {least}, got {settings.size}")


def crops_of(settings: Settings) -> Iterator[Crops]:
    """Of photographs, then of paintings."""
    held_out, short_side = patterns_of(settings.held_out), max(2, settings.stroke_factor) * settings.size
    for folder in (settings.content, settings.style):
        pictures = Pictures(files_of(folder, held_out), short_side)
        yield Crops(pictures, settings.batch, settings.size, settings.device)


def begin(settings: Settings) -> Decoder | Transfer:
    """The recipe of a part at its first step."""
    check_sizes(settings)
    photographs, paintings = crops_of(settings)
    parts = gather(settings, photographs)
    state = {f"{part}.{k}": t.float() for part, tensors in parts.items() for k, t in tensors.items()}
    learns = f"{LEARNS[settings.part]}."
    leaves = trainable({k: t for k, t in state.items() if k.startswith(learns)}, settings.device)
    fixed = {k: t.to(settings.device) for k, t in state.items() if k not in leaves}
    network = Network(settings.layer, fixed, leaves)
    training = Training(leaves, [torch.optim.Adam(leaves.values(), settings.rate)], settings.seed)
    if settings.part == "decoder":
        return Decoder(settings, network, training, photographs, paintings)
    return Transfer(settings, network, training, photographs, paintings, look(settings))


PROGRAM = Program(
    "train_linear",
    "Train LinearWCT.",
    Settings,
    begin,
    ("style", "content", "stroke", "variation", "pixel", "feature"),
)

if __name__ == "__main__":
    sys.exit(PROGRAM.main())
