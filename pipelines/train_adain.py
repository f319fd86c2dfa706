"""Train the decoder of AdaIN on a fixed encoder, plain or for larger strokes.

    python pipelines/train_adain.py --settings pipelines/train_adain.toml --content PHOTOS --style PAINTINGS \
        --encoder vgg19-dcbb9e9d.pth --out runs/adain

``--encoder`` takes the ``vgg_normalised.pth`` of AdaIN, torchvision's VGG-19, the original VGG-19 as
safetensors or raw float32, or the ``4SE.pth`` of Collaborative Distillation [3], which is a quarter as wide;
the decoder gets the width of the encoder. A VGG-19 that is not normalised trains badly (see
``urst_tiles/losses/vgg.py``), so it is first rescaled over the photographs. The folder ``--out`` receives the
checkpoint, the losses (``losses.csv``), a sheet of sample pictures (``samples.png``), and both files of the
family: ``decoder.pth``, and the ``vgg_normalised.pth`` that belongs to it. ``urst-tiles weights add adain
runs/adain/*.pth`` makes these the weights of ``--model adain``. The same command, given again, continues
where the last call stopped.

The program minimises the content loss ||f(g(t)) - t||^2 at relu4_1, where t are the features of the encoder
with the mean and deviation of the style, and the style loss at relu1_1 to relu4_1 [1, equations 11 to 13].
With ``stroke_weight`` it also minimises the stroke perceptual loss [2, section 3.4]; content and style are
then those of the thumbnail. With another backbone, to which t means nothing, the content loss compares with
the photograph. The statistics of t, and those of the patch, come from the fixed encoder: no gradient flows
through them.

References
----------
1. X. Huang and S. Belongie, "Arbitrary Style Transfer in Real-time with Adaptive Instance Normalization",
   ICCV 2017.
2. Z. Chen et al., "Towards Ultra-Resolution Neural Style Transfer via Thumbnail Instance Normalization",
   AAAI 2022.
3. H. Wang et al., "Collaborative Distillation for Ultra-Resolution Universal Style Transfer", CVPR 2020.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from training import loop
from training.command import Program
from training.encoders import normalised, own_look
from training.perceptual import By, Look, look
from training.pictures import Crops, Pictures, patterns_of, random_window, sheet
from training.states import as_file, split, tensors_of, uniform

from urst_tiles import losses, nets, weights
from urst_tiles.errors import BadInput
from urst_tiles.learning.checkpoint import State, Training, torch_bytes, trainable
from urst_tiles.learning.crops import files_of
from urst_tiles.learning.features import Lowered, lowered, weighted
from urst_tiles.losses import backbones, vgg
from urst_tiles.losses.backbones import VGG
from urst_tiles.nets import adain, wct
from urst_tiles.nets.base import DTYPES, Precision

PARTS = ("content", "style", "stroke", "variation")
#: Layer whose features get the statistics of the style, and the layers of the style loss [1, section 5].
SITE, STYLE = "relu4_1", vgg.LAYERS[:4]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings; lengths are in pixels.

    The defaults are those of pytorch-AdaIN, the program that [2] trained with, where strokes had the weight
    1.
    """

    content: Path
    style: Path
    encoder: Path
    out: Path
    #: A decoder to start from, ``decoder.pth`` or the ``4SD.pth`` of [3]; empty for random weights.
    init: str = ""
    #: A file of patterns, one on each line; files whose names match a pattern are not trained on.
    held_out: str = ""
    steps: int = 160_000
    batch: int = 8
    #: Side of the crops; they come from photographs and paintings whose short side is twice as long.
    size: int = 256
    #: Learning rate of Adam, divided by 1 + ``decay`` times the step.
    rate: float = 1e-4
    decay: float = 5e-5
    #: Steps at the end over which the rate falls to 0.
    cooldown: int = 0
    #: Steps at the beginning over which the rate rises, since the first steps of Adam spoil a trained
    #: decoder.
    warmup: int = 0
    #: Share of the running average, which is written, that stays in each step; 0: it equals the weights.
    average: float = 0.0
    clip: float = 0.0
    content_weight: float = 1.0
    style_weight: float = 10.0
    stroke_weight: float = 0.0
    variation_weight: float = 0.0
    #: The network of the losses; empty for the encoder.
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


# The network in training


def spread(f: Tensor) -> losses.MeanStd:
    """The mean and the unbiased standard deviation of features, (n, C) each, as the network takes them."""
    variance, mean = torch.var_mean(f.float(), (2, 3), correction=adain.DDOF)
    return mean, (variance + adain.EPS).sqrt()


def meet(f: Tensor, style: losses.MeanStd, content: losses.MeanStd) -> Tensor:
    """Features with the statistics ``content``, changed to have those of the style, float32 [1, equation
    8]."""
    (want, wide), (mean, std) = style, content
    scale = wide / std
    return f.float() * scale[:, :, None, None] + (want - scale * mean)[:, :, None, None]


def paint(t: Tensor, decoder: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
    """Run the decoder of the network in ``dtype``: (n, C, h, w) -> (n, 3, 8h, 8w), float32."""
    return adain.decode(lowered(t, dtype), {f"decoder.{k}": w for k, w in decoder.items()}).float()


# The recipe


@dataclass
class AdaIN:
    """The recipe, in which Adam trains the decoder."""

    settings: Settings
    encoder: VGG
    look: Look
    photographs: Crops
    paintings: Crops
    training: Training

    @property
    def dtype(self) -> torch.dtype:
        """The number type of the computation."""
        return DTYPES[self.settings.precision]

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """The features of pictures at relu4_1."""
        return Lowered(self.encoder, self.dtype)(x, (SITE,))[SITE]

    def contents(self) -> tuple[Tensor, Tensor | None]:
        """A batch of photographs; and for strokes the same at ``stroke_factor`` times the size, else None."""
        random = self.training.random
        if self.settings.stroke_weight:
            return self.photographs.draw_large(random, self.settings.stroke_factor)
        return self.photographs.draw(random, (1.0,)), None

    def objective(self) -> tuple[Tensor, dict[str, Tensor]]:
        x, large = self.contents()
        y = self.paintings.draw(self.training.random, (1.0,))
        f = self.encode(x)
        style, content = spread(self.encode(y)), spread(f)
        t = meet(f, style, content)
        out = paint(t, self.training.leaves, self.dtype)
        parts = self.compared(x, y, t, out)
        if large is not None:
            size, random = self.settings.size, self.training.random
            patch, at = random_window(large, size, adain.STRIDE, random)
            patch = paint(meet(self.encode(patch), style, content), self.training.leaves, self.dtype)
            parts["stroke"] = self.look.stroke_loss(patch, out, at).mean()
        return weighted(parts, {name: getattr(self.settings, f"{name}_weight") for name in PARTS}), parts

    def compared(self, x: Tensor, y: Tensor, t: Tensor, out: Tensor) -> dict[str, Tensor]:
        """The losses of ``out``, the photographs ``x`` in the styles of ``y`` as decoded from ``t``."""
        features = self.look.features(out)
        if not self.settings.backbone and self.look.content_layer == SITE:
            wanted: Mapping[str, Tensor] = {SITE: losses.smoothed(t, self.settings.smoothing)}
        else:
            wanted = self.look.content(x)
        return {
            "content": self.look.content_loss(features, wanted).mean(),
            "style": self.look.style_loss(features, self.look.target(y)).sum(1).mean(),
            "variation": losses.total_variation(out).mean(),
        }

    def share_of_rate(self, step: int) -> float:
        cooling = loop.warm_and_cool(step, self.settings.steps, self.settings.warmup, self.settings.cooldown)
        return cooling * loop.inverse_decay(step, self.settings.decay)

    def export(self) -> dict[str, bytes]:
        """The files of the decoder, and of the encoder that belongs to it."""
        return {
            adain.DECODER: torch_bytes(as_file(self.training.average)),
            adain.ENCODER: torch_bytes(as_file(backbones.to_sequential(self.encoder))),
        }

    @torch.inference_mode()
    def samples(self, count: int = 4) -> NDArray[np.uint8]:
        """A sheet of ``count`` photographs (first column), each in the styles of ``count`` paintings (first
        row)."""
        random, side = np.random.default_rng(self.settings.seed), 2 * self.settings.size
        x, y = (crops.pictures.some(count, side, random) for crops in (self.photographs, self.paintings))
        style = spread(self.encode(y.to(self.settings.device)))
        rows = [[torch.ones(3, side, side), *y]]
        for photograph in x:
            f = self.encode(photograph[None].to(self.settings.device)).expand(count, -1, -1, -1)
            painted = paint(meet(f, style, spread(f)), self.training.average, self.dtype)
            rows.append([photograph, *painted.cpu()])
        return sheet(rows)


# The start


def first_decoder(settings: Settings, width: float) -> State:
    """The weights of the decoder in ``init``, or else random weights.

    Raises
    ------
    BadWeights : the decoder is not ``width`` times as wide as the published decoder.
    """
    shapes = adain.shapes(width)[adain.DECODER]
    if not settings.init:
        return uniform(shapes, settings.seed)
    state = from_wct(tensors_of(Path(settings.init)))
    weights.check_keys(state, shapes, settings.init)
    return {k: t.float() for k, t in state.items()}


def from_wct(state: State) -> State:
    """A decoder of level 4 of WCT under the names of AdaIN; any other state is returned as it is.

    Both are the same network, but in WCT a ReLU follows the last layer. It cuts off colours below 0, which
    AdaIN clips at the end.
    """
    if "conv41.weight" not in state:
        return state
    names = dict(zip((f"conv{k}" for k in reversed(wct.layers(4))), adain.DECODER_CONVS, strict=True))
    return {f"{names.get(k, k)}.{part}": state[f"{k}.{part}"] for k, part in map(split, state)}


def check_size(settings: Settings) -> None:
    """Raise BadInput if the crops do not consist of whole cells of the network."""
    if settings.size % adain.STRIDE or settings.size < adain.MINIMUM:
        raise BadInput(f"--size must be a multiple of {adain.STRIDE} from {adain.MINIMUM} on")


def begin(settings: Settings) -> AdaIN:
    """The recipe at the first step."""
    check_size(settings)
    held_out, short_side = patterns_of(settings.held_out), max(2, settings.stroke_factor) * settings.size
    contents, styles = (
        Pictures(files_of(folder, held_out), short_side) for folder in (settings.content, settings.style)
    )
    encoder = normalised(settings, contents)
    nets.MODELS[adain.NAME].check(backbones.to_sequential(encoder), adain.ENCODER, settings.encoder)
    start = first_decoder(settings, len(encoder.weights["conv1_1.bias"]) / 64)
    placed = {"device": settings.device, "dtype": DTYPES[settings.precision]}
    net = replace(encoder, weights=vgg.placed_state(encoder.weights, **placed))
    leaves = trainable(start, settings.device)
    optimizer = torch.optim.Adam(leaves.values(), lr=settings.rate)
    training = Training(leaves, [optimizer], settings.seed, start, settings.average)
    sight = look(settings) if settings.backbone else own_look(settings, net, STYLE, SITE)
    photographs, paintings = (
        Crops(pictures, settings.batch, settings.size, settings.device) for pictures in (contents, styles)
    )
    return AdaIN(settings, net, sight, photographs, paintings, training)


PROGRAM = Program("train_adain", "Train the decoder of AdaIN.", Settings, begin, PARTS)

if __name__ == "__main__":
    sys.exit(PROGRAM.main())
