"""Wherever workers are (a job queue, cards, a scheduler elsewhere), and whichever come and go: the same
bytes, and nobody else runs code on what we open."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import dask.config
import numpy as np
import psutil
import pytest
import yaml
from helpers import Elsewhere, geotiff, picture, sha, wait_for

import urst_tiles as ut
from urst_tiles.errors import BadInput, BlocksFailed, UrstError
from urst_tiles.workers import queues
from urst_tiles.workers.queue_commands import COMMANDS, listing
from urst_tiles.workers.run import cluster

STYLE = "hokusai-wave"
SMALL: dict[str, Any] = {"tile": 128, "block": 256, "thumbnail": 64, "device": "cpu", "threads": 1}
PROGRAMS = ("sbatch", "squeue", "scancel", "qsub", "qstat", "qdel", "bsub", "bjobs", "bkill")
FAKE = Path(__file__).with_name("fake_queue.py")
slow = pytest.mark.slow

#: The command line, but a queue is asked more often.
IMPATIENT = """import sys
from urst_tiles import cli
from urst_tiles.workers import queues

queues.ASK_SECONDS = 1.0
sys.exit(cli.main())
"""


def command(scene: Path, output: Path, **options: object) -> list[str]:
    flags = [str(word) for name, value in (SMALL | options).items() for word in (f"--{name}", value)]
    program = [sys.executable, "-c", IMPATIENT, "stylize", str(scene), str(output)]
    return [*program, "--style", STYLE, *flags, "--json"]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 12 blocks."""
    return geotiff(tmp_path_factory.mktemp("clusters") / "scene.tif", picture(700, 1000))


@pytest.fixture(scope="module")
def undisturbed(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    output = tmp_path_factory.mktemp("undisturbed") / "out.tif"
    ut.stylize(scene, output, STYLE, **SMALL)
    return sha(output)


# Job queues


class Queue:
    """A job queue on this machine, and what a user set up for it."""

    def __init__(self, folder: Path) -> None:
        self.state, self.bin = folder / "queue", folder / "bin"
        self.configuration = folder / "dask"
        for each in (self.state, self.bin, self.configuration):
            each.mkdir(parents=True)
        for program in PROGRAMS:
            path = self.bin / program
            path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "{FAKE}" {program} "$@"\n')
            path.chmod(0o755)
        self.configure({name: {} for name in COMMANDS})

    def configure(self, values: dict[str, dict[str, Any]]) -> None:
        """Write jobqueue.yaml; schedulers listen on 127.0.0.2, which is "another" address of this machine."""
        everywhere = {"scheduler-options": {"host": "127.0.0.2"}}
        settings = {"jobqueue": {name: everywhere | more for name, more in values.items()}}
        (self.configuration / "jobqueue.yaml").write_text(yaml.safe_dump(settings))

    def environment(self, mode: str = "") -> dict[str, str]:
        return os.environ | {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "FAKE_QUEUE": str(self.state),
            "FAKE_QUEUE_MODE": mode,
            "DASK_CONFIG": str(self.configuration),
            "OMP_NUM_THREADS": "1",
        }

    def start(self, arguments: list[str], mode: str = "") -> subprocess.Popen[str]:
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(arguments, env=self.environment(mode), **pipes)

    def run(self, arguments: list[str], mode: str = "") -> tuple[int, str, str]:
        process = self.start(arguments, mode)
        said = process.communicate(timeout=200)
        return process.returncode, *said

    @property
    def jobs(self) -> list[int]:
        return sorted(int(path.stem) for path in self.state.glob("*.pid"))

    @property
    def cancelled(self) -> set[int]:
        path = self.state / "cancelled"
        return set(map(int, path.read_text().split())) if path.exists() else set()

    def script(self, number: int) -> str:
        return (self.state / f"{number}.sh").read_text()

    def processes(self, numbers: Sequence[int] | None = None) -> list[psutil.Process]:
        """Of these jobs, or of all."""
        groups = {int((self.state / f"{number}.pid").read_text()) for number in numbers or self.jobs}
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.NoSuchProcess, ProcessLookupError):
                if os.getpgid(process.pid) in groups and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def kill(self, *numbers: int) -> None:
        """As a node that fails."""
        for process in self.processes(numbers):
            with suppress(psutil.NoSuchProcess):
                process.kill()


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    (tmp_path / "site").mkdir()
    one = Queue(tmp_path / "site")
    yield one
    one.kill(*one.jobs)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "out.tif"


@pytest.mark.parametrize("name", ["slurm", *(pytest.param(name, marks=slow) for name in ("pbs", "lsf"))])
def test_a_job_queue_gives_the_same_bytes(
    name: str, queue: Queue, scene: Path, undisturbed: str, output: Path
) -> None:
    status, told, said = queue.run(command(scene, output, cluster=name, workers=2))
    assert (status, said) == (0, "")
    assert sha(output) == undisturbed and [path.name for path in output.parent.iterdir()] == ["out.tif"]
    assert queue.jobs == [1, 2] and queue.cancelled == {1, 2}
    assert "waiting for workers" in told
    wait_for(lambda: not queue.processes())
    script = queue.script(1)
    assert script.count("--nthreads 2") == 1 and "OMP_WAIT_POLICY=PASSIVE MALLOC_ARENA_MAX=1" in script
    assert "tls://127.0.0.2:" in script and "--no-nanny" in script
    (asked,) = re.findall(
        {"slurm": r"--mem=(\d+)M", "pbs": r"mem=(\d+)MB", "lsf": r"-M (\d+)\d{3}"}[name], script
    )
    assert 320 < int(asked) < 1500, script


@slow
def test_the_users_configuration_decides(
    queue: Queue, scene: Path, undisturbed: str, output: Path, tmp_path: Path
) -> None:
    """Queue, account, walltime, prologue, folders, cores and memory are the user's where they are set."""
    own = {
        "queue": "fast", "account": "art", "walltime": "02:00:00", "cores": 6, "memory": "7GiB",
        "worker-extra-args": ["--lifetime", "1h"], "job-script-prologue": ["export OURS=1"],
        "job-extra-directives": ["--gres=gpu:1"], "log-directory": str(tmp_path / "logs"),
        "shared-temp-directory": str(tmp_path / "site"),
    }  # fmt: skip
    queue.configure({"slurm": own})
    status, _, said = queue.run(command(scene, output, cluster="slurm", workers=1))
    assert (status, said) == (0, "") and sha(output) == undisturbed
    lines = queue.script(1).splitlines()
    wanted = {"-p fast", "-A art", "-t 02:00:00", "--cpus-per-task=6", "--mem=7G", "--gres=gpu:1"}
    assert wanted <= {line.removeprefix("#SBATCH ") for line in lines}
    assert "export OURS=1" in lines
    worker = lines[-1]
    assert "--lifetime 1h" in worker and f"--tls-key {tmp_path}/site/" in worker
    assert worker.rindex("--nthreads 2") > worker.index("--nthreads 6")
    assert len(list((tmp_path / "logs").iterdir())) == 1
    assert not list((tmp_path / "site").glob(".urst*"))


def told(process: subprocess.Popen[str], stage: str, done: int) -> None:
    """Read what the program says until so much is done."""
    assert process.stdout is not None
    for line in process.stdout:
        fact = json.loads(line)
        if fact["event"] == "progress" and fact["stage"] == stage and fact["done"] >= done:
            return
    raise AssertionError(process.communicate())


@slow
@pytest.mark.parametrize("dead", [[1], [1, 2]])
def test_jobs_that_end_are_submitted_again(
    dead: list[int], queue: Queue, scene: Path, undisturbed: str, output: Path
) -> None:
    """One killed: the other goes on. Both, as by a walltime: nothing would go on by itself."""
    process = queue.start(command(scene, output, cluster="slurm", workers=2))
    try:
        told(process, "stylising", 1)
        queue.kill(*dead)
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()
    assert (process.returncode, said) == (0, "") and sha(output) == undisturbed
    if len(dead) == 2:
        assert set(queue.jobs) == {1, 2, 3, 4} and {3, 4} <= queue.cancelled
    wait_for(lambda: not queue.processes())


@pytest.mark.parametrize("mode", ["hold", pytest.param("", marks=slow)])
@pytest.mark.parametrize("how", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=slow)])
def test_stopping_cancels_the_jobs(
    mode: str, how: int, queue: Queue, scene: Path, undisturbed: str, output: Path
) -> None:
    """While they wait in the queue, of which is told, and in the middle of the work."""
    process = queue.start(command(scene, output, cluster="slurm", workers=2), mode)
    try:
        told(process, *(("waiting for workers", 0) if mode else ("stylising", 1)))
        process.send_signal(how)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and said.strip().endswith("the same command goes on"), said
    assert set(queue.jobs) == queue.cancelled
    wait_for(lambda: not queue.processes())
    if not mode:
        ut.stylize(scene, output, STYLE, **SMALL)
        assert sha(output) == undisturbed


@pytest.mark.parametrize(
    ("mode", "name", "sentence"),
    [
        ("refuse", "slurm", r"sbatch refused a job \(sbatch: error: invalid partition specified\); look"),
        pytest.param("refuse", "lsf", r"bsub refused a job \(bsub: error: invalid partition", marks=slow),
        ("die", "slurm", r"all jobs of sbatch ended and made no block \(.*: no such node\); look at"),
        pytest.param("die", "pbs", r"all jobs of qsub ended and made no block; look at", marks=slow),
        pytest.param("die", "lsf", r"all jobs of bsub ended and made no block; look at", marks=slow),
    ],
)
def test_a_queue_that_does_not_work_is_one_sentence(
    mode: str, name: str, sentence: str, queue: Queue, scene: Path, undisturbed: str, output: Path
) -> None:
    status, _, said = queue.run(command(scene, output, cluster=name, workers=2), mode)
    assert status == 1 and said.count("\n") == 1 and re.match(f"urst-tiles: {sentence}", said), said
    assert f"{queue.configuration}/jobqueue.yaml" in said and said.endswith("the same command goes on\n")
    ut.stylize(scene, output, STYLE, **SMALL)
    assert sha(output) == undisturbed


def test_nothing_is_submitted_where_nothing_is_missing(queue: Queue, scene: Path, output: Path) -> None:
    """`plan --save` measures the thumbnail here; workers are for blocks."""
    folder = output.with_name("job")
    arguments = command(scene, output, cluster="slurm", workers=2)
    arguments[3:4] = ["plan", "--save", str(folder)]
    status, _, said = queue.run(arguments)
    assert (status, said) == (0, "") and queue.jobs == []
    assert ut.work_job(folder, workers=1).blocks_run == 12


@slow
def test_a_saved_job_is_measured_on_a_cluster(queue: Queue, scene: Path, output: Path) -> None:
    folder = output.with_name("job")
    arguments = command(scene, output, cluster="slurm", workers=1, statistics="exact")
    arguments[3:4] = ["plan", "--save", str(folder)]
    status, _, said = queue.run(arguments)
    assert (status, said) == (0, "") and queue.jobs == [1]
    ut.work_job(folder, workers=1)
    ut.assemble_job(folder)
    ut.stylize(scene, output.with_name("good.tif"), STYLE, statistics="exact", **SMALL)
    assert sha(output) == sha(output.with_name("good.tif"))


def test_no_such_queue_here(scene: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="with qsub, which this machine has not; give the command where"):
        ut.stylize(scene, output, STYLE, cluster="pbs", **SMALL)
    for module, package in (("cryptography", "cryptography"), ("dask_jobqueue", "dask-jobqueue")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(BadInput, match=f"needs {package}, .* pip install 'urst-tiles\\[cluster\\]'"):
            ut.stylize(scene, output, STYLE, cluster="pbs", **SMALL)
    assert list(output.parent.iterdir()) == []


def test_refused_options() -> None:
    with pytest.raises(BadInput, match="give one of them"):
        ut.Options(cluster="slurm", scheduler="tcp://somewhere:8786")
    with pytest.raises(BadInput, match="--cluster must be one of slurm, pbs, lsf, got 'sge'"):
        ut.Options(cluster="sge")


@pytest.mark.parametrize(
    ("text", "there"),
    [
        ("123 R\n124 PD\n", {"123", "124"}),
        ("123 RUN\n124 EXIT\n125 DONE\n126 PEND\n", {"123", "126"}),
        (
            "Job id            Name             User              Time Use S Queue\n"
            "----------------  ---------------- ----------------  -------- - -----\n"
            "123.head          dask-worker      me                00:00:01 R work\n"
            "124.head          dask-worker      me                00:00:01 F work\n",
            {"123"},
        ),
        ("", set()),
    ],
)
def test_what_queues_list(text: str, there: set[str]) -> None:
    assert listing(text) == there


@pytest.mark.parametrize(
    ("said", "listed"),
    [
        ("slurm_load_jobs error: Invalid job id specified", set()),
        ("slurm_load_jobs error: Unable to contact slurm controller", None),
    ],
)
def test_a_queue_that_does_not_answer_ends_nothing(
    said: str, listed: set[str] | None, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    (queue.bin / "squeue").write_text(f"#!/bin/sh\necho '{said}' >&2; exit 1\n")
    monkeypatch.setenv("PATH", str(queue.bin), prepend=os.pathsep)
    assert COMMANDS["slurm"].listed(["7"]) == listed
    (queue.bin / "squeue").unlink()
    monkeypatch.setenv("PATH", str(queue.bin))
    assert COMMANDS["slurm"].listed(["7"]) is None


@pytest.mark.parametrize("folder", ["with space", "a%20b", "quo'te"])
def test_a_folder_that_a_job_script_cannot_name(folder: str, tmp_path: Path) -> None:
    """Then the certificate lies at home, and logs where the queue puts them."""
    jobs = queues.QueueRequest("slurm", 1, 1, 1 << 30, tmp_path / folder)
    assert queues._own_folder(jobs) is None and not list(tmp_path.iterdir())
    assert queues._own_folder(queues.QueueRequest("slurm", 1, 1, 1 << 30, tmp_path)) == tmp_path / "jobs.tmp"


# What listens


@pytest.fixture
def queue_here(queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Queue:
    """The queue for this process."""
    monkeypatch.setattr(dask.config, "PATH", str(tmp_path / "dask"))  # where dask-jobqueue puts its defaults
    for name, value in queue.environment().items():
        monkeypatch.setenv(name, value)
    return queue


def test_who_has_not_the_key_is_refused(queue_here: Queue, tmp_path: Path) -> None:
    """Scheduler and workers: everything that listens to other machines asks for this run's certificate."""
    jobs = queues.QueueRequest("slurm", count=1, cores=1, memory_bytes=1 << 30, folder=tmp_path)
    with (
        dask.config.set({"jobqueue.slurm.scheduler-options": {"host": "127.0.0.2"}}),
        cluster(jobs=jobs) as on,
    ):
        assert on.run_all(abs, [1], total=1, progress=lambda done, total: None) == [1]
        keys = list(tmp_path.glob("jobs.tmp/.urst-tiles-*/*"))
        assert len(keys) == 3 and {path.stat().st_mode & 0o777 for path in keys} == {0o600}
        assert keys[0].parent.stat().st_mode & 0o777 == 0o700
        processes = [psutil.Process(), *queue_here.processes()]
        listening = open_to_others(processes)
        assert len(listening) == 2 and open_here(processes) == []  # nor are there web pages on 127.0.0.1
        for address in listening:
            assert_speaks_tls(*address)
        refused(f"tcp://{listening[0][0]}:{listening[0][1]}", None)
        refused(f"tls://{listening[0][0]}:{listening[0][1]}", "other")
    assert not keys[0].exists() and queue_here.cancelled == {1}


def open_to_others(processes: list[psutil.Process]) -> list[tuple[str, int]]:
    """(address, port) of every socket that others may send to; TCP that listens, UDP that is bound."""
    found = set()
    for process in processes:
        for one in process.net_connections("inet"):
            listens = one.status == psutil.CONN_LISTEN or (one.type == socket.SOCK_DGRAM and not one.raddr)
            if listens and one.laddr.ip not in ("127.0.0.1", "::1"):
                assert one.type == socket.SOCK_STREAM
                found.add(
                    ("127.0.0.1" if one.laddr.ip in ("0.0.0.0", "::") else one.laddr.ip, one.laddr.port)
                )
    return sorted(found)


def open_here(processes: list[psutil.Process]) -> list[int]:
    """The ports on 127.0.0.1 that these processes listen on."""
    sockets = [one for process in processes for one in process.net_connections("inet")]
    return [
        one.laddr.port for one in sockets if one.status == psutil.CONN_LISTEN and one.laddr.ip == "127.0.0.1"
    ]


def assert_speaks_tls(host: str, port: int) -> None:
    """Nothing is told to who speaks plainly, nor to who has no certificate."""
    with socket.create_connection((host, port), 10) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with suppress(ConnectionResetError):
            assert not re.search(rb"[A-Za-z]{4}", plain.recv(1000))  # a TLS alert at most
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((host, port), 10) as raw,
        pytest.raises((ssl.SSLError, ConnectionResetError), match="certificate required|reset"),
        anybody.wrap_socket(raw) as dressed,
    ):
        dressed.recv(1000)


def refused(address: str, certificate: str | None) -> None:
    """By a dask client without this run's certificate."""
    from distributed import Client
    from distributed.security import Security

    security = Security.temporary() if certificate else None
    said = "imed out|reset|closed|TLS certificate does not match"
    with pytest.raises(OSError, match=said):
        Client(address, timeout=2, security=security)


# Workers that come and go


def parts(output: Path) -> list[Path]:
    return list(output.with_name(output.name + ".job").glob("parts/[0-9]*"))


def run_elsewhere(
    scene: Path, output: Path, address: str, **options: Any
) -> tuple[threading.Thread, list[Any]]:
    ended: list[Any] = []

    def run() -> None:
        try:
            ended.append(ut.stylize(scene, output, STYLE, scheduler=address, **SMALL, **options))
        except UrstError as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, ended


@pytest.mark.parametrize("counts", [(1, 7), pytest.param((1, 5, 9), marks=slow)])
def test_workers_killed_and_others_added(
    counts: tuple[int, ...], scene: Path, undisturbed: str, output: Path, tmp_path: Path
) -> None:
    """Each worker in turn stands still, is killed, and only one that was added then can go on."""
    with Elsewhere(tmp_path) as there:
        worker = there.add()
        thread, ended = run_elsewhere(scene, output, there.address)
        for count in counts:
            wait_for(lambda count=count: len(parts(output)) >= count)  # type: ignore[misc]
            worker.send_signal(signal.SIGSTOP)
            made = len(parts(output))
            assert made < 12
            successor = there.add()
            time.sleep(0.2)
            worker.kill()
            worker.wait()
            worker = successor
        thread.join(120)
    assert ended[0].blocks_run == 12 and sha(output) == undisturbed


@slow
@pytest.mark.parametrize("seed", range(10))
def test_workers_come_and_go_at_random(
    seed: int, scene: Path, undisturbed: str, output: Path, tmp_path: Path
) -> None:
    random = np.random.default_rng(seed)
    with Elsewhere(tmp_path) as there:
        there.add()
        thread, ended = run_elsewhere(scene, output, there.address, statistics="thumbnail")
        while thread.is_alive():
            time.sleep(random.uniform(0, 3))
            there.add()
            if len(there.workers) > 2:
                there.workers[int(random.integers(len(there.workers) - 1))].kill()
    if isinstance(ended[0], BlocksFailed):
        assert "KilledWorker" in str(ended[0])
        ut.stylize(scene, output, STYLE, **SMALL)
    assert sha(output) == undisturbed


# The README's own steps


@pytest.fixture
def steps(root: Path) -> list[str]:
    """The two programs of the README's section: what is done once, and each time."""
    section = (root / "README.md").read_text().split("## On a cluster\n")[1].split("\n### ")[0]
    return re.findall(r"```sh\n(.*?)```", section, re.DOTALL)


@pytest.fixture
def home(tmp_path: Path, steps: list[str]) -> dict[str, str]:
    """The environment of somebody who did what is done once."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl here")
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"HOME": str(tmp_path), "PATH": programs, "OMP_NUM_THREADS": "1"}
    environment.pop("DASK_CONFIG", None)
    done = subprocess.run(["bash", "-euc", steps[0]], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("dask-tls/*.key")} == {0o600}
    return environment


@slow
def test_the_readmes_tls(
    steps: list[str], home: dict[str, str], scene: Path, undisturbed: str, output: Path, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    lines = (
        steps[1].replace("HOST", "127.0.0.1").replace("8786", str(port)).replace(":8787", ":0").splitlines()
    )
    scheduler, worker, client = lines[1:]
    flags = " ".join(f"--{name} {value}" for name, value in SMALL.items())
    client = client.replace("INPUT OUTPUT --style STYLE", f"{scene} {output} --style {STYLE} {flags}")
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path}
    running = [subprocess.Popen(shlex.split(line), env=home, **quiet) for line in (scheduler, worker)]
    try:
        wait_for(lambda: reaches(port))
        done = subprocess.run(shlex.split(client), env=home, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
        assert sha(output) == undisturbed
        assert_speaks_tls("127.0.0.1", port)
        tree = [process for one in running for process in tree_of(one.pid)]
        for host, other in open_to_others(tree):
            assert_speaks_tls(host, other)
        without = dict(home, HOME=str(output.parent))
        done = subprocess.run(
            [*shlex.split(client), "--overwrite"], env=without, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        assert "no dask scheduler answers at tls://" in done.stderr
    finally:
        for process in [process for one in running for process in tree_of(one.pid)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for one in running:
            one.wait()


def reaches(port: int) -> bool:
    with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def tree_of(pid: int) -> list[psutil.Process]:
    top = psutil.Process(pid)
    return [top, *top.children(recursive=True)]


@slow
def test_local_processes_where_dask_is_to_encrypt(
    home: dict[str, str], scene: Path, undisturbed: str, output: Path
) -> None:
    """Who made that configuration still runs without a scheduler."""
    flags = [str(word) for name, value in SMALL.items() for word in (f"--{name}", value)]
    program = [
        sys.executable,
        "-m",
        "urst_tiles",
        "stylize",
        str(scene),
        str(output),
        "--style",
        STYLE,
        *flags,
    ]
    done = subprocess.run([*program, "--workers", "2"], env=home, capture_output=True, text=True, timeout=200)
    assert (done.returncode, done.stderr) == (0, "") and sha(output) == undisturbed


def test_jobs_take_the_memory_of_their_own_nodes(
    queue: Queue, scene: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What this machine has allows one process; ten jobs are elsewhere."""
    from urst_tiles.api.stylize import plan_job

    monkeypatch.setenv("PATH", queue.environment()["PATH"])
    plan, _ = plan_job(scene, output, STYLE, cluster="slurm", workers=10, memory=1 << 30, **SMALL)
    assert plan.workers == 1
    with pytest.raises(ut.DoesNotFit):
        plan_job(scene, output, STYLE, workers=10, memory=1 << 30, **SMALL)


def test_a_network_made_here_cannot_travel(
    queue: Queue, scene: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setenv("PATH", queue.environment()["PATH"])
    here = ut.from_module(torch.nn.Conv2d(3, 3, 1))
    with pytest.raises(BadInput, match="is known to this process alone"):
        ut.stylize(scene, output, here, cluster="slurm", **SMALL)


# Without a home

#: The command line for a user id without an entry in the password file.
NOBODY = """import pwd
def getpwuid(uid):
    raise KeyError(uid)
pwd.getpwuid = getpwuid
"""


def nobody(queue: Queue, folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command line without HOME and without an entry in the password file, in ``folder``."""
    environment = queue.environment()
    for name in ("HOME", "DASK_CONFIG", "XDG_CACHE_HOME"):
        environment.pop(name, None)
    environment["DASK_JOBQUEUE__SLURM__SCHEDULER_OPTIONS"] = repr({"host": "127.0.0.2"})
    words = [sys.executable, "-c", NOBODY + IMPATIENT, *map(str, arguments), "--style", STYLE]
    flags = [str(word) for name, value in SMALL.items() for word in (f"--{name}", value)]
    return subprocess.run(
        [*words, *flags], env=environment, cwd=folder, capture_output=True, text=True, timeout=200
    )


@slow
def test_a_user_without_a_home_submits_jobs_and_leaves_nothing(
    queue: Queue, scene: Path, undisturbed: str, tmp_path: Path
) -> None:
    """Where there is no home, dask takes "~" for the name of a folder in the current one."""
    done = nobody(queue, tmp_path, "stylize", scene, "out.tif", "--cluster", "slurm", "--workers", 1)
    assert done.returncode == 0, done.stderr
    assert sha(tmp_path / "out.tif") == undisturbed
    assert not (tmp_path / "~").exists()


def test_without_a_home_a_job_folder_that_scripts_cannot_name_is_one_sentence(
    queue: Queue, scene: Path, tmp_path: Path
) -> None:
    (tmp_path / "with space").mkdir()
    done = nobody(
        queue, tmp_path, "stylize", scene, "with space/out.tif", "--cluster", "slurm", "--workers", 1
    )
    assert done.returncode in (1, 2) and done.stderr.count("\n") == 1, done.stderr
    assert "the nodes must find the key of this run in a folder" in done.stderr
    assert "shared-temp-directory" in done.stderr and not queue.jobs
