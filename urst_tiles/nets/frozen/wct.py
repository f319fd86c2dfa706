"""WCT with its statistics frozen, rewritten to do less work. Same network.

What is done to the plain network, all of it exact up to float rounding:

1. Each encoder's 1x1 input layer, and each site, are linear, so they go into the convolution behind them.
2. Nearest enlargement and the 3x3 convolution after it become one transposed 4x4 convolution: 4/9 of the
   work.
3. The last convolution of each level makes the three colours of 2x2 pixels at once, 12 channels by one 4x4
   convolution: a vector of 16 lanes would otherwise work for 3.
4. ReLU comes after the maximum of 2x2, on a quarter of the values.
5. Padding is no copy: see ``padding``.
6. Each level works on no more of the window than what the levels after it still need of it, and its decoder
   on no more than what its own picture needs. Five levels together reach 246 pixels, the last one 2.
7. All runs in strips of rows, the layers at both ends of a level, where the image is large, together: less
   memory, and the working set stays in cache. What is kept between strips lies in two buffers in turn.

What 16 bit is good for here, and what not: ``low``.
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
    Layer,
    Scratch,
    beyond,
    bordered,
    edged,
    framed,
    needs,
    pooled,
    resized,
)
from urst_tiles.nets.frozen.folding import Layer as Weights
from urst_tiles.nets.frozen.folding import behind, doubling
from urst_tiles.nets.frozen.padding import Pair, conv2d, strips
from urst_tiles.nets.wct import LEVELS, WCTStyle, layers

Float = NDArray[np.float64]
Chain = Sequence[Layer]

#: How far a level's picture depends on the one before, pixels beyond an aligned cell of ``2 ** (level - 1)``
#: (the probe's, tests/torch/test_wct.py).
REACH = {5: 150, 4: 62, 3: 22, 2: 8, 1: 2}
#: Side of the cells that pictures are made of.
CELL = 2
#: Values per strip, of its largest tensor. Strips that are lower repeat more rows; of larger ones the tensors
#: leave the cache, and above 32 MiB the allocator (glibc's) returns them to the system each time: a fifth
#: slower.
STRIP = 2**22
#: Layers at each end of a level that go through a strip together. Levels 2 and 1 do so as a whole.
ENDS = 4
#: Subtracted from the colours until they are float32: 16 bit is finest around 0.
MIDDLE = 0.5


#: What may compute in bfloat16: little, behind the last whitenings. Together 49 dB and 0.6 levels at worst;
#: the layers that may be float16 would be 35 dB (design/wct.md).
ROBUST = ("e2_12", "d2_12", "d2_11", "d1_11")


def low(name: str, precision: Precision) -> bool:
    """Whether a layer computes in 16 bit. The deepest whitening amplifies its encoder's rounding most, every
    other one that of the layer where the mean colour is subtracted."""
    if precision == "bfloat16":
        return name in ROBUST
    return not name.startswith("e5") and not (name[0] == "e" and name.endswith("_11"))


class FrozenWCT(Stylised):
    """The plain network that a WCT style becomes for given affine maps."""

    selective = True

    def __init__(self, style: WCTStyle, affines: Mapping[str, Affine], precision: Precision = "float32"):
        super().__init__(style, affines, precision)
        for name, (weight, bias) in folded(style, affines).items():
            self.put(name, weight, bias, self.low if low(name, precision) else torch.float32)
        self.register_buffer("middle", torch.full((6,), MIDDLE))

    def forward(
        self, x: Tensor, boxes: Sequence[Box] | None = None, keep: Sequence[Box] | None = None
    ) -> Tensor:
        """The rewritten network; outside of ``keep`` the result is 0."""
        whole = Box(0, 0, x.shape[2], x.shape[3])
        wanted = reduce(Box.union, keep).align(CELL).clip(whole) if keep else whole
        needed = regions(wanted, whole)
        here, scratch = whole, Scratch()
        for level in LEVELS:
            part, goal = needed[level], needed.get(level - 1, wanted)
            rows, columns = part.within(here).slices
            x, here = self._level(x[:, :, rows, columns], level, goal.within(part), scratch), goal
        if here == whole:
            return x
        return F.pad(x, (here.x0, whole.x1 - here.x1, here.y0, whole.y1 - here.y1))

    def _level(self, x: Tensor, level: int, goal: Box, scratch: Scratch) -> Tensor:
        """(n, 3, h, w) -> the part ``goal`` of the level's picture, float32."""
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
        """Part by part of ``wanted``, what comes out of a piece of a chain; ``box`` is where ``z`` lies."""
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
        """Rows of a strip of what comes out of a piece."""
        large = piece[-2] if piece[-1].kind == "last" else piece[0]
        before, after = 64, resized(piece, (64, 64))[0]
        width = z.shape[3] * max(before, after) // before
        rows = max(32, STRIP // (self._channels(large) * width) // 8 * 8)
        return rows * after // max(before, after)

    def _channels(self, layer: Layer) -> int:
        """Of what comes out of a layer."""
        return len(self.get_buffer(f"{layer.name}_bias"))

    def _dtype(self, layer: Layer) -> torch.dtype:
        """Of what comes out of a layer."""
        return self.get_buffer(f"{layer.name}_bias").dtype

    def _through(self, x: Tensor, piece: Chain, box: Box, size: Pair) -> tuple[Tensor, Pair]:
        """A strip ``box`` through a piece of a chain: what comes out, and its first line."""
        first = box.y0, box.x0
        for i, layer in enumerate(piece):
            x = self._layer(x, layer)
            first, size = layer.yields(first), layer.resized(size)
            if i < len(piece) - 1:
                x = edged(x, piece[i + 1 :], first, size)
        return x, first

    def _layer(self, x: Tensor, layer: Layer) -> Tensor:
        """One layer, with ReLU unless it is the last."""
        weight, bias = self.get_buffer(f"{layer.name}_weight"), self.get_buffer(f"{layer.name}_bias")
        x = x.to(weight.dtype)
        if layer.kind == "up":
            return enlarged(x, weight, bias).relu_()
        if layer.kind == "last":
            return conv2d(x, weight, bias, stride=2)
        x = conv2d(x, weight, bias)
        return (pooled(x) if layer.kind == "pool" else x).relu_()

    def _write(self, y: Tensor, cells: Tensor) -> None:
        """Cells (n, 2 2 3, h/2, w/2) into ``y`` (n, h, w, 3), with ReLU."""
        n, h, w, _ = y.shape
        pixels = cells.permute(0, 2, 3, 1).unflatten(3, (2, 6)).transpose(2, 3)
        torch.add(pixels, self.get_buffer("middle"), out=y.view(n, h // 2, 2, w // 2, 6))
        y.relu_()

    def bytes_per_pixel(self, precision: Precision) -> float:
        """Measured on windows of 1536 px with the small networks (large windows take a third less); the full
        ones are four times as wide."""
        return 160.0 * self.get_buffer("e2_11_bias").shape[0] / 16


def regions(keep: Box, whole: Box) -> dict[int, Box]:
    """What each level must work on so that ``keep`` of the last one's picture is right: on the level's own
    cells, inside the window."""
    needed: dict[int, Box] = {}
    box = keep
    for level in reversed(LEVELS):
        cell = max(CELL, 2 ** (level - 1))
        wide = box.align(cell).grow(REACH[level]).align(cell).clip(whole)
        box = needed[level] = wide.at_least(2 * cell, whole)
    return needed


def chain_of(level: int) -> list[Layer]:
    """A level's encoder and decoder, layer by layer: "e5_11", ..., "e5_51", "d5_51", ..., "d5_11"."""
    names = layers(level)
    chain = []
    for name, following in zip(names, [*names[1:], None], strict=True):
        halved = following is not None and following[0] != name[0]
        chain.append(Layer(f"e{level}_{name}", "pool" if halved else "conv"))
    for name, before in zip(reversed(names), [None, *reversed(names[1:])], strict=True):
        doubled = before is not None and before[0] != name[0]
        chain.append(Layer(f"d{level}_{name}", "last" if name == "11" else "up" if doubled else "conv"))
    return chain


def pieces_of(level: int) -> list[Chain]:
    """A level's chain in pieces: both ends, where the image is large, and layer by layer between them."""
    chain = chain_of(level)
    if level <= 2:
        return [chain]
    return [chain[:ENDS], *([layer] for layer in chain[ENDS:-ENDS]), chain[-ENDS:]]


def enlarged(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Nearest enlargement and a 3x3 convolution, made one by ``enlarging``: (n, c, h, w) ->
    (n, c', 2h - 2, 2w - 2), a pixel short on each side. See ``padding.conv2d`` for float16."""
    if x.dtype == torch.float16 and x.device.type == "cpu":
        return enlarged(x.float(), weight.float(), bias.float()).half()
    return F.conv_transpose2d(x, weight, bias, stride=2, padding=2)


# What follows runs once per style, in float64.


def folded(style: WCTStyle, affines: Mapping[str, Affine]) -> dict[str, Weights]:
    """Weight and bias of every convolution of the rewritten network."""
    state = {k: t.double().cpu().numpy() for k, t in style.weights.items()}
    found: dict[str, Weights] = {}
    for level in LEVELS:
        found |= _encoder(state, level)
        found |= _decoder(state, level, affines[f"relu{level}_1"])
    return found


def _encoder(state: Mapping[str, Float], level: int) -> dict[str, Weights]:
    """An encoder's layers, its 1x1 input layer folded into the first."""
    side = f"encoder{level}.conv"
    found = {name: (state[f"{side}{name}.weight"], state[f"{side}{name}.bias"]) for name in layers(level)}
    found["11"] = behind(*found["11"], state[f"{side}0.weight"][:, :, 0, 0], state[f"{side}0.bias"])
    return {f"e{level}_{name}": layer for name, layer in found.items()}


def _decoder(state: Mapping[str, Float], level: int, site: Affine) -> dict[str, Weights]:
    """A decoder's layers, the site folded into the first, enlargement into those behind one."""
    found: dict[str, Weights] = {}
    for k, layer in enumerate(chain_of(level)[len(layers(level)) :]):
        source = layer.name.replace("_", ".conv").replace("d", "decoder")
        weight, bias = state[f"{source}.weight"], state[f"{source}.bias"]
        if k == 0:
            weight, bias = behind(weight, bias, site.scale, site.shift)
        if layer.kind == "up":
            weight = enlarging(weight)
        if layer.kind == "last":
            weight, bias = in_cells(weight), np.tile(bias - MIDDLE, 4)
        found[layer.name] = weight, bias
    return found


def enlarging(weight: Float) -> Float:
    """Nearest enlargement and a 3x3 convolution as one transposed 4x4 convolution of stride 2, (inputs,
    outputs, 4, 4): pixel p of a cell takes its two cells from taps 3 - p and 1 - p."""
    joined = np.zeros((weight.shape[1], weight.shape[0], 4, 4))
    for pixel, part in doubling(weight).items():
        p, q = int(pixel[0]), int(pixel[1])
        joined[:, :, [[3 - p], [1 - p]], [3 - q, 1 - q]] = part.swapaxes(0, 1)
    return joined


def in_cells(weight: Float) -> Float:
    """A 3x3 convolution as one of 4x4 and stride 2 to the four pixels of a cell, by row, column, colour."""
    cells = np.zeros((2, 2, *weight.shape[:2], 4, 4))
    for p in range(2):
        for q in range(2):
            cells[p, q, :, :, p : p + 3, q : q + 3] = weight
    return cells.reshape(-1, weight.shape[1], 4, 4)
