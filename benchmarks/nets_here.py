"""The networks that benchmarks run: MicroAST with its official weights, AdaIN full width with seeded ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from harness import SHARED, style_image

from urst_tiles import nets
from urst_tiles.nets import LocalNet, Style
from urst_tiles.picture import read_picture
from urst_tiles.source import array_source
from urst_tiles.statistics import measure

WEIGHTS = SHARED / "weights"


def style(model: str, size: int = 512) -> Style:
    """A style of the procedural style image."""
    pictures = [(read_picture(style_image(), size), 1.0)]
    if model == "adain":
        return nets.seeded(model, pictures, width=1.0)
    return nets.build(model, WEIGHTS, pictures)


def frozen(chosen: Style, thumbnail: np.ndarray, threads: int = 2) -> LocalNet:
    """Frozen at the statistics of ``thumbnail``, uint8 (h, w, 3)."""
    return chosen.freeze(measure(chosen, array_source(thumbnail), threads=threads))


def photo(name: str, height: int, width: int, at: tuple[int, int] = (0, 0)) -> np.ndarray:
    """uint8 (height, width, 3) of a real image in the shared inputs."""
    import pyvips

    path = next(Path(SHARED / "data" / "inputs").rglob(name))
    image = pyvips.Image.new_from_file(str(path)).colourspace("srgb")
    return image.crop(at[1], at[0], width, height).numpy()[..., :3].copy()


PHOTOS = {
    "drone photo": ("brighton_DJI_0018.JPG", (600, 1500)),
    "Mars panorama": ("nasa_pia19808.webp", (1200, 1800)),
    "orthophoto": ("libvips__CMU-1-Small-Region.svs", (900, 700)),
}
