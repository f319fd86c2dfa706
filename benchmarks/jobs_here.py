"""Jobs that benchmarks run: scenes of any size, which cost little to make, and ``urst-tiles stylize`` on
them."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from harness import ROOT, WORK, Run, measured, style_image

#: Sides in pixels of the scene that is drawn, and of its tiles.
BASE, TILE = 8192, 512

#: Runs ``urst-tiles``, and then prints the peak memory of the device.
PROGRAM = """
import json, sys
from urst_tiles.cli import main
status = main(sys.argv[1:])
import torch
print(json.dumps({"device_bytes": torch.cuda.max_memory_reserved() if torch.cuda.is_initialized() else 0}))
sys.exit(status)
"""


@dataclass(frozen=True)
class Job:
    """A finished job.

    Attributes
    ----------
    seconds : wall time from start to exit, in seconds.
    cpu_seconds : processor time of the whole process tree, in seconds.
    peak_bytes : peak memory of the process tree.
    device_bytes : peak memory of the card; 0 on the CPU.
    stages : wall seconds of the stages prepare, measure, blocks and assemble.
    output_bytes : size of the finished file.
    others : share of the processors of the machine that other programs took meanwhile, 0 to 1.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    device_bytes: int
    stages: Mapping[str, float]
    output_bytes: int
    others: float


def stylise(scene: Path, *flags: object) -> Job:
    """Stylise ``scene`` with the procedural style, and remove the output; an error ends the benchmark."""
    output = WORK / f"{scene.stem}-stylised.tif"
    style = ["--model", "lite", "--style", str(style_image())]
    command = ["stylize", str(scene), str(output), *style, "--overwrite", "--json"]
    run, cpu, others = watched([sys.executable, "-c", PROGRAM, *command, *map(str, flags)])
    if run.status:
        raise SystemExit(run.output)
    lines = [json.loads(line) for line in run.output.splitlines() if line.startswith("{")]
    done, device_bytes = lines[-2], lines[-1]["device_bytes"]
    size = output.stat().st_size
    output.unlink()
    return Job(run.seconds, cpu, run.peak_bytes, device_bytes, done["seconds"], size, others)


def watched(command: Sequence[str], **environment: str) -> tuple[Run, float, float]:
    """Run a command as `measured` does.

    Returns the run, the processor seconds of the command, and the share of the processors of the machine that
    other programs took meanwhile, 0 to 1.
    """
    before, busy = children_seconds(), busy_seconds()
    run = measured(command, **environment)
    cpu = children_seconds() - before
    others = max(0.0, busy_seconds() - busy - cpu) / run.seconds / psutil.cpu_count()
    return run, cpu, others


def children_seconds() -> float:
    """Processor seconds of all children of this process that have ended, and of the children of these."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def busy_seconds() -> float:
    """Processor seconds of the whole machine since it started that were not idle.

    They include those that the host of a virtual machine took (stolen time).
    """
    times = psutil.cpu_times()
    return sum(times) - times.idle - times.iowait - times.guest - times.guest_nice


def scene_of(side: int) -> Path:
    """The path of a tiled JPEG TIFF of ``side`` x ``side`` px without overviews.

    It repeats the encoded tiles of a scene of ``BASE`` px, and is made when it is first asked for.
    """
    import tifffile

    WORK.mkdir(parents=True, exist_ok=True)
    base, path = WORK / f"tiled-{BASE}.tif", WORK / f"tiled-{side}.tif"
    if not base.exists():
        program = [sys.executable, str(ROOT / "pipelines" / "make_scene.py"), str(base)]
        subprocess.run([*program, "--size", f"{BASE}x{BASE}", "--compression", "jpeg"], check=True)
    if not path.exists():
        beside = path.with_suffix(".partial")
        with tifffile.TiffWriter(beside, bigtiff=True) as out:
            out.write(
                repeated(base, side), shape=(side, side, 3), dtype="uint8", tile=(TILE, TILE),
                photometric="ycbcr", compression="jpeg", subsampling=(2, 2), metadata=None,
            )  # fmt: skip
        beside.rename(path)
    return path


def repeated(base: Path, side: int) -> Iterator[bytes]:
    """Yield the encoded tiles of an image of ``side`` px, row by row, from those of the file ``base``."""
    import tifffile

    with tifffile.TiffFile(base) as file:
        offsets, sizes = file.pages[0].dataoffsets, file.pages[0].databytecounts
    content, period = base.read_bytes(), BASE // TILE
    rows = -(-side // TILE)
    for row in range(rows):
        for column in range(rows):
            i = row % period * period + column % period
            yield content[offsets[i] : offsets[i] + sizes[i]]
