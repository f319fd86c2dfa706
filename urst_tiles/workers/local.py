"""Opening a dask cluster: threads of this process, processes on this machine (each with its own card, where
there are cards), or a cluster that runs elsewhere. (`queues` starts workers through a job queue.)

Whoever reaches a dask scheduler, worker or nanny can run code as its owner, and 127.0.0.1 is reached by every
user of the machine. Therefore a cluster in this process opens no port at all, and processes on this machine
talk to each other alone: over TLS, on 127.0.0.1, with a key that is made for the run and never written to a
file that others may read. A scheduler that runs elsewhere is its owner's affair.
"""

from __future__ import annotations

import atexit
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from urst_tiles.errors import BadInput, UrstError
from urst_tiles.progress import Progress
from urst_tiles.workers.interrupt import loop_for_processes

log = logging.getLogger(__name__)

#: So many messages and events are kept in dask's logs of its own work. They hold tasks, and these the files
#: of jobs that have long ended, which stay open as long.
LOGGED = 10

#: Seconds that a scheduler may take to answer.
CONNECT_SECONDS = 20.0

#: Seconds that a client or a cluster may take to close.
CLOSE_SECONDS = 20.0

#: Seconds between two messages that there are no workers.
SAY_SECONDS = 10.0

#: Settings of dask for workers of this machine. A scheduler drops workers from which it heard nothing for
#: some minutes by the clock of the machine: after the machine slept, or the job was stopped (Ctrl-Z), or the
#: clock was set, that would be all of them, and the job would wait for ever. A worker that dies is noticed at
#: once.
SETTINGS = {"distributed.admin.low-level-log-length": LOGGED, "distributed.scheduler.worker-ttl": None}

HERE = "127.0.0.1"


def _nothing(workers: int, ended: int) -> None:
    pass


@dataclass(frozen=True)
class OpenCluster:
    """A dask cluster that is open.

    Attributes
    ----------
    client : the `distributed.Client`.
    look : called every few seconds while blocks run, with the number of workers and the number of blocks that
        have ended well; raises UrstError when waiting for workers is in vain.
    """

    client: Any
    look: Callable[[int, int], None] = _nothing


class Waiting:
    """Reports that there is no worker, for as long as that lasts."""

    def __init__(self, progress: Progress, wanted: int) -> None:
        self._progress, self._wanted = progress, wanted
        self._said = float("-inf")

    def __call__(self, workers: int, ended: int = 0) -> None:
        """Report it, at most every `SAY_SECONDS`."""
        now = time.monotonic()
        if workers or now - self._said < SAY_SECONDS:
            return
        self._said = now
        log.info("waiting for workers")
        self._progress("waiting for workers", 0, self._wanted)


@contextmanager
def closing(one: Any) -> Iterator[Any]:
    """A client or a cluster of dask, closed at the end. If closing hangs, that must not hide the error that
    made us stop."""
    try:
        yield one
    finally:
        with suppress(TimeoutError):
            one.close(timeout=CLOSE_SECONDS)


@contextmanager
def local(workers: int, in_flight: int, device: str) -> Iterator[OpenCluster]:
    """A cluster in this process, or of ``workers`` processes on this machine with ``in_flight`` threads each.

    With the device ``cuda``, worker i sees card i modulo the number of cards; with ``cuda:1`` all use that
    card.

    Raises
    ------
    BadInput : cryptography, which processes need, is not installed.
    UrstError : the processes do not start.
    """
    import dask
    from distributed import Client

    with (
        dask.config.set(SETTINGS),
        loop_for_processes() if workers > 1 else nullcontext() as loop,
        closing(_started(workers, in_flight, device, loop)) as cluster,
        closing(Client(cluster)) as client,
    ):
        yield OpenCluster(client)


def _started(workers: int, in_flight: int, device: str, loop: Any) -> Any:
    from distributed.deploy.spec import close_clusters

    try:
        if workers == 1:
            return _in_process(in_flight)
        if device == "cuda":
            return _on_cards(cards(), workers, in_flight, loop)
        return pinned([{}] * workers, in_flight, loop)
    except RuntimeError as error:
        raise UrstError(
            f"the {workers} worker process(es) could not be started ({error}): one of them ended, for lack of"
            " memory perhaps; give the same command again, or fewer --workers"
        ) from None
    except KeyboardInterrupt:
        atexit.unregister(close_clusters)  # it cannot close what is half started; its processes end with ours
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # nobody waits for their start any more
        raise


def _in_process(in_flight: int) -> Any:
    """A dask cluster of ``in_flight`` threads of this process, without any port."""
    from distributed import SpecCluster
    from distributed.security import Security

    from urst_tiles.workers.quiet import QuietScheduler, QuietWorker

    shared = {"protocol": "inproc://", "security": Security(require_encryption=False)}
    worker = shared | {"nthreads": in_flight, "memory_limit": 0, "silence_logs": logging.CRITICAL}
    return SpecCluster(
        scheduler={"cls": QuietScheduler, "options": shared | {"port": 0, "dashboard": False}},
        workers={0: {"cls": QuietWorker, "options": worker}},
        security=shared["security"],
        silence_logs=logging.CRITICAL,
    )


def cards() -> list[str]:
    """The cards that this process may use, as CUDA_VISIBLE_DEVICES names them: numbers or UUIDs."""
    import torch  # not at the top: processes that have no cards to share out need no torch

    count = torch.cuda.device_count()
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        return [str(card) for card in range(count)]
    return [card.strip() for card in listed.split(",")][:count]  # CUDA stops at the first card it cannot find


def _on_cards(cards: Sequence[str], workers: int, in_flight: int, loop: Any) -> Any:
    """Worker i on card i modulo the number of cards. dask-cuda, where it is installed, also pins workers to
    the cores near their card, but it cannot run two workers on one card."""
    if not cards:
        raise BadInput("there is no CUDA card that this process may see; look at CUDA_VISIBLE_DEVICES")
    if workers <= len(cards) and (by_dask_cuda := _dask_cuda()):
        return by_dask_cuda(
            loop=loop,
            CUDA_VISIBLE_DEVICES=list(cards[:workers]),
            n_workers=workers,
            threads_per_worker=in_flight,
            memory_limit=None,
            device_memory_limit=None,  # nothing is spilled: no result stays on a worker
            security=_key(),
            host=HERE,
            dashboard_address=f"{HERE}:0",
            worker_dashboard_address=f"{HERE}:0",
            silence_logs=logging.CRITICAL,
        )
    environments = [{"CUDA_VISIBLE_DEVICES": cards[worker % len(cards)]} for worker in range(workers)]
    return pinned(environments, in_flight, loop)


def _dask_cuda() -> Any:
    """dask-cuda's LocalCUDACluster, or None."""
    try:
        from dask_cuda import LocalCUDACluster
    except ImportError:
        return None
    return LocalCUDACluster


def pinned(environments: Sequence[Mapping[str, str]], in_flight: int, loop: Any = None) -> Any:
    """A dask cluster of one process with each of these environments."""
    from distributed import Nanny, SpecCluster

    from urst_tiles.workers.quiet import QuietScheduler, QuietWorker

    shared = {"host": HERE, "protocol": "tls://", "security": _key()}
    worker = shared | {"nthreads": in_flight, "memory_limit": 0, "silence_logs": logging.CRITICAL}
    worker |= {"worker_class": QuietWorker}
    return SpecCluster(
        loop=loop,
        scheduler={"cls": QuietScheduler, "options": shared | {"port": 0, "dashboard": False}},
        workers={
            number: {"cls": Nanny, "options": worker | {"env": dict(environment)}}
            for number, environment in enumerate(environments)
        },
        security=shared["security"],
        silence_logs=logging.CRITICAL,
    )


def _key() -> Any:
    """A dask `Security` for this run: a certificate and a key that are held in memory and handed to worker
    processes through a pipe. Who has not the key is refused."""
    from distributed.security import Security

    if find_spec("cryptography") is None:
        raise BadInput(
            "worker processes talk over TLS, which needs cryptography, which is not installed: pip install"
            " cryptography, or leave --workers out"
        )
    return Security.temporary()


@contextmanager
def at(scheduler: str, progress: Progress) -> Iterator[OpenCluster]:
    """The dask cluster whose scheduler listens at this address.

    Raises
    ------
    BadInput : nothing answers there.
    """
    with closing(_connect(scheduler)) as client:
        for name in ("client", "batched", "comm"):
            logging.getLogger(f"distributed.{name}").setLevel(logging.CRITICAL)  # we say it ourselves
        yield OpenCluster(client, Waiting(progress, 1))


def _connect(scheduler: str) -> Any:
    from distributed import Client

    try:
        return Client(scheduler, timeout=CONNECT_SECONDS)
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        # The last two: tls:// without certificates.
        raise BadInput(f"no dask scheduler answers at {scheduler} ({error}); check --scheduler") from None
