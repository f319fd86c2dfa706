"""On a GPU: law 1, device peak and Mpx/s at several windows; without one it says so."""

from __future__ import annotations

import time

import numpy as np
import torch
from harness import table
from nets_here import frozen, photo, style

from urst_tiles import nets
from urst_tiles.geometry import Box
from urst_tiles.kernel import Kernel


def row(model: str, side: int) -> tuple[object, ...]:
    """Rate, peak and distance from the CPU's float32 picture, of windows of ``side``."""
    image = photo("brighton_DJI_0018.JPG", 2048, 2048)
    net = frozen(style(model), image[:512, :512])
    precision = nets.best_precision(model, "cuda")
    kernel, box = Kernel(net, device="cuda", precision=precision), Box(0, 0, side, side)
    window = np.tile(image, (4, 4, 1))[:side, :side][None]
    small = Box(0, 0, 512, 512)
    here = Kernel(net).run(window[:, :512, :512], [small], [small])[0].astype(int)
    there = kernel.run(window[:, :512, :512], [small], [small])[0]
    torch.cuda.reset_peak_memory_stats()
    kernel.run(window, [box], [box])
    started = time.perf_counter()
    for _ in range(5):
        kernel.run(window, [box], [box])
    rate = 5 * side * side / 1e6 / (time.perf_counter() - started)
    return (
        model,
        precision,
        side,
        rate,
        torch.cuda.max_memory_allocated() >> 20,
        float(np.abs(there - here).mean()),
    )


if __name__ == "__main__":
    if not torch.cuda.is_available():
        print("\n### GPU\n\nnot yet measured: this machine has none")
    else:
        rows = [row(model, side) for model in ("lite", "microast", "adain") for side in (1024, 2048, 4096)]
        header = (
            "family",
            "precision",
            "window",
            "Mpx/s",
            "device peak MiB",
            "mean level error against CPU float32",
        )
        table(f"GPU: {torch.cuda.get_device_name()}", header, rows)
