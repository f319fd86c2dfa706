"""Train a decoder of WCT on a fixed encoder, for one of the levels 5 to 1, plain or for larger strokes.

    python pipelines/train_wct.py --settings pipelines/train_wct.toml --level 4 --content PHOTOS \
        --encoder vgg19-dcbb9e9d.pth --out runs/wct

``--encoder`` takes the files that ``train_adain.py`` takes: any VGG-19 that goes up to relu{level}_1, for
level 4 also the published ``vgg_normalised_conv4_1.pth`` or the small ``4SE.pth`` [2]. The folder ``--out``
receives the checkpoint, the losses (``losses.csv``), a sheet of sample pictures (``samples.png``), and both
files of the level, ``feature_invertor_conv4_1.pth`` and ``vgg_normalised_conv4_1.pth``. The files of five
levels, which may differ in width, make the weights of ``--model wct`` (``urst-tiles weights add wct FILES``).
The same command, given again, continues where the last call stopped.

The program minimises ||y - x||^2 + lambda ||f(y) - f(x)||^2, of pixels and of features at relu{level}_1,
where y are the decoded features of the photograph x [1, equation 1]. Here both are means, not sums, so that
they do not depend on the size. This needs no styles. With ``stroke_weight`` it also minimises the stroke
perceptual loss [3, section 3.4], and with ``style_weight`` a style loss. For these the features of a
thumbnail and of a patch at full size are whitened with the statistics of the thumbnail, coloured with those
of a painting, and decoded. The statistics come from the fixed encoder: no gradient flows through them.

References
----------
1. Y. Li et al., "Universal Style Transfer via Feature Transforms", NIPS 2017.
2. H. Wang et al., "Collaborative Distillation for Ultra-Resolution Universal Style Transfer", CVPR 2020.
3. Z. Chen et al., "Towards Ultra-Resolution Neural Style Transfer via Thumbnail Instance Normalization",
   AAAI 2022.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from training import loop
from training.command import Program
from training.encoders import normalised, own_look
from training.perceptual import By, Look, look
from training.pictures import Crops, Pictures, patterns_of, random_window, sheet
from training.states import as_file, tensors_of, uniform

from urst_tiles import losses, nets, weights
from urst_tiles.errors import BadInput
from urst_tiles.learning.checkpoint import State, Training, torch_bytes, trainable
from urst_tiles.learning.crops import files_of
from urst_tiles.learning.features import Lowered, lowered, weighted
from urst_tiles.losses import vgg
from urst_tiles.losses.backbones import VGG
from urst_tiles.moments import Moments
from urst_tiles.nets import wct
from urst_tiles.nets.base import DTYPES, Affine, Precision

MODEL = "wct"
PARTS = ("pixel", "feature", "style", "stroke", "variation")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings; lengths are in pixels.

    The weights of pixels and features are those of [1], which trains on MS-COCO. [1] gives no rate, batch or
    number of steps; the defaults here follow those of AdaIN.
    """

    content: Path
    encoder: Path
    out: Path
    #: The level, 1 to 5; the last layer of the encoder is relu{level}_1.
    level: int = 5
    #: A folder of paintings, if strokes or styles are trained.
    style: str = ""
    #: A decoder to start from, ``feature_invertor_conv{level}_1.pth`` or ``{level}SD.pth``; empty for random
    #: weights.
    init: str = ""
    #: A file of patterns, one on each line; files whose names match a pattern are not trained on.
    held_out: str = ""
    steps: int = 100_000
    batch: int = 8
    #: Side of the crops; they come from photographs and paintings whose short side is twice as long.
    size: int = 256
    #: Learning rate of Adam, divided by 1 + ``decay`` times the step.
    rate: float = 1e-4
    decay: float = 5e-5
    #: Steps at the beginning and at the end over which the rate rises from and falls to 0.
    warmup: int = 0
    cooldown: int = 0
    #: Share of the running average, which is written, that stays in each step; 0: it equals the weights.
    average: float = 0.0
    clip: float = 0.0
    pixel_weight: float = 1.0
    feature_weight: float = 1.0
    style_weight: float = 0.0
    stroke_weight: float = 0.0
    variation_weight: float = 0.0
    #: The network of the feature, style and stroke losses; empty for the encoder.
    backbone: str = ""
    backbone_files: tuple[Path, ...] = ()
    style_by: By = "moments"
    style_layers: tuple[str, ...] = ()
    content_layer: str = ""
    stroke_layers: tuple[str, ...] = ()
    stroke_factor: int = 2
    smoothing: losses.Smoothing = "none"
    #: Photographs over which an encoder is rescaled.
    activation_pictures: int = 256
    precision: Precision = "float32"
    device: str = "cpu"
    threads: int = 0
    seed: int = 0
    save_every: int = 1000
    sample_every: int = 1000

    @property
    def site(self) -> str:
        """The name of the last layer of the encoder."""
        return f"relu{self.level}_1"

    @property
    def stylises(self) -> bool:
        """Whether the losses need paintings."""
        return self.stroke_weight > 0 or self.style_weight > 0


# The network in training


def transfers(content: Tensor, style: Tensor) -> list[Affine]:
    """The map of WCT for each picture: whitening with ``content``, and colouring with ``style``.

    Both are features, (n, C, h, w).
    """
    maps = []
    for of_content, of_style in zip(content, style, strict=True):
        f, s = (Moments.of(t.float().flatten(1).cpu().numpy(), full=True) for t in (of_content, of_style))
        maps.append(wct.transfer(f, s.mean, s.covariance(wct.DDOF)))
    return maps


def mapped(f: Tensor, maps: Sequence[Affine]) -> Tensor:
    """The features ``f`` of each picture after its map, float32."""
    return torch.cat([affine(features[None].float()) for affine, features in zip(maps, f, strict=True)])


def paint(f: Tensor, decoder: Mapping[str, Tensor], level: int, dtype: torch.dtype) -> Tensor:
    """Run the decoder of the network in ``dtype``: features -> (n, 3, h, w), float32."""
    state = {f"decoder{level}.{k}": t for k, t in decoder.items()}
    return wct.decode(lowered(f, dtype), state, level).float()


# The recipe


@dataclass
class WCT:
    """The recipe, in which Adam trains the decoder of a level."""

    settings: Settings
    encoder: VGG
    look: Look
    photographs: Crops
    paintings: Crops | None
    training: Training

    @property
    def dtype(self) -> torch.dtype:
        """The number type of the computation."""
        return DTYPES[self.settings.precision]

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """The features of pictures at relu{level}_1."""
        return Lowered(self.encoder, self.dtype)(x, (self.settings.site,))[self.settings.site]

    def decode(self, f: Tensor) -> Tensor:
        """Run the decoder in training on features."""
        return paint(f, self.training.leaves, self.settings.level, self.dtype)

    def objective(self) -> tuple[Tensor, dict[str, Tensor]]:
        random, large = self.training.random, None
        if self.settings.stroke_weight:
            x, large = self.photographs.draw_large(random, self.settings.stroke_factor)
        else:
            x = self.photographs.draw(random, (1.0,))
        f = self.encode(x)
        out = self.decode(f)
        layer = (self.look.content_layer,)
        parts = {
            "pixel": F.mse_loss(out, x),
            "feature": self.look.content_loss(self.look.smooth(out, layer), self.look.content(x)).mean(),
            "variation": losses.total_variation(out).mean(),
        }
        if self.paintings is not None:
            parts |= self.stylised(f, large, self.paintings.draw(random, (1.0,)))
        return weighted(parts, {name: getattr(self.settings, f"{name}_weight") for name in PARTS}), parts

    def stylised(self, f: Tensor, large: Tensor | None, y: Tensor) -> dict[str, Tensor]:
        """The style and stroke losses of a batch in the styles of ``y``.

        ``f`` are the features of the thumbnails, and ``large`` the photographs at full size.
        """
        parts = {}
        maps = transfers(f, self.encode(y))
        with torch.set_grad_enabled(self.settings.style_weight > 0):
            thumbnail = self.decode(mapped(f, maps))
        if self.settings.style_weight:
            features = self.look.smooth(thumbnail, self.look.style_layers)
            parts["style"] = self.look.style_loss(features, self.look.target(y)).sum(1).mean()
        if large is not None:
            patch, at = random_window(large, self.settings.size, wct.STRIDE[MODEL], self.training.random)
            patch = self.decode(mapped(self.encode(patch), maps))
            parts["stroke"] = self.look.stroke_loss(patch, thumbnail, at).mean()
        return parts

    def share_of_rate(self, step: int) -> float:
        s = self.settings
        return loop.warm_and_cool(step, s.steps, s.warmup, s.cooldown) * loop.inverse_decay(step, s.decay)

    def export(self) -> dict[str, bytes]:
        """The files of the decoder, and of the encoder that belongs to it."""
        encoder, decoder = wct.FILES[MODEL][self.settings.level]
        return {
            decoder: torch_bytes(as_file(self.training.average)),
            encoder: torch_bytes(as_file(named(self.encoder.weights))),
        }

    @torch.inference_mode()
    def samples(self, count: int = 4) -> NDArray[np.uint8]:
        """A sheet of ``count`` photographs, and below them the pictures decoded from their features.

        With paintings, these and the photographs in their styles follow.
        """
        random, side = np.random.default_rng(self.settings.seed), 2 * self.settings.size
        x = self.photographs.pictures.some(count, side, random).to(self.settings.device)
        f = self.encode(x)
        rows = [x, self.sample(f)]
        if self.paintings is not None:
            y = self.paintings.pictures.some(count, side, random).to(self.settings.device)
            rows += [y, self.sample(mapped(f, transfers(f, self.encode(y))))]
        return sheet([list(row) for row in rows])

    def sample(self, f: Tensor) -> Tensor:
        """Run the decoder with the running average of the weights on features."""
        return paint(f, self.training.average, self.settings.level, self.dtype)


# The start


def named(state: Mapping[str, Tensor]) -> State:
    """The tensors of an encoder under the names of WCT."""
    return {k.replace("_", ""): t for k, t in state.items()}


def first_decoder(settings: Settings, width: float) -> State:
    """The weights of the decoder in ``init``, or else random weights whose pictures are near grey.

    A ReLU follows the last layer, so a colour that starts below 0 everywhere would never learn.

    Raises
    ------
    BadWeights : the decoder is not ``width`` times as wide as the published decoder.
    """
    shapes = wct.shapes(MODEL, width)[wct.FILES[MODEL][settings.level][1]]
    if not settings.init:
        return uniform(shapes, settings.seed) | {"conv11.bias": torch.full((3,), 0.5)}
    state = tensors_of(Path(settings.init))
    weights.check_keys(state, shapes, settings.init)
    return {k: t.float() for k, t in state.items()}


def checked(settings: Settings) -> None:
    """Raise BadInput if the settings do not go together."""
    if settings.level not in wct.LEVELS:
        raise BadInput(f"--level must be 1 to 5, got {settings.level}")
    if settings.size % wct.STRIDE[MODEL] or settings.size < wct.MINIMUM[MODEL]:
        raise BadInput(f"--size must be a multiple of {wct.STRIDE[MODEL]} from {wct.MINIMUM[MODEL]} on")
    if settings.stylises and not settings.style:
        raise BadInput("strokes and styles are learnt from paintings: give --style a folder of them")


def begin(settings: Settings) -> WCT:
    """The recipe at the first step."""
    checked(settings)
    held_out, short_side = patterns_of(settings.held_out), max(2, settings.stroke_factor) * settings.size

    def crops(folder: Path) -> Crops:
        pictures = Pictures(files_of(folder, held_out), short_side)
        return Crops(pictures, settings.batch, settings.size, settings.device)

    photographs = crops(settings.content)
    encoder = normalised(settings, photographs.pictures, settings.site.removeprefix("relu"))
    file = wct.FILES[MODEL][settings.level][0]
    nets.MODELS[MODEL].check(named(encoder.weights), file, settings.encoder)
    start = first_decoder(settings, wct.width_of(MODEL, named(encoder.weights), file))
    placed = {"device": settings.device, "dtype": DTYPES[settings.precision]}
    net = replace(encoder, weights=vgg.placed_state(encoder.weights, **placed))
    leaves = trainable(start, settings.device)
    optimizer = torch.optim.Adam(leaves.values(), lr=settings.rate)
    training = Training(leaves, [optimizer], settings.seed, start, settings.average)
    layers = vgg.LAYERS[: settings.level]
    sight = look(settings) if settings.backbone else own_look(settings, net, layers, settings.site)
    paintings = crops(Path(settings.style)) if settings.stylises else None
    return WCT(settings, net, sight, photographs, paintings, training)


PROGRAM = Program("train_wct", "Train a decoder of WCT.", Settings, begin, PARTS)

if __name__ == "__main__":
    sys.exit(PROGRAM.main())
