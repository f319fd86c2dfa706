"""What the scheduler costs: the time for 600 blocks that do nothing, on dask clusters and in the plain
loop."""

from __future__ import annotations

import time

from harness import table

from urst_tiles.workers.run import Cluster, cluster, plain

BLOCKS = 600


def nothing(index: int) -> int:
    """The task of an empty block."""
    return index


def seconds_per_block(on: Cluster) -> float:
    """Seconds for each empty block on a cluster that has run some blocks before."""
    on.run_all(nothing, range(20), total=20, progress=lambda done, total: None)
    started = time.perf_counter()
    receipts = on.run_all(nothing, range(BLOCKS), total=BLOCKS, progress=lambda done, total: None)
    assert sorted(receipts) == list(range(BLOCKS))
    return (time.perf_counter() - started) / BLOCKS


if __name__ == "__main__":
    rows = [("plain loop", 1e3 * seconds_per_block(Cluster(plain)), "")]
    with cluster(in_flight=2) as on:
        rows.append(("in-process dask cluster", 1e3 * seconds_per_block(on), 5))
    with cluster(workers=2, in_flight=2) as on:
        rows.append(("two worker processes", 1e3 * seconds_per_block(on), ""))
    table(f"Scheduler overhead, {BLOCKS} empty blocks", ("how", "ms per block", "at most"), rows)
