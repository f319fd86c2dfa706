"""What choices cost: exact statistics, the halo at every size of window, each compression.

``python benchmarks/costs.py [--side 16384] [--rounds 2] [statistics halo compression]`` runs lite on a
procedural scene. The runs of a table take turns, and the run with the least processor time of each kind
counts. Processor seconds are those of the whole process tree, from start to exit.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from harness import Parser, integer, program, table
from jobs_here import Job, scene_of, stylise

import urst_tiles as ut
from urst_tiles.nets.lite import HALO, STRIDE
from urst_tiles.options import choices

Name = TypeVar("Name", int, str)

TILES = (512, 1024, 2048, 4096, 8192)


def best(side: int, rounds: int, flags: Mapping[Name, Sequence[object]]) -> dict[Name, Job]:
    """The job with the least processor time for each set of flags, by name."""
    jobs: dict[Name, Job] = {}
    for _ in range(rounds):
        for name, values in flags.items():
            job = stylise(scene_of(side), *values)
            if name not in jobs or job.cpu_seconds < jobs[name].cpu_seconds:
                jobs[name] = job
    return jobs


def statistics(side: int, rounds: int) -> None:
    """Print exact statistics against those of the thumbnail; the former take a pass for each site."""
    jobs = best(side, rounds, {name: ("--statistics", name) for name in ("thumbnail", "exact")})
    plain = jobs["thumbnail"]
    rows = [
        (
            name,
            job.stages["prepare"],
            job.stages["measure"],
            job.stages["blocks"],
            job.seconds,
            job.cpu_seconds,
            job.cpu_seconds / plain.cpu_seconds,
            job.peak_bytes >> 20,
        )
        for name, job in jobs.items()
    ]
    header = (
        "statistics", "prepare s", "measure s", "blocks s", "everything s", "processor s",
        "against thumbnail", "peak MiB",
    )  # fmt: skip
    table(f"Exact statistics, lite, {side} x {side} px", header, rows)


def halo(side: int, rounds: int) -> None:
    """Print how much more is computed because windows overlap by the halo, by geometry and as measured."""
    block, shape = max(TILES), (side, side)
    jobs = best(side, rounds, {tile: ("--tile", tile, "--block", block) for tile in TILES})
    grids = {tile: ut.Grid(*shape, halo=HALO, stride=STRIDE, core=tile, block=block) for tile in TILES}
    least = jobs[max(TILES)]
    work = {
        tile: grid.window_count * grid.window[0] * grid.window[1] / side**2 for tile, grid in grids.items()
    }
    rows = [
        (
            tile,
            ((tile + 2 * HALO) / tile) ** 2,
            work[tile] / work[max(TILES)],
            job.stages["blocks"] / least.stages["blocks"],
            job.cpu_seconds / least.cpu_seconds,
            job.stages["blocks"],
            job.peak_bytes >> 20,
        )
        for tile, job in jobs.items()
    ]  # fmt: skip
    header = (
        "tile", "window^2 / core^2", f"against {max(TILES)}, by geometry", "its blocks' seconds, measured",
        "processor seconds, measured", "blocks s", "peak MiB",
    )  # fmt: skip
    table(f"The halo of {HALO} px, lite, {side} x {side} px in blocks of {block}", header, rows)


def compression(side: int, rounds: int) -> None:
    """Print what each codec of the output costs."""
    jobs = best(side, rounds, {name: ("--compression", name) for name in choices()["compression"]})
    usual = jobs["deflate"]
    raw = side * side * 3 * 4 / 3  # overviews add a third
    rows = [
        (
            name,
            job.seconds,
            job.cpu_seconds,
            job.cpu_seconds / usual.cpu_seconds,
            job.output_bytes >> 20,
            job.output_bytes / raw,
            job.peak_bytes >> 20,
        )
        for name, job in jobs.items()
    ]
    header = (
        "compression", "everything s", "processor s", "against deflate", "file MiB", "bytes per raw byte",
        "peak MiB",
    )  # fmt: skip
    table(f"Compression, lite, {side} x {side} px, default quality", header, rows)


TABLES: dict[str, Callable[[int, int], None]] = {
    "statistics": statistics,
    "halo": halo,
    "compression": compression,
}


@program
def main(words: Sequence[str]) -> None:
    """Print the tables."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", help=f"which of {', '.join(TABLES)} (default: all)")
    parser.add_argument("--side", type=integer(), default=16384, help="of the scene (default %(default)s)")
    parser.add_argument(
        "--rounds", type=integer(), default=2, help="of which the best counts (default %(default)s)"
    )
    arguments = parser.parse_args(words)
    unknown = set(arguments.tables) - set(TABLES)
    if unknown:
        parser.error(f"there is no table {', '.join(sorted(unknown))}; there are {', '.join(TABLES)}")
    for name in arguments.tables or TABLES:
        TABLES[name](arguments.side, arguments.rounds)


if __name__ == "__main__":
    sys.exit(main())
