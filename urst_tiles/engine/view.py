"""Any box of a finished picture, without the rest of it."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from urst_tiles.engine.block import stylize_block
from urst_tiles.engine.kernel import Kernel
from urst_tiles.geometry import Box
from urst_tiles.machine import mapped
from urst_tiles.plan import Plan
from urst_tiles.source.windows import WindowReader


def stylize_box(kernel: Kernel, reader: WindowReader, plan: Plan, box: Box) -> NDArray[Any]:
    """The pixels that the job of ``plan`` writes in ``box``, to the byte; no other windows are computed than
    those that the box needs.

    The windows are those of the job: each core that the box meets is computed whole, as a block computes it,
    and the box is cut out of them. What is computed at once lies in one block, so the memory is that of a
    block and of the result.

    Parameters
    ----------
    kernel : the frozen network of the job, with the dtype of the plan.
    reader : reads the prepared source of the job.
    box : a box inside the image, of any position and size.

    Returns
    -------
    (h, w, channels) in the dtype of the plan; a fourth channel is validity, as `stylize_block` says.

    Raises
    ------
    ValueError : the box is empty or reaches beyond the image.
    """
    grid = plan.grid
    if box.area == 0 or not grid.image.contains(box):
        raise ValueError(f"{box} does not lie inside an image of {grid.width} x {grid.height}")
    out = mapped((*box.shape, plan.channels), plan.dtype)
    for part in box.cells(grid.block):
        around = part.align(grid.core).clip(grid.image)
        pixels = stylize_block(kernel, reader, plan, around)
        out[part.within(box).slices] = pixels[part.within(around).slices]
    return out
