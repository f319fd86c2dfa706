"""The picture of before and after."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pyvips
import tifffile


def test_two_rows_of_two(pipeline: Callable[[str], ModuleType], tmp_path: Path) -> None:
    before, after = tmp_path / "before.tif", tmp_path / "after.tif"
    ramp = np.arange(200 * 300 * 3).reshape(200, 300, 3) % 251
    tifffile.imwrite(before, ramp.astype(np.uint8), photometric="rgb")
    clear = np.concatenate([(ramp * 257), np.zeros_like(ramp[..., :1])], -1).astype(np.uint16)
    tifffile.imwrite(after, clear, photometric="rgb", extrasamples=["unassalpha"])
    image = pipeline("before_after").before_after(before, after, 64, (0.5, 0.0))
    assert isinstance(image, pyvips.Image)
    pixels = image.numpy()
    assert pixels.shape == (140, 140, 3) and pixels.dtype == np.uint8
    assert np.array_equal(pixels[76:, :64], ramp[68:132, :64])
    assert (pixels[:, 76:] == 255).all()
