"""Running tasks, on dask or in a plain loop: the room where both wings meet.

A task is a small picklable callable from a block's index to a receipt; it reads what it needs and publishes
one file. Pixels never travel through the scheduler, and a new task is submitted for each one that finished,
so what is in flight is exact.
"""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, ParamSpec, Protocol, TypeVar

import torch

from urst_tiles.errors import BadInput, BlocksFailed, DiskFull, UrstError
from urst_tiles.nets import Composition, Style

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")
Task = Callable[[int], Any]
Outcome = tuple[int, Any, BaseException | None]

#: How often a block is tried before it is named as failed.
TRIES = 3

#: How long a scheduler may take to answer.
CONNECT_SECONDS = 20.0

#: How long a client or a cluster may take to close.
CLOSE_SECONDS = 20.0

_stop = threading.Event()


class Stopped(Exception):
    """A task noticed that its process was asked to stop."""


def check_stop() -> None:
    """Raise `Stopped` in a task whose process was asked to stop; called between windows."""
    if _stop.is_set():
        raise Stopped


@lru_cache(maxsize=1)
def _device_thread() -> ThreadPoolExecutor:
    """The one thread of this process that computes: a lock around the device, and one team of torch
    threads."""
    return ThreadPoolExecutor(1, thread_name_prefix="device")


def on_device(threads: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call ``function`` on the device thread with ``threads`` torch threads, and wait for its result."""

    def call() -> T:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        return function(*args, **kwargs)

    return _device_thread().submit(call).result()


class Builds(Hashable, Protocol):
    """A recipe: hashable, small enough to travel, and makes a style."""

    def build(self) -> Style | Composition:
        """The style."""


@lru_cache(maxsize=2)
def current_style(recipe: Builds) -> Style | Composition:
    """The style of a recipe, built once per process; by one torch thread, so that every worker gets the same
    to the bit."""
    return on_device(1, recipe.build)


def plain(task: Task, indexes: Iterable[int]) -> Iterator[Outcome]:
    """Run the tasks one by one in this thread: the reference, and the debugger."""
    for index in indexes:
        yield _attempt(task, index)


def _attempt(task: Task, index: int) -> Outcome:
    """(index, receipt, None) or, when every try failed, (index, None, error)."""
    for attempt in range(TRIES):
        try:
            return index, task(index), None
        except (DiskFull, Stopped) as error:
            return index, None, error
        except Exception as error:
            log.warning("block %d, try %d of %d: %s", index, attempt + 1, TRIES, error)
            last = error
    return index, None, last


class Runner(Protocol):
    """Anything that runs a task over indexes, in any order."""

    def __call__(self, task: Task, indexes: Iterable[int]) -> Iterator[Outcome]:
        """Yield each index with its receipt or its error, as they finish."""


@dataclass(frozen=True)
class OnDask:
    """Runs tasks on a dask client, at most ``in_flight`` at once."""

    client: Any
    in_flight: int

    def __call__(self, task: Task, indexes: Iterable[int]) -> Iterator[Outcome]:
        """Submit one task for each that finished."""
        from distributed import as_completed

        waiting = iter(indexes)
        places: dict[str, int] = {}

        def submit(index: int) -> Any:
            key = f"block-{index}-{id(task):x}"
            places[key] = index
            return self.client.submit(_attempt, task, index, pure=False, key=key)

        running = as_completed([submit(index) for index in islice(waiting, self.in_flight)])
        for future in running:
            outcome = _outcome(future, places.pop(future.key))
            self._require_scheduler()
            following = next(waiting, None)
            if following is not None:
                running.add(submit(following))
            yield outcome

    def _require_scheduler(self) -> None:
        """Without it every block would fail, one after the other, after a wait for each."""
        if self.client.status != "running":
            raise BlocksFailed(
                f"the dask scheduler {self.client.scheduler.address} no longer answers; what is finished is"
                " kept, the same command goes on once there is one (--scheduler)"
            )


def _outcome(future: Any, index: int) -> Outcome:
    """What the task returned, or why it could not: its worker died, say."""
    try:
        return future.result()
    except Exception as error:
        return index, None, error
    finally:
        future.release()


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
    if isinstance(error, MemoryError) and not isinstance(error, UrstError):
        reason = f"not enough memory ({error}); take a smaller --block or --tile, or fewer --workers"
    return (
        f"{len(failed)} block{'s' if len(failed) > 1 else ''} failed ({names}{more}): {reason};"
        f" the others are finished and kept, the same command tries just these again"
    )


@contextmanager
def cluster(*, workers: int = 1, in_flight: int = 2, scheduler: str | None = None) -> Iterator[Cluster]:
    """A dask cluster: in this process (the default), ``workers`` processes, or the one at ``scheduler``.

    Worker processes are spawned and import ``__main__`` again, so a script that asks for them needs the usual
    guard. Everything started here listens on 127.0.0.1 alone and is stopped at the end.

    Raises
    ------
    BadInput : where nothing answers at ``scheduler``.
    UrstError : where the processes do not start.
    """
    import dask
    from distributed import Client

    with dask.config.set(
        {"distributed.worker.memory.terminate": False, "distributed.admin.tick.limit": "1h"}
    ):
        if scheduler is not None:
            local = None
            client = _connect(scheduler)
            logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # we say it ourselves
            in_flight *= max(1, len(client.scheduler_info()["workers"]))
        else:
            local = _local(workers, in_flight)
            client = Client(local)
            in_flight *= workers
        # A client sends at most every 10 ms; a block that ends must not wait for the next one's order.
        client.scheduler_comm.interval = 0.001
        try:
            yield Cluster(OnDask(client, in_flight))
        finally:
            _stop.set()
            for one in (client, local):
                with suppress(TimeoutError):  # it must not hide why we stop
                    if one is not None:
                        one.close(timeout=CLOSE_SECONDS)
            _stop.clear()


def _local(workers: int, in_flight: int) -> Any:
    from distributed import LocalCluster
    from distributed.deploy.spec import close_clusters

    try:
        return LocalCluster(
            n_workers=workers,
            processes=workers > 1,
            threads_per_worker=in_flight,
            memory_limit=0,
            host=None if workers == 1 else "127.0.0.1",
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
        )
    except RuntimeError as error:
        raise UrstError(
            f"the {workers} worker process(es) could not be started ({error}): one of them ended, for lack of"
            " memory perhaps; give the same command again, or fewer --workers"
        ) from None
    except KeyboardInterrupt:
        atexit.unregister(close_clusters)  # it cannot close what is half started; its processes end with ours
        raise


def _connect(scheduler: str) -> Any:
    from distributed import Client

    try:
        return Client(scheduler, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise BadInput(f"no dask scheduler answers at {scheduler} ({error}); check --scheduler") from None
