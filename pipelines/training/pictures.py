"""Folders of images as batches of random crops, and sheets of sample pictures."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from urst_tiles.errors import BadInput, MissingFile
from urst_tiles.learning.crops import crop, read, to_tensor

#: Decoded images beyond this are decoded anew each time: MS-COCO at 512 pixels would fill 60 GiB.
KEEP_BYTES = 4 << 30
#: Sides of the squares that a content crop is made from, in crops.
ZOOMS = (1.0, 4 / 3, 2.0)


def patterns_of(*files: str) -> list[str]:
    """The patterns of file names in ``files``, that are not trained on; none in a name that is empty."""
    found: list[str] = []
    for file in files:
        if file and not Path(file).is_file():
            raise MissingFile(f"there is no file {file} of patterns to hold out")
        try:
            found += Path(file).read_text("utf-8").split() if file else []
        except UnicodeDecodeError:
            raise BadInput(f"{file} is no text in UTF-8, so no file of patterns to hold out") from None
    return found


class Pictures:
    """Images, uint8 (h, w, 3), their short side as long as said; decoded when first asked for."""

    def __init__(self, paths: Sequence[Path], short_side: int, keep_bytes: int = KEEP_BYTES):
        self.paths, self.short_side, self.room = paths, short_side, keep_bytes
        self.kept: dict[int, NDArray[np.uint8]] = {}

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        if index in self.kept:
            return self.kept[index]
        image = read(self.paths[index], self.short_side)
        if image.nbytes <= self.room:
            self.room -= image.nbytes
            self.kept[index] = image
        return image

    def decode(self) -> None:
        """Decode all images at once, in threads, as far as there is room for them: what decodes them as they
        are asked for keeps a card waiting."""
        with ThreadPoolExecutor() as threads:
            list(threads.map(self.__getitem__, range(len(self))))

    def some(self, count: int, side: int, random: np.random.Generator) -> Tensor:
        """(count, 3, side, side), random crops at the pictures' own scale; for a sheet of samples."""
        chosen = [self[int(i)] for i in random.integers(len(self), size=count)]
        return torch.cat([resized(crop(image, side, random), side, "cpu") for image in chosen])


def resized(image: NDArray[np.uint8], side: int, device: str) -> Tensor:
    """(1, 3, side, side) float32 in 0..1."""
    x = to_tensor([image], device)
    if x.shape[2] == side:
        return x
    return F.interpolate(x, (side, side), mode="bilinear", antialias=True)


def square(path: Path, side: int) -> Tensor:
    """The middle of a painting, float32, (3, side, side), in 0..1."""
    y = to_tensor([read(path, side)], "cpu")[0]
    top, left = ((n - side) // 2 for n in y.shape[1:])
    return y[:, top : top + side, left : left + side]


@dataclass(frozen=True)
class Crops:
    """Batches (batch, 3, size, size) in 0..1 of random crops of photographs or paintings."""

    pictures: Pictures
    batch: int
    size: int
    device: str

    def draw(self, random: np.random.Generator, zooms: Sequence[float] = ZOOMS) -> Tensor:
        """Squares of ``size`` times one of ``zooms``, made smaller to ``size``."""
        batch = []
        for index in random.integers(len(self.pictures), size=self.batch):
            side = int(self.size * random.choice(zooms))
            batch.append(resized(crop(self.pictures[int(index)], side, random), self.size, self.device))
        return torch.cat(batch)

    def draw_large(self, random: np.random.Generator, factor: int = 2) -> tuple[Tensor, Tensor]:
        """A batch, and the same at ``factor`` times its size: a thumbnail and its whole, for the strokes."""
        side = factor * self.size
        chosen = [self.pictures[int(i)] for i in random.integers(len(self.pictures), size=self.batch)]
        large = torch.cat([resized(crop(image, side, random), side, self.device) for image in chosen])
        return F.avg_pool2d(large, factor), large


#: Deviation of its colours at which a picture is flat, in 0..1, and how often another batch is drawn for one.
FLAT, TRIES = 0.01, 100


def drawn(photographs: Crops, random: np.random.Generator, factor: int = 0) -> tuple[Tensor, Tensor | None]:
    """A batch of photographs, none of them flat, and, with a ``factor``, the same that much larger.

    Instance norms divide by deviations: through fifteen of them the gradient of a picture of one colour is
    too large for a number. BadInput where there are only such pictures.
    """
    for _ in range(TRIES):
        x, large = photographs.draw_large(random, factor) if factor else (photographs.draw(random), None)
        if x.flatten(2).std(2).amax(1).min() > FLAT:
            return x, large
    raise BadInput(f"{TRIES} batches in a row had a photograph of one colour: take other ones as --content")


def random_window(
    large: Tensor, size: int, stride: int, random: np.random.Generator
) -> tuple[Tensor, tuple[int, int]]:
    """A square of ``size`` of each picture, and its (y, x) in them, multiples of ``stride``."""
    h, w = large.shape[2:]
    y, x = (stride * int(random.integers((n - size) // stride + 1)) for n in (h, w))
    return large[:, :, y : y + size, x : x + size], (y, x)


def sheet(rows: Sequence[Sequence[Tensor]]) -> NDArray[np.uint8]:
    """Pictures (3, h, w) in rows, clipped to 0..1, as one: uint8 (H, W, 3)."""
    whole = torch.cat([torch.cat(list(row), 2) for row in rows], 1).detach().float().cpu()
    return whole.clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
