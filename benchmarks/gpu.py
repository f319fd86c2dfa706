"""Speed and memory of windows of each size on a card, and jobs from end to end.

``python benchmarks/gpu.py [--side 16384]`` stylises a scene of this side, or none if it is 0. On a machine
without a card it only says so. ``pytest tests/engine/test_cuda.py tests/api/test_cuda_job.py`` tests law 1
and the other laws on a card; ``memory_scaling.py --device cuda`` measures memory against size.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import COMMAND, Parser, integer, program, style_image, table
from jobs_here import scene_of, stylise

from urst_tiles import nets
from urst_tiles.engine.device import release, reproducible
from urst_tiles.engine.kernel import Kernel, to_tensor
from urst_tiles.geometry import Box
from urst_tiles.nets.base import neutral_moments

#: Families, and the precisions in which each of them can be computed.
MODELS: dict[str, tuple[nets.Precision, ...]] = {
    "lite": ("float32", "bfloat16", "float16"),
    "microast": ("float32", "bfloat16", "float16"),
    "adain": ("float32", "bfloat16", "float16"),
    "fast": ("float32",),
    "wct-16x": ("float32",),
}
CORES = (1024, 2048, 4096)


def seconds_of(function: Callable[[], Any], times: int = 4) -> float:
    """Mean wall seconds of a call until all work on the card has ended, after a call to warm up."""
    function()
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(times):
        function()
    torch.cuda.synchronize()
    return (time.perf_counter() - started) / times


def row(model: str, precision: nets.Precision, core: int) -> tuple[object, ...]:
    """The measurements of one window, for a network of full width with seeded weights."""
    picture = np.random.default_rng(0).random((128, 128, 3), np.float32)
    style = nets.seeded(model, [(picture, 1.0)], width=1.0)
    kernel = Kernel(nets.freeze(style, neutral_moments(style)), device="cuda", precision=precision)
    net, side = kernel.net, core + 2 * style.halo
    window = np.random.default_rng(0).integers(0, 255, (1, side, side, 3), np.uint8)
    boxes, megapixels = [Box(0, 0, side, side)], side * side / 1e6
    everything = seconds_of(lambda: kernel.run(window, boxes, boxes))
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    kernel.run(window, boxes, boxes)
    taken = (torch.cuda.max_memory_allocated() - before) / side**2
    with torch.inference_mode(), reproducible(kernel.device):
        up = seconds_of(lambda: to_tensor(window, kernel.device))
        x = to_tensor(window, kernel.device)
        alone = seconds_of(lambda: net(x, boxes, boxes) if net.selective else net(x, boxes))
    rates = megapixels / everything, megapixels / alone
    planned_bytes = net.bytes_per_pixel(precision)
    return (model, precision, side, *rates, 1e3 * up, 1e3 * alone, taken, planned_bytes, kernel.splits)


def rows() -> Iterator[tuple[object, ...]]:
    """Yield the row of every window; the largest window takes 6 GB of the card."""
    for model, precisions in MODELS.items():
        for precision in precisions:
            for core in CORES:
                release()
                yield row(model, precision, core)


def planned(scene: Path, *flags: str) -> dict[str, Any]:
    """The plan of a job, as the command line prints it."""
    arguments = [str(scene), "planned.tif", "--style", str(style_image()), "--device", "cuda", *flags]
    return json.loads(subprocess.check_output([*COMMAND, "plan", *arguments, "--json"], text=True))


def job(side: int, statistics: str) -> tuple[object, ...]:
    """The row of a job that runs from end to end in another process: times, and memory used and planned."""
    scene, megapixels = scene_of(side), side * side / 1e6
    plan = planned(scene, "--statistics", statistics)
    done = stylise(scene, "--statistics", statistics, "--device", "cuda")
    stages = (done.stages[name] for name in ("prepare", "measure", "blocks", "assemble"))
    rate = megapixels / done.stages["blocks"]
    host = f"{done.peak_bytes >> 20} of {plan['peak_bytes'] >> 20}"
    card = f"{done.device_bytes >> 20} of {plan['device_bytes'] >> 20}"
    return (statistics, round(megapixels), *stages, done.seconds, rate, host, card)


@program
def main(words: Sequence[str]) -> None:
    """Print both tables."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=integer(0), default=16384, help="px; 0: no jobs (default %(default)s)")
    side = parser.parse_args(words).side
    if not torch.cuda.is_available():
        print("\n### Cards\n\nnot measured: this machine has none")
        return
    name = torch.cuda.get_device_name()
    header = (
        "family", "precision", "window", "Mpx/s, pixels to pixels", "Mpx/s, network alone", "upload ms",
        "network ms", "bytes per pixel", "told", "splits",
    )  # fmt: skip
    table(f"{name}: windows", header, rows())
    if side:
        header = (
            "statistics", "megapixels", "prepare s", "measure s", "blocks s", "assemble s", "everything s",
            "blocks, Mpx/s", "host MiB of plan", "card MiB of plan",
        )  # fmt: skip
        table(f"{name}: jobs with lite", header, (job(side, how) for how in ("thumbnail", "exact")))


if __name__ == "__main__":
    sys.exit(main())
