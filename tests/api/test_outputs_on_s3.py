"""Outputs on S3, from a real server in another process: their bytes, and what a kill leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from helpers import geotiff, picture
from s3_server import serving

import urst_tiles as ut
from urst_tiles.source import Source, open_source

SMALL: dict[str, Any] = {"model": "identity", "tile": 128, "block": 256, "thumbnail": 64}
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
BUCKET = f"outputs-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"
NAMES = ["out.tif", "out.ome.tif", "out.ome.zarr"]

#: Runs a job that kills itself: before or after it uploads an object whose name ends so.
KILLED = """
import json, os, signal, sys
import urst_tiles as ut
from urst_tiles.storage import publish, stores

source, output, ending, when, options = sys.argv[1:]
put = stores.put

def killed(local, path):
    if str(path).endswith(ending) and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    put(local, path)
    if str(path).endswith(ending):
        os.kill(os.getpid(), signal.SIGKILL)

stores.put = publish.put = killed
ut.stylize(source, output, None, **json.loads(options))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("server") / "log") as address:
        yield address


@pytest.fixture
def s3(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A store with an empty bucket."""
    import s3fs

    for name, value in (KEYS | {"AWS_ENDPOINT_URL": server}).items():
        monkeypatch.setenv(name, value)
    store = s3fs.S3FileSystem(use_listings_cache=False)
    if store.exists(BUCKET):
        store.rm(BUCKET, recursive=True)
    store.mkdir(BUCKET)
    yield store


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return geotiff(tmp_path / "in.tif", picture(300, 420))


def objects(store: Any) -> dict[str, bytes]:
    """The content of all objects, by their names."""
    return {name.partition("/")[2]: store.cat_file(name) for name in store.find(BUCKET)}


def files(path: Path) -> dict[str, bytes]:
    """The content of a file, or of all files in a folder, by their names."""
    found = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    return {str(one.relative_to(path.parent)): one.read_bytes() for one in found}


@pytest.mark.parametrize("name", NAMES)
def test_an_output_on_s3_has_the_bytes_of_one_on_a_disk(
    name: str, s3: Any, scene: Path, tmp_path: Path
) -> None:
    ut.stylize(scene, tmp_path / name, None, **SMALL)
    ut.stylize(scene, f"s3://{BUCKET}/{name}", None, **SMALL)
    assert objects(s3) == files(tmp_path / name)
    with pytest.raises(ut.BadInput, match=rf"s3://{BUCKET}/{name} exists"):
        ut.stylize(scene, f"s3://{BUCKET}/{name}", None, **SMALL)
    ut.stylize(scene, f"s3://{BUCKET}/{name}", None, **SMALL, overwrite=True)
    assert objects(s3) == files(tmp_path / name)


def test_an_ome_zarr_on_s3_is_read_again(s3: Any, scene: Path) -> None:
    """Round trip: what is written there is what is read there."""
    ut.stylize(scene, f"s3://{BUCKET}/out.ome.zarr", None, **SMALL)
    source: Source = open_source(f"s3://{BUCKET}/out.ome.zarr")
    np.testing.assert_array_equal(source.read(ut.Box(0, 0, *source.shape)), tifffile.imread(scene))


@pytest.mark.parametrize("name", NAMES)
def test_an_output_on_s3_is_validated(
    name: str, s3: Any, scene: Path, tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"s3://{BUCKET}/{name}"
    ut.stylize(scene, address, None, **SMALL)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    done = run("validate", address)
    assert done.returncode == 0 and done.stdout.startswith(f"{address}: valid ("), done.stdout + done.stderr
    held = max(s3.find(f"{BUCKET}/{name}"), key=lambda key: s3.info(key)["size"])
    s3.pipe_file(held, s3.cat_file(held)[:-3000])
    done = run("validate", address)
    assert done.returncode == 1 and done.stdout.startswith(f"{address}: not valid ("), done.stdout
    assert str(tmp_path) not in done.stdout
    done = run("validate", f"{address}.none")
    assert done.returncode == 2 and f"there is nothing at {address}.none" in done.stderr
    assert list(scratch.iterdir()) == []  # of the copies


@pytest.mark.parametrize(
    ("name", "ending", "when"),
    [
        pytest.param("out.tif", "out.tif", "before", marks=pytest.mark.slow),
        pytest.param("out.tif", "out.tif", "after", marks=pytest.mark.slow),
        pytest.param("out.ome.tif", "out.ome.tif", "before", marks=pytest.mark.slow),
        ("out.ome.zarr", "/1/zarr.json", "before"),
        pytest.param("out.ome.zarr", "out.ome.zarr/zarr.json", "before", marks=pytest.mark.slow),
        pytest.param("out.ome.zarr", "out.ome.zarr/zarr.json", "after", marks=pytest.mark.slow),
    ],
)
def test_a_kill_between(
    name: str, ending: str, when: str, s3: Any, scene: Path, tmp_path: Path, run, monkeypatch
) -> None:
    """No output is there that is not whole, the same call goes on, and nothing else stays."""
    scratch, output = tmp_path / "scratch", f"s3://{BUCKET}/{name}"
    scratch.mkdir()
    environment = os.environ | {"PYTHONSAFEPATH": "1", "TMPDIR": str(scratch)}
    command = [sys.executable, "-c", KILLED, str(scene), output, ending, when, json.dumps(SMALL)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    opens = f"{BUCKET}/{name}/zarr.json" if name.endswith("zarr") else f"{BUCKET}/{name}"
    assert s3.exists(opens) == (when == "after")
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    flags = [word for option, value in SMALL.items() for word in (f"--{option}", str(value))]
    done = run("stylize", scene, output, *flags)
    assert done.returncode == 0, done.stderr
    ut.stylize(scene, tmp_path / name, None, **SMALL)
    assert objects(s3) == files(tmp_path / name)
    assert [one.name for one in scratch.iterdir()] == [f"urst-tiles-{os.getuid()}"]  # locks of this machine
    if name.endswith("zarr"):
        assert open_source(output).shape == (300, 420)
