"""The frozen network of WCT, rewritten to do less work.

It computes the same as the plain network, up to float rounding. The changes are:

1. Each encoder's 1x1 input layer, and each site, is linear, so it is folded into the convolution behind it.
2. Nearest enlargement and the 3x3 convolution after it become one transposed 4x4 convolution: 4/9 of the
   work.
3. The last convolution of each level makes the three colours of 2x2 pixels at once, as 12 channels of one 4x4
   convolution; for 3 channels most of a vector's 16 lanes would be idle.
4. ReLU comes after the maximum of 2x2 pixels, so it runs on a quarter of the values.
5. Padding makes no copies, see `padding`.
6. Each level works on no more of the window than the levels after it need, and its decoder on no more than
   the level's own image needs. Five levels together reach 246 pixels, the last level 2.
7. All layers run in strips of rows. The layers at both ends of a level, where the image is large, go through
   a strip together. This takes less memory, and the data in use stay in the processor's cache. The tensors
   that are kept between strips lie in two buffers in turn.

`low` says which layers may compute in 16 bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from urst_tiles.geometry import Box
from urst_tiles.nets.base import Affine, Precision, Stylised
from urst_tiles.nets.frozen.chain import (
    ChainLayer,
    Scratch,
    beyond,
    bordered,
    edged,
    framed,
    needs,
    pooled,
    resized,
)
from urst_tiles.nets.frozen.folding import FoldedLayer, behind, doubling
from urst_tiles.nets.frozen.padding import Pair, conv2d, strips
from urst_tiles.nets.wct import LEVELS, WCTStyle, layers

Float = NDArray[np.float64]
Chain = Sequence[ChainLayer]

#: How many pixels beyond an aligned cell of ``2 ** (level - 1)`` pixels a level's image depends on the image
#: of the level before, as measured by the probe (tests/nets/test_wct.py).
REACH = {5: 150, 4: 62, 3: 22, 2: 8, 1: 2}
#: Side in pixels of the cells in which a level makes its image.
CELL = 2
#: Values in the largest tensor of a strip. Lower strips repeat more rows. The tensors of larger strips leave
#: the cache, and above 32 MiB the allocator of glibc returns them to the system each time: a fifth slower.
STRIP = 2**22
#: Layers at each end of a level that go through a strip together. Levels 2 and 1 do so as a whole.
ENDS = 4
#: Subtracted from the colours until they are float32: 16-bit floats are finest around 0.
MIDDLE = 0.5


#: Layers that may compute in bfloat16: a few, behind the last whitenings. Together they give 49 dB PSNR and
#: at worst a mean error of 0.6 levels; the layers that may be float16 would give 35 dB (design/wct.md).
ROBUST = ("e2_12", "d2_12", "d2_11", "d1_11")


def low(name: str, precision: Precision) -> bool:
    """Whether a layer computes in 16 bit. The deepest whitening amplifies the rounding of its whole encoder
    most; every other whitening amplifies most the rounding of the layer that subtracts the mean colour."""
    if precision == "bfloat16":
        return name in ROBUST
    return not name.startswith("e5") and not (name[0] == "e" and name.endswith("_11"))


class FrozenWCT(Stylised):
    """The frozen network of a WCT style."""

    selective = True

    def __init__(self, style: WCTStyle, affines: Mapping[str, Affine], precision: Precision = "float32"):
        super().__init__(style, affines, precision)
        self.levels = style.levels
        for name, (weight, bias) in folded(style, affines).items():
            self.put(name, weight, bias, self.low if low(name, precision) else torch.float32)
        self.register_buffer("middle", torch.full((6,), MIDDLE))

    def forward(
        self, x: Tensor, boxes: Sequence[Box] | None = None, keep: Sequence[Box] | None = None
    ) -> Tensor:
        """Run all levels on windows ``x``; outside of ``keep`` the result is 0."""
        whole = Box(0, 0, x.shape[2], x.shape[3])
        wanted = reduce(Box.union, keep).align(CELL).clip(whole) if keep else whole
        needed = regions(wanted, whole, self.levels)
        here, scratch = whole, Scratch()
        for level in self.levels:
            part, goal = needed[level], needed.get(level - 1, wanted)
            rows, columns = part.within(here).slices
            x, here = self._level(x[:, :, rows, columns], level, goal.within(part), scratch), goal
        if here == whole:
            return x
        return F.pad(x, (here.x0, whole.x1 - here.x1, here.y0, whole.y1 - here.y1))

    def _level(self, x: Tensor, level: int, goal: Box, scratch: Scratch) -> Tensor:
        """The part ``goal`` of the level's image, float32, from the image before it, (n, 3, h, w)."""
        chain, pieces, size = chain_of(level), pieces_of(level), (x.shape[2], x.shape[3])
        box = needs(chain, goal).clip(Box(0, 0, *size).grow(beyond(pieces[0])))
        z = framed(x, chain, (0, 0), size, box)
        for piece, following in pairwise(pieces):
            chain = chain[len(piece) :]
            after = resized(piece, size)
            wanted = needs(chain, goal).clip(Box(0, 0, *after).grow(beyond(following)))
            inside = wanted.clip(Box(0, 0, *after))
            y = scratch.empty(z, self._channels(piece[-1]), wanted.shape, self._dtype(piece[-1]))
            for part, out in self._strips(z, box, piece, size, inside):
                rows, columns = part.within(wanted).slices
                y[:, :, rows, columns] = out
            z, box, size = bordered(y, inside.within(wanted)), wanted, after
            edged(z, chain, (box.y0, box.x0), size)
        y = x.new_empty((x.shape[0], *goal.shape, 3), dtype=torch.promote_types(x.dtype, torch.float32))
        for part, cells in self._strips(z, box, pieces[-1], size, goal):
            rows, _ = part.within(goal).slices
            self._write(y[:, rows], cells)
        return y.permute(0, 3, 1, 2)

    def _strips(
        self, z: Tensor, box: Box, piece: Chain, size: Pair, wanted: Box
    ) -> Iterator[tuple[Box, Tensor]]:
        """The parts of ``wanted`` one after the other, each with the output of a piece of a chain there;
        ``box`` is the position of ``z`` in the image."""
        cell = CELL if piece[-1].kind == "last" else 1
        for a, b in strips(wanted.y1 - wanted.y0, self._rows(z, piece)):
            part = Box(wanted.y0 + a, wanted.x0, wanted.y0 + b, wanted.x1)
            source = needs(piece, part)
            rows, columns = source.within(box).slices
            y, (top, left) = self._through(z[:, :, rows, columns], piece, source, size)
            h, w = part.shape
            top, left = (part.y0 - top) // cell, (part.x0 - left) // cell
            yield part, y[:, :, top : top + h // cell, left : left + w // cell]

    def _rows(self, z: Tensor, piece: Chain) -> int:
        """The number of output rows of a strip through a piece."""
        large = piece[-2] if piece[-1].kind == "last" else piece[0]
        before, after = 64, resized(piece, (64, 64))[0]
        width = z.shape[3] * max(before, after) // before
        rows = max(32, STRIP // (self._channels(large) * width) // 8 * 8)
        return rows * after // max(before, after)

    def _channels(self, layer: ChainLayer) -> int:
        """The number of channels of a layer's output."""
        return len(self.get_buffer(f"{layer.name}_bias"))

    def _dtype(self, layer: ChainLayer) -> torch.dtype:
        """The type of a layer's output."""
        return self.get_buffer(f"{layer.name}_bias").dtype

    def _through(self, x: Tensor, piece: Chain, box: Box, size: Pair) -> tuple[Tensor, Pair]:
        """Run a strip, the part ``box``, through a piece of a chain; returns the output and its first
        line."""
        first = box.y0, box.x0
        for i, layer in enumerate(piece):
            x = self._layer(x, layer)
            first, size = layer.yields(first), layer.resized(size)
            if i < len(piece) - 1:
                x = edged(x, piece[i + 1 :], first, size)
        return x, first

    def _layer(self, x: Tensor, layer: ChainLayer) -> Tensor:
        """One layer, with ReLU unless it is of the kind "last"."""
        weight, bias = self.get_buffer(f"{layer.name}_weight"), self.get_buffer(f"{layer.name}_bias")
        x = x.to(weight.dtype)
        if layer.kind == "up":
            return enlarged(x, weight, bias).relu_()
        if layer.kind == "last":
            return conv2d(x, weight, bias, stride=2)
        x = conv2d(x, weight, bias)
        return (pooled(x) if layer.kind == "pool" else x).relu_()

    def _write(self, y: Tensor, cells: Tensor) -> None:
        """Write cells (n, 2 2 3, h/2, w/2) into ``y`` (n, h, w, 3), with ReLU."""
        n, h, w, _ = y.shape
        pixels = cells.permute(0, 2, 3, 1).unflatten(3, (2, 6)).transpose(2, 3)
        torch.add(pixels, self.get_buffer("middle"), out=y.view(n, h // 2, 2, w // 2, 6))
        y.relu_()

    def bytes_per_pixel(self, precision: Precision) -> float:
        """Measured on windows of 1536 px with the small networks; large windows take a third less. The full
        networks are four times as wide."""
        return 160.0 * self.get_buffer("e2_11_bias").shape[0] / 16


def regions(keep: Box, whole: Box, levels: Sequence[int] = LEVELS) -> dict[int, Box]:
    """The part of the window that each level must work on, so that ``keep`` of the last level's image is
    right. Parts are made of the level's own cells and lie inside ``whole``."""
    needed: dict[int, Box] = {}
    box = keep
    for level in reversed(levels):
        cell = max(CELL, 2 ** (level - 1))
        wide = box.align(cell).grow(REACH[level]).align(cell).clip(whole)
        box = needed[level] = wide.at_least(2 * cell, whole)
    return needed


def chain_of(level: int) -> list[ChainLayer]:
    """The layers of a level's encoder and decoder in order: "e5_11", ..., "e5_51", "d5_51", ..., "d5_11"."""
    names = layers(level)
    chain = []
    for name, following in zip(names, [*names[1:], None], strict=True):
        halved = following is not None and following[0] != name[0]
        chain.append(ChainLayer(f"e{level}_{name}", "pool" if halved else "conv"))
    for name, before in zip(reversed(names), [None, *reversed(names[1:])], strict=True):
        doubled = before is not None and before[0] != name[0]
        chain.append(ChainLayer(f"d{level}_{name}", "last" if name == "11" else "up" if doubled else "conv"))
    return chain


def pieces_of(level: int) -> list[Chain]:
    """The chain of a level in pieces: several layers at both ends, where the image is large, and single
    layers between them."""
    chain = chain_of(level)
    if level <= 2:
        return [chain]
    return [chain[:ENDS], *([layer] for layer in chain[ENDS:-ENDS]), chain[-ENDS:]]


def enlarged(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Run a convolution made by ``enlarging``: (n, c, h, w) -> (n, c', 2h - 2, 2w - 2), without the outermost
    pixel on each side. `padding.conv2d` explains the treatment of float16."""
    if x.dtype == torch.float16 and x.device.type == "cpu":
        return enlarged(x.float(), weight.float(), bias.float()).half()
    return F.conv_transpose2d(x, weight, bias, stride=2, padding=2)


# The following functions run once per style, in float64.


def folded(style: WCTStyle, affines: Mapping[str, Affine]) -> dict[str, FoldedLayer]:
    """Weight and bias of every convolution of the rewritten network, by its name."""
    state = {k: t.double().cpu().numpy() for k, t in style.weights.items()}
    convs: dict[str, FoldedLayer] = {}
    for level in style.levels:
        convs |= _encoder(state, level)
        convs |= _decoder(state, level, affines[f"relu{level}_1"])
    return convs


def _encoder(state: Mapping[str, Float], level: int) -> dict[str, FoldedLayer]:
    """The convolutions of an encoder; its 1x1 input layer is folded into the first."""
    side = f"encoder{level}.conv"
    convs = {name: (state[f"{side}{name}.weight"], state[f"{side}{name}.bias"]) for name in layers(level)}
    convs["11"] = behind(*convs["11"], state[f"{side}0.weight"][:, :, 0, 0], state[f"{side}0.bias"])
    return {f"e{level}_{name}": layer for name, layer in convs.items()}


def _decoder(state: Mapping[str, Float], level: int, site: Affine) -> dict[str, FoldedLayer]:
    """The convolutions of a decoder; the site is folded into the first, and each enlargement into the
    convolution behind it."""
    convs: dict[str, FoldedLayer] = {}
    for k, layer in enumerate(chain_of(level)[len(layers(level)) :]):
        source = layer.name.replace("_", ".conv").replace("d", "decoder")
        weight, bias = state[f"{source}.weight"], state[f"{source}.bias"]
        if k == 0:
            weight, bias = behind(weight, bias, site.scale, site.shift)
        if layer.kind == "up":
            weight = enlarging(weight)
        if layer.kind == "last":
            weight, bias = in_cells(weight), np.tile(bias - MIDDLE, 4)
        convs[layer.name] = weight, bias
    return convs


def enlarging(weight: Float) -> Float:
    """Nearest enlargement and a 3x3 convolution as one transposed 4x4 convolution of stride 2, (inputs,
    outputs, 4, 4). Pixel p of a cell takes the taps 3 - p and 1 - p for its two cells."""
    joined = np.zeros((weight.shape[1], weight.shape[0], 4, 4))
    for pixel, part in doubling(weight).items():
        p, q = int(pixel[0]), int(pixel[1])
        joined[:, :, [[3 - p], [1 - p]], [3 - q, 1 - q]] = part.swapaxes(0, 1)
    return joined


def in_cells(weight: Float) -> Float:
    """A 3x3 convolution as a 4x4 convolution of stride 2 that gives the four pixels of a cell, ordered by
    row, column, colour."""
    cells = np.zeros((2, 2, *weight.shape[:2], 4, 4))
    for p in range(2):
        for q in range(2):
            cells[p, q, :, :, p : p + 3, q : q + 3] = weight
    return cells.reshape(-1, weight.shape[1], 4, 4)
