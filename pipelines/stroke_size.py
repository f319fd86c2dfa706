"""Measure how large the strokes of pictures are, in pixels.

    python pipelines/stroke_size.py stylised.tif other.tif ...

The size is the mean autocorrelation length of the luminance gradient: the distance, averaged over directions,
at which the strength of edges is no longer correlated. The program prints a table as CSV: the file, the mean
of the length over windows, and the standard error of the mean. For pictures of the same scene it also prints
the ratio to the first picture, window by window (a geometric mean), and the standard error of the ratio. A
picture enlarged twice has a ratio of 2.
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
#: The length is the distance at which the correlation has fallen to this value.
FALLEN = np.exp(-1.0)
#: Windows in which the gradient has a smaller deviation, for pictures in 0..1, have no strokes.
FLAT = 1e-3


def gradient(picture: Float) -> Float:
    """The magnitude of the luminance gradient by central differences, (h - 2, w - 2), float64.

    ``picture`` is (h, w, 3), in 0..1.
    """
    y = picture @ np.array(LUMA)
    return np.hypot(y[2:, 1:-1] - y[:-2, 1:-1], y[1:-1, 2:] - y[1:-1, :-2]) / 2


def autocorrelation(field: Float) -> Float:
    """The autocorrelation of a field (h, w), by shift: (h, w), for shifts of 0 to h - 1 rows and 0 to w - 1
    columns.

    It is the mean product of two values that far apart, divided by the variance. It is averaged over shifts
    to the right and to the left.
    """
    h, w = field.shape
    centred = field - field.mean()
    spectrum = np.fft.rfft2(centred, (2 * h, 2 * w))
    products = np.fft.irfft2(np.abs(spectrum) ** 2, (2 * h, 2 * w))[:h]
    pairs = np.outer(h - np.arange(h), w - np.arange(w))
    left = np.concatenate([products[:, :1], products[:, :-w:-1]], 1)
    return (products[:, :w] + left) / 2 / pairs / centred.var()


def length(picture: Float) -> float:
    """The pixels after which the autocorrelation of the gradient, averaged over directions, has fallen to
    1/e.

    NaN if the picture is flat, or correlated over more than half of the shorter side.
    """
    edges = gradient(picture)
    if edges.std() < FLAT:
        return float("nan")
    correlation = autocorrelation(edges)
    reach = min(correlation.shape) // 2
    distance = np.hypot(*np.indices(correlation.shape)).round().astype(int)
    near = distance <= reach
    ring = np.bincount(distance[near], correlation[near]) / np.bincount(distance[near])
    below = np.flatnonzero(ring < FALLEN)
    if not len(below):
        return float("nan")
    k = int(below[0])
    return float(k - 1 + (ring[k - 1] - FALLEN) / (ring[k - 1] - ring[k]))


def windows(source: ut.Source, side: int, most: int) -> Iterator[ut.Box]:
    """Yield at most ``most`` squares of ``side`` pixels on a regular lattice over the image."""
    h, w = source.shape
    side = min(side, h, w)
    corners = [(y, x) for y in range(0, h - side + 1, side) for x in range(0, w - side + 1, side)]
    for k in np.linspace(0, len(corners) - 1, min(most, len(corners))).round().astype(int):
        y, x = corners[k]
        yield ut.Box(y, x, y + side, x + side)


def sizes(path: Path, side: int, most: int) -> Float:
    """The length in each window of an image file, float64; NaN where `length` is NaN.

    Raises
    ------
    BadInput : no window has a length.
    """
    with TemporaryDirectory() as folder:  # for unpacking files that cannot be read in windows
        source = ut.open_source(path).prepare(Path(folder))
        top = np.iinfo(source.dtype).max
        pictures = (source.read(box)[..., :3] / top for box in windows(source, side, most))
        lengths = np.array([length(picture) for picture in pictures])
    if not np.isfinite(lengths).any():
        raise ut.BadInput(f"{path} has no window of {side} px with edges to measure")
    return lengths


def mean_and_error(values: Float) -> tuple[float, float]:
    """The mean of the finite values and the standard error of the mean; the error of a single value is
    NaN."""
    finite = values[np.isfinite(values)]
    error = finite.std(ddof=1) / len(finite) ** 0.5 if len(finite) > 1 else np.nan
    return float(finite.mean()) if len(finite) else np.nan, float(error)


def row(name: str, lengths: Float, first: Float) -> str:
    """A line of the table; ``first`` are the lengths of the first picture."""
    numbers = [*mean_and_error(lengths), np.nan, np.nan]
    if lengths.shape == first.shape:
        ratio, spread = mean_and_error(np.log(lengths / first))
        numbers[2:] = np.exp(ratio), np.exp(ratio) * spread
    return f"{name},{','.join(f'{value:.3f}' for value in numbers)},{np.isfinite(lengths).sum()}"


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
            lengths = sizes(path, args.side, args.windows)
            first = lengths if first is None else first
            print(row(path.name, lengths, first), flush=True)
    except ut.UrstError as error:
        print(f"stroke_size: {error}", file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
