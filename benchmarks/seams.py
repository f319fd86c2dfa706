"""How visible the borders of windows are: with cropping and the full halo, with blending and a small halo,
with a hard cut, and with statistics of each window.

The metric is the largest |tiled - whole| within 8 px of a line between windows, and the same elsewhere, in
levels of 255.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from harness import SHARED, style_image, table
from nets_here import frozen, photo, style

from urst_tiles import nets
from urst_tiles.engine.block import stylize_block
from urst_tiles.engine.kernel import Kernel
from urst_tiles.engine.loaded import build_style
from urst_tiles.geometry import Grid
from urst_tiles.nets import LocalNet
from urst_tiles.options import Options
from urst_tiles.plan import Plan
from urst_tiles.planning import make_plan
from urst_tiles.recipe import Recipe
from urst_tiles.source import array_source
from urst_tiles.source.windows import WindowReader

SIDE, CORE, NEAR = 1024, 256, 8


def lines(side: int, core: int) -> np.ndarray:
    """Whether each pixel of a line lies within NEAR px of a border between windows, bool, (side,)."""
    at = np.arange(side)
    distance = np.minimum(at % core, core - at % core)
    return (distance < NEAR) & (at >= NEAR) & (at < side - NEAR)


def metric(tiled: np.ndarray, whole: np.ndarray) -> tuple[float, float, float]:
    """The largest difference near the borders, the largest elsewhere, and the mean near the borders."""
    error = np.abs(tiled.astype(float) - whole).max(axis=-1)
    near = lines(SIDE, CORE)[:, None] | lines(SIDE, CORE)
    return float(error[near].max()), float(error[~near].max()), float(error[near].mean())


def picture(net: LocalNet, reader: WindowReader, plan: Plan, **grid: int) -> np.ndarray:
    """The image stylised as one block, with ``grid`` changes to the grid of the plan."""
    plan = replace(plan, grid=replace(plan.grid, **grid))
    return stylize_block(Kernel(net), reader, plan, plan.grid.image)


if __name__ == "__main__":
    image = photo("brighton_DJI_0018.JPG", SIDE, SIDE, (600, 1500))
    source, reader = array_source(image), WindowReader(array_source(image))
    chosen = style("microast")
    net, per_window = frozen(chosen, image), nets.freeze(chosen, None)
    recipe = Recipe(model="microast", weights=SHARED / "weights", styles=((style_image(), 1.0),))
    plan = make_plan(source, recipe, build_style(recipe), Options(tile=CORE, block=SIDE, precision="float32"))
    whole = picture(net, reader, plan, core=SIDE)
    cut = replace(plan, seam="cut")
    blend = replace(plan, seam="blend")
    rows = [("crop, full halo", net.halo, *metric(picture(net, reader, plan), whole))]
    for halo in (32, 16):
        rows.append(("blend", halo, *metric(picture(net, reader, blend, halo=halo), whole)))
        rows.append(("hard cut", halo, *metric(picture(net, reader, cut, halo=halo), whole)))
    rows.append(("hard cut", 0, *metric(picture(net, reader, cut, halo=0), whole)))
    rows.append(
        (
            "crop, each window its own statistics",
            per_window.halo,
            *metric(picture(per_window, reader, plan), whole),
        )
    )
    header = ("windows joined by", "halo", "largest near lines", "largest elsewhere", "mean near lines")
    table("Seams, MicroAST, levels of 255", header, rows)
    assert isinstance(plan.grid, Grid)
