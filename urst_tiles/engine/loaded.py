"""Objects that a process builds once: the style of a recipe, and the frozen network of a job."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np

from urst_tiles import nets
from urst_tiles.engine.device import release
from urst_tiles.engine.kernel import Kernel
from urst_tiles.engine.threads import on_device
from urst_tiles.machine import trim
from urst_tiles.nets import Composition, Style
from urst_tiles.plan import Plan
from urst_tiles.storage.stores import state_of


class Builds(Hashable, Protocol):
    """A recipe that makes a style: hashable, and small enough to be sent to a worker."""

    def build(self) -> Style | Composition:
        """Build the style."""


@lru_cache(maxsize=2)
def build_style(recipe: Builds) -> Style | Composition:
    """The style of a recipe, whose files are read and whose features are computed once in each process.

    One torch thread computes it, so every worker gets the same style, to the bit.
    """
    try:
        return on_device(1, recipe.build)
    finally:
        trim()


_loading = threading.Lock()


@lru_cache(maxsize=1)
def _load(
    path: Path,
    model: str | None,
    state: Hashable,
    device: str,
    precision: nets.Precision,
    dtype: str,
    looks_up: bool,
) -> Kernel:
    """The network at ``path``; ``state`` only tells the networks apart that the file held."""
    release()  # the memory that measuring freed
    net = nets.load_frozen(path, model)
    return Kernel(net, device=device, precision=precision, out_dtype=np.dtype(dtype), looks_up=looks_up)


def kernel_of(path: Path, plan: Plan, model: str | None = None) -> Kernel:
    """The frozen network of a job at ``path``, on the device and at the precision of the plan.

    It is loaded once in each process, and again if the job was begun anew. ``model`` is the user's function
    that the file may name, as for `nets.load_frozen`.
    """
    looks_up = plan.footprint.table_bytes > 0
    with _loading:
        return _load(path, model, state_of(path), plan.device, plan.precision, plan.dtype, looks_up)
