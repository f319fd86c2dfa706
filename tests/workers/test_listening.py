"""What a run listens on, and what a program without its key can do there: nothing."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import dask.config
import psutil
import pytest
import torch
from helpers import geotiff, picture, wait_for

import urst_tiles as ut
from urst_tiles.errors import BadInput
from urst_tiles.workers import local
from urst_tiles.workers.run import cluster
from urst_tiles.workers.scratch import NAME, private_folder

SMALL: dict[str, Any] = {"tile": 128, "block": 256, "thumbnail": 64, "device": "cpu", "threads": 1}
FLAGS = [str(word) for name, value in SMALL.items() for word in (f"--{name}", value)]

#: What somebody without the key tries at every port; each line of its output is something that worked.
INTRUDER = """
import asyncio, socket, sys
from concurrent.futures import ThreadPoolExecutor
from distributed.comm import connect
from distributed.security import Security

async def ask(address, security):
    arguments = security.get_connection_args("client")
    comm = await connect(address, timeout=3, **arguments)
    await comm.write({"op": "identity", "reply": True})
    return await comm.read()

def get(port):
    with socket.create_connection(("127.0.0.1", port), 3) as plain:
        plain.sendall(b"GET /sitemap.json HTTP/1.1\\r\\nHost: me\\r\\n\\r\\n")
        return plain.recv(1000)

KINDS = {"tcp": Security(require_encryption=False), "tls": Security.temporary()}

def try_at(port, scheme):
    try:
        if scheme == "http":
            return "page" if b"HTTP" in get(port) else None
        told = asyncio.run(asyncio.wait_for(ask(f"{scheme}://127.0.0.1:{port}", KINDS[scheme]), 5))
        return f"told by {told['type']}"
    except (OSError, ValueError, TypeError, RuntimeError, TimeoutError):
        return None

print("began")
tries = [(int(port), scheme) for port in sys.argv[1:] for scheme in (*KINDS, "http")]
with ThreadPoolExecutor(len(tries)) as pool:  # most of them wait for an answer that never comes
    for achieved in filter(None, pool.map(try_at, *zip(*tries))):
        print(achieved)
print("ended")
"""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 60 blocks."""
    return geotiff(tmp_path_factory.mktemp("listening") / "scene.tif", picture(1500, 2500))


def listening(top: psutil.Process) -> set[tuple[str, int]]:
    """(address, port) of every socket, in a tree of processes, that takes connections or datagrams."""
    found = set()
    for process in (top, *top.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            for one in process.net_connections("inet"):
                if one.status == psutil.CONN_LISTEN or (one.type == socket.SOCK_DGRAM and not one.raddr):
                    found.add((one.laddr.ip, one.laddr.port))
    return found


def intrude(ports: list[int], folder: Path) -> str:
    """What a program without the key achieves at these ports."""
    program = folder / "intruder.py"
    program.write_text(INTRUDER)
    done = subprocess.run(
        [sys.executable, program, *map(str, ports)], capture_output=True, text=True, timeout=240, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def paused(arguments: list[object], there: Any) -> Iterator[psutil.Process]:
    """The command, once ``there`` is true; its workers have then begun."""
    command = [sys.executable, "-m", "urst_tiles", *map(str, arguments)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, **quiet)  # type: ignore[call-overload]
    try:
        wait_for(there)
        assert process.poll() is None
        yield psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def commands(command: str, scene: Path, folder: Path) -> tuple[list[object], Any]:
    """The arguments of a command that makes blocks, and whether it has made one."""
    job, output = folder / "job", folder / "out.tif"
    flags = ["--style", "hokusai-wave", *FLAGS]
    made = lambda: any(folder.glob("**/parts/[0-9]*"))  # noqa: E731
    if command == "work":
        ut.save_job(job, scene, output, "hokusai-wave", **SMALL)
        return ["work", job], made
    if command == "run":
        options = "\n".join(f"{name} = {value!r}" for name, value in SMALL.items())
        table = folder / "jobs.toml"
        table.write_text(
            f"output = 'out.tif'\ninputs = '{scene}'\nstyles = 'hokusai-wave'\n[options]\n{options}\n"
        )
        return ["run", table], made
    return ["stylize", scene, output, *flags], made


@pytest.mark.parametrize(
    "command", ["stylize", *(pytest.param(one, marks=pytest.mark.slow) for one in ("run", "work"))]
)
def test_one_process_opens_no_port(command: str, scene: Path, tmp_path: Path) -> None:
    arguments, made = commands(command, scene, tmp_path)
    with paused(arguments, made) as process:
        assert listening(process) == set()


@pytest.mark.parametrize("command", ["stylize", pytest.param("work", marks=pytest.mark.slow)])
def test_worker_processes_answer_nobody_without_the_key(command: str, scene: Path, tmp_path: Path) -> None:
    arguments, made = commands(command, scene, tmp_path)
    with paused([*arguments, "--workers", "2"], made) as process:
        wait_for(lambda: len(listening(process)) >= 5)  # a scheduler, two nannies, two workers
        found = listening(process)
        assert {address for address, _ in found} == {"127.0.0.1"} and len(found) == 5
        assert intrude([port for _, port in found], tmp_path) == "began\nended\n"
        for _, port in found:
            assert_asks_for_a_certificate(port)


def assert_asks_for_a_certificate(port: int) -> None:
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), 10) as raw,
        pytest.raises((ssl.SSLError, ConnectionResetError), match="certificate required|reset"),
        anybody.wrap_socket(raw) as dressed,
    ):
        dressed.recv(1000)


def test_the_intruder_would_get_in_without_a_key(tmp_path: Path) -> None:
    """The twin: an ordinary dask cluster, as it would be without our care."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=1, processes=False, protocol="tcp", dashboard_address="127.0.0.1:0", threads_per_worker=1
    ):
        ports = [port for _, port in listening(psutil.Process())]
        did = intrude(ports, tmp_path)
    assert set(did.splitlines()) == {"began", "told by Scheduler", "told by Worker", "page", "ended"}


def test_dask_cuda_is_given_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """And its web servers, which cannot be left out, have nothing to show."""
    asked: list[dict[str, Any]] = []

    def stand_in(**options: Any) -> Any:
        asked.append(options | {"routes": dask.config.get("distributed.scheduler.http.routes")})
        return local._in_process(1)

    monkeypatch.setitem(sys.modules, "dask_cuda", types.SimpleNamespace(LocalCUDACluster=stand_in))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with cluster(workers=2, device="cuda"):
        pass
    assert asked[0]["security"].require_encryption and asked[0]["host"] == "127.0.0.1"
    assert "PRIVATE KEY" in asked[0]["security"].tls_worker_key and asked[0]["routes"] == []


def test_without_cryptography_it_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(BadInput, match="needs cryptography, which is not installed: pip install"):
        local.pinned([{}], 1)


# Folders of dask's, which are on sys.path


def folders(index: int) -> list[str]:
    return list(sys.path)


@pytest.mark.parametrize("taken", ["by nobody", "by all", "a link", "a file"])
def test_no_folder_of_others_is_on_the_path(
    taken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who made dask's folder, or ours, before us could put modules there."""
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "dask-scratch-space").mkdir()
    ours, before = shared / NAME, list(sys.path)
    if taken == "by all":
        ours.mkdir()
        ours.chmod(0o777)
    elif taken == "a link":
        ours.symlink_to(shared / "dask-scratch-space")
    elif taken == "a file":
        ours.touch()
    with dask.config.set({"temporary-directory": str(shared)}), cluster() as on:
        (seen,) = on.run_all(folders, [0], total=1, progress=lambda done, total: None)
        inside = [Path(name) for name in set(seen) - set(before) if name.startswith(str(shared))]
        assert inside
        for folder in inside:
            (top,) = [parent for parent in folder.parents if parent.parent == shared]
            assert top.name.startswith(NAME) and (top == ours) == (taken == "by nobody")
            assert not top.is_symlink() and top.stat().st_mode & 0o777 == 0o700
            assert top.stat().st_uid == os.getuid()
    assert sys.path == before


def test_no_room_for_folders_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=re.escape(f"no folder can be made in {tmp_path}/absent")):
        private_folder(tmp_path / "absent")
