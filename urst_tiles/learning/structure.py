"""The structural similarity of pictures: whether shapes are where they were [1].

Reference
---------
1. Z. Wang, A. C. Bovik, H. R. Sheikh, E. P. Simoncelli, "Image Quality Assessment: From Error Visibility to
   Structural Similarity", IEEE Transactions on Image Processing 13, 2004.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

#: Rec. 709, of values as they are stored.
LUMINANCE = (0.2126, 0.7152, 0.0722)
#: By how much pictures are reduced for the distance, and what each counts.
REDUCTIONS = {8: 1.0, 4: 0.5}
#: The side of the windows in which it is measured, and both constants of the formula [1] for values in 0..1;
#: dark parts count as others do, so they are small.
WINDOW, LEAST = 7, 1e-4


def luminance(x: Tensor) -> Tensor:
    """(n, 1, h, w) of pictures (n, 3, h, w)."""
    return (x * x.new_tensor(LUMINANCE).view(3, 1, 1)).sum(1, keepdim=True)


def similarity(a: Tensor, b: Tensor, local_mean: Callable[[Tensor], Tensor], c1: float, c2: float) -> Tensor:
    """(): the structural similarity [1] of ``a`` and ``b`` (n, 1, h, w), mean over all places: 1 if equal.

    Parameters
    ----------
    local_mean : the mean over a window around each place.
    c1, c2 : the constants of the formula.
    """
    mean_a, mean_b, aa, bb, ab = (local_mean(t) for t in (a, b, a * a, b * b, a * b))
    both = (2 * mean_a * mean_b + c1) * (2 * (ab - mean_a * mean_b) + c2)
    each = (mean_a**2 + mean_b**2 + c1) * (aa - mean_a**2 + bb - mean_b**2 + c2)
    return (both / each).mean()


def structure_distance(x: Tensor, guide: Tensor) -> Tensor:
    """(): what the structural similarity of pictures to their guides, (n, 3, h, w) in 0..1, lacks of 1; the
    sum over `REDUCTIONS`, each times what it counts."""
    total = x.new_zeros(())
    pair = torch.cat([luminance(x), luminance(guide.clamp(0, 1))])
    for side, share in REDUCTIONS.items():
        a, b = F.avg_pool2d(pair, side).chunk(2)
        mean = partial(F.avg_pool2d, kernel_size=min(WINDOW, *a.shape[2:]), stride=1)
        total = total + share * (1 - similarity(a, b, mean, LEAST, LEAST))
    return total
