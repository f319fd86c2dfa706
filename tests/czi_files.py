"""Small files of Zeiss's CZI, for tests; pylibCZIrw writes them."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

czi = pytest.importorskip("pylibCZIrw.czi", reason="pylibCZIrw is not installed (the extra czi)")

NAMES = {0: "DAPI", 1: "FITC", 2: "TRITC", 3: "Cy5"}


def write_czi(path: Path, tiles: list[tuple[np.ndarray, int, int, int, int, int]], rgb: bool = False) -> Path:
    """A file with a sub-block for each (samples (h, w), y, x, scene, channel, z), whose pixels are half a
    micron high and a quarter wide; samples of a channel in colour are (h, w, 3). With ``rgb`` channels have
    no names."""
    with czi.create_czi(str(path), compression_options="zstd1:ExplicitLevel=1") as file:
        for samples, y, x, scene, channel, z in tiles:
            stored = samples[..., ::-1] if samples.ndim == 3 else samples[..., None]
            file.write(
                np.ascontiguousarray(stored), location=(x, y), plane={"C": channel, "Z": z}, scene=scene
            )
        count = 1 + max(tile[4] for tile in tiles)
        names = {} if rgb else {number: NAMES[number] for number in range(count)}
        file.write_metadata("a", channel_names=names, scale_x=0.25e-6, scale_y=0.5e-6)
    return path


def coarser(path: Path, side: int, factor: int) -> None:
    """Make sub-blocks of ``side`` x ``side`` pixels those of the pyramid: each stands for ``factor`` times as
    many pixels (pylibCZIrw writes no pyramid itself)."""
    data = path.read_bytes()
    for axis in (b"X", b"Y"):
        for start in range(-4 * side, 40 * side):
            old = struct.pack("<4sii", axis, start, side)
            if old in data:
                data = data.replace(old, struct.pack("<4sii", axis, start, factor * side))
    path.write_bytes(data)
