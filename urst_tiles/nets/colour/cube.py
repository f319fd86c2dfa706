"""Look-up tables of colours in files ``.cube`` (Adobe, "Cube LUT Specification 1.0", 2013): read and written.

A table is float64 (N, N, N, 3): the new red, green and blue of each of N values of blue, green and red, in
this order of the axes, at equal distances from 0 to 1. Between them a colour is interpolated trilinearly.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from urst_tiles.errors import BadInput, MissingFile

Float = NDArray[np.float64]

#: The sizes that the specification allows.
LEAST, MOST = 2, 256

#: The largest file that is read as a table.
MOST_BYTES = 1 << 30

#: Words of a header that do not change the table.
IGNORED = ("TITLE", "LUT_3D_INPUT_RANGE", "LUT_1D_INPUT_RANGE")


def read_cube(path: Path) -> Float:
    """The table in a file.

    Raises
    ------
    MissingFile : the file does not exist.
    BadInput : it is no table in three dimensions, or not all of its numbers are there.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise BadInput(f"{path} is too large for a table of colours")
        text = path.read_text("utf-8", errors="replace")
    except FileNotFoundError:
        raise MissingFile(f"there is no file {path}") from None
    size, rows = 0, []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#", 1)[0].split()
        if not words or words[0] in IGNORED:
            continue
        if words[0] == "LUT_1D_SIZE":
            raise BadInput(
                f"{path} is a table of single channels (LUT_1D_SIZE), and three dimensions are needed"
            )
        if words[0] in ("DOMAIN_MIN", "DOMAIN_MAX"):
            _check_domain(path, words)
        elif words[0] == "LUT_3D_SIZE":
            size = int(words[1]) if len(words) == 2 and words[1].isdecimal() else 0
        else:
            rows.append(_numbers(path, number, words))
    if not LEAST <= size <= MOST:
        raise BadInput(f"{path} is no table of colours: LUT_3D_SIZE from {LEAST} to {MOST} is missing")
    if len(rows) != size**3:
        raise BadInput(
            f"{path} has {len(rows)} colours, and LUT_3D_SIZE {size} needs {size**3}; it is cut off"
        )
    return np.array(rows).reshape(size, size, size, 3)


def _check_domain(path: Path, words: list[str]) -> None:
    """Raise BadInput unless the table is one of colours from 0 to 1."""
    wanted = 0.0 if words[0] == "DOMAIN_MIN" else 1.0
    if _numbers(path, 0, words[1:]) != [wanted] * 3:
        raise BadInput(f"{path}: {' '.join(words)} is not read here; its colours must go from 0 to 1")


def _numbers(path: Path, number: int, words: list[str]) -> list[float]:
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = []
    if len(values) != 3 or not all(map(math.isfinite, values)):
        raise BadInput(f"{path}, line {number}: expected three numbers, got {' '.join(words)[:60]!r}")
    return values


def cube_text(table: Float, title: str) -> str:
    """The text of a file with a table."""
    lines = [f'TITLE "{title}"', f"LUT_3D_SIZE {len(table)}", "DOMAIN_MIN 0 0 0", "DOMAIN_MAX 1 1 1"]
    rows = (f"{r:.7g} {g:.7g} {b:.7g}" for r, g, b in table.reshape(-1, 3).tolist())
    return "\n".join([*lines, *rows]) + "\n"


def lattice(size: int) -> NDArray[np.float32]:
    """The colours at which a table of ``size`` holds values: float32 (size² , size, 3), red fastest."""
    axis = np.linspace(0.0, 1.0, size, dtype=np.float32)
    blue, green, red = np.meshgrid(axis, axis, axis, indexing="ij")
    return np.stack([red, green, blue], -1).reshape(size * size, size, 3)


def looked_up(x: Tensor, table: Tensor) -> Tensor:
    """The colours of ``x`` (n, 3, h, w) in 0..1 by a table (N, N, N, 3), trilinearly; same shape."""
    top = table.shape[0] - 1
    at = (x.clamp(0.0, 1.0) * top).permute(0, 2, 3, 1)
    low = at.floor().clamp_(max=top - 1)
    part, flat = at - low, table.reshape(-1, 3)
    red, green, blue = low.to(torch.int64).unbind(-1)
    out = torch.zeros_like(at)
    for corner in range(8):
        r, g, b = corner & 1, corner >> 1 & 1, corner >> 2 & 1
        index = ((blue + b) * (top + 1) + green + g) * (top + 1) + red + r
        weight = torch.ones_like(part[..., 0])
        for axis, upper in enumerate((r, g, b)):
            weight = weight * (part[..., axis] if upper else 1.0 - part[..., axis])
        out += flat[index] * weight[..., None]
    return out.permute(0, 3, 1, 2).contiguous()
