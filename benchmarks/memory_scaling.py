"""Peak memory and time against the size of the image, from 1 megapixel to 4.3 gigapixel.

``python benchmarks/memory_scaling.py [--largest SIDE] [--exact SIDE] [--device cuda] [--csv FILE]`` runs lite
with thumbnail statistics, lite with exact statistics, and the same frozen network on the whole image at once,
in a process whose address space is limited, up to the size at which it fails. Every run has a new process.

From a certain size on the peaks must be level. The smallest of these sizes is run twice, and the higher peak
counts. Runs whose results are in the CSV file are not repeated: remove the line, or name another ``--csv``,
to measure them anew. The scene repeats the encoded tiles of a procedural scene of 8192 px. The largest takes
1 GB as input, and 25 GB of disk while it runs.
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import date
from pathlib import Path

from harness import Parser, integer, machine, new_file, program, read_table, style_image, table
from jobs_here import BASE, scene_of, stylise, watched

from urst_tiles.errors import BadInput

HERE = Path(__file__).resolve().parent
#: Side of the image in the claim of the URST paper: 10000 x 10000 px in less than 5 GB of the memory of a
#: card.
PAPER = 10_000
SIDES = (1024, 2048, 4096, BASE, PAPER, 16384, 32768, 65536)
#: Sides at which the whole image is run, closer together where it fails.
WHOLE_SIDES = (1024, 2048, 4096, BASE, PAPER, 12288, 16384)
#: Host memory per pixel of the original URST, which holds the whole image several times.
URST_BYTES = 65
#: Limits of the tiled runs: peak bytes, and how far apart the peaks may lie for sides of ``FLAT_FROM`` or
#: more.
ALLOWED, FLATNESS, FLAT_FROM = 1.5e9, 0.05, 16384
#: Runs of the size ``FLAT_FROM``. The peak occurs when certain stages of two blocks happen to coincide, which
#: may not happen among 16 blocks although it does among 256.
REPEATED = 2
#: The exit status of a child that ran out of memory.
NO_ROOM = 3


@dataclass(frozen=True)
class Row:
    """One run, finished or failed: a line of the CSV file.

    Attributes
    ----------
    series : ``thumbnail``, ``exact`` or ``whole``.
    side : side of the image in pixels.
    others : share of the processors of the machine that other programs took meanwhile, 0 to 1.
    outcome : ``finished``, or why the run failed.
    """

    series: str
    side: int
    peak_bytes: int
    device_bytes: int
    seconds: float
    cpu_seconds: float
    others: float
    outcome: str
    device: str
    threads: int
    machine: str = field(default_factory=machine)
    date: str = field(default_factory=lambda: date.today().isoformat())

    @property
    def megapixels(self) -> float:
        """The size of the image in megapixels."""
        return self.side * self.side / 1e6

    @property
    def key(self) -> tuple[str, int, str]:
        """The facts in which two runs must agree to count as the same run."""
        return self.series, self.side, self.device


class Table:
    """The CSV file: it is read at the start, and each run adds a line."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, list[Row]()
        if path.exists():
            columns = [column.name for column in fields(Row)]
            try:
                self.rows = [parse(line) for line in read_table(path, *columns)]
            except ValueError as error:
                raise BadInput(f"{path} is no table of runs: {error}") from None

    def add(self, row: Row) -> None:
        """Add a run to the rows and to the file."""
        new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, [column.name for column in fields(Row)], lineterminator="\n")
            if new:
                writer.writeheader()
            rounded = ((name, round(n, 3) if isinstance(n, float) else n) for name, n in asdict(row).items())
            writer.writerow(dict(rounded))
        self.rows.append(row)

    def find(self, series: str, side: int, device: str) -> Row | None:
        """The first run with these facts; None if there was no run with them."""
        return next((row for row in self.rows if row.key == (series, side, device)), None)

    def of(self, series: str) -> list[Row]:
        """The runs of a series in order of size; of several equal runs that with the highest peak."""
        rising = sorted(self.rows, key=lambda row: row.peak_bytes)
        highest = {row.key: row for row in rising if row.series == series}
        return sorted(highest.values(), key=lambda row: row.side)


def parse(line: dict[str, str]) -> Row:
    """The row of a line of the CSV file."""
    kinds = {"int": int, "float": float, "str": str}
    return Row(**{column.name: kinds[str(column.type)](line[column.name]) for column in fields(Row)})


def tiled(series: str, side: int, device: str, threads: int) -> Row:
    """Run a job of this package, which works tile by tile."""
    job = stylise(scene_of(side), "--statistics", series, "--device", device, "--threads", threads)
    usage = job.peak_bytes, job.device_bytes, job.seconds, job.cpu_seconds, job.others
    return Row(series, side, *usage, "finished", device, threads)


def whole(side: int, limit: int, threads: int) -> Row:
    """Run the same network on the whole image at once, with an address space of ``limit`` bytes."""
    command = [sys.executable, __file__, "--whole", str(scene_of(side)), "--limit", str(limit)]
    run, cpu, others = watched([*command, "--threads", str(threads)], OMP_WAIT_POLICY="PASSIVE")
    if run.status not in (0, NO_ROOM):
        raise SystemExit(run.output)
    outcome = f"no room in {limit >> 30} GiB" if run.status else "finished"
    return Row("whole", side, run.peak_bytes, 0, run.seconds, cpu, others, outcome, "cpu", threads)


def run_whole(scene: Path, limit: int, threads: int) -> int:
    """In the child process, run the frozen network of `tiled`, at the same precision, on a single window.

    Nothing is written, which saves memory and time. Returns 0, or ``NO_ROOM`` if the address space does not
    suffice.
    """
    import torch

    import urst_tiles as ut
    from urst_tiles import nets
    from urst_tiles.engine.loaded import build_style
    from urst_tiles.engine.statistics import measure_thumbnail
    from urst_tiles.source.windows import WindowReader

    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    torch.set_num_threads(threads)
    try:
        source = ut.open_source(scene).prepare(None)
        recipe = ut.recipe_of(style_image(), ut.Options(model="lite"))
        moments = measure_thumbnail(build_style(recipe), source, threads=threads, whole=True)
        kernel = ut.Kernel(ut.freeze(recipe, moments), precision=nets.best_precision("lite", "cpu"))
        kernel.net.splittable = False
        box = ut.Box(0, 0, *source.shape)
        kernel.run(WindowReader(source).padded(box)[0][None], [box], [box])
    except (ut.DoesNotFit, MemoryError) as error:
        print(f"out of memory: {error}")
        return NO_ROOM
    return 0


def run_missing(done: Table, arguments: argparse.Namespace) -> None:
    """Run everything asked for that the file does not have yet, from small to large."""
    device, threads = arguments.device, arguments.threads
    for series, largest in (("thumbnail", arguments.largest), ("exact", arguments.exact)):
        for side in (side for side in SIDES if side <= largest):
            made = sum(row.key == (series, side, device) for row in done.rows)
            for _ in range(made, REPEATED if side == FLAT_FROM else 1):
                done.add(tiled(series, side, device, threads))
    for side in (side for side in WHOLE_SIDES if side <= arguments.largest):
        row = done.find("whole", side, "cpu") or whole(side, arguments.limit, threads)
        if row not in done.rows:
            done.add(row)
        if row.outcome != "finished":
            break


def verdicts(done: Table) -> Iterator[tuple[str, bool]]:
    """Yield each promise of the tiled runs in words, and whether it holds, as far as the runs can tell."""
    for series in ("thumbnail", "exact"):
        ours = [row for row in done.of(series) if row.device == "cpu"]
        large = [row.peak_bytes for row in ours if row.side >= FLAT_FROM]
        if len(large) > 1:
            apart = max(large) / min(large) - 1
            words = f"{series}: from {FLAT_FROM} px on, peaks lie {apart:.1%} apart (<= {FLATNESS:.0%})"
            yield words, apart <= FLATNESS
        for row in ours:
            if row.side == PAPER or row is ours[-1]:
                peak = f"{row.peak_bytes / 1e9:.2f} GB (< {ALLOWED / 1e9} GB)"
                yield f"{series}: {row.side} x {row.side} in {peak}", row.peak_bytes < ALLOWED


def plot(done: Table, path: Path) -> None:
    """Plot peak memory against size, both on logarithmic axes, into the file ``path``."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2), dpi=110)
    names = {
        "thumbnail": "ours, statistics of the thumbnail",
        "exact": "ours, exact statistics",
        "whole": "the same network, whole image",
    }
    for (series, name), marker in zip(names.items(), "os^", strict=True):
        rows = [row for row in done.of(series) if row.device == "cpu"]
        finished = [row for row in rows if row.outcome == "finished"]
        sizes, peaks = [row.megapixels for row in finished], [row.peak_bytes / 1e9 for row in finished]
        (line,) = axes.loglog(sizes, peaks, marker=marker, label=name)
        for row in rows:
            if row.outcome != "finished":
                axes.axvline(row.megapixels, color=line.get_color(), linestyle=":", label=row.outcome)
    ends = [min(SIDES) ** 2 / 1e6, max(SIDES) ** 2 / 1e6]
    original = [n * URST_BYTES / 1e3 for n in ends]
    axes.loglog(ends, original, "k--", label=f"original URST: {URST_BYTES} bytes per pixel (formula)")
    axes.set(xlabel="megapixels", ylabel="peak host memory, GB")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path)


def report(done: Table) -> bool:
    """Print the table and the verdicts; returns whether all promises hold."""
    rows = [
        (
            row.series, row.device, f"{row.side} x {row.side}", f"{row.megapixels:.0f}", row.peak_bytes >> 20,
            row.device_bytes >> 20 or "", row.side**2 * URST_BYTES >> 20, row.seconds,
            row.cpu_seconds, row.megapixels / row.seconds, f"{row.others:.0%}", row.outcome, row.threads,
        )
        for series in ("thumbnail", "exact", "whole")
        for row in done.of(series)
    ]  # fmt: skip
    header = (
        "series", "device", "size", "megapixels", "peak MiB", "device MiB", "URST's 65 B/px, MiB", "seconds",
        "processor seconds", "Mpx/s", "taken by others", "outcome", "threads",
    )  # fmt: skip
    table("Memory against the size of the image", header, rows)
    print(f"\nmeasured on: {'; '.join(sorted({f'{row.machine} ({row.date})' for row in done.rows}))}\n")
    judged = list(verdicts(done))
    for words, holds in judged:
        print(f"- {'holds' if holds else 'FAILS'}: {words}")
    return all(holds for _, holds in judged)


@program
def main(words: Sequence[str]) -> int:
    """Run and report; returns 1 if a promise does not hold, else 0."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--largest", type=integer(), default=max(SIDES), help="side, px (default %(default)s)"
    )
    parser.add_argument(
        "--exact", type=integer(), default=16384, help="the same, exact (default %(default)s)"
    )
    parser.add_argument("--device", default="cpu", help="of our runs (default %(default)s)")
    parser.add_argument("--threads", type=integer(), default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--limit", type=integer(), default=12 << 30, help="address space of the whole image, bytes"
    )
    parser.add_argument("--csv", type=new_file, default=HERE / "memory_scaling.csv")
    parser.add_argument("--whole", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(words)
    if arguments.whole:
        return run_whole(arguments.whole, arguments.limit, arguments.threads)
    done = Table(arguments.csv)
    run_missing(done, arguments)
    plot(done, arguments.csv.with_suffix(".png"))
    return 0 if report(done) else 1


if __name__ == "__main__":
    sys.exit(main())
