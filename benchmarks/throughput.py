"""Megapixels per second from reading to the finished TIFF, against a bound that the network sets.

    bound = (best forward pass of the frozen network at the chosen precision) x core^2 / window^2

The best forward pass is that of 1024 x 1024 pixels; for collaborative WCT it is the fastest of several sizes.
The whole window is asked for, so no part of the work can be left out.

``python benchmarks/throughput.py [--models lite] [FILE]`` runs on a tiled TIFF. Without a file it runs on a
procedural scene, of 67 megapixels for AdaIN and of 256 for all others.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from harness import COMMAND, SHARED, WORK, Parser, existing_file, measured, program, scene, style_image, table
from nets_here import frozen, photo, style

from urst_tiles import nets
from urst_tiles.engine.kernel import Kernel
from urst_tiles.geometry import Box
from urst_tiles.machine import cpu_count
from urst_tiles.nets import LocalNet, Style, live

CORE = {"lite": 1024, "microast": 1024, "adain": 2048, "wct-16x": 2048}
#: Sides in pixels of the windows of which the fastest counts.
SIDES = {"wct-16x": (1024, 1536, 2048)}
#: Models whose plain forward pass takes seconds for each megapixel.
SLOW = ("adain", "wct-16x")
URST = "For comparison: URST's own AdaIN, 0.086 Mpx/s at 2048 px and 0.10 at 4096 px (measured before)"


def forward_rate(net: LocalNet, precision: nets.Precision, side: int = 1024, tries: int = 4) -> float:
    """Mpx/s of the fastest of ``tries`` forward passes of one window, from pixels to pixels."""
    torch.set_num_threads(cpu_count())
    kernel, box = Kernel(net, precision=precision), Box(0, 0, side, side)
    window = photo("brighton_DJI_0018.JPG", side, side, (100, 1500))[None]
    seconds = []
    for _ in range(tries):
        started = time.perf_counter()
        kernel.run(window, [box], [box])
        seconds.append(time.perf_counter() - started)
    return side * side / 1e6 / min(seconds)


def plain_rate(chosen: Style, side: int = 2048) -> float:
    """Mpx/s of the plain network of a style in float32, on a whole image and with the statistics of it."""
    torch.set_num_threads(cpu_count())
    x = torch.from_numpy(photo("brighton_DJI_0018.JPG", side, side)).permute(2, 0, 1)[None].float() / 255
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        with torch.inference_mode():
            chosen.forward(x.contiguous(), live(chosen))
        seconds.append(time.perf_counter() - started)
    return side * side / 1e6 / min(seconds)


def end_to_end(model: str, source: Path, weights: Path) -> tuple[float, float]:
    """Mpx/s of the stage of the blocks, and of the whole job, from one run."""
    output = WORK / f"{model}.tif"
    command = [*COMMAND, "stylize", str(source), str(output), "--model", model, "--style", str(style_image())]
    run = measured([*command, "--weights", str(weights), "--tile", str(CORE[model]), "--overwrite", "--json"])
    if run.status:
        raise SystemExit(run.output)
    done = json.loads(run.output.splitlines()[-1])
    megapixels = done["megapixels"]
    output.unlink()
    return megapixels / done["seconds"]["blocks"], megapixels / run.seconds


def seeded_adain(folder: Path) -> Path:
    """Add seeded AdaIN weights of full width to a weights folder: they cost what trained weights cost."""
    from urst_tiles import weights

    files = folder / "files"
    files.mkdir(parents=True, exist_ok=True)
    for name, state in nets.MODELS["adain"].seeded(0, 1.0).items():
        torch.save(state, files / name)
    weights.add("adain", {path.name: path for path in files.iterdir()}, folder)
    return folder


@program
def main(words: Sequence[str]) -> None:
    """Print the table."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=existing_file)
    parser.add_argument("--models", nargs="+", choices=list(CORE), default=list(CORE))
    chosen_models, given = (vars(parser.parse_args(words))[name] for name in ("models", "file"))
    rows = []
    reference = plain_rate(style("microast"))
    for model in chosen_models:
        chosen = style(model)
        net = frozen(chosen, photo("brighton_DJI_0018.JPG", 512, 512, (600, 1500)))
        precision = nets.best_precision(model, "cpu")
        best = max(forward_rate(net, precision, side) for side in SIDES.get(model, (1024,)))
        plain = plain_rate(chosen, 1024 if model in SLOW else 2048)
        window = CORE[model] + 2 * net.halo
        bound = best * (CORE[model] / window) ** 2
        weights = seeded_adain(WORK / "weights") if model == "adain" else SHARED / "weights"
        blocks, whole = end_to_end(model, given or scene(67 if model == "adain" else 256), weights)
        ratios = (whole / bound, whole / plain, whole / reference)
        rows.append((model, precision, plain, best, bound, whole, *ratios, blocks))
    header = (
        "family", "precision", "plain float32 forward", "best forward", "bound", "end to end",
        "of the bound (>= 0.85)", "against plain (>= 1.5)", "against plain MicroAST", "its block stage",
    )  # fmt: skip
    table("Throughput, Mpx/s", header, rows)
    print(f"\n{URST}")
    shutil.rmtree(WORK / "weights", ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
