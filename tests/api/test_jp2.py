"""JPEG 2000 out: without loss or to a size, at its place, whole or not at all, in bounded memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from helpers import geotiff, picture, sha
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.transform import Affine

import urst_tiles as ut
from urst_tiles.api.stylize import plan_job
from urst_tiles.pyramid import jp2

SMALL: dict[str, Any] = {"model": "identity", "tile": 128, "block": 256, "blocksize": 128, "thumbnail": 64}
SHAPE = (300, 420)
LAEA = "+proj=laea +lat_0=47 +lon_0=9 +x_0=1000 +y_0=2000 +ellps=GRS80 +units=m"


def scene(folder: Path, crs: str = "EPSG:32632", **more: Any) -> Path:
    size = 0.001 if CRS.from_user_input(crs).is_geographic else 10.0
    profile = {"count": 3, "dtype": "uint8", "crs": crs, "transform": Affine(size, 0, 7, 0, -size, 47)} | more
    path = folder / "in.tif"
    with rasterio.open(path, "w", driver="GTiff", height=SHAPE[0], width=SHAPE[1], **profile) as file:
        file.write(picture(*SHAPE).transpose(2, 0, 1))
    return path


@pytest.mark.parametrize("crs", ["EPSG:4326", pytest.param("EPSG:2154", marks=pytest.mark.slow), LAEA])
def test_it_lies_where_the_input_lies(tmp_path: Path, crs: str) -> None:
    path, out = scene(tmp_path, crs), tmp_path / "out.jp2"
    ut.stylize(path, out, None, region=(50, 30, 300, 200), **SMALL)
    assert {one.name for one in tmp_path.iterdir()} == {"in.tif", "out.jp2"}
    with rasterio.open(path) as before, rasterio.open(out) as file:
        assert file.transform.almost_equals(before.transform @ before.transform.translation(50, 30))
        assert file.crs == before.crs or file.crs.to_proj4() == before.crs.to_proj4()
        np.testing.assert_array_equal(file.read(), before.read()[:, 30:230, 50:350])
        assert "URST_TILES" in file.tags()
    assert b"\xb1\x4b\xf8\xbd\x08\x3d\x4b\x43\xa5\xae\x8c\xd7\xd5\xa6\xce\x03" in out.read_bytes()  # GeoJP2


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_ground_control_points_arrive(tmp_path: Path) -> None:
    corners = [(0, 0), (0, 420), (300, 0), (300, 420)]
    points = [GroundControlPoint(r, c, 500000 + 10 * c + r, 5200000 - 10 * r, 0) for r, c in corners]
    path = tmp_path / "in.tif"
    profile = {"count": 3, "dtype": "uint8", "height": 300, "width": 420}
    with rasterio.open(path, "w", driver="GTiff", **profile) as file:
        file.write(picture(*SHAPE).transpose(2, 0, 1))
        file.gcps = points, "EPSG:32632"
    ut.stylize(path, tmp_path / "out.jp2", None, **SMALL)
    with rasterio.open(tmp_path / "out.jp2") as file:
        found, crs = file.gcps
    assert [(p.row, p.col, p.x, p.y) for p in found] == [(p.row, p.col, p.x, p.y) for p in points]
    assert crs.to_epsg() == 32632


def test_quality_is_the_size_in_percent(tmp_path: Path, run: Any) -> None:
    path = scene(tmp_path)
    sizes, raw = {}, SHAPE[0] * SHAPE[1] * 3
    for quality in (None, 100, 30, 5):
        ut.stylize(path, tmp_path / f"{quality}.jp2", None, quality=quality, **SMALL)
        sizes[quality] = (tmp_path / f"{quality}.jp2").stat().st_size
        assert ut.validate(tmp_path / f"{quality}.jp2").valid
    assert sha(tmp_path / "None.jp2") == sha(tmp_path / "100.jp2")
    assert sizes[30] == pytest.approx(0.3 * raw, rel=0.15) and sizes[5] < 0.08 * raw
    with rasterio.open(path) as before, rasterio.open(tmp_path / "30.jp2") as file:
        difference = np.abs(before.read().astype(int) - file.read())
    assert 0 < difference.mean() < 12
    done = run("stylize", path, tmp_path / "no.jp2", "--model", "identity", "--compression", "jpeg")
    assert (
        done.returncode == 2 and "--compression jpeg is for TIFFs, and JPEG 2000 has its own" in done.stderr
    )


def test_without_the_driver_it_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = scene(tmp_path)
    monkeypatch.setattr(jp2, "library", lambda: None)
    with pytest.raises(ut.BadInput, match=r"written by GDAL, which is not installed: pip install"):
        ut.stylize(path, tmp_path / "out.jp2", None, **SMALL)
    assert [one.name for one in tmp_path.iterdir()] == ["in.tif"]


def test_a_damaged_block_never_becomes_zeros(tmp_path: Path) -> None:
    path, job, out = scene(tmp_path), tmp_path / "job", tmp_path / "out.jp2"
    ut.save_job(job, path, out, None, **SMALL)
    ut.work_job(job)
    part = job / "parts" / "00000-00001.tif"
    data = bytearray(part.read_bytes())
    data[len(data) // 3] ^= 1
    part.write_bytes(data)
    with pytest.raises(ut.DamagedFile, match=r"00000-00001\.tif"):
        ut.assemble_job(job)
    assert not out.exists()
    ut.work_job(job)
    assert ut.assemble_job(job).output == out and ut.validate(out).valid


def test_what_gdal_changed_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    virtual, bands = jp2._virtual, ("<SourceBand>1</SourceBand>", "<SourceBand>2</SourceBand>")
    monkeypatch.setattr(jp2, "_virtual", lambda *of: virtual(*of).replace(*bands))
    with pytest.raises(ut.DamagedFile, match="would not be what its blocks are"):
        ut.stylize(scene(tmp_path), tmp_path / "out.jp2", None, **SMALL)
    assert not (tmp_path / "out.jp2").exists()


KILL = """
import os, signal, sys
import urst_tiles as ut
from urst_tiles.pyramid import jp2
def compare(*of):
    os.kill(os.getpid(), signal.SIGKILL)
jp2._compare = compare
ut.stylize(sys.argv[1], sys.argv[2], None, model="identity", tile=128, block=256, blocksize=128, thumbnail=64)
"""


def test_a_kill_leaves_nothing_half_written(tmp_path: Path) -> None:
    path, out = scene(tmp_path), tmp_path / "out.jp2"
    done = subprocess.run([sys.executable, "-c", KILL, path, out])
    assert done.returncode == -signal.SIGKILL and not out.exists()
    report = ut.stylize(path, out, None, **SMALL)
    assert report.blocks_run == 0 and ut.validate(out).valid
    assert {one.name for one in tmp_path.iterdir()} == {"in.tif", "out.jp2"}


def test_any_cut_is_found(tmp_path: Path) -> None:
    out = tmp_path / "out.jp2"
    ut.stylize(scene(tmp_path), out, None, **SMALL)
    whole = out.read_bytes()
    for size in (*range(20, 400, 7), *range(400, len(whole), len(whole) // 40), len(whole) - 1):
        (tmp_path / "cut.jp2").write_bytes(whole[:size])
        assert not ut.validate(tmp_path / "cut.jp2", deep=False).valid, size
    assert ut.validate(out, deep=False).levels == (SHAPE,)


def test_the_plan_knows_tiles_and_memory(tmp_path: Path) -> None:
    assert jp2.jp2_tile(300, 420) == jp2.jp2_tile(250_000, 250_000) == 1024
    assert jp2.jp2_tile(300_000, 300_000) == 2048
    plan, _ = plan_job(geotiff(tmp_path / "in.tif", picture(*SHAPE)), tmp_path / "out.jp2", None, **SMALL)
    assert plan.format == "jp2" and plan.quality == 100 and plan.finish_bytes > jp2.CACHE_BYTES
    assert plan.identity["quality"] == "lossless"


def test_names_of_any_bytes_and_features(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/f\xff<&"))
    folder.mkdir()
    path = scene(tmp_path)
    ut.stylize(path, folder / "out.jp2", None, **SMALL)
    assert ut.validate(folder / "out.jp2").valid
    assert [os.fsencode(one.name) for one in folder.iterdir()] == [b"out.jp2"]
