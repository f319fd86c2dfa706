"""Measure how large the strokes of pictures are, in pixels.

    python pipelines/stroke_size.py stylised.tif other.tif ...
    python pipelines/stroke_size.py --content image.tif stylised.tif ...

The size is the mean autocorrelation length of the luminance gradient: the distance, averaged over directions,
at which the strength of edges is no longer correlated. The program prints a table as CSV: the file, the mean
of the length over windows, and the standard error of the mean. For pictures of the same scene it also prints
the ratio to the first picture, window by window (a geometric mean), and the standard error of the ratio. A
picture enlarged twice has a ratio of 2. The length is that of the finest marks: of strokes with sharp edges
it is the width of the edges.

With ``--content``, the image that was painted, the size is the width of the coarsest strokes. Strokes are
what the luminance of a picture has and a linear function of the image's colours does not explain, window by
window. Their contrast (a standard deviation) is measured in each octave of scale, and the coarsest strokes
are where it has fallen to three quarters of its largest. The scale is that of flat strokes with sharp edges,
all of one width, painted over each other: on such a picture the program prints their width
(tests/pipelines/test_stroke_size.py). The table has the file, the width in pixels, its ratio to that of the
first picture, and the contrast in each octave in levels of 255. The width is ``inf`` where the contrast falls
to that share in no octave, since the picture departs from the image in shapes of every size.

A painting may stand among the pictures. With ``--content`` the whole of its luminance counts as strokes: what
it was painted from is not known.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from command_line import Parser, integer, program
from numpy.typing import NDArray

import urst_tiles as ut
from urst_tiles.learning.structure import LUMINANCE

Float = NDArray[np.float64]

#: The length is the distance at which the correlation has fallen to this value.
FALLEN = np.exp(-1.0)
#: Windows in which the gradient has a smaller deviation, for pictures in 0..1, have no strokes.
FLAT = 1e-3
#: The deviations in pixels of the Gaussians between which octaves of scale lie.
SIGMAS = 0.5 * 2.0 ** (np.arange(9) - 0.5)
#: The share of the largest contrast that the coarsest strokes have.
SHARE = 0.75
#: The width of flat strokes that are painted over each other, as a multiple of the deviation at which their
#: contrast has fallen to `SHARE` of its largest (measured on widths from 4 to 16 px).
WIDTH = 0.78


def gradient(picture: Float) -> Float:
    """The magnitude of the luminance gradient by central differences, (h - 2, w - 2), float64.

    ``picture`` is (h, w, 3), in 0..1.
    """
    y = picture @ np.array(LUMINANCE)
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
        source = _prepared(path, Path(folder) / "picture")
        lengths = np.array([length(_read(source, box)) for box in windows(source, side, most)])
    if not np.isfinite(lengths).any():
        raise ut.BadInput(f"{path} has no window of {side} px with edges to measure")
    return lengths


def contrasts(strokes: Float) -> Float:
    """The standard deviation of strokes (h, w) in each octave of scale, (8,): differences of Gaussians,
    continued by reflection."""
    h, w = strokes.shape
    spectrum = np.fft.rfft2(np.pad(strokes, ((0, h), (0, w)), mode="symmetric"))
    square = np.fft.fftfreq(2 * h)[:, None] ** 2 + np.fft.rfftfreq(2 * w)[None] ** 2
    passed = [np.exp(-2 * (np.pi * sigma) ** 2 * square) for sigma in SIGMAS]
    octaves = (np.fft.irfft2(spectrum * (a - b), (2 * h, 2 * w)) for a, b in pairwise(passed))
    return np.array([octave[:h, :w].std() for octave in octaves])


def strokes_of(picture: Float, content: Float | None) -> Float:
    """What the luminance of a picture (h, w, 3) has and a linear function of the colours of its content
    (h, w, 3) does not explain, (h, w); all of the luminance where there is no content."""
    y = picture @ np.array(LUMINANCE)
    if content is None:
        return y - y.mean()
    colours = np.column_stack([content.reshape(-1, 3), np.ones(y.size)])
    return y - (colours @ np.linalg.lstsq(colours, y.ravel(), rcond=None)[0]).reshape(y.shape)


def coarsest(contrast: Float) -> float:
    """The width in pixels of the coarsest strokes, from their contrast in each octave; infinite where it does
    not fall to `SHARE` of its largest."""
    least = SHARE * contrast.max()
    last = int(np.flatnonzero(contrast >= least)[-1])
    if last + 1 == len(contrast):
        return float("inf")
    between = (contrast[last] - least) / (contrast[last] - contrast[last + 1])
    return float(WIDTH * np.sqrt(SIGMAS[last] * SIGMAS[last + 1]) * 2.0**between)


def contrasts_of(path: Path, content: Path | None, side: int, most: int) -> Float:
    """The contrast of the strokes of an image file in each octave, (8,): the root of the mean square over
    windows.

    Raises
    ------
    BadInput : the picture is flat.
    """
    with TemporaryDirectory() as folder:
        source = _prepared(path, Path(folder) / "picture")
        image = _prepared(content, Path(folder) / "content") if content else None
        if image and image.shape != source.shape:
            image = None  # a painting, or another picture that is not made of this content
        found = np.array(
            [
                contrasts(strokes_of(_read(source, box), _read(image, box) if image else None))
                for box in windows(source, side, most)
            ]
        )
    if not found.any():
        raise ut.BadInput(f"{path} is flat, and has no strokes to measure")
    return np.sqrt((found**2).mean(0))


def _prepared(path: Path, folder: Path) -> ut.Source:
    folder.mkdir()
    return ut.open_source(path).prepare(folder)


def _read(source: ut.Source, box: ut.Box) -> Float:
    """(h, w, 3) in 0..1."""
    return source.read(box)[..., :3] / np.iinfo(source.dtype).max


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


def print_lengths(pictures: Sequence[Path], side: int, most: int) -> None:
    """Print the table of autocorrelation lengths."""
    print("picture,stroke_px,error_px,ratio,error_ratio,windows")
    first: Float | None = None
    for path in pictures:
        lengths = sizes(path, side, most)
        first = lengths if first is None else first
        print(row(path.name, lengths, first), flush=True)


def print_coarsest(pictures: Sequence[Path], content: Path, side: int, most: int) -> None:
    """Print the table of the coarsest strokes of pictures that were painted from ``content``."""
    names = [f"contrast_{WIDTH * np.sqrt(a * b):.1f}px" for a, b in pairwise(SIGMAS)]
    print(",".join(["picture", "coarsest_px", "ratio", *names]))
    first: float | None = None
    for path in pictures:
        contrast = contrasts_of(path, content, side, most)
        width = coarsest(contrast)
        first = width if first is None else first
        ratio = width / first if np.isfinite(first) else np.nan
        levels = ",".join(f"{255 * value:.2f}" for value in contrast)
        print(f"{path.name},{width:.2f},{ratio:.2f},{levels}", flush=True)


@program
def main(words: Sequence[str]) -> None:
    """Print the table."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("pictures", type=Path, nargs="+")
    parser.add_argument(
        "--side", type=integer(least=8), default=512, help="of the windows that are measured, px"
    )
    parser.add_argument("--windows", type=integer(), default=64, help="at most so many of each picture")
    parser.add_argument("--content", type=Path, help="the image that was painted: measure coarsest strokes")
    args = parser.parse_args(words)
    if args.content:
        print_coarsest(args.pictures, args.content, args.side, args.windows)
    else:
        print_lengths(args.pictures, args.side, args.windows)


if __name__ == "__main__":
    sys.exit(main())
