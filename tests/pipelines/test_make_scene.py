"""The made-up landscape: the same whatever the block, any size, georeferenced, and photo-like."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import rasterio
import tifffile

Load = Callable[[str], ModuleType]


@pytest.fixture(scope="module")
def landscape(pipeline: Load) -> Any:
    return pipeline("make_scene").Landscape(seed=471)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, pipeline: Load) -> Path:
    path = tmp_path_factory.mktemp("scene") / "scene.tif"
    pipeline("make_scene").write_scene(path, 300, 700, seed=471)
    return path


@pytest.mark.parametrize("row", [0, 5120, 1_000_448], ids=["corner", "town", "far away"])
def test_a_pixel_does_not_depend_on_its_block(landscape: Any, row: int) -> None:
    whole = landscape.draw(row, 3584, 256, 384)
    for y, x, height, width in [(0, 0, 128, 128), (64, 128, 192, 256), (252, 380, 4, 4)]:
        part = landscape.draw(row + y, 3584 + x, height, width)
        assert np.array_equal(part, whole[y : y + height, x : x + width])


def test_another_seed_is_another_place(pipeline: Load, landscape: Any) -> None:
    other = pipeline("make_scene").Landscape(seed=472).draw(0, 0, 64, 64)
    assert np.abs(other - landscape.draw(0, 0, 64, 64)).mean() > 0.01


def test_it_is_as_lively_as_a_photograph(landscape: Any) -> None:
    """Neither flat nor noise: wide spread, and neighbours alike."""
    pixels = landscape.draw(5120, 3584, 512, 512)
    assert 0 <= pixels.min() and pixels.max() <= 1
    assert pixels.std() > 0.08
    columns = pixels[:, 1:].ravel(), pixels[:, :-1].ravel()
    assert 0.8 < np.corrcoef(*columns)[0, 1] < 0.995


def test_the_file_holds_the_landscape(written: Path, landscape: Any) -> None:
    pixels = tifffile.imread(written)
    assert pixels.shape == (300, 700, 3) and pixels.dtype == np.uint8
    assert np.array_equal(pixels[:, :256], np.rint(landscape.draw(0, 0, 300, 256) * 255))
    assert [path.name for path in written.parent.iterdir()] == ["scene.tif"]


def test_the_file_is_georeferenced_and_tiled(written: Path) -> None:
    with rasterio.open(written) as scene:
        assert scene.crs.to_epsg() == 32632
        assert tuple(scene.transform)[:6] == (1, 0, 600_000, 0, -1, 5_300_000)
        assert scene.block_shapes == [(512, 512)] * 3
        assert scene.profile["compress"] == "deflate"


@pytest.mark.parametrize(
    ("options", "dtype"),
    [(["--compression", "jpeg"], "uint8"), (["--dtype", "uint16", "--compression", "zstd"], "uint16")],
)
def test_the_command(root: Path, tmp_path: Path, options: list[str], dtype: str) -> None:
    output = tmp_path / "scene.tif"
    command = [sys.executable, "pipelines/make_scene.py", str(output), "--size", "50x40", *options]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=True)
    assert "50 x 40, EPSG:32632" in done.stdout
    pixels = tifffile.imread(output)
    assert pixels.shape == (40, 50, 3) and pixels.dtype == dtype
    assert pixels.mean() > np.iinfo(dtype).max / 8
