"""Identity: a network that returns its input, without sites, weights or halo.

With it, the code around a network is measured and tested: reading, cutting, encoding and assembling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from urst_tiles.geometry import Box
from urst_tiles.moments import Moments
from urst_tiles.nets.base import (
    Affine,
    At,
    LocalNet,
    Precision,
    Site,
    State,
    StyleImages,
    checked_precision,
    digest,
    saved_style,
)

NAME, HALO, STRIDE, MINIMUM = "identity", 0, 1, 1


class IdentityStyle:
    """A style that does nothing."""

    name, halo, stride, minimum = NAME, HALO, STRIDE, MINIMUM
    plain_bytes = 24.0
    sites: tuple[Site, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Hex digest, always the same."""
        return digest(*self.state())

    def forward(self, x: Tensor, at: At) -> Tensor:
        return x

    def affine(self, site: Site, moments: Moments) -> Affine:
        """Raise KeyError, since the style has no sites."""
        raise KeyError(site.name)

    def state(self) -> tuple[State, dict[str, Any]]:
        return {}, {"alpha": 1.0}


class IdentityNet(LocalNet):
    """The network that returns its input."""

    family, halo, stride, minimum = NAME, HALO, STRIDE, MINIMUM
    passthrough = True

    def forward(self, x: Tensor, boxes: Sequence[Box] | None = None) -> Tensor:
        """``x`` itself."""
        return x

    def bytes_per_pixel(self, precision: Precision) -> float:
        """float32 in and out."""
        return 24.0

    def to_precision(self, precision: Precision) -> LocalNet:
        """Itself."""
        checked_precision(precision)
        return self

    def saved(self) -> tuple[State, dict[str, Any]]:
        """The settings alone."""
        tensors, values = saved_style(IdentityStyle())
        return tensors, values | {"own_statistics": False}


def build(states: Mapping[str, State], styles: StyleImages, alpha: float = 1.0) -> IdentityStyle:
    """The identity style, whatever the arguments."""
    return IdentityStyle()


def restore(state: State, settings: Mapping[str, Any]) -> IdentityStyle:
    """The identity style, whatever the arguments."""
    return IdentityStyle()


def frozen(style: IdentityStyle, affines: Mapping[str, Affine]) -> IdentityNet:
    """The network that returns its input."""
    return IdentityNet()


def check(state: State, file: str, path: Path) -> None:
    """Accept anything, since there are no weights."""


def seeded(seed: int = 0, width: float = 1.0) -> dict[str, State]:
    """An empty dict, since there are no weights."""
    return {}
