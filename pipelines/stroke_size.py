"""Measure how large the strokes of pictures are, in pixels.

    python pipelines/stroke_size.py stylised.tif other.tif ...

The size is the mean autocorrelation length of the luminance gradient: how far one must go, in any direction,
until the strength of the edges there has nothing to do with that here. Prints a table of CSV: file, mean of
the length over windows, its standard error; for pictures of one scene also the ratio to the first one's,
window by window (a geometric mean), and its standard error. A picture enlarged twice has a ratio of 2.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

import urst_tiles as ut

Float = NDArray[np.float64]

#: Weights of R, G, B in the luminance, ITU-R BT.709.
LUMA = (0.2126, 0.7152, 0.0722)
#: Where the correlation has fallen to this, the length ends.
FALLEN = np.exp(-1.0)
#: Windows whose edges vary less, in 0..1, have no strokes.
FLAT = 1e-3


def gradient(picture: Float) -> Float:
    """(h, w, 3) in 0..1 -> (h - 2, w - 2), the magnitude of the luminance's central differences."""
    y = picture @ np.array(LUMA)
    return np.hypot(y[2:, 1:-1] - y[:-2, 1:-1], y[1:-1, 2:] - y[1:-1, :-2]) / 2


def autocorrelation(field: Float) -> Float:
    """(h, w) -> (h, w) for shifts of 0.. rows and 0.. columns in both senses of the diagonal: the mean
    product of two places that far apart, over the variance."""
    h, w = field.shape
    centred = field - field.mean()
    spectrum = np.fft.rfft2(centred, (2 * h, 2 * w))
    products = np.fft.irfft2(np.abs(spectrum) ** 2, (2 * h, 2 * w))[:h]
    pairs = np.outer(h - np.arange(h), w - np.arange(w))
    left = np.concatenate([products[:, :1], products[:, :-w:-1]], 1)
    return (products[:, :w] + left) / 2 / pairs / centred.var()


def length(picture: Float) -> float:
    """Pixels until the autocorrelation of the gradient, averaged over directions, is 1/e; NaN where the
    picture is flat, or correlated over more than half its size."""
    edges = gradient(picture)
    if edges.std() < FLAT:
        return float("nan")
    found = autocorrelation(edges)
    reach = min(found.shape) // 2
    distance = np.hypot(*np.indices(found.shape)).round().astype(int)
    near = distance <= reach
    ring = np.bincount(distance[near], found[near]) / np.bincount(distance[near])
    below = np.flatnonzero(ring < FALLEN)
    if not len(below):
        return float("nan")
    k = int(below[0])
    return float(k - 1 + (ring[k - 1] - FALLEN) / (ring[k - 1] - ring[k]))


def windows(source: ut.Source, side: int, most: int) -> Iterator[ut.Box]:
    """At most ``most`` squares of ``side`` on a regular lattice."""
    h, w = source.shape
    side = min(side, h, w)
    places = [(y, x) for y in range(0, h - side + 1, side) for x in range(0, w - side + 1, side)]
    for k in np.linspace(0, len(places) - 1, min(most, len(places))).round().astype(int):
        y, x = places[k]
        yield ut.Box(y, x, y + side, x + side)


def sizes(path: Path, side: int, most: int) -> Float:
    """The length in each window, NaN where it has none."""
    with TemporaryDirectory() as folder:  # for files that cannot be read in windows
        source = ut.open_source(path).prepare(Path(folder))
        top = np.iinfo(source.dtype).max
        pictures = (source.read(box)[..., :3] / top for box in windows(source, side, most))
        found = np.array([length(picture) for picture in pictures])
    if not np.isfinite(found).any():
        raise ut.BadInput(f"{path} has no window of {side} px with edges to measure")
    return found


def mean_and_error(values: Float) -> tuple[float, float]:
    """Of the numbers among them; the standard error is NaN for one alone."""
    found = values[np.isfinite(values)]
    error = found.std(ddof=1) / len(found) ** 0.5 if len(found) > 1 else np.nan
    return float(found.mean()) if len(found) else np.nan, float(error)


def row(name: str, found: Float, first: Float) -> str:
    """A line of the table."""
    numbers = [*mean_and_error(found), np.nan, np.nan]
    if found.shape == first.shape:
        ratio, spread = mean_and_error(np.log(found / first))
        numbers[2:] = np.exp(ratio), np.exp(ratio) * spread
    return f"{name},{','.join(f'{value:.3f}' for value in numbers)},{np.isfinite(found).sum()}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pictures", type=Path, nargs="+")
    parser.add_argument("--side", type=int, default=512, help="of the windows that are measured, px")
    parser.add_argument("--windows", type=int, default=64, help="at most so many of each picture")
    args = parser.parse_args(arguments)
    print("picture,stroke_px,error_px,ratio,error_ratio,windows")
    first: Float | None = None
    try:
        for path in args.pictures:
            found = sizes(path, args.side, args.windows)
            first = found if first is None else first
            print(row(path.name, found, first), flush=True)
    except ut.UrstError as error:
        print(f"stroke_size: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
