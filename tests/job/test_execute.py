"""Running tasks: the dask cluster does what the plain loop does; what is in flight is exact; failures are
named."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from urst_tiles.errors import BadInput, BlocksFailed, DiskFull
from urst_tiles.execute import TRIES, Cluster, cluster, on_device, plain


def quiet(done: int, total: int) -> None:
    pass


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


def dying(index: int) -> int:
    """Takes its process with it at block 3."""
    if index == 3:
        os._exit(1)
    return index


def test_a_block_that_kills_its_worker_is_named(tmp_path: Path) -> None:
    """In a process of its own: worker processes import ``__main__`` again."""
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_execute import dying, quiet\n"
        "from urst_tiles.errors import BlocksFailed\n"
        "from urst_tiles.execute import cluster\n"
        "if __name__ == '__main__':\n"
        "    with cluster(workers=2, in_flight=1) as on:\n"
        "        try:\n"
        "            on.run_all(dying, range(6), total=6, progress=quiet)\n"
        "        except BlocksFailed as error:\n"
        "            print(error)\n"
    )
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=200)
    assert "1 block failed (3): KilledWorker" in done.stdout, done.stderr


def test_device_work_is_done_by_one_thread() -> None:
    names = set()
    pool = [threading.Thread(target=lambda: names.add(on_device(1, threading.get_ident))) for _ in range(8)]
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join()
    assert len(names) == 1


def test_we_listen_on_this_machine_alone() -> None:
    with cluster(in_flight=1):
        here = [
            c.laddr.ip for c in psutil.Process().net_connections("inet") if c.status == psutil.CONN_LISTEN
        ]
    assert set(here) <= {"127.0.0.1", "::1"}


def test_no_scheduler_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urst_tiles.execute.CONNECT_SECONDS", 0.5)
    with (
        pytest.raises(BadInput, match="no dask scheduler answers at"),
        cluster(scheduler="tcp://127.0.0.1:1"),
    ):
        pass
