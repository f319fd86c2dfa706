"""What a terapixel takes on 1, 8, 64 and 512 workers: a simulation that must first predict two measured runs.

``python benchmarks/scale_model.py [--side 16384] [--block 4096] [--rounds 3]``.

Measured: the stages of a block, one after the other; how much slower two processes make each other; how long
a worker takes to start; what goes before and after the blocks, on a quarter of the image; the scheduler's
time per block. From these the run of the whole image is predicted with one worker and with two, of one
compute thread each, and compared with such runs. All that is measured, the runs to be predicted among it,
takes turns for some rounds, and medians count: the speed of a machine that is shared drifts over minutes.
Nothing else should run on it, and it should have two cores. Exit status 1 where a prediction is more than
15 % off.

Simulated: everything about a terapixel. Its machines are like this one, two workers on each; what they share,
a storage and a scheduler, is no more than a rate.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import simulation
from block_stages import Stages, stages_of
from harness import table
from jobs_here import Job, scene_of, stylise
from overhead import seconds_per_block
from simulation import Block, Site

#: What a prediction may be off by.
ALLOWED = 0.15
WORKERS = (1, 8, 64, 512)
#: Side of a terapixel.
SIDE = 1_000_000
#: Bytes per second that all machines share: of two file servers, and of a parallel file system.
STORAGES = {"1 Gbit/s": 0.125e9, "10 Gbit/s": 1.25e9, "100 Gbit/s": 12.5e9}
#: Bytes per second of one machine's network card.
LINK = 1.25e9
#: Cores of a machine, and its workers.
CORES = 2


@dataclass(frozen=True)
class Measured:
    """All that the model is made from.

    Attributes
    ----------
    block : stages and bytes of one block, on an otherwise idle machine.
    speeds : of one thread when one and two cores are busy.
    start_seconds : from a worker's first task to its first block.
    fixed_seconds : of a job, by workers: what depends neither on size nor on blocks.
    prepare_rate, assemble_rate : pixels per second of the thumbnail's pass and of the assembly, in one
        process.
    schedule_seconds : of the scheduler, per block.
    """

    block: Block
    speeds: tuple[float, float]
    start_seconds: float
    fixed_seconds: dict[int, float]
    prepare_rate: float
    assemble_rate: float
    schedule_seconds: float

    def site(self, workers: int, machines: int = 1, storage: float = float("inf")) -> Site:
        """Machines like this one; a single worker is the job's own process, which has started."""
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
        """Seconds of the blocks and of everything, on this machine and its own disk."""
        working = simulation.simulate(blocks, self.block, self.site(workers))
        serial = pixels / self.prepare_rate + pixels / self.assemble_rate
        return working, self.fixed_seconds[workers] + working + serial


def job_of(side: int, block: int, workers: int) -> Job:
    """A job with one compute thread per worker."""
    return stylise(scene_of(side), "--threads", 1, "--block", block, "--workers", workers)


@dataclass(frozen=True)
class Round:
    """One turn of all that is measured: a block's stages in one process and in two at once; jobs by workers,
    of a quarter of the image (``small``) and of the image (``large``), which is to be predicted."""

    alone: Stages
    start: float
    together: Stages
    small: dict[int, Job]
    large: dict[int, Job]


def one_round(side: int, block: int) -> Round:
    """Measure everything once."""
    scene = scene_of(side // 2)
    alone, start = stages_of(scene, block, 1)
    together, _ = stages_of(scene, block, CORES)
    small, large = ({n: job_of(size, block, n) for n in (1, CORES)} for size in (side // 2, side))
    return Round(alone, start, together, small, large)


def model_of(rounds: Sequence[Round], side: int, block: int) -> Measured:
    """Medians of everything but the large jobs."""
    scene, pixels = scene_of(side // 2), (side // 2) ** 2

    def usual(quantity: Callable[[Round], float]) -> float:
        return median(quantity(one) for one in rounds)

    share = block * block / pixels
    work = Block(
        usual(lambda one: one.alone.read),
        usual(lambda one: one.alone.compute),
        usual(lambda one: one.alone.encode),
        usual(lambda one: one.alone.publish),
        bytes_in=scene.stat().st_size * share,
        bytes_out=rounds[0].small[1].output_bytes * share,
    )
    slowed = usual(lambda one: one.together.compute)
    return Measured(
        work,
        (1.0, min(1.0, work.compute / slowed)),
        usual(lambda one: one.start),
        {workers: usual(lambda one, n=workers: fixed_of(one.small[n])) for workers in (1, CORES)},
        pixels / usual(lambda one: one.small[1].stages["prepare"]),
        pixels / usual(lambda one: one.small[1].stages["assemble"]),
        scheduling(),
    )


def fixed_of(job: Job) -> float:
    """Seconds of what does not grow with the image."""
    return job.seconds - sum(job.stages[stage] for stage in ("prepare", "blocks", "assemble"))


def scheduling() -> float:
    """Seconds that dask spends on an empty block of a worker process."""
    from urst_tiles.workers.run import cluster

    with cluster(workers=CORES, in_flight=2) as on:
        return seconds_per_block(on)


def compare(
    model: Measured, rounds: Sequence[Round], side: int, block: int
) -> Iterator[tuple[str, float, float, float, str, str]]:
    """Large jobs: what, predicted seconds and the median of the measured ones, their ratio, all measured, and
    how much of the machine was not ours."""
    blocks = (side // block) ** 2
    for workers in (1, CORES):
        jobs = [one.large[workers] for one in rounds]
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
    """Seconds of a terapixel's stages; ``copying``: what the assembly takes of the storage alone;
    ``storage_used``, ``scheduler_used``: what the blocks use of these, 0 to 1."""

    thumbnail: float
    blocks: float
    assembly: float
    copying: float
    storage_used: float
    scheduler_used: float

    def limit(self) -> str:
        """What takes the most time of a source with overviews."""
        if self.assembly > self.blocks:
            return (
                "storage, of the assembly" if self.copying == self.assembly else "the assembly's one process"
            )
        if self.scheduler_used > 0.9:
            return "scheduler"
        return "storage, of the blocks" if self.storage_used > 0.9 else "workers"


def forecast(model: Measured, block: int, workers: int, storage: float) -> Forecast:
    """A terapixel on so many workers."""
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
    """Workers whose blocks use all of a storage."""
    seconds = simulation.bound(1, model.block, model.site(CORES))
    return CORES * storage * seconds / (model.block.bytes_in + model.block.bytes_out)


def advice(model: Measured, last: Forecast) -> Iterator[str]:
    """What to buy; ``last`` is the most workers at the fastest storage."""
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
    """The table of what the model is made from."""
    one = model.block
    rows = [
        ("read and decode, processor s", one.read),
        ("compute, one thread, s", one.compute),
        ("halve and encode, processor s", one.encode),
        ("publish: wait for the disk, s", one.publish),
        ("source, MB", one.bytes_in / 1e6),
        ("output, MB", one.bytes_out / 1e6),
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
    """The table of what was simulated, and what to buy."""
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


def main() -> int:
    """Exit status 1 where the model does not predict what was measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", type=int, default=16384, help="of the predicted runs (default %(default)s)")
    parser.add_argument("--block", type=int, default=4096, help="divides half of it (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of which medians count (default %(default)s)")
    arguments = parser.parse_args()
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
