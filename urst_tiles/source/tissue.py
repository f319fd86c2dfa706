"""The tissue of a slide: what is coloured, found on the thumbnail.

Stains are coloured, and glass, margins and what a scanner fills up with are not. The saturation of the
thumbnail is smoothed and cut at Otsu's threshold (N. Otsu, IEEE Trans. SMC 9(1), 1979), as CLAM does (Lu et
al., Nature Biomedical Engineering 5, 2021); then specks are taken away, gaps are closed, and a margin of a
pixel is added, since tissue ends within pixels of the thumbnail. Marks of a pen are no tissue, and do not
count for the threshold either (`urst_tiles.source.pens`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from urst_tiles.geometry import Box
from urst_tiles.progress import Progress
from urst_tiles.source.area import Mask, RasterInside
from urst_tiles.source.pens import marks
from urst_tiles.source.thumbnail import Thumbnail

#: What is darker than this, relative to the brightest pixel, has no colour: the ratio of its channels is
#: noise.
DARK = 0.1

#: Less saturation than this is no stain: noise and JPEG give glass up to 0.03 or so.
LEAST = 0.05

#: A pale class of a higher mean saturation than this is no glass: then there is none in the picture.
GLASS = 0.15

#: The radius of smoothing and cleaning, as a part of the shorter side of the thumbnail.
RADIUS = 1 / 256


@dataclass(frozen=True)
class Tissue:
    """The area of the tissue of a slide. What lies outside comes out unpainted."""

    fingerprint: ClassVar[str] = "tissue"
    files: ClassVar[tuple[Path, ...]] = ()
    outline: ClassVar[Box | None] = None
    needs_thumbnail: ClassVar[bool] = True
    unpainted: ClassVar[bool] = True

    def saved_paths(self, folder: Path) -> Iterator[Path]:
        return iter(())

    def placed(self, folder: Path | None, thumbnail: Thumbnail | None, progress: Progress) -> RasterInside:
        assert thumbnail is not None
        valid = None if thumbnail.weight is None else thumbnail.weight > 0
        return RasterInside(tissue_of(thumbnail.colour, valid))


def tissue_of(colour: NDArray[Any], valid: Mask | None = None) -> Mask:
    """Where a picture shows tissue, bool, (h, w).

    Parameters
    ----------
    colour : (h, w, 3), red, green and blue in any unit in which 0 is black.
    valid : the pixels that the file calls valid, (h, w); None for all.
    """
    seen = np.ones(colour.shape[:2], bool) if valid is None else valid
    if not seen.any():
        return seen
    radius = max(1, round(min(seen.shape) * RADIUS))
    pens = pens_of(colour.astype(np.float32), seen, radius)
    seen = seen & ~pens
    if not seen.any():
        return seen
    saturation = smoothed(np.where(seen, saturation_of(colour, seen), 0).astype(np.float32), radius)
    tissue = seen & (saturation > threshold_of(saturation[seen]))
    tissue = grown(shrunk(tissue, radius), radius)
    tissue = shrunk(grown(tissue, 2 * radius), 2 * radius)
    return grown(tissue, 1) & seen


def pens_of(colour: NDArray[np.float32], seen: Mask, radius: int) -> Mask:
    """Where a picture shows marks of a pen, bool, (h, w), with a margin: the edge of a mark is mixed with
    what it was drawn on."""
    dense, ink = marks(colour, seen)
    middle = dense & (_sums(dense, 1) >= 5)  # of the 9 pixels around; a single pixel may be anything
    edge = ink & grown(middle, 2 * radius + 1)
    return grown(middle | edge, 1)


def saturation_of(colour: NDArray[Any], seen: Mask) -> NDArray[np.float32]:
    """The saturation of HSV, (max - min) / max, float32, (h, w), in 0..1; 0 where a pixel is too dark."""
    values = colour.astype(np.float32)
    high, low = values.max(-1), values.min(-1)
    bright = high > max(DARK * float(high[seen].max()), 1e-9)
    return np.where(bright, (high - low) / np.maximum(high, 1e-9), 0).astype(np.float32)


def threshold_of(saturation: NDArray[np.float32]) -> float:
    """The saturation above which pixels, (n,), are tissue."""
    cut = otsu(saturation)
    pale = saturation[saturation <= cut]
    if pale.size and float(pale.mean()) > GLASS:
        return -1.0
    return max(cut, LEAST)


def otsu(values: NDArray[np.float32]) -> float:
    """The threshold that maximises the variance between the two classes of values, (n,), in 0..1."""
    counts, edges = np.histogram(values, 256, (0.0, 1.0))
    share = counts / counts.sum()
    below, mean = np.cumsum(share), np.cumsum(share * (edges[:-1] + edges[1:]) / 2)
    apart = (mean[-1] * below - mean) ** 2 / np.maximum(below * (1 - below), 1e-12)
    return float(edges[1:][int(np.argmax(apart[:-1]))])


def smoothed(values: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    """The means over squares of side 2 radius + 1, at the edges over what there is of them."""
    return (_sums(values, radius) / _sums(np.ones_like(values), radius)).astype(np.float32)


def grown(mask: Mask, radius: int) -> Mask:
    """Dilation by a square of side 2 radius + 1."""
    return _sums(mask, radius) > 0.5


def shrunk(mask: Mask, radius: int) -> Mask:
    """Erosion by the same square; what lies beyond the edge of the picture counts as inside."""
    return _sums(~mask, radius) < 0.5


def _sums(values: NDArray[Any], radius: int) -> NDArray[np.float64]:
    """The sums over squares of side 2 radius + 1, clipped at the edges."""
    out = values.astype(np.float64)
    for axis in (0, 1):
        ahead = np.cumsum(out, axis=axis)
        length = out.shape[axis]
        last = np.minimum(np.arange(length) + radius, length - 1)
        first = np.arange(length) - radius - 1
        before = np.take(ahead, np.maximum(first, 0), axis)
        shape = [1, 1]
        shape[axis] = length
        out = np.take(ahead, last, axis) - np.where((first >= 0).reshape(shape), before, 0.0)
    return out
