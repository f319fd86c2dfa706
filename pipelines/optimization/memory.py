"""Memory as a formula: bytes per pixel of one forward and backward through a backbone, measured small."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from optimization.objective import Terms
from urst_tiles import losses
from urst_tiles.errors import DoesNotFit
from urst_tiles.storage.publish import megabytes

#: Of a process with torch, pyvips and all else loaded, before the first pixel (measured).
BASE_BYTES = 600 << 20
#: While a layer is passed backward: its gradient, its input's, and what the convolution lays out anew.
TRANSIENT = 4


def needs(net: losses.FeatureNet, terms: Terms, minimum: int, like: Tensor) -> Callable[[int], int]:
    """Window pixels -> bytes of a forward and backward: the line through two measured sizes."""
    small = max(64, 2 * minimum)
    near, far = (_bytes(net, terms, side, like) for side in (small, 2 * small))
    per_pixel = (far - near) / (3 * small**2)
    weights = max(0.0, near - per_pixel * small**2)
    return lambda pixels: round(weights + per_pixel * pixels)


def _bytes(net: losses.FeatureNet, terms: Terms, side: int, like: Tensor) -> int:
    """What a forward keeps for the backward, and a few times its largest activation."""
    held: dict[int, int] = {}
    largest = 0

    def pack(t: Tensor) -> Tensor:
        nonlocal largest
        storage = t.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
        largest = max(largest, t.numel() * t.element_size() if t.ndim == 4 and t.shape[0] == 1 else 0)
        return t

    x = torch.full((1, 3, side, side), 0.5).to(like).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        found = terms.smoothed(net)(x, terms.layers)
    features = sum(f.numel() * f.element_size() for f in found.values())
    return sum(held.values()) + TRANSIENT * largest + 3 * features


def check(peak_bytes: int, allowed: int, advice: str) -> None:
    """DoesNotFit with the numbers and the knob."""
    if peak_bytes > allowed:
        raise DoesNotFit(
            f"this needs {megabytes(peak_bytes)} of memory and {megabytes(allowed)} are there: {advice}"
        )
