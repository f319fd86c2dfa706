"""Statistics from a sample of windows all over the image: one pass for all sites, at the image's own scale.

A thumbnail is sharper than the pixels of a large image, so the features of its pixels are others. Here small
windows, spread over the valid part of the image, are run as one batch; at each site, statistics are merged
over the cores of all windows, and the batch continues with their map. An image that is no larger than the
sample is measured as a whole.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.engine.at_once import Sample, measure_at_once
from urst_tiles.engine.seen import seen_by
from urst_tiles.engine.site_moments import for_style
from urst_tiles.engine.statistics import measuring_grid
from urst_tiles.errors import DoesNotFit
from urst_tiles.geometry import Box, round_up
from urst_tiles.nets.composition import Subject, composed
from urst_tiles.source import Source
from urst_tiles.source.levels import PaintedLevel, windows_of

#: How many windows are measured at most and at least, and the side in pixels of the core of each.
WINDOWS, FEWEST, CORE = 64, 16, 128
#: About how many pixels are computed for them at most: a network of far reach has large windows, and fewer.
MOST = 1 << 22


def sample_side(style: Subject) -> int:
    """The side of a window in pixels: the core, and the reach of the network on both sides."""
    return round_up(CORE + 2 * style.halo, style.stride)


def window_count(style: Subject) -> int:
    """How many windows are measured."""
    return min(WINDOWS, max(FEWEST, MOST // sample_side(style) ** 2))


def sample_pixels(style: Subject, shape: tuple[int, int]) -> int:
    """How many pixels are computed at once for an image of ``shape``."""
    return min(measuring_grid(shape, style).padded.area, window_count(style) * sample_side(style) ** 2)


def samples(style: Subject, shape: tuple[int, int], valid: NDArray[np.bool_] | None) -> list[Sample]:
    """The windows that are measured of an image of ``shape``, all of one size; the same for the same image.

    Parameters
    ----------
    valid : the pixels of the thumbnail that are valid, (h, w); None for all. Each window is laid around one
        of them: the valid pixels are ordered along a curve that fills the plane (Morton's), which is cut into
        as many equal parts as there are windows, and of each part one pixel is drawn.
    """
    whole = measuring_grid(shape, style).padded
    side, count = sample_side(style), window_count(style)
    if whole.area <= count * side * side:
        return [Sample(whole, whole)]
    thumbnail = np.ones((256, 256), bool) if valid is None or not valid.any() else valid
    centres = _centres(thumbnail, count) * np.array(shape) / np.array(thumbnail.shape)
    return [_around(int(y), int(x), side, whole, style) for y, x in centres]


def _centres(valid: NDArray[np.bool_], count: int) -> NDArray[np.float64]:
    """Places (``count``, 2) in a thumbnail, one in each of equal parts of its valid pixels."""
    rows, columns = np.nonzero(valid)
    ordered = np.argsort(_spread(rows) * 2 + _spread(columns), kind="stable")
    random = np.random.default_rng(0)
    places = (np.arange(count) + random.random(count)) * len(ordered) / count
    chosen = ordered[places.astype(np.int64)]
    return np.stack([rows[chosen], columns[chosen]], 1) + random.random((count, 2))


def _spread(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers below 2^20 with a zero bit behind each of their bits."""
    out = np.zeros_like(numbers)
    for bit in range(20):
        out |= ((numbers >> bit) & 1) << (2 * bit)
    return out


def _around(y: int, x: int, side: int, whole: Box, style: Subject) -> Sample:
    """The window around a place, moved into the padded image. The core reaches to an edge of the image where
    the window does: padding there is the network's own."""
    bounds = []
    for centre, length in ((y, whole.y1), (x, whole.x1)):
        size = min(side, length)
        start = min(max(0, centre - size // 2), length - size) // style.stride * style.stride
        inner = start + style.halo if start else 0
        outer = start + size - style.halo if start + size < length else length
        bounds.append(
            (start, start + size, round_up(inner, style.stride), outer // style.stride * style.stride)
        )
    (y0, y1, top, bottom), (x0, x1, left, right) = bounds
    return Sample(Box(y0, x0, y1, x1), Box(top, left, bottom, right))


def measure_sampled(
    style: Subject, image: Source | PaintedLevel, *, device: str = "cpu", threads: int = 1
) -> dict[str, Any]:
    """The moments at every measured site, by name, over a sample of windows of the image.

    They are `Moments`, or for a composition `MemberMoments`.

    Raises
    ------
    DoesNotFit : the device has no room for the sample.
    """
    reader = windows_of(seen_by(style.name, image))
    valid = image.thumbnail[..., -1] > 0 if reader.source.has_valid else None
    chosen = samples(style, image.shape, valid)
    moments = measure_at_once(composed(style), reader, chosen, device, threads)
    if moments is None:
        h, w = chosen[0].window.shape
        raise DoesNotFit(
            f"{device} has no room to measure {len(chosen)} windows of {w} x {h} px at once;"
            " choose --statistics exact, or another --device"
        )
    return for_style(style, moments)
