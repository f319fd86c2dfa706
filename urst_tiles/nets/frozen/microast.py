"""MicroAST with its statistics frozen, rewritten into dense convolutions that hardware likes.

The same network, four times as fast in float32 on a CPU.

What is done to the plain network, all of it exact up to float rounding:

1. The two affine sites and the filter modulation y = w conv(x) + b x are linear, so they go into the
   convolutions' weights: b x is a centre tap; the sites' scales become one scale of the whole residual
   stream, their shifts go into biases.
2. Convolutions of many tiny groups, which leave vector units idle, become convolutions of few groups with
   16 inputs each.
3. Bilinear enlargement and the 3x3 convolution after it become one 3x3 convolution at low resolution that
   yields the four pixels of each 2x2 cell as four times the channels. Cells on the image's edge get kernels
   of their own, in which reflection is folded.
4. The last two layers stay in these cells: 1x1 on 16 channels is a block-diagonal 1x1 on 64, 9x9 to 3
   channels is 5x5 to 12, which fills a vector of 16 lanes where 3 would not.
5. Padding is no copy: every layer writes its output with a ring around it, in which a few lines are then
   overwritten.
6. Both ends, where the image is large, run in strips of rows: less memory, and the working set stays in
   cache.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from urst_tiles.geometry import Box
from urst_tiles.nets.base import Affine, Precision, Stylised
from urst_tiles.nets.frozen.padding import (
    conv2d,
    empty,
    reflect,
    reflect_cells,
    replicate,
    ring,
    strips,
)
from urst_tiles.nets.microast import MicroASTStyle

Float = NDArray[np.float64]
Layer = tuple[Float, Float]
Layers = dict[str, Layer]

#: Rows of quarter-resolution cells per strip: large enough that overlapping rows cost little, small enough
#: for the cache.
STRIP = 32
#: Inputs per group that fill a vector register.
LANES = 16


class FrozenMicroAST(Stylised):
    """The plain network that a MicroAST style becomes for given affine maps."""

    def __init__(self, style: MicroASTStyle, affines: Mapping[str, Affine], precision: Precision = "float32"):
        super().__init__(style, affines, precision)
        self.alpha = style.alpha
        for name, (weight, bias) in folded(style, affines).items():
            dtype = self.low if name.startswith(ROBUST) else torch.float32
            self.put(name, weight, bias, dtype, torch.float32 if name == "last" else dtype)

    def _conv(self, x: Tensor, name: str, stride: int = 1, padding: int = 0) -> Tensor:
        """Convolution ``name``; the last one without its bias, which is added in float32."""
        weight = self.get_buffer(f"{name}_weight")
        bias = None if name == "last" else self.get_buffer(f"{name}_bias")
        return conv2d(x, weight, bias, stride, padding)

    def forward(self, x: Tensor, boxes: Sequence[Box] | None = None) -> Tensor:
        """The rewritten network."""
        z = self._encode(x)  # 64, h/4 + 2, w/4 + 2
        for block in ("res1", "res2", "res3"):
            z = self._residual(z, block)  # 64, h/4 + 2, w/4 + 2
        z = self._residual(z.to(self.low), "res4")  # 64, h/4 + 2, w/4 + 2
        y = self._decode(z[:, :, 1:-1, 1:-1])
        return y if self.alpha == 1.0 else y.mul_(self.alpha).add_(x, alpha=1.0 - self.alpha)

    def _residual(self, z: Tensor, block: str) -> Tensor:
        """z + b(relu(a(z))), rings included, in place."""
        h = ring(self._conv(z, f"{block}a", padding=1).relu_())
        return ring(z.add_(self._conv(h, f"{block}b", padding=1)))

    def _encode(self, x: Tensor) -> Tensor:
        """(n, 3, h, w) in 0..1 -> the residual stream (n, 64, h/4 + 2, w/4 + 2), ring included."""
        n, _, h, w = x.shape
        x = F.pad(x, (7, 4, 7, 4), mode="reflect")
        x = x.contiguous(memory_format=torch.channels_last)
        z = empty(x, self.style.sites[0].channels, h // 4 + 2, w // 4 + 2)
        for a, b in strips(h // 4, STRIP):
            e = x[:, :, 4 * a : 4 * b + 11]  # 3, rows 4a-7 .. 4b+4, columns -7 .. w+4
            e = self._conv(e, "enc1").relu_()  # 16, rows 4a-3 .. 4b, columns -3 .. w
            reflect(e, (4 * a - 3, -3), (h, w))
            e = self._conv(e, "enc2", stride=2).relu_()  # 32, half rows 2a-1 .. 2b
            e = self._conv(e, "enc3").relu_()  # 32
            reflect(e, (2 * a - 1, -1), (h // 2, w // 2))
            e = self._conv(e, "enc4", stride=2).relu_()  # 64, quarter rows a .. b
            z[:, :, 1 + a : 1 + b, 1:-1] = self._conv(e, "enc5").relu_()  # 64
        return ring(z)

    def _decode(self, z: Tensor) -> Tensor:
        """(n, 64, h/4, w/4) -> (n, 3, h, w) float32."""
        n, _, rows, columns = z.shape
        z = F.pad(z, (3, 3, 3, 3), mode="replicate").contiguous(memory_format=torch.channels_last)
        y = z.new_empty((n, 4 * rows, 4 * columns, 3), dtype=torch.float32)
        half = (2 * rows, 2 * columns)
        for a, b in strips(rows, STRIP):
            d = z[:, :, a : b + 6]  # 64, quarter rows a-3 .. b+3
            d = self._enlarge(d, "up1", a - 2, rows, columns)  # 4 x 32, quarter rows a-2 .. b+2
            d = self._conv(d, "mix1").relu_()  # 4 x 32
            d = self._unfold_cells(d)  # 32, half rows 2a-3 .. 2b+3
            replicate(d, (2 * a - 3, -3), half)
            d = self._enlarge(d, "up2", 2 * a - 2, *half)  # 4 x 16, half rows 2a-2 .. 2b+2
            d = self._conv(d, "mix2").relu_()  # 4 x 16
            reflect_cells(d, (2 * a - 2, -2), half, 4)
            d = self._conv(d, "last")  # 4 x 3, half rows 2a .. 2b
            self._write(y[:, 4 * a : 4 * b], d)
        return y.permute(0, 3, 1, 2)

    def _enlarge(self, x: Tensor, name: str, first: int, rows: int, columns: int) -> Tensor:
        """Twice the size, 3x3 convolved and rectified, as cells; the result's first row is row ``first`` of
        ``rows``.

        ``x`` has one more cell on each side than the result, and the result two more than the image on the
        left and right.
        """
        y = self._conv(x, f"{name}_mm")
        outside = (y.shape[3] - columns) // 2
        tops = edges(first, y.shape[2], rows)
        sides = edges(-outside, y.shape[3], columns)
        for i, vertical in [(None, "m"), *tops]:
            for j, horizontal in [(None, "m"), *sides]:
                if vertical == horizontal == "m":
                    continue
                source = x[:, :, around(i), around(j)]
                y[:, :, only(i), only(j)] = self._conv(source, f"{name}_{vertical}{horizontal}")
        return y.relu_()

    @staticmethod
    def _unfold_cells(x: Tensor) -> Tensor:
        """(n, 4 c, h, w) -> (n, c, 2h - 2, 2w - 2): cells to pixels, the outermost line dropped."""
        n, c, h, w = x.shape
        y = empty(x, c // 4, 2 * h - 2, 2 * w - 2)
        for p in range(2):
            for q in range(2):
                k = (2 * p + q) * (c // 4)
                y[:, :, 1 - p :: 2, 1 - q :: 2] = x[:, k : k + c // 4, 1 - p : h - p, 1 - q : w - q]
        return y

    def _write(self, y: Tensor, cells: Tensor) -> None:
        """Cells (n, 4 x 3, h/2, w/2) into ``y`` (n, h, w, 3); the last bias is added in float32."""
        n, h, w, _ = y.shape
        pixels = cells.permute(0, 2, 3, 1).reshape(n, h // 2, w // 2, 2, 6).transpose(2, 3)
        torch.add(pixels, self.get_buffer("last_bias")[:6], out=y.view(n, h // 2, 2, w // 2, 6))

    def bytes_per_pixel(self, precision: Precision) -> float:
        """Measured on windows of 1128 px; small ones take more per pixel, but little in all."""
        return 120.0


#: Layers that may compute in 16 bit: everything behind the last site, 50 dB together. What lies before it
#: is amplified by the sites, up to tens of times where the image is flat there: one residual block alone
#: costs down to 28 dB, the encoder 19 dB.
ROBUST = ("res4", "up", "mix", "last")


def edges(first: int, count: int, size: int) -> list[tuple[int, str]]:
    """Where the first ("a") and last ("z") of ``size`` lines lie among ``count`` lines from ``first`` on,
    if there."""
    places = [(-first, "a"), (size - 1 - first, "z")]
    return [(i, name) for i, name in places if 0 <= i < count]


def only(i: int | None) -> slice:
    """Line i, or all."""
    return slice(None) if i is None else slice(i, i + 1)


def around(i: int | None) -> slice:
    """The three lines of a ring-larger tensor around line i, or all."""
    return slice(None) if i is None else slice(i, i + 3)


# What follows runs once per style, in float64.


def folded(style: MicroASTStyle, affines: Mapping[str, Affine]) -> Layers:
    """Weight and bias of every convolution of the rewritten network."""
    state = {k: t.double().cpu().numpy() for k, t in style.weights.items()}

    def get(name: str) -> Layer:
        return state[f"{name}.conv_layer.weight"], state[f"{name}.conv_layer.bias"]

    layers: Layers = {}
    layers["enc1"] = get("content.enc1.0")
    layers["enc2"] = _dense(*get("content.enc1.2"), groups=1)
    layers["enc3"] = get("content.enc1.4")
    layers["enc4"] = _dense(*get("content.enc1.6"), groups=1)
    layers |= _trunk(style, affines, get)
    for up, mix, source in (("up1", "mix1", ("dec3.1", "dec3.3")), ("up2", "mix2", ("dec3.6", "dec3.8"))):
        layers |= _enlarging(up, *get(f"decoder.{source[0]}"))
        layers[mix] = _mixing(*get(f"decoder.{source[1]}"), groups=_few_groups(*get(f"decoder.{source[0]}")))
    layers["last"] = _last(*get("decoder.dec3.10"))
    return layers


def _trunk(style: MicroASTStyle, affines: Mapping[str, Affine], get: Callable[[str], Layer]) -> Layers:
    """enc5 and the four residual blocks, each z + b(relu(a(z))).

    With x the original stream and s, t the sites' scales and shifts: z = s1 s2 x before the first site. What
    comes out of it, s1 x + t1, is kept as z = s2 (s1 x + t1), so that the site only adds s2 t1, which goes
    into the bias before; the second site likewise only adds t2. ReLU keeps positive factors, and scales are
    positive.
    """
    s1, t1 = affines["content"].scale, affines["content"].shift
    s2, t2 = affines["decoder"].scale, affines["decoder"].shift
    d = s1 * s2
    weight, bias = get("content.enc1.8")
    layers: Layers = {"enc5": (weight * d[:, None, None, None], bias * d)}
    one, none = np.ones_like(d), np.zeros_like(d)
    f = {k: t.double().cpu().numpy() for k, t in style.features.items()}
    blocks = (
        ("res1", "content.enc1.10", d, none, one, none),
        ("res2", "content.enc2.0", d, t1 * s2, one, none),
        ("res3", "decoder.dec1", s2, t2, f["weight2"], f["bias2"]),
        ("res4", "decoder.dec2", one, none, f["weight1"], f["bias1"]),
    )
    for name, source, unit, shift, w, b in blocks:
        layers[f"{name}a"] = _scaled(*_modulated(*get(f"{source}.conv1"), w, b), 1.0 / unit, one)
        weight, bias = _scaled(*_modulated(*get(f"{source}.conv2"), w, b), one, unit)
        layers[f"{name}b"] = weight, bias + shift
    return layers


def _modulated(weight: Float, bias: Float, w: Float, b: Float) -> Layer:
    """w conv(x) + b x as one convolution."""
    weight = weight * w[:, None, None, None]
    centre = weight.shape[2] // 2
    weight[:, :, centre, centre] += np.diag(b)
    return weight, bias * w


def _scaled(weight: Float, bias: Float, inputs: Float, outputs: Float) -> Layer:
    """outputs * conv(inputs * x) as one convolution."""
    return weight * outputs[:, None, None, None] * inputs[None, :, None, None], bias * outputs


def _dense(weight: Float, bias: Float, groups: int) -> Layer:
    """A grouped convolution as one of fewer, larger ``groups``."""
    outputs, per_group = weight.shape[:2]
    inputs = _inputs(weight)
    dense = np.zeros((outputs, inputs // groups, *weight.shape[2:]))
    original = inputs // per_group
    for o in range(outputs):
        start = o * original // outputs * per_group % (inputs // groups)
        dense[o, start : start + per_group] = weight[o]
    return dense, bias


def _inputs(weight: Float) -> int:
    """Input channels of the depthwise-by-groups convolutions: one group per input going down, per output
    going up."""
    outputs, per_group = weight.shape[:2]
    return outputs // 2 if per_group == 1 else outputs * per_group


def _few_groups(weight: Float, bias: Float) -> int:
    """Into how many groups of about ``LANES`` inputs the convolution is put."""
    return max(1, _inputs(weight) // LANES)


#: Pixels -1, 0, 1, 2 of a cell, bilinearly enlarged x2 (half-pixel centres), from the cells before, here
#: and after.
BILINEAR = {-1: (0.75, 0.25, 0.0), 0: (0.25, 0.75, 0.0), 1: (0.0, 0.75, 0.25), 2: (0.0, 0.25, 0.75)}


def _taps(where: str) -> Float:
    """(2 pixels of the cell, 3 taps of the kernel, 3 cells) at the first line "a", amid "m" or at the last
    line "z"."""
    reflected = {"a": {-1: 1}, "m": {}, "z": {2: 0}}[where]
    return np.array([[BILINEAR[reflected.get(p + k, p + k)] for k in (-1, 0, 1)] for p in (0, 1)])


def _enlarging(name: str, weight: Float, bias: Float) -> Layers:
    """Bilinear x2 then 3x3 as 3x3 into cells, amid the image ("mm") and at its edges; outputs by group,
    then pixel."""
    groups = _few_groups(weight, bias)
    dense, _ = _dense(weight, bias, groups)
    layers: Layers = {}
    outputs = len(bias) // groups
    spread = np.tile(bias.reshape(groups, 1, outputs), (1, 4, 1)).reshape(-1)
    for vertical in "amz":
        for horizontal in "amz":
            cells = np.einsum("oikl,pku,qlv->pqoiuv", dense, _taps(vertical), _taps(horizontal))
            cells = cells.reshape(4, groups, outputs, -1, 3, 3).swapaxes(0, 1)
            layers[f"{name}_{vertical}{horizontal}"] = cells.reshape(4 * len(bias), -1, 3, 3), spread
    return layers


def _mixing(weight: Float, bias: Float, groups: int) -> Layer:
    """1x1 on each of a cell's four pixels; inputs ordered by group, then pixel, outputs by pixel."""
    n = len(bias)
    mixing = np.zeros((4, n, groups, 4, n // groups, 1, 1))
    for p in range(4):
        mixing[p, :, :, p] = weight.reshape(n, groups, n // groups, 1, 1)
    return mixing.reshape(4 * n, 4 * n, 1, 1), np.tile(bias, 4)


def _last(weight: Float, bias: Float) -> Layer:
    """9x9 as 5x5 on cells: tap k of pixel p is pixel (p + k) of the cells, k in -4..4."""
    outputs, inputs = weight.shape[:2]
    last = np.zeros((2, 2, outputs, 2, 2, inputs, 5, 5))
    for p in range(2):
        for q in range(2):
            for k in range(9):
                for m in range(9):
                    y, x = p + k - 4, q + m - 4
                    last[p, q, :, y % 2, x % 2, :, y // 2 + 2, x // 2 + 2] = weight[:, :, k, m]
    return last.reshape(4 * outputs, 4 * inputs, 5, 5), np.tile(bias, 4)
