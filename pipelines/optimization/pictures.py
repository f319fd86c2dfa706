"""Pictures in and out: the content by boxes, where the optimisation starts, previews, the pyramid."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.encoding import make_encoding
from urst_tiles.engine.block import rescale
from urst_tiles.geometry import Box, Grid, ceil_div
from urst_tiles.planning import tile_side
from urst_tiles.pyramid import assemble
from urst_tiles.pyramid.parts import Parts
from urst_tiles.source import Source, array_source, open_source
from urst_tiles.source.picture import read_picture, write_png
from urst_tiles.source.windows import WindowReader

Values = NDArray[Any]
#: (3, h, w) floats of a box.
Boxes = Callable[[Box], Values]
#: Longest side of a preview, and the side of a block of the finished file.
PREVIEW = 2048
BLOCK = 2048


def content_source(path: Path, size: int, folder: Path) -> Source:
    """The content image at its own size, read by boxes; or with its short side at ``size``, in memory."""
    if size:
        return array_source(np.rint(255 * read_picture(path, size)).astype(np.uint8))
    return open_source(path).prepare(folder)


def planes(reader: WindowReader, dtype: str) -> Boxes:
    """(3, h, w) in 0..1 of a box of the content image, its invalid pixels filled."""

    def read(box: Box) -> Values:
        rgb: Values = reader.read(box)[..., :3]
        return rgb.transpose(2, 0, 1).astype(dtype) / np.dtype(dtype).type(np.iinfo(rgb.dtype).max)

    return read


def noise(seed: int, dtype: str) -> Boxes:
    """Uniform noise in 0..1 that depends on place and seed alone, so that boxes agree."""

    def draw(box: Box) -> Values:
        lines = [
            np.random.default_rng([seed, y]).random((box.x1, 3))[box.x0 :] for y in range(box.y0, box.y1)
        ]
        return np.stack(lines).transpose(2, 0, 1).astype(dtype)

    return draw


def in_levels(values: Values) -> NDArray[np.uint8]:
    """(3, h, w) floats -> (h, w, 3) of 0..255."""
    return np.rint(255 * values.clip(0, 1)).astype(np.uint8).transpose(1, 2, 0)


def write_preview(path: Path, read: Boxes, shape: tuple[int, int]) -> None:
    """A PNG of the image, averaged until it is no longer than ``PREVIEW``; read strip by strip."""
    height, width = shape
    n = ceil_div(max(shape), PREVIEW)
    strips = [
        _averaged(read(Box(y, 0, min(y + n, height), width)).astype(np.float64), n)
        for y in range(0, height, n)
    ]
    write_png(path, in_levels(np.stack(strips, 1)))


def _averaged(strip: Values, n: int) -> Values:
    """(3, h, w) -> (3, w / n rounded up)."""
    line = strip.mean(1)
    starts = np.arange(0, line.shape[1], n)
    return np.add.reduceat(line, starts, axis=1) / np.diff(np.append(starts, line.shape[1]))


def write_pyramid(path: Path, read: Boxes, source: Source, folder: Path, fingerprint: str) -> None:
    """The image as a pyramidal TIFF with the metadata and validity of ``source``, block by block."""
    grid = Grid(*source.shape, core=BLOCK, block=BLOCK, tile=tile_side(*source.shape))
    parts = Parts(folder, fingerprint, grid, make_encoding(source, "uint8", "deflate", 90, grid.tile))
    for index in parts.missing():
        box = grid.block_box(index)
        pixels = in_levels(read(box))
        if source.channels == 4:
            valid = rescale(source.read(box)[..., 3], "uint8")
            pixels = np.dstack([np.where(valid[..., None] > 0, pixels, 0).astype(np.uint8), valid])
        parts.write(index, pixels)
    assemble(parts, source.info, path)
    shutil.rmtree(folder)
