"""Colour spaces in which colours are transferred, as point operations on tensors.

Tensors are (n, 3, ...), float32 or float64: red, green and blue in 0..1, or three coordinates of another
space.

References
----------
1. E. Reinhard, M. Ashikhmin, B. Gooch and P. Shirley, "Color Transfer between Images", IEEE Computer Graphics
   and Applications 21(5), 2001: l-alpha-beta.
2. IEC 61966-2-1 (sRGB) and CIE 15 (CIELAB), with the white point D65.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Float = NDArray[np.float64]

#: From red, green and blue to the cones' L, M and S [1, equation 4].
RGB_TO_LMS = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])
#: From the logarithms of L, M and S to l, alpha and beta [1, equation 6].
LMS_TO_LAB = np.diag([3**-0.5, 6**-0.5, 2**-0.5]) @ np.array([[1, 1, 1], [1, 1, -2], [1, -1, 0]])

#: From linear red, green and blue to X, Y and Z relative to those of white [2].
RGB_TO_XYZ = np.array(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
) / np.array([[0.95047], [1.0], [1.08883]])
#: From the cube roots of X, Y and Z to L*, a* and b* without the offset of L* [2].
ROOTS_TO_LAB = np.array([[0.0, 116.0, 0.0], [500.0, -500.0, 0.0], [0.0, 200.0, -200.0]])


def mixed(x: Tensor, matrix: Float, shift: Float | None = None) -> Tensor:
    """``matrix @ x + shift`` over the channels: (n, C, ...) -> (n, C', ...).

    Products are summed channel by channel, in one order, so a pixel gets the same bits in every window.
    """
    out = x.new_empty((x.shape[0], len(matrix), *x.shape[2:]))
    for k, row in enumerate(matrix.tolist()):
        y = out[:, k]
        first, *rest = [c for c, weight in enumerate(row) if weight] or [0]
        torch.mul(x[:, first], row[first], out=y)
        for c in rest:
            y.add_(x[:, c], alpha=row[c])
        if shift is not None and shift[k]:
            y.add_(float(shift[k]))
    return out


def to_lalphabeta(x: Tensor, floor: float) -> Tensor:
    """l, alpha and beta of red, green and blue; L, M and S below ``floor``, which have no useful logarithm,
    count as ``floor``."""
    return mixed(mixed(x, RGB_TO_LMS).clamp_(min=floor).log10_(), LMS_TO_LAB)


def from_lalphabeta(lab: Tensor) -> Tensor:
    """Red, green and blue of l, alpha and beta."""
    logarithms = mixed(lab, np.linalg.inv(LMS_TO_LAB)).mul_(float(np.log(10.0)))
    return mixed(logarithms.exp_(), np.linalg.inv(RGB_TO_LMS))


def to_lab(x: Tensor) -> Tensor:
    """L* in 0..100, a* and b* of red, green and blue in sRGB."""
    linear = torch.where(x > 0.04045, ((x.clamp(min=0.0) + 0.055) / 1.055).pow_(2.4), x / 12.92)
    t = mixed(linear, RGB_TO_XYZ)
    low = t * 7.787 + 16.0 / 116.0
    roots = torch.where(t > 0.008856, t.clamp_(min=1e-6).pow_(1.0 / 3.0), low)
    return mixed(roots, ROOTS_TO_LAB, np.array([-16.0, 0.0, 0.0]))


def from_lab(lab: Tensor) -> Tensor:
    """Red, green and blue in sRGB of L*, a* and b*; what lies outside of sRGB is clipped at black."""
    roots = mixed(lab, np.linalg.inv(ROOTS_TO_LAB), np.full(3, 16.0 / 116.0)).clamp_(min=0.0)
    t = torch.where(roots > 0.2068966, roots.pow(3), (roots - 16.0 / 116.0) / 7.787)
    linear = mixed(t, np.linalg.inv(RGB_TO_XYZ)).clamp_(min=0.0)
    return torch.where(linear > 0.0031308, linear.pow(1 / 2.4).mul_(1.055).sub_(0.055), linear * 12.92)
