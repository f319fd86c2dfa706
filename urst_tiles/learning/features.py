"""Loss networks in the type of a training's computation, and sums of losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from urst_tiles import losses

#: Mean and deviation, each (n, C), by layer or site.
Statistics = dict[str, losses.MeanStd]


def lowered(x: Tensor, dtype: torch.dtype) -> Tensor:
    """In the type of the computation, channels_last."""
    return x.to(dtype).contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Lowered:
    """A loss network that takes float32 and computes in ``dtype``."""

    net: losses.FeatureNet
    dtype: torch.dtype

    def __call__(self, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """The features of ``layers``."""
        return self.net(lowered(x, self.dtype), layers)


def statistics(net: losses.FeatureNet, x: Tensor, layers: Sequence[str]) -> Statistics:
    """Mean and deviation of ``x`` in each of ``layers``."""
    return {k: losses.mean_std(f) for k, f in net(x, layers).items()}


def weighted(parts: Mapping[str, Tensor], weight: Mapping[str, float]) -> Tensor:
    """The sum of ``parts``, each times its weight; one that ``weight`` does not name counts nothing."""
    terms = [weight[name] * part for name, part in parts.items() if name in weight]
    return torch.stack(terms).sum() if terms else torch.zeros(())
