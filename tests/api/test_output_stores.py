"""Outputs on object stores: a TIFF and an OME-Zarr are uploaded when they are finished."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import tifffile
from helpers import geotiff, picture

import urst_tiles as ut
from urst_tiles.storage import stores

SMALL: dict[str, Any] = {"model": "identity", "tile": 128, "block": 256, "thumbnail": 64}
BUCKET = "memory://outputs"


@pytest.fixture
def store() -> Iterator[Any]:
    stores.remove(stores.path_of(BUCKET))
    yield fsspec.filesystem("memory")
    stores.remove(stores.path_of(BUCKET))


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return geotiff(tmp_path / "in.tif", picture(300, 420))


def test_a_tiff_on_a_store_has_the_bytes_of_one_on_a_disk(store: Any, scene: Path, tmp_path: Path) -> None:
    ut.stylize(scene, tmp_path / "out.tif", None, **SMALL)
    ut.stylize(scene, f"{BUCKET}/out.tif", None, **SMALL)
    assert store.cat_file("/outputs/out.tif") == (tmp_path / "out.tif").read_bytes()
    assert store.find("/outputs") == ["/outputs/out.tif"]
    with pytest.raises(ut.BadInput, match=r"out\.tif exists"):
        ut.stylize(scene, f"{BUCKET}/out.tif", None, **SMALL)
    ut.stylize(scene, f"{BUCKET}/out.tif", None, **SMALL, overwrite=True, compression="zstd")
    with store.open("/outputs/out.tif") as file:
        np.testing.assert_array_equal(tifffile.imread(file), tifffile.imread(scene))


def test_a_zarr_on_a_store_can_be_opened_when_it_is_whole(
    store: Any, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, put = f"{BUCKET}/out.ome.zarr", stores.put

    def fail(local: Any, path: Any) -> None:
        if str(path).endswith("/1/zarr.json"):
            raise ut.JobError("the store failed")
        put(local, path)

    monkeypatch.setattr(stores, "put", fail)
    with pytest.raises(ut.JobError):
        ut.stylize(scene, output, None, **SMALL)
    assert not store.exists("/outputs/out.ome.zarr/zarr.json")
    monkeypatch.setattr(stores, "put", put)
    assert ut.stylize(scene, output, None, **SMALL).blocks_run == 0
    ut.stylize(scene, tmp_path / "out.ome.zarr", None, **SMALL)
    names = [
        str(path.relative_to(tmp_path)) for path in (tmp_path / "out.ome.zarr").rglob("*") if path.is_file()
    ]
    assert sorted(store.find("/outputs")) == sorted(f"/outputs/{name}" for name in names)
    for name in names:
        assert store.cat_file(f"/outputs/{name}") == (tmp_path / name).read_bytes()
    ut.stylize(scene, output, None, **SMALL, overwrite=True)
    assert len(store.find("/outputs")) == len(names)


@pytest.mark.parametrize(
    ("name", "words"),
    [("out.png", "TIFF and OME-Zarr to object stores"), ("out.gif", "no name of a format"), ("out", "")],
)
def test_what_is_written_to_a_store(store: Any, name: str, words: str, scene: Path) -> None:
    if not words:
        ut.stylize(scene, f"{BUCKET}/{name}", None, **SMALL)
        return
    with pytest.raises(ut.BadInput, match=words):
        ut.stylize(scene, f"{BUCKET}/{name}", None, **SMALL)
    assert not store.exists("/outputs")


def test_a_saved_job_ends_on_a_store(store: Any, scene: Path, tmp_path: Path) -> None:
    ut.save_job(tmp_path / "JOB", scene, f"{BUCKET}/out.tif", None, **SMALL)
    ut.work_job(tmp_path / "JOB")
    report = ut.assemble_job(tmp_path / "JOB")
    assert str(report.output) == f"{BUCKET}/out.tif" and store.find("/outputs") == ["/outputs/out.tif"]
