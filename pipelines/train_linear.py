"""Train LinearWCT, in three parts: a decoder, the networks that predict the matrix, and larger strokes.

    python pipelines/train_linear.py --part decoder --encoder VGG19 --content PHOTOS --style PAINTINGS --out A
    python pipelines/train_linear.py --part matrix --init A --content PHOTOS --style PAINTINGS --out B
    python pipelines/train_linear.py --part strokes --init B --content PHOTOS --style PAINTINGS --out C

The folder ``--out`` receives the checkpoint, the losses (``losses.csv``), a sheet of pictures
(``samples.png``) and the files of the family that exist so far (``vgg_r31.pth``, ``dec_r31.pth``,
``r31.pth``). A later part begins with the files of an earlier part, or with the published files. After the
second part, ``urst-tiles weights add linear-r31 B/*r31.pth`` makes them the weights of ``--model
linear-r31``. The same command, given again, continues where the last call stopped.

The encoder is VGG-19, normalised to a mean activation of 1 on each channel [3]. It is a file of this family
or of AdaIN; or a file of torchvision or of the original VGG-19, which is rescaled over crops of the
photographs.

Each part minimises, for each picture:

- decoder: the squared distance between a picture and its reconstruction, and between their features [2,
  section 3.1].
- matrix: content and style losses of the stylised picture [1], with encoder and decoder fixed; and, unless
  ``stroke_weight`` is 0, the stroke perceptual loss [4, section 3.4].
- strokes: the same losses, but the decoder learns and all else is fixed, as in the program of [4].

For the strokes, the thumbnail of a photograph and a patch of the photograph are both stylised with the mean
and the matrix of the thumbnail, through which gradients flow. No gradient flows through the stylised
thumbnail with which the patch is compared.

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
from training.command import Program
from training.encoders import normalised
from training.perceptual import By, Features, Look, look
from training.pictures import Crops, Pictures, patterns_of, random_window, sheet
from training.states import as_file, tensors_of

from urst_tiles import losses, weights
from urst_tiles.errors import BadInput, MissingFile
from urst_tiles.learning.checkpoint import State, Training, torch_bytes, trainable
from urst_tiles.learning.crops import files_of
from urst_tiles.learning.features import weighted
from urst_tiles.losses import vgg
from urst_tiles.nets import linear
from urst_tiles.nets.base import Precision

Layer = Literal["r31", "r41"]
Part = Literal["decoder", "matrix", "strokes"]
#: The network that learns in each part of the training.
LEARNS = {"decoder": "decoder", "matrix": "matrix", "strokes": "decoder"}
#: The last convolution of VGG-19 in the encoder.
LAST = {"r31": "3_1", "r41": "4_1"}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings; lengths are in pixels. The defaults are those of [1] and [4]."""

    content: Path
    style: Path
    out: Path
    part: Part
    layer: Layer = "r31"
    #: A file of VGG-19, if ``init`` has no encoder: raw float32, torchvision's, AdaIN's, or of this family.
    encoder: Path = Path()
    #: A folder with those files of the family with which the training begins.
    init: str = ""
    #: A file of patterns, one on each line; files whose names match a pattern are not trained on.
    held_out: str = ""
    steps: int = 100_000
    batch: int = 8
    size: int = 256
    #: Learning rate of Adam, divided by 1 + ``decay`` times the step; ``decay`` is 1e-5 in the programs of
    #: [1] and [4].
    rate: float = 1e-4
    decay: float = 5e-5
    clip: float = 0.0
    content_weight: float = 1.0
    style_weight: float = 0.02
    #: It is 1 in [4]. With 0, the part "matrix" is the training of [1].
    stroke_weight: float = 1.0
    variation_weight: float = 0.0
    #: Weights of the losses of pixels and of features, in the part "decoder" [2].
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
    #: Precision of the backbone; the weights that learn are float32.
    precision: Precision = "float32"
    device: str = "cpu"
    threads: int = 0
    seed: int = 0
    save_every: int = 500
    sample_every: int = 2000


# The weights with which a training begins


def load_parts(settings: Settings) -> dict[str, State]:
    """The weights in the folder ``--init``, by part, as far as it has them.

    Raises
    ------
    MissingFile : the folder does not exist.
    """
    parts: dict[str, State] = {}
    if settings.init and not Path(settings.init).is_dir():
        raise MissingFile(f"there is no folder {settings.init} to begin with")
    for part, file in linear.files(settings.layer).items():
        path = Path(settings.init) / file
        if settings.init and path.is_file():
            parts[part] = weights.load(path)
            linear.check(settings.layer, parts[part], file, path)
    return parts


def read_encoder(settings: Settings, photographs: Crops) -> State:
    """The encoder, from a file of the family, or from VGG-19 in any layout; conv1 prepares the colours.

    Raises
    ------
    BadInput : the settings name no encoder.
    """
    if settings.encoder == Path():
        raise BadInput("give --encoder a file of VGG-19, or --init a folder with the family's files")
    if settings.encoder.suffix != ".raw" and "conv1.weight" in (state := tensors_of(settings.encoder)):
        file = linear.files(settings.layer)["encoder"]
        linear.check(settings.layer, state, file, settings.encoder)
        return state
    last = LAST[settings.layer]
    encoder = as_file(normalised(settings, photographs.pictures, last).weights)
    names = ["0", *(name for name, _, _ in vgg.convolutions(last))]
    pairs = [(k, name, part) for k, name in enumerate(names, 1) for part in ("weight", "bias")]
    return {f"conv{k}.{part}": encoder[f"conv{name}.{part}"] for k, name, part in pairs}


def fresh(part: str, shapes: Mapping[str, tuple[int, ...]], seed: int) -> State:
    """Random weights for a part.

    The matrix networks start as the layers of PyTorch do, uniform up to 1 over the root of the number of
    inputs of a layer, so that their first matrices nearly vanish and the pictures are flat. The decoder
    starts with a variance of 2 over the number of inputs. This would be too much for the matrix networks,
    which multiply each other and the features: the first losses would have 13 digits.
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
    """The decoder with a weaker last layer, so that the first pictures are nearly grey.

    Otherwise their contrasts are several times those of a picture, which takes hundreds of steps to unlearn.
    """
    # Only the last layer has three outputs.
    weak = {k: 0.1 * t if k.endswith(".weight") else t + 0.5 for k, t in decoder.items() if len(t) == 3}
    return decoder | weak


def gather(settings: Settings, photographs: Crops) -> dict[str, State]:
    """The weights by part; those that the present part is the first to train are random.

    Raises
    ------
    MissingFile : the weights that an earlier part trains are missing.
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

#: Mean (n, C) and predicted matrix (n, 32, 32) of pictures, as `linear.describe` returns them.
Described = tuple[Tensor, Tensor]


def paint(
    x: Tensor, state: State, layer: Layer, style: Described, content: Described | None = None
) -> tuple[Tensor, Described]:
    """The stylised pictures of ``x``, and the mean and matrix with which they are painted.

    These are ``content``, for example those of a thumbnail, or else those of ``x``.
    """
    with torch.no_grad():
        f = linear.encode(x, state, layer)
    used = content or linear.describe(f, state, "cnet")
    z = linear.conv(f - used[0].to(f)[:, :, None, None], state, "matrix.compress")
    z = ((style[1] @ used[1]).to(z) @ z.flatten(2)).view_as(z)
    z = linear.conv(z, state, "matrix.unzip") + style[0].to(z)[:, :, None, None]
    return linear.decode(z, state, layer), used


def describe(y: Tensor, state: State, layer: Layer) -> Described:
    """The mean and the predicted matrix of style pictures."""
    with torch.no_grad():
        f = linear.encode(y, state, layer)
    return linear.describe(f, state, "snet")


def style_sums(look: Look, features: Features, wanted: Features) -> Tensor:
    """The style losses, (n, layers): the squared distances of means and of Gram matrices.

    If the look compares moments, they are the distances of means and of deviations. They are summed over the
    channels as in [1], not averaged.
    """
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
    """All weights, with the keys "encoder.*", "decoder.*" and, if these exist yet, "matrix.*".

    Attributes
    ----------
    fixed, leaves : the weights that do not learn, and those that learn.
    """

    layer: Layer
    fixed: State
    leaves: State

    @property
    def state(self) -> State:
        """All weights together."""
        return {**self.fixed, **self.leaves}

    def files(self) -> dict[str, bytes]:
        """The content of the files of the family that exist yet, by name."""
        contents = {}
        for part, file in linear.files(self.layer).items():
            of_part = {k: t for k, t in self.state.items() if k.startswith(f"{part}.")}
            if of_part:
                tensors = {k.removeprefix(f"{part}."): t.detach().cpu() for k, t in of_part.items()}
                contents[file] = torch_bytes(tensors)
        return contents


@dataclass
class Decoder:
    """The recipe in which the decoder learns to reconstruct pictures from their features."""

    settings: Settings
    network: Network
    training: Training
    photographs: Crops
    paintings: Crops

    def objective(self) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a new batch, of photographs and paintings in turn, and its unweighted parts."""
        settings, state = self.settings, self.network.state
        x = (self.photographs, self.paintings)[self.training.step % 2].draw(self.training.random)
        with torch.no_grad():
            wanted = linear.encode(x, state, settings.layer)
        y = linear.decode(wanted, state, settings.layer)
        features = linear.encode(y, state, settings.layer)
        pixel, feature = losses.content_loss(y, x).mean(), losses.content_loss(features, wanted).mean()
        total = settings.pixel_weight * pixel + settings.feature_weight * feature
        return total, {"pixel": pixel, "feature": feature}

    def share_of_rate(self, step: int) -> float:
        return loop.inverse_decay(step, self.settings.decay)

    def export(self) -> dict[str, bytes]:
        return self.network.files()

    @torch.no_grad()
    def samples(self, count: int = 4) -> NDArray[np.uint8]:
        """A sheet of ``count`` photographs and ``count`` paintings, each above its reconstruction."""
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
    """The recipe in which the matrix networks, or the decoder, learn to stylise."""

    settings: Settings
    network: Network
    training: Training
    photographs: Crops
    paintings: Crops
    look: Look

    def objective(self) -> tuple[Tensor, dict[str, Tensor]]:
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
        """A batch of photographs; and for strokes the same at ``stroke_factor`` times the size, else None."""
        if self.settings.stroke_weight:
            return self.photographs.draw_large(random, self.settings.stroke_factor)
        return self.photographs.draw(random), None

    def compared(self, x: Tensor, y: Tensor, out: Tensor) -> dict[str, Tensor]:
        """The style, content and variation losses of ``out``, the photographs ``x`` in the styles of
        ``y``."""
        features = self.look.features(out)
        with torch.no_grad():
            wanted = self.look.features(y)
        return {
            "style": style_sums(self.look, features, wanted).sum(1).mean(),
            "content": self.look.content_loss(features, self.look.content(x)).mean(),
            "variation": losses.total_variation(out).mean(),
        }

    def share_of_rate(self, step: int) -> float:
        return loop.inverse_decay(step, self.settings.decay)

    def export(self) -> dict[str, bytes]:
        return self.network.files()

    @torch.no_grad()
    def samples(self, count: int = 4) -> NDArray[np.uint8]:
        """A sheet of ``count`` photographs (first column), each in the styles of ``count`` paintings (first
        row)."""
        random, state, layer = (
            np.random.default_rng(self.settings.seed),
            self.network.state,
            self.network.layer,
        )
        x, y = (some(crops, count, random) for crops in (self.photographs, self.paintings))
        style = describe(y, state, layer)
        rows = [[torch.ones_like(y[0]), *y]]
        for photograph in x:
            rows.append([photograph, *paint(photograph.expand(count, -1, -1, -1), state, layer, style)[0]])
        return sheet(rows)


def some(crops: Crops, count: int, random: np.random.Generator) -> Tensor:
    """``count`` pictures for a sheet of samples, twice as large as those of the training."""
    return crops.pictures.some(count, 2 * crops.size, random).to(crops.device)


def check_sizes(settings: Settings) -> None:
    """Raise BadInput for a size at which the decoder would return pictures of another size."""
    stride, least = linear.STRIDE[settings.layer], linear.MINIMUM[settings.layer]
    if settings.size % stride or settings.size < least:
        raise BadInput(f"--size must be a multiple of {stride}, at least {least}, got {settings.size}")


def crops_of(settings: Settings) -> Iterator[Crops]:
    """Yield the crops of the photographs, then those of the paintings."""
    held_out, short_side = patterns_of(settings.held_out), max(2, settings.stroke_factor) * settings.size
    for folder in (settings.content, settings.style):
        pictures = Pictures(files_of(folder, held_out), short_side)
        yield Crops(pictures, settings.batch, settings.size, settings.device)


def begin(settings: Settings) -> Decoder | Transfer:
    """The recipe of the part that the settings name, at the first step."""
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
