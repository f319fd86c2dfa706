"""The main job on a card: the processor's picture, the same bytes, memory as planned."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from helpers import geotiff, peak_of, picture, sha

import urst_tiles as ut

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA card")

TINY = {"tile": 128, "block": 256, "thumbnail": 256}

#: ``urst-tiles``, which then tells what the card's allocator took at most.
PROGRAM = """
import sys
from urst_tiles.cli import main
status = main(sys.argv[2:])
import torch
open(sys.argv[1], "w").write(str(torch.cuda.max_memory_reserved()))
sys.exit(status)
"""


@pytest.mark.parametrize("statistics", ["thumbnail", "exact", "local"])
def test_the_picture_is_the_processors(files: Path, tmp_path: Path, statistics: str) -> None:
    made = {}
    for device in ("cpu", "cuda"):
        ut.stylize(
            files / "small.tif", tmp_path / f"{device}.tif", "hokusai-wave", statistics=statistics,
            device=device, precision="float32", **TINY,
        )  # fmt: skip
        made[device] = tifffile.imread(tmp_path / f"{device}.tif").astype(int)
    assert made["cpu"].std() > 20
    assert np.abs(made["cpu"] - made["cuda"]).max() <= 1


@pytest.mark.parametrize("statistics", ["thumbnail", "exact"])
def test_the_same_plan_gives_the_same_bytes(files: Path, tmp_path: Path, statistics: str) -> None:
    """In one process, again, and in two others that share the card."""
    for name, workers in (("one", 1), ("again", 1), ("two", 2)):
        ut.stylize(
            files / "scene.tif", tmp_path / f"{name}.tif", "hokusai-wave", statistics=statistics,
            device="cuda", workers=workers, **TINY,
        )  # fmt: skip
    assert len({sha(tmp_path / f"{name}.tif") for name in ("one", "again", "two")}) == 1


def test_a_job_goes_on_on_the_same_kind_of_device_only(files: Path, tmp_path: Path) -> None:
    job, output = tmp_path / "job", tmp_path / "out.tif"
    ut.save_job(job, files / "scene.tif", output, "hokusai-wave", device="cuda", **TINY)
    with pytest.raises(ut.JobDiffers, match="device"):
        ut.save_job(job, files / "scene.tif", output, "hokusai-wave", device="cpu", **TINY)
    for index in (1, 2):
        ut.work_job(job, ut.Shard(index, 2))
    ut.assemble_job(job)
    ut.stylize(files / "scene.tif", tmp_path / "at once.tif", "hokusai-wave", device="cuda", **TINY)
    assert sha(output) == sha(tmp_path / "at once.tif")


@pytest.mark.parametrize("statistics", ["thumbnail", "exact"])
def test_a_run_keeps_to_its_plan(tmp_path: Path, statistics: str) -> None:
    """Law 2, on the host and on the card."""
    scene = geotiff(tmp_path / "scene.tif", picture(4096, 5000))
    arguments = [
        str(scene), str(tmp_path / "out.tif"), "--style", "hokusai-wave", "--device", "cuda",
        "--block", "2048", "--statistics", statistics, "--json",
    ]  # fmt: skip
    command = [sys.executable, "-m", "urst_tiles", "plan", *arguments]
    planned = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    told = tmp_path / "told"
    command = [sys.executable, "-c", PROGRAM, str(told), "stylize", *arguments]
    for taken, name in ((peak_of(command), "peak_bytes"), (int(told.read_text()), "device_bytes")):
        print(f"{name}: {taken >> 20} of {planned[name] >> 20} MiB")
        assert 0.6 < taken / planned[name] <= 1.0
