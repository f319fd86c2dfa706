"""The gallery: images down, methods across."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import pyvips

from urst_tiles.cli import main


def test_a_square_for_each_image_and_method(
    pipeline: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (80, 96, 3)).astype(np.uint8)
    for name in ("a.tif", "b.tif"):
        pyvips.Image.new_from_array(pixels).tiffsave(str(tmp_path / name))
    inputs = [f"--input={tmp_path / name}" for name in ("a.tif", "b.tif")]
    methods = ["--method=lite", "--method=lite --preserve-color luminance"]
    command = ["gallery", str(tmp_path / "g.png"), *inputs, "--style=monet-sunrise", *methods]
    monkeypatch.setattr(sys, "argv", [*command, "--side=32", "--detail=0.5,0.5"])
    gallery, ran = pipeline("gallery"), list[str]()

    def here(command: list[str], check: bool) -> None:
        """The command in this process: one of its own takes seconds to import torch."""
        ran.append(shlex.join(command[4:]))
        assert check and command[0] == "urst-tiles" and main(command[1:]) == 0

    monkeypatch.setattr(gallery, "subprocess", SimpleNamespace(run=here))
    gallery.main()
    lite = "--style monet-sunrise --model lite"
    assert ran == 2 * [lite, f"{lite} --preserve-color luminance"]
    made = pyvips.Image.new_from_file(str(tmp_path / "g.png")).numpy()
    assert made.shape == (4 * 32 + 3 * 12, 3 * 32 + 2 * 12, 3)
    first, second, third = (made[:32, x : x + 32].astype(int) for x in (0, 44, 88))
    assert np.abs(first - second).mean() > 3 and np.abs(second - third).mean() > 1
    np.testing.assert_array_equal(made[44:76, :32], pixels[24:56, 32:64])
