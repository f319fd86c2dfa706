"""Crops of pictures: what a training or a learning looks at in each step."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from urst_tiles.errors import BadInput, MissingFile
from urst_tiles.source.picture import read_picture

SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp"}
#: Deviation, in levels of 255, below which a crop is flat, and how many are drawn in a row before giving up.
FLAT, TRIES = 12.0, 1000


class ManyPictures(Protocol):
    """Pictures by number, uint8 (h, w, 3)."""

    def __len__(self) -> int:
        """How many."""

    def __getitem__(self, index: int, /) -> NDArray[np.uint8]:
        """Number ``index``, counted from 0."""


def files_of(folder: Path, held_out: Sequence[str] = ()) -> list[Path]:
    """The images in a folder, by name, without those that a pattern holds out."""
    if not folder.is_dir():
        raise MissingFile(f"there is no folder {folder} of training images")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    kept = [path for path in found if not any(fnmatch(path.name, pattern) for pattern in held_out)]
    if not kept:
        raise BadInput(
            f"the folder {folder} holds no image to train on (known: {', '.join(sorted(SUFFIXES))})"
        )
    return kept


def read(path: Path, short_side: int) -> NDArray[np.uint8]:
    """uint8 (h, w, 3)."""
    return np.rint(255 * read_picture(path, short_side)).astype(np.uint8)


def crop(image: NDArray[np.uint8], side: int, random: np.random.Generator) -> NDArray[np.uint8]:
    """A random square of ``image``, at most as large as it is, mirrored every other time."""
    side = min(side, *image.shape[:2])
    y, x = (int(random.integers(n - side + 1)) for n in image.shape[:2])
    part = image[y : y + side, x : x + side]
    return part[:, ::-1] if random.random() < 0.5 else part


def to_tensor(images: Sequence[NDArray[np.uint8]], device: str) -> Tensor:
    """(n, 3, h, w) float32 in 0..1."""
    return torch.from_numpy(np.stack(images)).to(device).permute(0, 3, 1, 2).float().div(255)


def drawn(pictures: ManyPictures, size: int, count: int, random: np.random.Generator, device: str) -> Tensor:
    """(count, 3, size, size), random crops at the scale of the pictures, mirrored and turned, none of them
    flat; BadInput where there are only flat ones."""
    parts: list[NDArray[np.uint8]] = []
    for _ in range(TRIES * count):
        part = crop(pictures[int(random.integers(len(pictures)))], size, random)
        part = np.rot90(part, int(random.integers(4)))
        if part[::4, ::4].std() >= FLAT:
            parts.append(part)
        if len(parts) == count:
            return to_tensor(parts, device)
    raise BadInput(f"{TRIES} crops in a row were flat: take other photographs as --content")
