"""The time that a terapixel takes on 1, 8, 64 and 512 workers, by a simulation that first predicts two runs.

``python benchmarks/scale_model.py [--side 16384] [--block 4096] [--rounds 3]``.

Five things are measured: the stages of a block, one after the other; how much two processes slow each other
down; how long a worker takes to start; what comes before and after the blocks, on a quarter of the image; and
the time of the scheduler for each block. From these the program predicts runs of the whole image with one
worker and with two, with one compute thread each, and compares the prediction with measured runs. All
measurements, those runs included, take turns for some rounds, and their medians count, since the speed of a
shared machine drifts over minutes. The machine should have two cores, and nothing else should run on it. The
exit status is 1 if a prediction is more than 15 % off.

Everything about a terapixel is simulated. The simulated machines are like this one, with two workers on each.
The storage and the scheduler that they share are only rates.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import simulation
from block_stages import Stages, stages_of
from harness import Parser, integer, program, table
from jobs_here import Job, scene_of, stylise
from overhead import seconds_per_block
from simulation import Block, Site

#: The relative error that a prediction may have.
ALLOWED = 0.15
WORKERS = (1, 8, 64, 512)
#: Side of a terapixel image in pixels.
SIDE = 1_000_000
#: Storages and their bytes per second, which all machines share: two file servers and a parallel file system.
STORAGES = {"1 Gbit/s": 0.125e9, "10 Gbit/s": 1.25e9, "100 Gbit/s": 12.5e9}
#: Bytes per second of the network card of a machine.
LINK = 1.25e9
#: Cores of a machine, and the workers on it.
CORES = 2


@dataclass(frozen=True)
class Measured:
    """The measurements from which the model predicts.

    Attributes
    ----------
    block : stages and bytes of one block on an otherwise idle machine.
    speeds : relative speeds of one thread when one core is busy, and when two are.
    start_seconds : seconds from the first task of a worker to the first block.
    fixed_seconds : seconds of a job that depend neither on the size nor on the blocks, by number of workers.
    prepare_rate : pixels per second of the pass that makes the thumbnail, in one process.
    assemble_rate : pixels per second of the assembly, in one process.
    schedule_seconds : seconds that the scheduler spends on each block.
    """

    block: Block
    speeds: tuple[float, float]
    start_seconds: float
    fixed_seconds: dict[int, float]
    prepare_rate: float
    assemble_rate: float
    schedule_seconds: float

    def site(self, workers: int, machines: int = 1, storage: float = float("inf")) -> Site:
        """Several machines like this one; a single worker is the process of the job, which has started."""
        return Site(
            machines,
            workers,
            self.speeds,
            start_seconds=self.start_seconds if workers * machines > 1 else 0.0,
            schedule_seconds=self.schedule_seconds,
            storage_rate=storage,
            link_rate=LINK,
        )

    def predict(self, blocks: int, pixels: int, workers: int) -> tuple[float, float]:
        """The seconds of the blocks and of the whole job, on this machine and a local disk."""
        working = simulation.simulate(blocks, self.block, self.site(workers))
        serial = pixels / self.prepare_rate + pixels / self.assemble_rate
        return working, self.fixed_seconds[workers] + working + serial


def job_of(side: int, block: int, workers: int) -> Job:
    """Run a job with one compute thread in each worker."""
    return stylise(scene_of(side), "--threads", 1, "--block", block, "--workers", workers)


@dataclass(frozen=True)
class Round:
    """One round of all measurements.

    Attributes
    ----------
    alone, together : the stages of a block in one process, and in two at once.
    start : seconds that a worker takes to start.
    small, large : jobs by number of workers, on a quarter of the image and on the whole image; the large ones
        are to be predicted.
    """

    alone: Stages
    start: float
    together: Stages
    small: dict[int, Job]
    large: dict[int, Job]


def one_round(side: int, block: int) -> Round:
    """Make all measurements once."""
    scene = scene_of(side // 2)
    alone, start = stages_of(scene, block, 1)
    together, _ = stages_of(scene, block, CORES)
    small, large = ({n: job_of(size, block, n) for n in (1, CORES)} for size in (side // 2, side))
    return Round(alone, start, together, small, large)


def model_of(rounds: Sequence[Round], side: int, block: int) -> Measured:
    """The model, from the medians of all measurements except the large jobs."""
    scene, pixels = scene_of(side // 2), (side // 2) ** 2

    def usual(quantity: Callable[[Round], float]) -> float:
        return median(quantity(turn) for turn in rounds)

    share = block * block / pixels
    work = Block(
        usual(lambda turn: turn.alone.read),
        usual(lambda turn: turn.alone.compute),
        usual(lambda turn: turn.alone.encode),
        usual(lambda turn: turn.alone.publish),
        bytes_in=scene.stat().st_size * share,
        bytes_out=rounds[0].small[1].output_bytes * share,
    )
    slowed = usual(lambda turn: turn.together.compute)
    return Measured(
        work,
        (1.0, min(1.0, work.compute / slowed)),
        usual(lambda turn: turn.start),
        {workers: usual(lambda turn, n=workers: fixed_of(turn.small[n])) for workers in (1, CORES)},
        pixels / usual(lambda turn: turn.small[1].stages["prepare"]),
        pixels / usual(lambda turn: turn.small[1].stages["assemble"]),
        scheduling(),
    )


def fixed_of(job: Job) -> float:
    """The seconds of a job that do not grow with the image."""
    return job.seconds - sum(job.stages[stage] for stage in ("prepare", "blocks", "assemble"))


def scheduling() -> float:
    """The seconds that dask spends on each empty block, with worker processes."""
    from urst_tiles.workers.run import cluster

    with cluster(workers=CORES, in_flight=2) as on:
        return seconds_per_block(on)


def compare(
    model: Measured, rounds: Sequence[Round], side: int, block: int
) -> Iterator[tuple[str, float, float, float, str, str]]:
    """Yield the rows that compare the large jobs with their predictions.

    A row has the name of what is compared, the predicted seconds, the median of the measured seconds, the
    ratio of the two, all measured seconds, and the share of the machine that other programs took.
    """
    blocks = (side // block) ** 2
    for workers in (1, CORES):
        jobs = [turn.large[workers] for turn in rounds]
        others = f"{median(job.others for job in jobs):.0%}"
        spent = {
            "the blocks": [job.stages["blocks"] for job in jobs],
            "everything": [job.seconds for job in jobs],
        }
        predicted = model.predict(blocks, side * side, workers)
        for (what, seconds), guess in zip(spent.items(), predicted, strict=True):
            middle, each = median(seconds), ", ".join(f"{n:.1f}" for n in sorted(seconds))
            yield f"{workers} worker(s), {what}", guess, middle, guess / middle, each, others


@dataclass(frozen=True)
class Forecast:
    """The time that a terapixel takes.

    Attributes
    ----------
    thumbnail, blocks, assembly : seconds of each stage.
    copying : seconds of the assembly if only the storage limited it.
    storage_used, scheduler_used : how much of the storage and the scheduler the blocks use, 0 to 1.
    """

    thumbnail: float
    blocks: float
    assembly: float
    copying: float
    storage_used: float
    scheduler_used: float

    def limit(self) -> str:
        """The name of what limits the speed for a source with overviews."""
        if self.assembly > self.blocks:
            return (
                "storage, of the assembly" if self.copying == self.assembly else "the assembly's one process"
            )
        if self.scheduler_used > 0.9:
            return "scheduler"
        return "storage, of the blocks" if self.storage_used > 0.9 else "workers"


def forecast(model: Measured, block: int, workers: int, storage: float) -> Forecast:
    """The forecast for a terapixel on ``workers`` workers, with ``storage`` bytes per second."""
    blocks, pixels = (-(-SIDE // block)) ** 2, SIDE * SIDE
    machines, each = -(-workers // CORES), min(CORES, workers)
    working = simulation.simulate(blocks, model.block, model.site(each, machines, storage))
    bytes_in, bytes_out = (n * pixels / block**2 for n in (model.block.bytes_in, model.block.bytes_out))
    copying = max(2 * bytes_out / storage, bytes_out / LINK)
    return Forecast(
        thumbnail=max(pixels / model.prepare_rate, bytes_in / min(LINK, storage)),
        blocks=working,
        assembly=max(pixels / model.assemble_rate, copying),
        copying=copying,
        storage_used=(bytes_in + bytes_out) / storage / working,
        scheduler_used=blocks * model.schedule_seconds / working,
    )


def saturating(model: Measured, storage: float) -> float:
    """The number of workers whose blocks use all of a storage of ``storage`` bytes per second."""
    seconds = simulation.bound(1, model.block, model.site(CORES))
    return CORES * storage * seconds / (model.block.bytes_in + model.block.bytes_out)


def advice(model: Measured, last: Forecast) -> Iterator[str]:
    """Yield sentences on what to buy; ``last`` is the forecast for most workers and the fastest storage."""
    for name, storage in STORAGES.items():
        yield (
            f"{name} of storage is used up by the blocks of {saturating(model, storage):.0f} workers: with"
            " fewer, buy workers; with more, bandwidth"
        )
    minutes = [seconds / 60 for seconds in (last.blocks, last.assembly, last.thumbnail)]
    yield (
        f"{WORKERS[-1]} workers at {list(STORAGES)[-1]}: the blocks take {minutes[0]:.0f} min, the assembly"
        f" {minutes[1]:.0f} min, and of a source without overviews the thumbnail {minutes[2]:.0f} min more;"
        " both are made by one process, and where they take longest neither workers nor bandwidth help"
    )


def print_measured(model: Measured, block: int) -> None:
    """Print the measurements from which the model predicts."""
    work = model.block
    rows = [
        ("read and decode, processor s", work.read),
        ("compute, one thread, s", work.compute),
        ("halve and encode, processor s", work.encode),
        ("publish: wait for the disk, s", work.publish),
        ("source, MB", work.bytes_in / 1e6),
        ("output, MB", work.bytes_out / 1e6),
        ("speed of a thread when both cores are busy", model.speeds[1]),
        ("a worker's start, s", model.start_seconds),
        ("fixed part of a job, 1 worker, s", model.fixed_seconds[1]),
        (f"fixed part of a job, {CORES} workers, s", model.fixed_seconds[CORES]),
        ("thumbnail of a source without overviews, Mpx/s", model.prepare_rate / 1e6),
        ("assembly, Mpx/s", model.assemble_rate / 1e6),
        ("scheduler, ms per block", 1e3 * model.schedule_seconds),
    ]
    table(f"Measured: a block of {block} px and what is around it", ("what", "value"), rows)


def print_forecasts(model: Measured, block: int) -> None:
    """Print the forecasts, and what to buy."""
    rows, last = [], None
    for name, storage in STORAGES.items():
        for workers in WORKERS:
            last = forecast(model, block, workers, storage)
            hours = [
                n / 3600 for n in (last.blocks, last.assembly, last.blocks + last.assembly, last.thumbnail)
            ]
            rows.append((name, workers, *hours, f"{last.storage_used:.0%}", last.limit()))
    header = (
        "storage", "workers", "blocks, h", "assembly, h", "both, h", "thumbnail if no overviews, h more",
        "storage used by blocks", "what limits",
    )  # fmt: skip
    table("Simulated: one terapixel", header, rows)
    assert last is not None
    print("\n" + "\n".join(f"- {sentence}" for sentence in advice(model, last)))


@program
def main(words: Sequence[str]) -> int:
    """Measure, predict and print; returns 1 if the predictions are too far from the measured runs, else 0."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--side", type=integer(), default=16384, help="of the predicted runs (default %(default)s)"
    )
    parser.add_argument(
        "--block", type=integer(), default=4096, help="divides half of it (default %(default)s)"
    )
    parser.add_argument(
        "--rounds", type=integer(), default=3, help="of which medians count (default %(default)s)"
    )
    arguments = parser.parse_args(words)
    side, block = arguments.side, arguments.block
    if side // 2 % block or side // 2 <= block:
        parser.error(f"half of --side must be several --block, got {side} and {block}")
    simulation.check()
    rounds = [one_round(side, block) for _ in range(arguments.rounds)]
    model = model_of(rounds, side, block)
    print_measured(model, block)
    rows = list(compare(model, rounds, side, block))
    header = (
        "run",
        "predicted s",
        "measured s, median",
        f"ratio ({1 - ALLOWED} to {1 + ALLOWED})",
        "measured s, each",
        "taken by others",
    )
    table(f"Predicted and measured: {side} x {side} px", header, rows)
    holds = all(abs(row[3] - 1) <= ALLOWED for row in rows)
    print(f"\nThe model {'holds' if holds else 'FAILS'}: to be within {ALLOWED:.0%} of what was measured.")
    print_forecasts(model, block)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
