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

#: The ridge, as a share of the mean square length of the named styles' centred statistics.
RIDGE = 0.03
#: Added to deviations, so that what hardly differs counts little.
FLOOR = 1e-3


@cache
def _weights() -> State:
    """The weights of lite that come with the package, with which the named styles were measured."""
    return {key: t.float() for key, t in load(TRAINED / lite.FILE).items()}


@cache
def _known() -> dict[str, Tensor]:
    """The statistics of the named styles by name, float64."""
    return {name: lite.pack(named_styles.features(name)).double() for name in named_styles.titles()}


@torch.inference_mode()
def statistics(image: NDArray[np.float32]) -> Tensor:
    """The statistics of a painting (h, w, 3) in 0..1, float64 (652,), not divided."""
    return lite.pack(lite.style_features(style_tensor(image, lite.MINIMUM), _weights())).double()


def is_any_known(names: Sequence[str]) -> bool:
    """Whether any of some names is that of a named style, so that something can be predicted from it."""
    return any(name in _known() for name in names)


def shares(own: Tensor, names: Sequence[str]) -> NDArray[np.float64] | None:
    """The share of each of some styles, (n,), in the parameters that are predicted for a painting, of which
    ``own`` are the `statistics`; None where none of the names is a named style.

    Ridge regression of the parameters on the statistics, both centred, gives y = m + (x - c) A^T (A A^T +
    r I)^-1 (Y - m), which is a mixture of the rows of Y, the styles. Shares sum to 1, and may be negative.
    """
    known, here = _known(), [index for index, name in enumerate(names) if name in _known()]
    if not here:
        return None
    rows = torch.stack([known[names[index]] for index in here])
    deviation = (torch.stack(list(known.values())).std(0) + FLOOR) * rows.shape[1] ** 0.5
    centred, own = (rows - rows.mean(0)) / deviation, (own - rows.mean(0)) / deviation
    products = centred @ centred.T
    ridge = RIDGE * max(float(products.diagonal().mean()), FLOOR)
    solved = torch.linalg.solve(products + ridge * torch.eye(len(rows), dtype=torch.float64), centred @ own)
    share = np.zeros(len(names))
    share[here] = (solved - solved.mean() + 1 / len(rows)).numpy()
    return share
