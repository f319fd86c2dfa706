"""Running tasks, on dask or in a plain loop.

A task is a small picklable callable from the index of a block to a receipt; it reads what it needs and
publishes one file. Pixels never travel through the scheduler. A new task is submitted for each task that
finished, so the number of tasks in flight is exact: a fixed number for each worker that is there now.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Protocol

from urst_tiles.errors import BlocksFailed, DiskFull, UrstError
from urst_tiles.machine import trim
from urst_tiles.progress import Progress, silent
from urst_tiles.workers import local, queues
from urst_tiles.workers.local import OpenCluster
from urst_tiles.workers.scratch import private_scratch

log = logging.getLogger(__name__)

Task = Callable[[int], Any]
Outcome = tuple[int, Any, BaseException | None]

#: How often a block is tried before it is reported as failed.
TRIES = 3

#: Seconds between two looks at how many workers there are.
LOOK_SECONDS = 1.0

#: Seconds to wait for a receipt before checking that its worker is still alive.
FETCH_SECONDS = 2.0

#: How many jobs a shared cluster runs before it is opened anew: a dask scheduler never forgets what it calls
#: spans and task groups, some 20 KiB for each job.
RENEW = 100

#: Settings of dask. By default dask remembers 10,000 events (some 25 KiB for each finished block), an hour of
#: its own load and what every thread did, so that memory grows with the number of blocks. Its nannies make
#: glibc return every freed array to the system and fetch each new one page by page: blocks in worker
#: processes then took 1.3 times as long.
SETTINGS = {
    "distributed.admin.log-length": 100,
    "distributed.admin.low-level-log-length": 100,
    "distributed.admin.system-monitor.log-length": 100,
    "distributed.worker.profile.enabled": False,
    "distributed.worker.memory.terminate": False,
    "distributed.admin.tick.limit": "1h",
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,
    # The web servers of dask-cuda's workers cannot be left out; they show nothing.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
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
    """(index, receipt, None) or, when every try failed, (index, None, error). Freed memory then goes back to
    the system."""
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
    """Anything that runs a task for each of several indexes, in any order."""

    def __call__(self, task: Task, indexes: Iterable[int]) -> Iterator[Outcome]:
        """Yield each index with its receipt or its error, as they finish."""


class DaskRunner:
    """Runs tasks on the workers of an open dask cluster, of which some may come and some may go.

    Parameters
    ----------
    cluster : the open cluster. Its workers are counted at most every `LOOK_SECONDS`, and it is then told of
        them.
    each : how many tasks a worker has at once.
    """

    def __init__(self, cluster: OpenCluster, each: int) -> None:
        self.cluster, self.each = cluster, each
        self._workers = 0
        self._looked = float("-inf")
        #: How many tasks have ended well, over all calls.
        self.ended = 0

    def __call__(self, task: Task, indexes: Iterable[int]) -> Iterator[Outcome]:
        """Submit a task for each one that ended, and more when a worker came."""
        waiting = deque(indexes)
        running: dict[str, tuple[int, Any]] = {}
        ended: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def top_up() -> None:
            room = self.each * max(1, self.workers())
            while waiting and len(running) < room:
                index = waiting.popleft()
                key = f"block-{index}-{id(task):x}"
                future = self.cluster.client.submit(_attempt, task, index, pure=False, key=key)
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
            self.ended += outcome[2] is None
            top_up()
            yield outcome

    def workers(self) -> int:
        """The number of workers that take tasks now."""
        now = time.monotonic()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            self._workers = sum(worker["status"] == "running" for worker in self._known().values())
            self.cluster.look(self._workers, self.ended)
        return self._workers

    def _known(self) -> Mapping[str, Any]:
        """The workers that the scheduler knows; empty when the scheduler is gone, which the next task that
        ends will report."""
        try:
            return self.cluster.client.scheduler_info(n_workers=-1).get("workers", {})
        except (OSError, TimeoutError):
            return {}

    def _require_scheduler(self) -> None:
        """Raise BlocksFailed when the scheduler is gone: every further block would fail after a long wait."""
        client = self.cluster.client
        if client.status != "running":
            raise BlocksFailed(
                f"the dask scheduler {client.scheduler.address} no longer answers; what is finished is kept,"
                " the same command goes on once there is one (--scheduler)"
            )


def _next(ended: queue.SimpleQueue[Any]) -> Any:
    """The next future that ended; None when it is time to look at the workers."""
    try:
        return ended.get(timeout=LOOK_SECONDS)
    except queue.Empty:
        return None


def _outcome(future: Any, index: int) -> Outcome | None:
    """What the task returned, or the error that ended it. None if the worker died before its result was
    fetched: dask recomputes it when another worker joins."""
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
    """Where tasks run; made by `cluster`."""

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
        said = f" ({error})" if str(error) else ""
        reason = f"not enough memory{said}; take a smaller --block or --tile, or fewer --workers"
    return (
        f"{len(failed)} block{'s' if len(failed) > 1 else ''} failed ({names}{more}): {reason};"
        f" the others are finished and kept, the same command tries just these again"
    )


def _lacks_memory(error: BaseException) -> bool:
    """Whether this process ran out of memory. A thread that finds no room for its stack says so in other
    words than MemoryError."""
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
    jobs: queues.QueueRequest | None = None,
    progress: Progress = silent,
) -> Iterator[Cluster]:
    """A dask cluster: threads of this process (the default), ``workers`` processes on this machine, the
    cluster whose scheduler listens at ``scheduler``, or ``jobs`` of a job queue.

    Worker processes are spawned and import ``__main__`` again, so a script that asks for them needs the usual
    ``if __name__ == "__main__"`` guard. Everything started here is stopped at the end.

    Threads of this process open no port. Worker processes listen on 127.0.0.1, and with a job queue where the
    nodes reach them; in both cases only who has the key that is made for this run is answered, since whoever
    reaches a dask worker can run code on it. Who may reach ``scheduler`` is the caller's business.

    Parameters
    ----------
    in_flight : blocks at once on each worker.
    device : on ``cuda`` every worker process has a card of its own, as far as there are.
    progress : called while there is no worker to go on with.

    Raises
    ------
    BadInput : nothing answers at ``scheduler``, this machine cannot submit jobs to the queue, or worker
        processes cannot be given a key.
    UrstError : the worker processes do not start.
    """
    with _opened(workers, in_flight, device, scheduler, jobs, progress) as started:
        yield Cluster(DaskRunner(started, in_flight))


@contextmanager
def _opened(
    workers: int,
    in_flight: int,
    device: str,
    scheduler: str | None,
    jobs: queues.QueueRequest | None,
    progress: Progress,
) -> Iterator[OpenCluster]:
    """The dask cluster that `cluster` describes, with the settings of this package."""
    import dask
    import distributed  # noqa: F401 (its defaults must be there before ours, or they go with them)

    with dask.config.set(deepcopy(SETTINGS)), private_scratch(), _stopping():  # dask appends to lists
        if jobs is not None:
            opened = queues.submitted(jobs, in_flight, progress)
        elif scheduler is not None:
            opened = local.at(scheduler, progress)
        else:
            opened = local.local(workers, in_flight, device)
        with opened as started:
            # By default a client sends every 10 ms; when a block ends, the next one must not wait for that.
            started.client.scheduler_comm.interval = 0.001
            try:
                yield started
            finally:
                _stop.set()


@contextmanager
def _stopping() -> Iterator[None]:
    """Withdraw the request to stop once the cluster is closed: by then every task of this process has
    ended. What dask would remember of it for ever is forgotten."""
    try:
        yield
    finally:
        _stop.clear()
        _forget()


def _forget() -> None:
    """Empty a cache of dask whose keys are methods of every scheduler and worker that this process had, and
    keep them alive, about 20,000 objects each."""
    import distributed.core

    if remembered := getattr(distributed.core, "_expects_comm", None):
        getattr(remembered, "cache_clear", lambda: None)()


class SharedCluster:
    """A dask cluster that stays open for the next job that wants the same; as a context manager it closes it.

    To open a cluster takes a tenth of a second in this process, and several seconds where processes start.
    """

    def __init__(self) -> None:
        self._open = ExitStack()
        self._started: OpenCluster | None = None
        self._wants: tuple[Any, ...] = ()
        self._threads = self._jobs = 0

    def __enter__(self) -> SharedCluster:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def close(self) -> None:
        """Close the cluster that is open, if any."""
        self._started = None
        self._open.close()

    @contextmanager
    def __call__(
        self,
        *,
        workers: int = 1,
        in_flight: int = 2,
        device: str = "cpu",
        scheduler: str | None = None,
        jobs: queues.QueueRequest | None = None,
        progress: Progress = silent,
    ) -> Iterator[Cluster]:
        """As `cluster`, but what is open already is used, unless it has other workers, or fewer threads.

        After an error the cluster is closed, so that no task of a failed job runs beside the next job. Jobs
        of a queue are never shared: they take the memory and the folder of one job.
        """
        wants = (workers, device, scheduler)
        fits = wants == self._wants and in_flight <= self._threads and self._jobs < RENEW
        if jobs or self._started is None or not fits:
            self.close()
            self._started = self._open.enter_context(
                _opened(workers, in_flight, device, scheduler, jobs, progress)
            )
            self._wants, self._threads, self._jobs = wants, in_flight, 0
        self._jobs += 1
        try:
            yield Cluster(DaskRunner(self._started, in_flight))
        except BaseException:
            self.close()
            raise
        if jobs:
            self.close()
