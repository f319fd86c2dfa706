"""Tiled against whole (law 1): the largest difference over 12 odd sizes of images and several sizes of tiles.

The same is measured with too small a halo, and with windows off the stride, where the law must fail.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from harness import table
from nets_here import frozen, photo, style

from urst_tiles.engine.kernel import Kernel
from urst_tiles.geometry import Grid
from urst_tiles.nets import LocalNet
from urst_tiles.source import array_source
from urst_tiles.source.windows import WindowReader

SIZES = [
    (1, 1),
    (1, 777),
    (5, 3),
    (63, 64),
    (97, 401),
    (256, 256),
    (301, 299),
    (333, 1021),
    (513, 7),
    (640, 641),
    (701, 350),
    (777, 511),
]


def worst(
    net: LocalNet, sizes: list[tuple[int, int]], core: int, *, halo: int | None = None, shift: int = 0
) -> float:
    """The largest |tiled - whole| over images of ``sizes``, in units of the output range, float32.

    ``halo`` replaces the halo of the network; ``shift`` moves the windows by so many pixels to the right.
    """
    kernel, largest = Kernel(net), 0.0
    image = photo("brighton_DJI_0018.JPG", 800, 1100, (600, 1500))
    for h, w in sizes:
        reader = WindowReader(array_source(np.ascontiguousarray(image[:h, :w])))
        grid = Grid(h, w, net.halo if halo is None else halo, net.stride, core, core, core, net.minimum)
        whole = kernel.run_float(reader.padded(grid.padded)[0][None], [grid.padded])[0]
        for cell in grid.cores(grid.image):
            box = grid.window_box(cell).shift(0, shift if grid.window_box(cell).x0 else 0).clip(grid.padded)
            tile = (
                kernel.run_float(reader.padded(box)[0][None], [box])[0]
                if shift == 0
                else off(kernel, reader, box)
            )
            largest = max(largest, float(np.abs(tile[cell.within(box).slices] - whole[cell.slices]).max()))
    return largest


def off(kernel: Kernel, reader: WindowReader, box: object) -> np.ndarray:
    """The result of a window whose origin is off the stride; its width is cut to a multiple of the stride."""
    h, w = box.shape  # type: ignore[attr-defined]
    s = kernel.net.stride
    cut = replace(box, x1=box.x0 + w // s * s)  # type: ignore[type-var,attr-defined]
    tile = kernel.run_float(reader.padded(cut)[0][None], [cut])[0]
    return np.pad(tile, ((0, 0), (0, w - w // s * s), (0, 0)), mode="edge")


if __name__ == "__main__":
    rows = []
    for model in ("lite", "microast", "adain"):
        net = frozen(style(model, 256), photo("brighton_DJI_0018.JPG", 512, 512, (600, 1500)))
        for core in (128, 256, 512):
            rows.append((model, f"{core}", "12 odd sizes", worst(net, SIZES, core), "<= 1e-4"))
        for strides in (1, 2, 4):
            shorter = net.halo - strides * net.stride
            difference = worst(net, [(777, 900)], 128, halo=shorter)
            rows.append((model, "128", f"halo {strides} stride(s) short", difference, "must fail by 2"))
        rows.append((model, "128", "origin off by one", worst(net, [(301, 299)], 128, shift=1), "must fail"))
    table("Tiled against whole", ("family", "tile", "case", "largest difference", "law"), rows)
