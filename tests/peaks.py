"""The peak memory of a network, measured in a process of its own, which imports this module by its name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from urst_tiles import nets
from urst_tiles.engine.kernel import Kernel
from urst_tiles.geometry import Box
from urst_tiles.nets.base import neutral_moments


def peak_bytes(model: str, precision: nets.Precision, side: int) -> float:
    """Rise of a fresh process's peak memory over one forward, per window pixel."""
    torch.set_num_threads(2)
    art = np.random.default_rng(0).random((64, 64, 3), np.float32)
    style = nets.seeded(model, [(art, 1.0)], width=1.0)
    kernel = Kernel(nets.freeze(style, neutral_moments(style)), precision=precision)
    small, box = Box(0, 0, 96, 96), Box(0, 0, side, side)
    kernel.run(np.zeros((1, 96, 96, 3), np.uint8), [small], [small])
    window = np.full((1, side, side, 3), 7, np.uint8)
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    for _ in range(2):
        kernel.run(window, [box], [box])
    return (status("VmHWM") - before) / side**2


def status(key: str) -> int:
    """Bytes of an entry of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))
