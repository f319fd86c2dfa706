"""Running tasks: the dask cluster does what the plain loop does; what is in flight is exact; failures are
named."""

from __future__ import annotations

import dataclasses
import gc
import logging
import os
import subprocess
import sys
import threading
import time
import types
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from helpers import wait_for
from tasks import open_to, quiet

from urst_tiles.engine.threads import ComputeThreads, on_device
from urst_tiles.errors import BadInput, BlocksFailed, DiskFull
from urst_tiles.workers import local, run
from urst_tiles.workers.run import TRIES, Cluster, DaskRunner, cluster, plain


@pytest.fixture(scope="module")
def in_process():
    with cluster(in_flight=3) as on:
        yield on


@pytest.fixture(params=["plain", "dask"])
def on(request: pytest.FixtureRequest, in_process: Cluster) -> Cluster:
    return Cluster(plain) if request.param == "plain" else in_process


def square(index: int) -> int:
    return index * index


def test_every_index_is_run_once(on: Cluster) -> None:
    told: list[tuple[int, int]] = []
    receipts = on.run_all(
        square, [5, 7, 9], total=10, progress=lambda done, total: told.append((done, total))
    )
    assert sorted(receipts) == [25, 49, 81]
    assert told == [(7, 10), (8, 10), (9, 10), (10, 10)]


def test_nothing_to_do(on: Cluster) -> None:
    assert on.run_all(square, [], total=4, progress=quiet) == []


def test_no_worker_is_given_up_by_the_clock(in_process: Cluster) -> None:
    """dask would give up its only worker after the machine slept, and the job would wait for ever."""
    scheduler = in_process.run.cluster.client.cluster.scheduler
    assert scheduler.worker_ttl is None and "worker-ttl" not in scheduler.periodic_callbacks


class Seen:
    """What tasks tell their test; they reach it by name, since a task is pickled on its way."""

    lock = threading.Lock()
    running = most = 0
    ran: list[int] = []
    failures = 0


@pytest.fixture(autouse=True)
def fresh() -> None:
    Seen.running = Seen.most = Seen.failures = 0
    Seen.ran = []


def busy(index: int) -> None:
    with Seen.lock:
        Seen.running += 1
        Seen.most = max(Seen.most, Seen.running)
    time.sleep(0.01)
    with Seen.lock:
        Seen.running -= 1


def coughing(index: int) -> int:
    """Fails at block 2 as long as there are failures left, always works elsewhere."""
    if index == 2 and Seen.failures > 0:
        Seen.failures -= 1
        raise OSError("the disk coughed")
    return index


def full(index: int) -> None:
    Seen.ran.append(index)
    raise DiskFull("no room")


def test_in_flight_is_exact(in_process: Cluster) -> None:
    in_process.run_all(busy, range(30), total=30, progress=quiet)
    assert Seen.most == 3


def test_an_error_that_passes_is_tried_again(on: Cluster) -> None:
    Seen.failures = TRIES - 1
    assert sorted(on.run_all(coughing, range(5), total=5, progress=quiet)) == list(range(5))


def test_a_block_that_keeps_failing_is_named_and_the_others_finish(on: Cluster) -> None:
    Seen.failures = 99
    done: list[int] = []
    with pytest.raises(
        BlocksFailed, match=r"1 block failed \(2\): OSError: the disk coughed; .* tries just these again"
    ):
        on.run_all(coughing, range(5), total=5, progress=lambda d, t: done.append(d))
    assert done[-1] == 4


def test_a_full_disk_ends_the_run_at_once(on: Cluster) -> None:
    with pytest.raises(DiskFull):
        on.run_all(full, range(100), total=100, progress=quiet)
    assert len(Seen.ran) <= 7


def test_a_block_that_kills_its_worker_is_named(tmp_path: Path) -> None:
    """In a process of its own: worker processes import ``__main__`` again."""
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\n"
        f"sys.path[:0] = [{str(Path(__file__).parents[1])!r}]\n"
        "from tasks import dying, quiet\n"
        "if __name__ == '__main__':\n"
        "    from urst_tiles.errors import BlocksFailed\n"
        "    from urst_tiles.workers.run import cluster\n"
        "    with cluster(workers=2, in_flight=1) as on:\n"
        "        try:\n"
        "            on.run_all(dying, range(6), total=6, progress=quiet)\n"
        "        except BlocksFailed as error:\n"
        "            print(error)\n"
    )
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=200)
    assert "1 block failed (3): KilledWorker" in done.stdout, done.stderr


def elsewhere(workers: int, threads: int) -> Any:
    """A dask cluster that is not ours; its workers are threads of this process."""
    from distributed import LocalCluster

    return LocalCluster(
        n_workers=workers, processes=False, threads_per_worker=threads, protocol="tcp",
        dashboard_address=None, silence_logs=logging.CRITICAL,
    )  # fmt: skip


@pytest.mark.parametrize("answer", [{}, OSError("gone"), TimeoutError("gone")])
def test_a_scheduler_that_is_gone_has_no_workers(answer: Any) -> None:
    """That it is gone the next block that ends tells, in a sentence."""

    def scheduler_info(n_workers: int) -> dict[str, Any]:
        if isinstance(answer, Exception):
            raise answer
        return answer

    client = types.SimpleNamespace(scheduler_info=scheduler_info)
    assert DaskRunner(local.OpenCluster(client), 1).workers() == 0


def test_who_looks_after_the_workers_is_told_of_all_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those of earlier tasks too: a queue would not submit jobs again that made no block."""
    monkeypatch.setattr("urst_tiles.workers.run.LOOK_SECONDS", 0.0)
    told: list[int] = []
    with cluster() as on:
        opened = on.run.cluster  # type: ignore[attr-defined]
        watched = dataclasses.replace(opened, look=lambda workers, ended: told.append(ended))
        runner = DaskRunner(watched, 1)
        for task in (abs, float):
            Cluster(runner).run_all(task, range(3), total=3, progress=quiet)
    assert told == sorted(told) and runner.ended == 6 and {3, 4, 5} <= set(told)


made: list[int] = []


def noted(index: int) -> int:
    """Its index, and a note of it."""
    made.append(index)
    return index


def test_a_result_that_is_lost_with_its_worker_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """It had ended and was not fetched yet; who starts workers is asked meanwhile."""
    real = run._outcome
    with elsewhere(workers=1, threads=1) as there:

        def fetch(future: Any, index: int) -> Any:
            if len(made) == 1 and there.scheduler.workers:
                there.sync(there.workers[0].close)
            return real(future, index)

        def look(workers: int, ended: int) -> None:
            if not workers and not ended and len(made) == 1:
                there.scale(2)

        monkeypatch.setattr(run, "_outcome", fetch)
        monkeypatch.setattr(run, "FETCH_SECONDS", 0.5)
        with cluster(scheduler=there.scheduler_address) as on:
            watched = dataclasses.replace(on.run.cluster, look=look)  # type: ignore[attr-defined]
            assert Cluster(DaskRunner(watched, 1)).run_all(noted, [7], total=1, progress=quiet) == [7]
    assert made == [7, 7]


def test_worker_processes_keep_the_memory_they_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """dask's nannies set this variable, with which every large array is paged in anew."""
    monkeypatch.delenv("MALLOC_TRIM_THRESHOLD_", raising=False)
    unset = partial(os.getenv, "MALLOC_TRIM_THRESHOLD_")  # its default is then the index
    with cluster(workers=2, in_flight=1) as on:
        assert sorted(on.run_all(unset, range(4), total=4, progress=quiet)) == [0, 1, 2, 3]


def test_memory_does_not_grow_with_the_tasks() -> None:
    """dask's own logs kept more than a hundred objects of each."""

    def objects() -> int:
        gc.collect()
        return sys.getallocatedblocks()

    known = {}
    with cluster(in_flight=3) as on:
        for ended, _ in enumerate(on.run(square, range(450)), 1):
            if ended in (150, 450):
                known[ended] = objects()
    assert known[450] - known[150] < 300 * 40


def test_device_work_is_done_by_one_thread() -> None:
    names = set()
    pool = [threading.Thread(target=lambda: names.add(on_device(1, threading.get_ident))) for _ in range(8)]
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join()
    assert len(names) == 1


def test_we_listen_on_this_machine_alone() -> None:
    with cluster(in_flight=1) as on:
        on.run_all(square, [1], total=1, progress=quiet)
        here = open_to([psutil.Process()])
    assert here <= {"127.0.0.1", "::1"}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_worker_processes_listen_on_this_machine_alone(device: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import os, sys, psutil\n"
        f"sys.path[:0] = [{str(Path(__file__).parents[1])!r}]\n"
        "from tasks import listeners, quiet\n"
        "if __name__ == '__main__':\n"
        "    import torch\n"
        "    from urst_tiles.workers.run import cluster\n"
        "    os.environ['TOP'] = str(os.getpid())\n"
        "    torch.cuda.device_count = lambda: 2\n"
        f"    with cluster(workers=2, in_flight=1, device={device!r}) as on:\n"
        "        found = on.run_all(listeners, range(4), total=4, progress=quiet)\n"
        "        assert len(psutil.Process().children(recursive=True)) >= 2\n"
        "    print(sorted(set().union(*found)))\n"
    )
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=200)
    assert done.stdout.strip() == "['127.0.0.1']", done.stderr


def test_no_scheduler_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urst_tiles.workers.local.CONNECT_SECONDS", 0.5)
    with (
        pytest.raises(BadInput, match="no dask scheduler answers at"),
        cluster(scheduler="tcp://127.0.0.1:1"),
    ):
        pass


# Workers that come and go


crowds: dict[int, int] = {}


def crowded(index: int) -> None:
    """Notes how many run beside it."""
    with Seen.lock:
        Seen.running += 1
        crowds[index] = Seen.running
    time.sleep(0.05)
    with Seen.lock:
        Seen.running -= 1


def test_what_is_in_flight_follows_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urst_tiles.workers.run.LOOK_SECONDS", 0.1)
    at = {40: 3, 160: 1}
    with elsewhere(workers=1, threads=8) as there:

        def progress(done: int, total: int) -> None:
            if done in at:
                there.scale(at[done])
                wait_for(lambda: len(there.scheduler.workers) == at[done])

        with cluster(scheduler=there.scheduler_address, in_flight=2) as on:
            on.run_all(crowded, range(260), total=260, progress=progress)
    most = [crowds[index] for index in range(260)]
    # From 160 on a block of a worker that left runs again elsewhere while its thread, which is ours, ends.
    assert max(most[:40]) == 2 and max(most[80:150]) == max(most[:150]) == 6 and max(most[220:]) == 2


def test_without_workers_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[str, int, int]] = []
    with elsewhere(workers=0, threads=1) as there:

        def progress(stage: str, done: int, total: int) -> None:
            said.append((stage, done, total))
            there.scale(1)

        with cluster(scheduler=there.scheduler_address, in_flight=1, progress=progress) as on:
            assert on.run_all(abs, [3], total=1, progress=lambda done, total: None) == [3]
    assert said == [("waiting for workers", 0, 1)]


# ComputeThreads


def test_threads_compute_at_once_and_share_the_torch_threads() -> None:
    """Two calls meet on two threads; on one thread they would wait for each other for ever."""
    assert ComputeThreads.sharing(5, 2) == ComputeThreads(2, 3)
    assert ComputeThreads.sharing(1, 2) == ComputeThreads(1, 1)
    compute, together = ComputeThreads.sharing(2, 2), threading.Barrier(2, timeout=20)

    def meet() -> tuple[str, int]:
        together.wait()
        return threading.current_thread().name, torch.get_num_threads()

    with ThreadPoolExecutor(2) as pool:
        met = [one.result() for one in [pool.submit(compute.run, meet) for _ in range(2)]]
    assert len({name for name, _ in met}) == 2 and {threads for _, threads in met} == {1}
    assert on_device(2, torch.get_num_threads) == 2


# Cards

PINNED = """
import os, sys

def where(index):
    import time
    time.sleep(0.2)
    return os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES")

if __name__ == "__main__":
    import torch
    from urst_tiles.workers.run import cluster

    torch.cuda.device_count = lambda: int(sys.argv[2])
    with cluster(workers=int(sys.argv[1]), in_flight=1, device=sys.argv[3]) as on:
        found = on.run_all(where, range(12), total=12, progress=lambda done, total: None)
    print(sorted(str(card) for _, card in set(found)))
"""


def cards_of(tmp_path: Path, workers: int, count: int, device: str, visible: str | None) -> str:
    """The cards that worker processes see, as a list."""
    program = tmp_path / "program.py"
    program.write_text(PINNED)
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    environment |= {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    arguments = [sys.executable, str(program), str(workers), str(count), device]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=200, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("workers", "count", "device", "visible", "found"),
    [
        pytest.param(3, 2, "cuda", None, ["0", "0", "1"], marks=pytest.mark.slow),
        (2, 2, "cuda", "3,GPU-5ad1", ["3", "GPU-5ad1"]),
        pytest.param(2, 2, "cuda:1", None, ["None", "None"], marks=pytest.mark.slow),
    ],
)
def test_each_process_sees_its_card(
    workers: int, count: int, device: str, visible: str | None, found: list[str], tmp_path: Path
) -> None:
    assert cards_of(tmp_path, workers, count, device, visible) == str(found)


@pytest.mark.parametrize(
    ("visible", "count", "found"),
    [
        (None, 3, ["0", "1", "2"]),
        ("2,5", 2, ["2", "5"]),
        ("MIG-1f, GPU-2", 2, ["MIG-1f", "GPU-2"]),
        ("1,-1,2", 1, ["1"]),
        ("", 0, []),
    ],
)
def test_the_users_cards(
    visible: str | None, count: int, found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert local.cards() == found


def test_dask_cuda_is_asked_where_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import LocalCluster

    asked: list[dict[str, Any]] = []

    def stand_in(**options: Any) -> Any:
        asked.append(options)
        return LocalCluster(n_workers=1, processes=False, dashboard_address=None)

    monkeypatch.setitem(sys.modules, "dask_cuda", types.SimpleNamespace(LocalCUDACluster=stand_in))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7,6,5,4")
    with cluster(workers=3, in_flight=3, device="cuda") as on:
        assert on.run_all(abs, [1], total=1, progress=lambda done, total: None) == [1]
    assert len(asked) == 1
    wanted = {"CUDA_VISIBLE_DEVICES": ["7", "6", "5"], "n_workers": 3, "threads_per_worker": 3}
    wanted |= {"host": "127.0.0.1", "memory_limit": None, "device_memory_limit": None}
    assert wanted.items() <= asked[0].items()
    assert asked[0]["dashboard_address"] == asked[0]["worker_dashboard_address"] == "127.0.0.1:0"


def test_dask_cuda_has_no_two_workers_on_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(**options: Any) -> Any:
        raise AssertionError("dask-cuda cannot do this")

    found: list[Any] = []
    monkeypatch.setitem(sys.modules, "dask_cuda", types.SimpleNamespace(LocalCUDACluster=never))
    monkeypatch.setattr(local, "pinned", lambda environments, in_flight, loop: found.extend(environments))
    local._on_cards(["4", "9"], 3, 2, None)
    assert [one["CUDA_VISIBLE_DEVICES"] for one in found] == ["4", "9", "4"]


def test_no_card_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(BadInput, match="CUDA_VISIBLE_DEVICES"), cluster(workers=2, device="cuda"):
        pass


# One cluster after the other


def test_jobs_that_want_the_same_share_a_cluster() -> None:
    with run.SharedCluster() as shared:
        opened = []
        for in_flight in (2, 1, 2, 3, 2):
            with shared(in_flight=in_flight) as on:
                opened.append(on.run.cluster.client)  # type: ignore[attr-defined]
                assert on.run_all(square, [3], total=1, progress=quiet) == [9]
        assert opened[0] is opened[1] is opened[2] is not opened[3] is opened[4]
        assert opened[2].status == "closed"
        with pytest.raises(DiskFull), shared(in_flight=2) as on:
            on.run_all(full, [1], total=1, progress=quiet)
        assert opened[4].status == "closed", "no task of a job that failed runs beside the next job"
        with shared(in_flight=2) as on:
            assert on.run_all(square, [4], total=1, progress=quiet) == [16]
            last = on.run.cluster.client  # type: ignore[attr-defined]
    assert last.status == "closed"


def test_a_shared_cluster_is_exact_in_flight_for_each_job() -> None:
    with run.SharedCluster() as shared:
        for in_flight in (3, 1):
            Seen.most = 0
            with shared(in_flight=in_flight) as on:
                on.run_all(busy, range(30), total=30, progress=quiet)
            assert Seen.most == in_flight


def test_a_shared_cluster_is_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "RENEW", 2)
    with run.SharedCluster() as shared:
        opened = []
        for _ in range(4):
            with shared(in_flight=1) as on:
                opened.append(on.run.cluster.client)  # type: ignore[attr-defined]
        assert opened[0] is opened[1] is not opened[2] is opened[3]


def test_a_closed_cluster_leaves_nothing() -> None:
    """dask remembers methods of every scheduler and worker, and with them the whole of it."""
    from distributed import Client, Scheduler, Worker

    def there() -> tuple[int, ...]:
        gc.collect()
        objects = gc.get_objects()
        kinds = [sum(issubclass(type(one), kind) for one in objects) for kind in (Scheduler, Worker, Client)]
        process = psutil.Process()
        return (
            *kinds,
            process.num_fds(),
            threading.active_count(),
            len(sys.path),
            len(sys.path_importer_cache),
        )

    seen = []
    for _ in range(12):
        with cluster(in_flight=2) as on:
            on.run_all(square, [3], total=1, progress=quiet)
        del on
        seen.append(there())
    for first, last in zip(seen[3], seen[-1], strict=True):
        assert last <= first + 1, (seen[3], seen[-1])
