"""Train the decoder of AdaIN on a fixed encoder, plain or for larger strokes.

    python pipelines/train_adain.py --settings pipelines/train_adain.toml --content PHOTOS --style PAINTINGS \
        --encoder vgg19-dcbb9e9d.pth --out runs/adain

``--encoder`` takes AdaIN's own ``vgg_normalised.pth``, torchvision's VGG-19, the original VGG-19 as
safetensors or raw float32, or the quarter as wide ``4SE.pth`` of Collaborative Distillation; the decoder gets
its width. A VGG-19 that is not normalised trains badly as it is (see ``urst_tiles/losses/vgg.py``): it is
rescaled over the photographs first. ``--out`` takes the checkpoint, the losses (``losses.csv``), a sheet of
sample pictures (``samples.png``), and both files of the family, ``decoder.pth`` and the
``vgg_normalised.pth`` that it belongs to: ``urst-tiles weights add adain runs/adain/*.pth`` makes them
``--model adain``. The same command again goes on where the last one stopped.

What is minimised: the content loss ||f(g(t)) - t||^2 at relu4_1, t the encoder's features with the style's
mean and deviation, and the style loss at relu1_1 to relu4_1 [1, equations 11 to 13]; with ``stroke_weight``
also the stroke perceptual loss [2, section 3.4], content and style then those of the thumbnail. Through
another backbone, where t is not at home, the content loss is towards the photograph. The statistics of t,
the patch's too, are the fixed encoder's: no gradient flows through them.

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
from training.checkpoint import State, Training, torch_bytes, trainable
from training.command import Program
from training.encoders import normalised, own_look
from training.features import Lowered, lowered, weighted
from training.perceptual import By, Look, look
from training.pictures import Crops, Pictures, files_of, patterns_of, random_window, sheet
from training.states import as_file, split, tensors_of, uniform

from urst_tiles import losses, nets, weights
from urst_tiles.errors import BadInput
from urst_tiles.losses import backbones, vgg
from urst_tiles.losses.backbones import VGG
from urst_tiles.nets import adain, wct
from urst_tiles.nets.base import DTYPES, Precision

PARTS = ("content", "style", "stroke", "variation")
#: Where the features are met, and the layers of the style loss [1, section 5].
SITE, STYLE = "relu4_1", vgg.LAYERS[:4]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What can be set, lengths in pixels. Defaults are those of the program that [2] trained with, which are
    pytorch-AdaIN's; strokes there had the weight 1."""

    content: Path
    style: Path
    encoder: Path
    out: Path
    #: A decoder to start from, ``decoder.pth`` or the ``4SD.pth`` of [3]; empty for a random one.
    init: str = ""
    #: A file of patterns of file names, one a line, that are not trained on.
    held_out: str = ""
    steps: int = 160_000
    batch: int = 8
    #: Of crops, of photographs and paintings whose short side is twice as long.
    size: int = 256
    #: Adam's, over 1 + ``decay`` times the step.
    rate: float = 1e-4
    decay: float = 5e-5
    #: Steps at the end over which the rate falls to 0.
    cooldown: int = 0
    #: Steps at the beginning over which it rises: Adam's first ones spoil a trained decoder.
    warmup: int = 0
    #: What the running average of the weights, which is written, keeps in a step; 0: it is the weights.
    average: float = 0.0
    clip: float = 0.0
    content_weight: float = 1.0
    style_weight: float = 10.0
    stroke_weight: float = 0.0
    variation_weight: float = 0.0
    #: The loss network; empty: the encoder.
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
    """Mean and deviation (n, C) of features, as the family has them: unbiased."""
    variance, mean = torch.var_mean(f.float(), (2, 3), correction=adain.DDOF)
    return mean, (variance + adain.EPS).sqrt()


def meet(f: Tensor, style: losses.MeanStd, content: losses.MeanStd) -> Tensor:
    """Features whose statistics are ``content`` with those of the style, float32 [1, equation 8]."""
    (want, wide), (mean, std) = style, content
    scale = wide / std
    return f.float() * scale[:, :, None, None] + (want - scale * mean)[:, :, None, None]


def paint(t: Tensor, decoder: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
    """The family's own decoder, computing in ``dtype``: (n, C, h, w) -> (n, 3, 8h, 8w) float32."""
    return adain.decode(lowered(t, dtype), {f"decoder.{k}": w for k, w in decoder.items()}).float()


# The recipe


@dataclass
class AdaIN:
    """Adam on the decoder."""

    settings: Settings
    encoder: VGG
    look: Look
    photographs: Crops
    paintings: Crops
    training: Training

    @property
    def dtype(self) -> torch.dtype:
        """Of the computation."""
        return DTYPES[self.settings.precision]

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """relu4_1."""
        return Lowered(self.encoder, self.dtype)(x, (SITE,))[SITE]

    def contents(self) -> tuple[Tensor, Tensor | None]:
        """A batch of photographs, and, where strokes are compared, the same at ``stroke_factor`` its size."""
        random = self.training.random
        if self.settings.stroke_weight:
            return self.photographs.draw_large(random, self.settings.stroke_factor)
        return self.photographs.draw(random, (1.0,)), None

    def objective(self) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a new batch, and its parts, unweighted."""
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
        """The losses of a stylised batch."""
        found = self.look.features(out)
        if not self.settings.backbone and self.look.content_layer == SITE:
            wanted: Mapping[str, Tensor] = {SITE: losses.smoothed(t, self.settings.smoothing)}
        else:
            wanted = self.look.content(x)
        return {
            "content": self.look.content_loss(found, wanted).mean(),
            "style": self.look.style_loss(found, self.look.target(y)).sum(1).mean(),
            "variation": losses.total_variation(out).mean(),
        }

    def share_of_rate(self, step: int) -> float:
        """Of the rate."""
        cooling = loop.warm_and_cool(step, self.settings.steps, self.settings.warmup, self.settings.cooldown)
        return cooling * loop.inverse_decay(step, self.settings.decay)

    def export(self) -> dict[str, bytes]:
        """The decoder, and the encoder that it belongs to."""
        return {
            adain.DECODER: torch_bytes(as_file(self.training.average)),
            adain.ENCODER: torch_bytes(as_file(backbones.to_sequential(self.encoder))),
        }

    @torch.inference_mode()
    def samples(self, count: int = 4) -> NDArray[np.uint8]:
        """``count`` photographs, each in ``count`` styles; first row and column are what went in."""
        random, side = np.random.default_rng(self.settings.seed), 2 * self.settings.size
        x, y = (crops.pictures.some(count, side, random) for crops in (self.photographs, self.paintings))
        style = spread(self.encode(y.to(self.settings.device)))
        rows = [[torch.ones(3, side, side), *y]]
        for one in x:
            f = self.encode(one[None].to(self.settings.device)).expand(count, -1, -1, -1)
            painted = paint(meet(f, style, spread(f)), self.training.average, self.dtype)
            rows.append([one, *painted.cpu()])
        return sheet(rows)


# The start


def first_decoder(settings: Settings, width: float) -> State:
    """From ``init``, else random; BadWeights where it is not ``width`` times as wide as published."""
    shapes = adain.shapes(width)[adain.DECODER]
    if not settings.init:
        return uniform(shapes, settings.seed)
    state = from_wct(tensors_of(Path(settings.init)))
    weights.check_keys(state, shapes, settings.init)
    return {k: t.float() for k, t in state.items()}


def from_wct(state: State) -> State:
    """A decoder of WCT's level 4 in AdaIN's layout; any other state as it is.

    The two are the same network but for the ReLU behind WCT's last layer: what it cut off, colours below 0,
    AdaIN's clips at the end.
    """
    if "conv41.weight" not in state:
        return state
    names = dict(zip((f"conv{k}" for k in reversed(wct.layers(4))), adain.DECODER_CONVS, strict=True))
    return {f"{names.get(k, k)}.{part}": state[f"{k}.{part}"] for k, part in map(split, state)}


def check_size(settings: Settings) -> None:
    """BadInput for crops that do not fit the network's cells."""
    if settings.size % adain.STRIDE or settings.size < adain.MINIMUM:
        raise BadInput(f"--size must be a multiple of {adain.STRIDE} from {adain.MINIMUM} on")


def begin(settings: Settings) -> AdaIN:
    """The recipe at its first step."""
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
