"""Workers that a job queue starts: SLURM, PBS or LSF, through dask-jobqueue.

Queue, account, walltime and whatever else a site wants come from dask's own configuration
(~/.config/dask/jobqueue.yaml); cores and memory from the plan, where the configuration leaves them open. A
job is one process. It is submitted when the first block is to be made, and again when it ended while there
is work: a walltime is shorter than a week.

The scheduler is in this process and listens where the nodes reach it. Whoever can talk to a dask scheduler
can run code on it, hence TLS, with a certificate that is made for this run and lies in a folder that only
this user may read.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from urst_tiles.errors import BadInput, UrstError
from urst_tiles.progress import Progress
from urst_tiles.workers.local import CLOSE_SECONDS, OpenCluster, Waiting, closing
from urst_tiles.workers.queue_commands import COMMANDS, reason

log = logging.getLogger(__name__)

#: Seconds between two questions to the queue about jobs whose workers are missing.
ASK_SECONDS = 30.0

#: Seconds that workers may take to leave.
LEAVE_SECONDS = 10.0

#: What a job's script says first. The environment is what `cli.main` sets: torch's threads must not spin, and
#: all threads share one heap. PBS, unlike the others, does not start a job in the folder where it was
#: submitted.
PROLOGUE = ("export OMP_WAIT_POLICY=PASSIVE MALLOC_ARENA_MAX=1", 'cd "${PBS_O_WORKDIR:-.}"')


@dataclass(frozen=True)
class QueueRequest:
    """What is requested from a job queue.

    Attributes
    ----------
    queue : slurm, pbs or lsf.
    count : the number of jobs, each of which is one worker.
    cores, memory_bytes : what each job takes.
    folder : a folder that the nodes see too; it takes the certificate and the logs of the jobs.
    """

    queue: str
    count: int
    cores: int
    memory_bytes: int
    folder: Path


@contextmanager
def submitted(request: QueueRequest, in_flight: int, progress: Progress) -> Iterator[OpenCluster]:
    """A cluster of jobs with ``in_flight`` threads each; the jobs are cancelled at the end.

    Raises
    ------
    BadInput : dask-jobqueue is not installed, or jobs cannot be submitted from this machine.
    """
    require(request.queue)
    _dask_jobqueue()  # its import sets the defaults of dask's configuration
    from distributed import Client

    with (
        certificate(_shared_folder(request)) as security,
        closing(_cluster(request, in_flight, security)) as cluster,
    ):
        started = _QueueJobs(request, cluster, Waiting(progress, request.count))
        try:
            with closing(Client(cluster)) as client:
                yield OpenCluster(client, started.look)
        finally:
            started.cancel()


def require(queue: str) -> None:
    """Raise BadInput if jobs cannot be submitted to this kind of queue from here."""
    for module, package in (("dask_jobqueue", "dask-jobqueue"), ("cryptography", "cryptography")):
        if find_spec(module) is None:
            raise BadInput(
                f"--cluster {queue} needs {package}, which is not installed:"
                " pip install 'urst-tiles[cluster]'"
            )
    submit = COMMANDS[queue].submit
    if shutil.which(submit) is None:
        raise BadInput(
            f"--cluster {queue} submits jobs with {submit}, which this machine has not; give the command"
            " where jobs are submitted"
        )


@contextmanager
def certificate(folder: Path) -> Iterator[Any]:
    """A dask `Security` for this run: anyone without its key, which lies in files below ``folder``, is
    refused."""
    from distributed.security import Security

    made = Security.temporary().get_tls_config_for_role("worker")
    with tempfile.TemporaryDirectory(prefix=".urst-tiles-", dir=folder, ignore_cleanup_errors=True) as name:
        for part in ("ca_file", "cert", "key"):
            descriptor = os.open(Path(name, part), os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(made[part])
        roles = ("client", "scheduler", "worker")
        files = {f"tls_{role}_{part}": f"{name}/{part}" for role in roles for part in ("cert", "key")}
        yield Security(require_encryption=True, tls_ca_file=f"{name}/ca_file", **files)


def _dask_jobqueue() -> ModuleType:
    """The module dask_jobqueue. Importing it makes Ctrl-C end the program with status 0; that is undone
    here."""
    before = signal.getsignal(signal.SIGINT)
    try:
        import dask_jobqueue
    except ValueError as error:
        raise BadInput(f"dask-jobqueue must be imported in the main thread first ({error})") from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, before)
    return dask_jobqueue


def _configured(queue: str, key: str) -> Any:
    """What the user's dask configuration says about ``key`` of this queue, or None."""
    import dask

    return dask.config.get(f"jobqueue.{queue}.{key}", None)


def _configuration_file() -> Path:
    """The file in which dask-jobqueue looks for the user's settings."""
    import dask

    return Path(dask.config.PATH, "jobqueue.yaml")


def _shared_folder(request: QueueRequest) -> Path:
    """The folder in which nodes find the certificate: as configured, in the job's folder, or the home
    folder. Raises BadInput if there is none."""
    configured = _configured(request.queue, "shared-temp-directory")
    if configured:
        folder, origin = Path(os.path.expanduser(os.path.expandvars(configured))), "shared-temp-directory"
    else:
        folder, origin = _own_folder(request) or Path(os.path.expanduser("~")), "the home folder"
    if not folder.is_dir():
        raise BadInput(
            f"the nodes must find the key of this run in a folder, and {origin} ({folder}) is none; set"
            f" jobqueue.{request.queue}.shared-temp-directory, in {_configuration_file()}, to a folder that"
            " they see too, or give --job-dir one whose name needs no quotes"
        )
    return folder


def _log_folder(request: QueueRequest) -> Path | None:
    """The folder for the output of the jobs: as configured, or in the job's folder. None leaves it to the
    queue."""
    configured = _configured(request.queue, "log-directory")
    return Path(configured) if configured else _own_folder(request)


def own_folder(job: Path) -> Path:
    """The folder inside the folder of a job that holds the certificate and the logs of its workers."""
    return job / "jobs.tmp"


def _own_folder(request: QueueRequest) -> Path | None:
    """`own_folder`, made if needed, and removed together with the job. None if it is on an object store, or
    if its name would need quotes in a job script."""
    folder = own_folder(request.folder)
    if any(sign in str(folder) for sign in ("://", "%")) or shlex.quote(str(folder)) != str(folder):
        return None
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _cluster(request: QueueRequest, in_flight: int, security: Any) -> Any:
    """The cluster object of dask-jobqueue; no job is submitted yet."""

    def configured(key: str) -> Any:
        return _configured(request.queue, key)

    from urst_tiles.workers.quiet import QuietScheduler

    folder = _log_folder(request)
    # The queue limits memory; dask's own limit would stop at 80 % of it.
    last = ["--nthreads", str(in_flight), "--memory-limit", "0", "--no-dashboard"]
    last += ["--worker-class", "urst_tiles.workers.quiet.QuietWorker"]
    return getattr(_dask_jobqueue(), COMMANDS[request.queue].cluster)(
        n_workers=0,
        processes=1,
        nanny=False,
        cores=configured("cores") or request.cores,
        memory=configured("memory") or f"{request.memory_bytes}B",
        security=security,
        scheduler_cls=QuietScheduler,
        scheduler_options=(configured("scheduler-options") or {}) | {"dashboard": False},
        worker_extra_args=[*(configured("worker-extra-args") or []), *last],
        job_script_prologue=[*PROLOGUE, *_module_path(), *(configured("job-script-prologue") or [])],
        log_directory=folder and str(folder),
        silence_logs=logging.CRITICAL,
    )


def _module_path() -> list[str]:
    """The line of a job's script by which a network of the user's is found there too: some queues start jobs
    without the environment of the submitting process."""
    folders = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    if not folders:
        return []
    return [f"export PYTHONPATH={shlex.quote(os.pathsep.join(map(os.path.abspath, folders)))}"]


class _QueueJobs:
    """The jobs of this run: submitted, watched, submitted again when they end early, and cancelled."""

    def __init__(self, request: QueueRequest, cluster: Any, waiting: Waiting) -> None:
        self._request, self._cluster, self._waiting = request, cluster, waiting
        self._commands = COMMANDS[request.queue]
        self._jobs: list[Any] = []
        self._made = 0
        self._lock = asyncio.Lock()
        self._cancelled = False
        self._ended_before = 0
        self._asked = 0.0

    def look(self, workers: int, ended: int) -> None:
        """Submit jobs that are missing; raises UrstError when all have ended and no block was made."""
        if not self._made:
            self._submit(ended)
        self._waiting(workers)
        if workers < self._request.count and time.monotonic() - self._asked >= ASK_SECONDS:
            self._asked = time.monotonic()
            self._replace(workers, ended)

    def _submit(self, ended: int) -> None:
        """Submit as many jobs as are missing."""
        self._ended_before, self._asked = ended, time.monotonic()
        try:
            self._cluster.sync(self._start)
        except (RuntimeError, ValueError) as error:
            refused = f"{self._commands.submit} refused a job ({reason(error)})"
            if self._jobs:
                return log.warning("%s; %d others were taken", refused, len(self._jobs))
            raise UrstError(f"{refused}; {self._advice}") from None

    @property
    def _advice(self) -> str:
        return f"look at queue, account and walltime in {_configuration_file()}; the same command goes on"

    async def _start(self) -> None:
        """Submit jobs one after the other, so that `cancel` waits for one submission at most."""
        cluster, kind = self._cluster, self._cluster.new_spec
        address = cluster.scheduler.contact_address or cluster.scheduler.address
        async with self._lock:
            while len(self._jobs) < self._request.count and not self._cancelled:
                self._made += 1
                job = kind["cls"](address, name=f"{self._request.queue}-{self._made}", **kind["options"])
                await job.start()
                self._jobs.append(job)

    def _replace(self, workers: int, ended: int) -> None:
        """Submit ended jobs again, if any block was made since the last submission."""
        listed = self._commands.listed([job.job_id for job in self._jobs])
        if listed is None:
            return
        there = [job for job in self._jobs if job.job_id in listed]
        if len(there) == len(self._jobs):
            return
        if ended > self._ended_before:
            log.warning("%d jobs have ended and are submitted again", len(self._jobs) - len(there))
            self._jobs = there
            self._submit(ended)
        elif not there and not workers:
            ended_all = f"all jobs of {self._commands.submit} ended and made no block"
            raise UrstError(f"{ended_all}{self._last_words()}; {self._advice}")

    def _last_words(self) -> str:
        """The last line of the newest log, as part of a sentence."""
        folder = _log_folder(self._request)
        logs = [path for path in folder.glob("*") if path.is_file()] if folder else []
        for path in sorted(logs, key=os.path.getmtime, reverse=True):
            lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
            if lines:
                return f" ({path} ends with: {lines[-1]})"
        return ""

    def cancel(self) -> None:
        """Cancel all jobs; also those that are being submitted, after a Ctrl-C."""
        with suppress(TimeoutError):
            self._cluster.sync(self._no_more, callback_timeout=CLOSE_SECONDS)
        if numbers := [job.job_id for job in self._jobs]:
            self._commands.cancel(numbers)
        # A worker of distributed 2026.8 that loses its scheduler while it ends may hang.
        end = time.monotonic() + LEAVE_SECONDS
        while self._cluster.scheduler.workers and time.monotonic() < end:
            time.sleep(0.05)

    async def _no_more(self) -> None:
        self._cancelled = True
        async with self._lock:
            pass
