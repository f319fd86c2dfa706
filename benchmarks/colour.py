"""Transfer of colours end to end beside the network identity, which computes nothing, on the same image.

Exact statistics take reading passes of their own: the share of the blocks, of measuring, and the whole are
told apart, and set beside identity with one reading pass. All jobs run one after the other, ``--rounds``
times in turn, and the faster run of each counts. On a busy machine the seconds of the processor say more than
those of the clock.

With ``--jpeg`` a picture in tiles of JPEG becomes a COG in tiles of JPEG. It is one of 16 megapixels,
repeated, since one of a gigapixel would take longer to make than to transfer: a scene for ``colour``, a slide
for ``stain``.
"""

from __future__ import annotations

import json
import resource
import shutil
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from colour_peers import FIRST, slide
from colour_peers import scene as painted
from harness import COMMAND, WORK, Parser, integer, measured, program, scene, several, style_image, table

import urst_tiles as ut
from urst_tiles.geometry import Box

JOBS = {
    "identity": [],
    "colour mean-std": ["--method", "mean-std"],
    "colour histogram": ["--method", "histogram"],
    "colour monge-kantorovich": ["--method", "monge-kantorovich"],
    "colour reinhard": ["--method", "reinhard"],
    "colour reinhard-lab": ["--method", "reinhard-lab"],
    "stain macenko": ["--method", "macenko"],
}

#: The side of the picture that is repeated, and of the boxes of a reading pass.
SIDE, BLOCK = 4096, 4096


def repeated(kind: str, megapixels: int) -> Path:
    """The path of a picture in tiles of JPEG, of about so many megapixels; it is made where it is missing."""
    import pyvips

    WORK.mkdir(parents=True, exist_ok=True)
    times = max(1, round((megapixels * 1e6 / SIDE**2) ** 0.5))
    path = WORK / f"repeated-{kind}-{times}.tif"
    if not path.exists():
        small = painted(SIDE, 0, (1.0, 0.8, 0.6)) if kind == "scene" else slide(SIDE, 0, FIRST, 1.1)
        if kind == "slide":
            small[:, : SIDE // 3] = 242  # glass
        image = pyvips.Image.new_from_array(small).replicate(times, times)
        image.tiffsave(str(path), tile=True, tile_width=512, tile_height=512, compression="jpeg", Q=90)
    return path


def reading_pass(path: Path) -> tuple[float, float]:
    """The seconds of the clock and of the processor in which two threads read every pixel."""
    source = ut.open_source(path)
    height, width = source.shape
    boxes = [
        Box(y, x, min(y + BLOCK, height), min(x + BLOCK, width))
        for y in range(0, height, BLOCK)
        for x in range(0, width, BLOCK)
    ]
    started, worked = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(lambda box: int(np.max(source.read(box)[:1])), boxes):
            pass
    return time.perf_counter() - started, time.process_time() - worked


def run(name: str, source: Path, reference: Path, jpeg: bool) -> tuple[dict[str, float], float, int]:
    """The seconds of each part of a job, those of the processor, and the peak of memory."""
    model, output = name.split()[0], WORK / "colour.tif"
    style = ["--style", "standard" if model == "stain" else str(reference)]
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = measured(
        [*COMMAND, "stylize", str(source), str(output), "--model", model, *style, *JOBS[name]]
        + ["--overwrite", "--json", "--quality", "90"]
        + (["--compression", "jpeg"] if jpeg else [])
    )
    if done.status:
        raise SystemExit(done.output)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    lines = [json.loads(line) for line in done.output.splitlines() if line.startswith("{")]
    seconds = next(line["seconds"] for line in lines if line.get("event") == "done")
    worked = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    return seconds, worked, done.peak_bytes


@program
def main(words: Sequence[str]) -> None:
    """Run every job and print their times."""
    parser = Parser(description=__doc__)
    parser.add_argument("--megapixels", type=integer(), default=64)
    parser.add_argument("--rounds", type=integer(), default=2)
    parser.add_argument("--jpeg", action="store_true")
    parser.add_argument(
        "--jobs", type=partial(several, known=tuple(JOBS)), default=",".join(JOBS), help="names, with commas"
    )
    given = parser.parse_args(words)
    names = ["identity", *(name for name in given.jobs if name != "identity")]
    kinds = {name: "slide" if given.jpeg and name.startswith("stain") else "scene" for name in names}
    sources = {
        kind: repeated(kind, given.megapixels) if given.jpeg else scene(given.megapixels)
        for kind in set(kinds.values())
    }
    best: dict[str, tuple[dict[str, float], float, int]] = {}
    for _ in range(given.rounds):
        for name in names:
            found = run(name, sources[kinds[name]], style_image(), given.jpeg)
            print(f"{name}: {found}", flush=True)
            if name not in best or sum(found[0].values()) < sum(best[name][0].values()):
                best[name] = found
    passed = reading_pass(sources["scene"])
    base = best["identity"]
    clock, work = sum(base[0].values()) + passed[0], base[1] + passed[1]
    rows = [
        (
            name, seconds["measure"], seconds["blocks"], base[0]["blocks"] / seconds["blocks"],
            given.megapixels / sum(seconds.values()), clock / sum(seconds.values()), worked, work / worked,
            peak >> 20,
        )
        for name, (seconds, worked, peak) in best.items()
    ]  # fmt: skip
    header = (
        "job", "measuring s", "blocks s", "blocks against identity", "Mpx/s",
        "against identity and a pass (>= 0.8)", "processor s", "the same of the processor", "peak MiB",
    )  # fmt: skip
    table(f"Transfer of colours, {given.megapixels} megapixel scene, end to end", header, rows)
    print(f"\nreading pass: {passed[0]:.3g} s, {passed[1]:.3g} s of the processor")
    shutil.rmtree(WORK / "colour.tif.job", ignore_errors=True)
    (WORK / "colour.tif").unlink()


if __name__ == "__main__":
    sys.exit(main())
