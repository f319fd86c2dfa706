"""The networks that benchmarks run: lite and MicroAST with trained weights, AdaIN with seeded weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from harness import SHARED, style_image

from urst_tiles import nets
from urst_tiles.engine.statistics import measure_here
from urst_tiles.nets import LocalNet, Style, adain
from urst_tiles.source import array_source
from urst_tiles.source.picture import read_picture

WEIGHTS = SHARED / "weights"


def style(model: str, size: int = 512) -> Style:
    """The style of ``model`` for the procedural style image, resized to ``size`` pixels on the short side."""
    pictures = [(read_picture(style_image(), size), 1.0)]
    if model == "adain":
        return nets.seeded(model, pictures, width=1.0)
    return nets.build(model, WEIGHTS, pictures)


def adain_standin() -> Style:
    """A trained stand-in for AdaIN: the level-4 networks of Collaborative Distillation.

    They have the same layers as AdaIN, and a quarter of the width.
    """
    layers = ["0", "11", "12", "21", "22", "31", "32", "33", "34", "41"]
    states = {}
    for file, source, convs, order in (
        (adain.ENCODER, "4SE.pth", adain.ENCODER_CONVS, layers),
        (adain.DECODER, "4SD.pth", adain.DECODER_CONVS, layers[:0:-1]),
    ):
        path = WEIGHTS / "collaborative_wct" / source
        state = torch.load(path, weights_only=True, map_location="cpu")["model"]
        states[file] = {
            f"{i}.{part}": state[f"conv{name}.{part}"]
            for i, name in zip(convs, order, strict=True)
            for part in ("weight", "bias")
        }
    return adain.build(states, [(read_picture(style_image(), 512), 1.0)])


def frozen(chosen: Style, thumbnail: np.ndarray, threads: int = 2) -> LocalNet:
    """The network of a style, frozen at the statistics of ``thumbnail``, uint8 (h, w, 3)."""
    return nets.freeze(chosen, measure_here(chosen, array_source(thumbnail), threads=threads))


def photo(name: str, height: int, width: int, at: tuple[int, int] = (0, 0)) -> np.ndarray:
    """A crop of a real image of the shared inputs, uint8 (height, width, 3), from ``at`` (y, x) on."""
    import pyvips

    path = next(Path(SHARED / "data" / "inputs").rglob(name))
    image = pyvips.Image.new_from_file(str(path)).colourspace("srgb")
    return image.crop(at[1], at[0], width, height).numpy()[..., :3].copy()


PHOTOS = {
    "drone photo": ("brighton_DJI_0018.JPG", (600, 1500)),
    "Mars panorama": ("nasa_pia19808.webp", (1200, 1800)),
    "whole slide": ("libvips__CMU-1-Small-Region.svs", (900, 700)),
}
