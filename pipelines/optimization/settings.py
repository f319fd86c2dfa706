"""What can be set, what it means for the loss, and what decides the result."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from training.command import check_device

from optimization.objective import Scale, Terms
from urst_tiles import losses
from urst_tiles.errors import BadInput
from urst_tiles.losses.backbones import BACKBONES
from urst_tiles.source import Source

#: Of the style where ``style_weight`` is below 0, by scale and smoothing. 1e17 is that of SWAG's released
#: code, for ResNet-50. With the others the style loss of a photograph weighs some 40 times the content loss
#: between two of them (256 px, VGG-19 with layers of mean activation 1).
STYLE_WEIGHTS: dict[tuple[Scale, losses.Smoothing], float] = {
    ("gatys", "none"): 1e2,
    ("gatys", "channels"): 1e4,
    ("gatys", "map"): 1e5,
    ("mean", "none"): 1e5,
    ("mean", "scale"): 1e17,
    ("mean", "channels"): 1e7,
    ("mean", "map"): 1e10,
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What can be set; lengths in pixels."""

    content: Path
    style: Path
    out: Path
    #: Short side of the content; left out: its own size. Of the style.
    size: int = 0
    style_size: int = 512
    backbone: str = "vgg19"
    #: Files of the backbone; none: random weights from ``seed``.
    backbone_weights: tuple[Path, ...] = ()
    #: Layers that are compared, and the share of each; none: the backbone's own, all alike.
    content_layers: tuple[str, ...] = ()
    style_layers: tuple[str, ...] = ()
    style_shares: tuple[float, ...] = ()
    smoothing: losses.Smoothing = "none"
    #: "auto" is "gatys" without smoothing, "mean" with.
    style_scale: Literal["auto", "gatys", "mean"] = "auto"
    content_weight: float = 1.0
    #: Below 0: ``STYLE_WEIGHTS``.
    style_weight: float = field(default=-1.0, metadata={"least": -math.inf})
    variation_weight: float = 0.0
    start: Literal["content", "noise"] = "content"
    optimizer: Literal["lbfgs", "adam"] = "lbfgs"
    #: Evaluations of the loss; with more than one of the scales, on the coarsest.
    steps: int = 1000
    #: On how many scales, from coarse to fine; 1: at the content's own size alone.
    scales: int = 1
    #: Evaluations on each finer scale; 0: half of ``steps``.
    finer_steps: int = field(default=0, metadata={"least": 0})
    #: Of Adam, in colours of 0..1, and over how many steps at the end it falls to 0.
    rate: float = 0.02
    cooldown: int = 0
    #: Pairs of images that L-BFGS keeps.
    history: int = 20
    #: Side of the tiles; 0 keeps the image in memory.
    tile: int = 0
    precision: Literal["float32", "float64"] = "float32"
    device: str = "cpu"
    threads: int = 0
    seed: int = 0
    save_every: int = 50
    sample_every: int = 100


def make_terms(settings: Settings) -> Terms:
    """The weighted sum of a command line; BadInput where shares and layers do not fit."""
    row = BACKBONES[settings.backbone]
    style = settings.style_layers or row.style
    content = settings.content_layers or (row.content,)
    shares = settings.style_shares or (1 / len(style),) * len(style)
    if len(shares) != len(style):
        raise BadInput(f"--style-shares must be one for each of {', '.join(style)}, got {len(shares)}")
    scale: Scale = "gatys" if settings.smoothing == "none" else "mean"
    if settings.style_scale != "auto":
        scale = settings.style_scale
    weight = settings.style_weight
    if weight < 0:
        weight = STYLE_WEIGHTS.get((scale, settings.smoothing), STYLE_WEIGHTS["mean", settings.smoothing])
    return Terms(
        dict.fromkeys(content, 1 / len(content)),
        dict(zip(style, shares, strict=True)),
        settings.content_weight,
        weight,
        settings.variation_weight,
        scale,
        settings.smoothing,
        row.deep if settings.smoothing == "scale" else None,
    )


def check(settings: Settings) -> None:
    """BadInput for what does not go together."""
    check_device(settings.device)
    if settings.backbone not in BACKBONES:
        raise BadInput(f"--backbone must be one of {', '.join(BACKBONES)}, got {settings.backbone!r}")
    if settings.tile and settings.optimizer == "lbfgs":
        raise BadInput("L-BFGS keeps a history of whole images: give --optimizer adam with --tile")
    if settings.tile and settings.size:
        raise BadInput("--size holds the picture in memory: leave it out with --tile, or --tile with it")


def facts_of(settings: Settings, source: Source, terms: Terms) -> dict[str, Any]:
    """What decides the result, by name, for a later call to compare."""
    return {
        "content": source.fingerprint,
        "size": f"{source.shape[1]} x {source.shape[0]}",
        "style": _digest(settings.style),
        "style size": settings.style_size,
        "backbone": settings.backbone,
        "backbone weights": [_digest(path) for path in settings.backbone_weights],
        "loss": repr(terms),
        "optimizer": settings.optimizer,
        "start": settings.start,
        "rate": settings.rate,
        "history": settings.history,
        "tile": settings.tile,
        "precision": settings.precision,
        "seed": settings.seed,
    }


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
