"""How alike paintings are: by the statistics that lite measures of them, of which the named styles have some.

The 652 numbers of a painting are the mean and covariance of its colours, and mean and deviation of 320
features (`urst_tiles.nets.lite`). Each is divided by its deviation among the named styles.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from urst_tiles.nets import lite, named_styles
from urst_tiles.nets.base import State, style_tensor
from urst_tiles.weights import load
from urst_tiles.weights.table import TRAINED

#: A style that is farther than the nearest by this share of the nearest's distance counts 1/e of it.
SOFT = 0.3
#: Added to deviations, so that what hardly differs counts little.
FLOOR = 1e-3


@cache
def _weights() -> State:
    """The weights of lite that come with the package, with which the named styles were measured."""
    return {key: t.float() for key, t in load(TRAINED / lite.FILE).items()}


@torch.inference_mode()
def statistics(image: NDArray[np.float32]) -> Tensor:
    """The statistics of a painting (h, w, 3) in 0..1, float64 (652,), not divided."""
    return lite.pack(lite.style_features(style_tensor(image, lite.MINIMUM), _weights())).double()


def shares(image: NDArray[np.float32], names: Sequence[str]) -> NDArray[np.float64] | None:
    """The share of each of some styles, (n,), in a mixture that is to paint as a painting (h, w, 3) in 0..1
    was painted: more of what is nearer, and 1 in all; None where none of the names is a named style."""
    far = distances(image, names)
    if not np.isfinite(far).any():
        return None
    near = np.exp(-(far - far.min()) / (SOFT * max(float(far.min()), FLOOR)))
    return near / near.sum()


def distances(image: NDArray[np.float32], names: Sequence[str]) -> NDArray[np.float64]:
    """How far a painting is from each of some styles, (n,): the mean square of the differences of their
    statistics; infinite for a name that is none of the named styles."""
    known = list(named_styles.titles())
    rows = torch.stack([lite.pack(named_styles.features(name)).double() for name in known])
    far = ((rows - statistics(image)) / (rows.std(0) + FLOOR)).square().mean(1).tolist()
    by_name = dict(zip(known, far, strict=True))
    return np.array([by_name.get(name, np.inf) for name in names])
