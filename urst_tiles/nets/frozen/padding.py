"""Padding without copies: tensors carry more lines than the image has, and a few of them are overwritten.

A convolution writes a slightly larger result than the image needs. The lines beyond the image's edge hold no
meaningful values by then, and are set to the values that padding would give them. Tensors are (n, c, h, w) in
channels_last memory. ``first`` is the (row, column) in the image of a tensor's first line, ``size`` the
(height, width) of the image at that resolution.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

#: Two numbers, for rows and for columns.
Pair = tuple[int, int]


def strips(rows: int, most: int) -> list[Pair]:
    """Ranges (start, end) of at most ``most`` rows that together cover ``rows`` rows."""
    return [(a, min(a + most, rows)) for a in range(0, rows, most)]


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int = 1, padding: int = 0) -> Tensor:
    """Convolution; the number of groups follows from the shapes.

    float16 on a CPU is summed in float32, as tensor cores do. PyTorch itself would sum in float16 there, in
    an order that depends on the window's size.
    """
    groups = x.shape[1] // weight.shape[1]
    if x.dtype == torch.float16 and x.device.type == "cpu":
        wide = None if bias is None else bias.float()
        return F.conv2d(x.float(), weight.float(), wide, stride, padding, groups=groups).half()
    return F.conv2d(x, weight, bias, stride, padding, groups=groups)


def empty(like: Tensor, channels: int, height: int, width: int, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor (n, channels, height, width), channels_last, not initialised."""
    shape = (like.shape[0], height, width, channels)
    return like.new_empty(shape, dtype=dtype or like.dtype).permute(0, 3, 1, 2)


def padded(x: Tensor, lines: int) -> Tensor:
    """``x`` padded by reflection with ``lines`` lines on every side, channels_last."""
    return F.pad(x, (lines,) * 4, mode="reflect").contiguous(memory_format=torch.channels_last)


def ring(x: Tensor) -> Tensor:
    """Overwrite the outermost line on each side by reflection about the line inside it."""
    return reflect(x, (-1, -1), (x.shape[2] - 2, x.shape[3] - 2))


def edge_ring(x: Tensor) -> Tensor:
    """Overwrite the outermost line on each side with the line inside it."""
    return replicate(x, (-1, -1), (x.shape[2] - 2, x.shape[3] - 2))


def zero_padded(x: Tensor, lines: int) -> Tensor:
    """``x`` padded by zeros with ``lines`` lines on every side, channels_last."""
    return F.pad(x, (lines,) * 4).contiguous(memory_format=torch.channels_last)


def zero_ring(x: Tensor) -> Tensor:
    """Overwrite the outermost line on each side with zeros."""
    for axis in (2, 3):
        for index in (0, x.shape[axis] - 1):
            x.select(axis, index).zero_()
    return x


def reflect(x: Tensor, first: Pair, size: Pair) -> Tensor:
    """Overwrite the line beyond each of the image's edges with the value that reflection padding gives it."""
    return _overwrite(x, first, size, 1)


def replicate(x: Tensor, first: Pair, size: Pair) -> Tensor:
    """Overwrite the line beyond each of the image's edges with the line at the edge."""
    return _overwrite(x, first, size, 0)


def _overwrite(x: Tensor, first: Pair, size: Pair, inside: int) -> Tensor:
    """Overwrite lines -1 and ``size`` of the image, where present, with the lines that are ``inside`` lines
    from the edge."""
    for axis, offset, length in ((2, first[0], size[0]), (3, first[1], size[1])):
        for beyond, source in ((-1, inside), (length, length - 1 - inside)):
            if 0 <= beyond - offset < x.shape[axis] and 0 <= source - offset < x.shape[axis]:
                x.select(axis, beyond - offset).copy_(x.select(axis, source - offset))
    return x


def reflect_cells(x: Tensor, first: Pair, size: Pair, reach: int) -> Tensor:
    """Overwrite ``reach`` pixels beyond each of the image's edges by reflection; ``x`` holds 2x2 cells, (n, 2
    2 c, h, w)."""
    n, c, h, w = x.shape
    pixels = x.permute(0, 2, 3, 1).reshape(n, h, w, 2, 2, c // 4)  # a view: the memory is channels_last
    for axis in (1, 2):
        count, offset, length = 2 * x.shape[axis + 1], 2 * first[axis - 1], 2 * size[axis - 1]
        for k in range(1, reach + 1):
            for beyond, inside in ((-k, k), (length - 1 + k, length - 1 - k)):
                if 0 <= beyond - offset < count and 0 <= inside - offset < count:
                    _line(pixels, axis, beyond - offset).copy_(_line(pixels, axis, inside - offset))
    return x


def _line(pixels: Tensor, axis: int, index: int) -> Tensor:
    """Pixel row (axis 1) or column (axis 2) ``index`` of cells (n, h, w, 2, 2, c)."""
    return pixels.select(axis, index // 2).select(2 if axis == 1 else 3, index % 2)
