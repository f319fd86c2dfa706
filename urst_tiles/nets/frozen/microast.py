"""The frozen network of MicroAST, rewritten into dense convolutions that suit the hardware.

It computes the same as the plain network, up to float rounding, four times as fast in float32 on a CPU. The
changes are:

1. The two affine sites and the filter modulation y = w conv(x) + b x are linear, so they are folded into the
   weights of the convolutions. b x becomes a centre tap; the scales of the sites become one scale of the
   whole residual stream, and their shifts are added to biases.
2. Convolutions of many tiny groups, which leave vector units idle, become convolutions of few groups with 16
   inputs each.
3. Bilinear enlargement and the 3x3 convolution after it become one 3x3 convolution at low resolution, which
   gives the four pixels of each 2x2 cell as four times the channels. Cells on the image's edge have kernels
   of their own, with the reflection folded in.
4. The last two layers stay in these cells: a 1x1 convolution on 16 channels is a block-diagonal 1x1 on 64,
   and the 9x9 convolution to 3 channels is a 5x5 to 12, which fills a vector of 16 lanes better than 3 would.
5. Padding makes no copies: every layer writes its output with a ring around it, a few lines that are then
   overwritten.
6. The first and last layers, where the image is large, run in strips of rows. This takes less memory, and the
   data in use stay in the processor's cache.
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
from urst_tiles.nets.frozen.folding import FoldedLayer
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
Layers = dict[str, FoldedLayer]

#: Quarter-resolution rows per strip: large enough that overlapping rows cost little, small enough for the
#: cache.
STRIP = 32
#: The number of inputs per group that fills a vector register.
LANES = 16


class FrozenMicroAST(Stylised):
    """The frozen network of a MicroAST style."""

    def __init__(self, style: MicroASTStyle, affines: Mapping[str, Affine], precision: Precision = "float32"):
        super().__init__(style, affines, precision)
        self.alpha = style.alpha
        for name, (weight, bias) in folded(style, affines).items():
            dtype = self.low if name.startswith(ROBUST) else torch.float32
            self.put(name, weight, bias, dtype, torch.float32 if name == "last" else dtype)

    def _conv(self, x: Tensor, name: str, stride: int = 1, padding: int = 0) -> Tensor:
        """Convolution ``name``. The last one leaves out its bias, which is added later, in float32."""
        weight = self.get_buffer(f"{name}_weight")
        bias = None if name == "last" else self.get_buffer(f"{name}_bias")
        return conv2d(x, weight, bias, stride, padding)

    def forward(self, x: Tensor, boxes: Sequence[Box] | None = None) -> Tensor:
        z = self._encode(x)  # 64, h/4 + 2, w/4 + 2
        for block in ("res1", "res2", "res3"):
            z = self._residual(z, block)  # 64, h/4 + 2, w/4 + 2
        z = self._residual(z.to(self.low), "res4")  # 64, h/4 + 2, w/4 + 2
        y = self._decode(z[:, :, 1:-1, 1:-1])
        return y if self.alpha == 1.0 else y.mul_(self.alpha).add_(x, alpha=1.0 - self.alpha)

    def _residual(self, z: Tensor, block: str) -> Tensor:
        """The residual block z + b(relu(a(z))) in place; input and output have rings."""
        h = ring(self._conv(z, f"{block}a", padding=1).relu_())
        return ring(z.add_(self._conv(h, f"{block}b", padding=1)))

    def _encode(self, x: Tensor) -> Tensor:
        """(n, 3, h, w) in 0..1 -> the residual stream with its ring, (n, 64, h/4 + 2, w/4 + 2)."""
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
        """Bilinear enlargement to twice the size, 3x3 convolution and ReLU, as cells; the first row of the
        result is row ``first`` of the image's ``rows``.

        ``x`` has one more cell on each side than the result, and the result has two more than the image on
        the left and right.
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
        """Cells as pixels, without the outermost line on each side: (n, 4 c, h, w) -> (n, c, 2h - 2, 2w -
        2)."""
        n, c, h, w = x.shape
        y = empty(x, c // 4, 2 * h - 2, 2 * w - 2)
        for p in range(2):
            for q in range(2):
                k = (2 * p + q) * (c // 4)
                y[:, :, 1 - p :: 2, 1 - q :: 2] = x[:, k : k + c // 4, 1 - p : h - p, 1 - q : w - q]
        return y

    def _write(self, y: Tensor, cells: Tensor) -> None:
        """Write cells (n, 4 x 3, h/2, w/2) into ``y`` (n, h, w, 3), adding the last bias in float32."""
        n, h, w, _ = y.shape
        pixels = cells.permute(0, 2, 3, 1).reshape(n, h // 2, w // 2, 2, 6).transpose(2, 3)
        torch.add(pixels, self.get_buffer("last_bias")[:6], out=y.view(n, h // 2, 2, w // 2, 6))

    def bytes_per_pixel(self, precision: Precision) -> float:
        """Measured on windows of 1128 px; small windows take more per pixel, but little in all."""
        return 120.0


#: Layers that may compute in 16 bit: all layers behind the last site, together 50 dB PSNR. The sites amplify
#: the rounding errors of the layers before them, up to tens of times where the image is flat: 16 bit in a
#: single residual block there leaves as little as 28 dB, in the encoder 19 dB.
ROBUST = ("res4", "up", "mix", "last")


def edges(first: int, count: int, size: int) -> list[tuple[int, str]]:
    """The index of the image's first line, named "a", and of its last, "z", among ``count`` lines that begin
    with line ``first``; the image has ``size`` lines. A line that is not among them is left out."""
    lines = [(-first, "a"), (size - 1 - first, "z")]
    return [(i, name) for i, name in lines if 0 <= i < count]


def only(i: int | None) -> slice:
    """The slice of line ``i``; all lines where ``i`` is None."""
    return slice(None) if i is None else slice(i, i + 1)


def around(i: int | None) -> slice:
    """The slice of the three lines around line ``i`` in a tensor that has one more line on each side; all
    lines where ``i`` is None."""
    return slice(None) if i is None else slice(i, i + 3)


# The following functions run once per style, in float64.


def folded(style: MicroASTStyle, affines: Mapping[str, Affine]) -> Layers:
    """Weight and bias of every convolution of the rewritten network, by its name."""
    state = {k: t.double().cpu().numpy() for k, t in style.weights.items()}

    def get(name: str) -> FoldedLayer:
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


def _trunk(style: MicroASTStyle, affines: Mapping[str, Affine], get: Callable[[str], FoldedLayer]) -> Layers:
    """The layers enc5 and the four residual blocks, each z + b(relu(a(z))).

    Let x be the original stream, and s and t the scale and shift of a site. Before the first site the
    rewritten stream is z = s1 s2 x. Behind it, where the original stream is s1 x + t1, it is z = s2 (s1 x +
    t1). So the first site only adds s2 t1, which is folded into the bias before it, and the second site
    likewise only adds t2. ReLU commutes with positive factors, and the scales are positive.
    """
    s1, t1 = affines["content"].scale, affines["content"].shift
    s2, t2 = affines["decoder"].scale, affines["decoder"].shift
    d = s1 * s2
    weight, bias = get("content.enc1.8")
    layers: Layers = {"enc5": (weight * d[:, None, None, None], bias * d)}
    ones, zeros = np.ones_like(d), np.zeros_like(d)
    f = {k: t.double().cpu().numpy() for k, t in style.features.items()}
    blocks = (
        ("res1", "content.enc1.10", d, zeros, ones, zeros),
        ("res2", "content.enc2.0", d, t1 * s2, ones, zeros),
        ("res3", "decoder.dec1", s2, t2, f["weight2"], f["bias2"]),
        ("res4", "decoder.dec2", ones, zeros, f["weight1"], f["bias1"]),
    )
    for name, source, unit, shift, w, b in blocks:
        layers[f"{name}a"] = _scaled(*_modulated(*get(f"{source}.conv1"), w, b), 1.0 / unit, ones)
        weight, bias = _scaled(*_modulated(*get(f"{source}.conv2"), w, b), ones, unit)
        layers[f"{name}b"] = weight, bias + shift
    return layers


def _modulated(weight: Float, bias: Float, w: Float, b: Float) -> FoldedLayer:
    """The modulation w conv(x) + b x as one convolution."""
    weight = weight * w[:, None, None, None]
    centre = weight.shape[2] // 2
    weight[:, :, centre, centre] += np.diag(b)
    return weight, bias * w


def _scaled(weight: Float, bias: Float, inputs: Float, outputs: Float) -> FoldedLayer:
    """The convolution ``outputs`` * conv(``inputs`` * x), factors per channel, as one convolution."""
    return weight * outputs[:, None, None, None] * inputs[None, :, None, None], bias * outputs


def _dense(weight: Float, bias: Float, groups: int) -> FoldedLayer:
    """A grouped convolution as a convolution of fewer, larger ``groups``."""
    outputs, per_group = weight.shape[:2]
    inputs = _inputs(weight)
    dense = np.zeros((outputs, inputs // groups, *weight.shape[2:]))
    original = inputs // per_group
    for o in range(outputs):
        start = o * original // outputs * per_group % (inputs // groups)
        dense[o, start : start + per_group] = weight[o]
    return dense, bias


def _inputs(weight: Float) -> int:
    """The number of input channels of a MicroAST convolution by groups. The encoder's have one input per
    group and two outputs; the decoder's one output per group."""
    outputs, per_group = weight.shape[:2]
    return outputs // 2 if per_group == 1 else outputs * per_group


def _few_groups(weight: Float, bias: Float) -> int:
    """The number of groups, of about ``LANES`` inputs each, that the convolution is rewritten to."""
    return max(1, _inputs(weight) // LANES)


#: Bilinear enlargement by two with half-pixel centres: the weights of the pixels before, at and after a cell
#: in the enlarged pixels -1, 0, 1 and 2 of that cell.
BILINEAR = {-1: (0.75, 0.25, 0.0), 0: (0.25, 0.75, 0.0), 1: (0.0, 0.75, 0.25), 2: (0.0, 0.25, 0.75)}


def _taps(where: str) -> Float:
    """Weights (2 pixels of the cell, 3 taps of the kernel, 3 cells) at the first line ("a"), in the middle
    ("m") or at the last line ("z") of the image."""
    reflected = {"a": {-1: 1}, "m": {}, "z": {2: 0}}[where]
    return np.array([[BILINEAR[reflected.get(p + k, p + k)] for k in (-1, 0, 1)] for p in (0, 1)])


def _enlarging(name: str, weight: Float, bias: Float) -> Layers:
    """Bilinear enlargement by two and a 3x3 convolution, as 3x3 convolutions that give cells: for the middle
    of the image ("mm") and for its edges. Outputs are ordered by group, then pixel."""
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


def _mixing(weight: Float, bias: Float, groups: int) -> FoldedLayer:
    """A 1x1 convolution on each of a cell's four pixels; inputs are ordered by group, then pixel, outputs by
    pixel."""
    n = len(bias)
    mixing = np.zeros((4, n, groups, 4, n // groups, 1, 1))
    for p in range(4):
        mixing[p, :, :, p] = weight.reshape(n, groups, n // groups, 1, 1)
    return mixing.reshape(4 * n, 4 * n, 1, 1), np.tile(bias, 4)


def _last(weight: Float, bias: Float) -> FoldedLayer:
    """The 9x9 convolution as a 5x5 convolution on cells: tap k in -4..4 of pixel p is pixel p + k, counted
    from the cell's first."""
    outputs, inputs = weight.shape[:2]
    last = np.zeros((2, 2, outputs, 2, 2, inputs, 5, 5))
    for p in range(2):
        for q in range(2):
            for k in range(9):
                for m in range(9):
                    y, x = p + k - 4, q + m - 4
                    last[p, q, :, y % 2, x % 2, :, y // 2 + 2, x // 2 + 2] = weight[:, :, k, m]
    return last.reshape(4 * outputs, 4 * inputs, 5, 5), np.tile(bias, 4)
