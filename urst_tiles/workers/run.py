"""Running tasks, on dask or in a plain loop: the room where both wings meet.

A task is a small picklable callable from a block's index to a receipt; it reads what it needs and publishes
one file. Pixels never travel through the scheduler, and a new task is submitted for each one that finished,
so what is in flight is exact: so many for each worker that is there now.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from urst_tiles.errors import BlocksFailed, DiskFull, UrstError
from urst_tiles.machine import trim
from urst_tiles.progress import Progress, silent
from urst_tiles.workers import local, queues

log = logging.getLogger(__name__)

Task = Callable[[int], Any]
Outcome = tuple[int, Any, BaseException | None]

#: How often a block is tried before it is named as failed.
TRIES = 3

#: How often it is asked how many workers there are.
LOOK_SECONDS = 1.0

#: How long a receipt may take to come from its worker, before it is looked whether that is still there.
FETCH_SECONDS = 2.0

#: Of dask. It would remember 10,000 events, some 25 KiB for each block that ended, an hour of its own load,
#: and what every thread did. Its nannies would make glibc give every freed array back to the system, and take
#: each new one from it page by page: blocks in worker processes then took 1.3 times as long.
SETTINGS = {
    "distributed.admin.log-length": 100,
    "distributed.admin.low-level-log-length": 100,
    "distributed.admin.system-monitor.log-length": 100,
    "distributed.worker.profile.enabled": False,
    "distributed.worker.memory.terminate": False,
    "distributed.admin.tick.limit": "1h",
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,
}

_stop = threading.Event()


class Stopped(Exception):
    """A task noticed that its process was asked to stop."""


def check_stop() -> None:
    """Raise `Stopped` in a task whose process was asked to stop; called between windows."""
    if _stop.is_set():
        raise Stopped


def plain(task: Task, indexes: Iterable[int]) -> Iterator[Outcome]:
    """Run the tasks one by one in this thread: the reference, and the debugger."""
    for index in indexes:
        yield _attempt(task, index)


def _attempt(task: Task, index: int) -> Outcome:
    """(index, receipt, None) or, when every try failed, (index, None, error). What was freed goes back to the
    system."""
    for attempt in range(TRIES):
        try:
            return index, task(index), None
        except (DiskFull, Stopped) as error:
            return index, None, error
        except Exception as error:
            log.warning("block %d, try %d of %d: %s", index, attempt + 1, TRIES, error)
            last = error
        finally:
            trim()
    return index, None, last


class Runner(Protocol):
    """Anything that runs a task over indexes, in any order."""

    def __call__(self, task: Task, indexes: Iterable[int]) -> Iterator[Outcome]:
        """Yield each index with its receipt or its error, as they finish."""


@dataclass(frozen=True)
class OnDask:
    """Runs tasks by a crew: at most ``each`` at once for each worker, of which some come and some go."""

    crew: Crew
    each: int

    def __call__(self, task: Task, indexes: Iterable[int]) -> Iterator[Outcome]:
        """Submit one task for each that finished, and more where a worker came."""
        waiting, crew = deque(indexes), self.crew
        running: dict[str, tuple[int, Any]] = {}
        ended: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def top_up() -> None:
            room = self.each * max(1, crew.size())
            while waiting and len(running) < room:
                index = waiting.popleft()
                key = f"block-{index}-{id(task):x}"
                future = crew.place.client.submit(_attempt, task, index, pure=False, key=key)
                running[key] = index, future
                future.add_done_callback(ended.put)

        while waiting or running:
            top_up()
            future = _next(ended)
            if future is None:
                continue
            outcome = _outcome(future, running[future.key][0])
            if outcome is None:
                future.add_done_callback(ended.put)
                continue
            del running[future.key]
            self._require_scheduler()
            crew.ended += outcome[2] is None
            top_up()
            yield outcome

    def _require_scheduler(self) -> None:
        """Without it every block would fail, one after the other, after a wait for each."""
        client = self.crew.place.client
        if client.status != "running":
            raise BlocksFailed(
                f"the dask scheduler {client.scheduler.address} no longer answers; what is finished is kept,"
                " the same command goes on once there is one (--scheduler)"
            )


class Crew:
    """The workers of a place: counted at most every `LOOK_SECONDS`, and the place looks after them.

    ``ended``: how many blocks they made in all, whatever the task.
    """

    def __init__(self, place: local.Place) -> None:
        self.place, self.ended = place, 0
        self._size = 0
        self._looked = float("-inf")

    def size(self) -> int:
        """The workers that take tasks now."""
        now = time.monotonic()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            known = self._known()
            self._size = sum(worker["status"] == "running" for worker in known.values())
            self.place.look(self._size, self.ended)
        return self._size

    def _known(self) -> Mapping[str, Any]:
        """The scheduler's workers; none where it is gone, of which the next block that ends will tell."""
        try:
            return self.place.client.scheduler_info(n_workers=-1).get("workers", {})
        except (OSError, TimeoutError):
            return {}


def _next(ended: queue.SimpleQueue[Any]) -> Any:
    """The next future that ended; None when it is time to look at the workers."""
    try:
        return ended.get(timeout=LOOK_SECONDS)
    except queue.Empty:
        return None


def _outcome(future: Any, index: int) -> Outcome | None:
    """What the task returned, or why it could not: its worker died, say. None where the worker died with what
    was returned: dask makes it again once there is another, for which somebody must look."""
    try:
        outcome = future.result(timeout=FETCH_SECONDS)
    except TimeoutError:
        return None
    except Exception as error:
        outcome = index, None, error
    future.release()
    return outcome


@dataclass(frozen=True)
class Cluster:
    """Where tasks run; `cluster` makes one."""

    run: Runner

    def run_all(
        self, task: Task, indexes: Sequence[int], *, total: int, progress: Callable[[int, int], None]
    ) -> list[Any]:
        """Run ``task`` over ``indexes`` and return the receipts of all.

        Raises
        ------
        DiskFull : at once; the finished blocks are kept.
        BlocksFailed : at the end, naming every block that failed for good; the finished ones are kept.
        """
        receipts, failed = [], []
        done = total - len(indexes)
        progress(done, total)
        for index, receipt, error in self.run(task, indexes):
            if isinstance(error, DiskFull):
                raise error
            if error is None:
                receipts.append(receipt)
                done += 1
                progress(done, total)
            else:
                failed.append((index, error))
        if failed:
            raise BlocksFailed(_failures(failed))
        return receipts


def _failures(failed: Sequence[tuple[int, BaseException]]) -> str:
    """One sentence that names the failed blocks and the first reason."""
    names = ", ".join(str(index) for index, _ in sorted(failed, key=lambda f: f[0])[:10])
    more = f" and {len(failed) - 10} more" if len(failed) > 10 else ""
    error = failed[0][1]
    reason = str(error) if isinstance(error, UrstError) else f"{type(error).__name__}: {error}"
    if _lacks_memory(error):
        reason = f"not enough memory ({error}); take a smaller --block or --tile, or fewer --workers"
    return (
        f"{len(failed)} block{'s' if len(failed) > 1 else ''} failed ({names}{more}): {reason};"
        f" the others are finished and kept, the same command tries just these again"
    )


def _lacks_memory(error: BaseException) -> bool:
    """Of this process; a thread needs room for its stack, and says so in other words."""
    if isinstance(error, UrstError):
        return False
    return isinstance(error, MemoryError) or "can't start new thread" in str(error)


@contextmanager
def cluster(
    *,
    workers: int = 1,
    in_flight: int = 2,
    device: str = "cpu",
    scheduler: str | None = None,
    jobs: queues.Jobs | None = None,
    progress: Progress = silent,
) -> Iterator[Cluster]:
    """A dask cluster: in this process (the default), ``workers`` processes, the one at ``scheduler``, or one
    of ``jobs`` of a job queue.

    Worker processes are spawned and import ``__main__`` again, so a script that asks for them needs the usual
    guard. Everything started here listens on 127.0.0.1 alone, but for a job queue, where it speaks TLS with
    certificates of its own; and is stopped at the end.

    Parameters
    ----------
    in_flight : blocks at once on each worker.
    device : on ``cuda`` every worker process has a card of its own, as far as there are.
    progress : told when there is no worker to go on with.

    Raises
    ------
    BadInput : where nothing answers at ``scheduler``, or there is no such job queue here.
    UrstError : where the processes do not start.
    """
    import dask
    import distributed  # noqa: F401 (its defaults must be there before ours, or they go with them)

    with dask.config.set(SETTINGS), _stopping():
        if jobs is not None:
            opened = queues.submitted(jobs, in_flight, progress)
        elif scheduler is not None:
            opened = local.at(scheduler, progress)
        else:
            opened = local.local(workers, in_flight, device)
        with opened as place:
            # A client sends at most every 10 ms; a block that ends must not wait for the next one's order.
            place.client.scheduler_comm.interval = 0.001
            try:
                yield Cluster(OnDask(Crew(place), in_flight))
            finally:
                _stop.set()


@contextmanager
def _stopping() -> Iterator[None]:
    """Tasks of this process that were asked to stop have done so once the cluster is closed."""
    try:
        yield
    finally:
        _stop.clear()
