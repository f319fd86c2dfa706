"""Slides of two scanners before and after their stains are normalised: how far apart their colours are.

Parts of the real slide in ``shared/data`` stand for the slides of one laboratory. The same parts, stained
with more hematoxylin and less eosin and seen by another scanner (white, gain, gamma, a mixing of the
channels, noise, JPEG), stand for those of another. Made-up slides of the tests are a second cohort, with
faint ones and pen marks. Both are brought to the
published reference, and to a slide of the first laboratory.

The distance is that between the mean colours of tissue of both laboratories, in CIELAB. A slide is torn if
its lightness no longer rises where it did (correlation), or if much more of it is black or white than before.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from harness import ROOT, SHARED, WORK, Parser, new_folder, program, several, table
from numpy.typing import NDArray

import urst_tiles as ut
from urst_tiles.storage.publish import make_folder, publish

sys.path.insert(0, str(ROOT / "tests"))
from colours import E2, H2, slide, to_lab

Picture = NDArray[np.uint8]
COHORTS = ("made-up", "real", "real without the fragment")
REAL = SHARED / "data" / "inputs" / "slide" / "libvips__CMU-1-Small-Region.svs"
#: The corners (y, x) of parts of the real slide that hold tissue, and their side.
CORNERS, SIDE = ((100, 850), (700, 800), (1100, 850), (1500, 750), (2000, 600), (2200, 1200)), 448
#: The number of the real slide that is the reference. The first is a fragment with debris, whose colour
#: no stain has: a user would not choose it.
REFERENCE = 1
#: Hematoxylin and eosin in optical density (Ruifrok and Johnston 2001), and the rest.
STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])


def elsewhere(pixels: Picture, seed: int) -> Picture:
    """The same tissue as another laboratory stains it and another scanner sees it."""
    random = np.random.default_rng(seed)
    unit = STAINS / np.linalg.norm(STAINS, axis=1)[:, None]
    density = -np.log((pixels.reshape(-1, 3) + 1.0) / 243.0)
    amounts = density @ np.linalg.inv(unit) * [random.uniform(1.15, 1.4), random.uniform(0.6, 0.8), 1.0]
    light = np.clip(np.exp(-amounts @ unit), 0, 1)
    mixed = light @ np.array([[0.92, 0.06, 0.02], [0.05, 0.9, 0.05], [0.02, 0.1, 0.88]]).T
    seen = 255 * np.array([0.93, 0.9, 0.95]) * mixed ** np.array([1.1, 1.0, 0.9])
    noisy = np.rint(seen + random.normal(0, 1.5, seen.shape)).clip(0, 255).astype(np.uint8)
    codecs: Any = imagecodecs
    made: Picture = codecs.jpeg8_decode(codecs.jpeg8_encode(noisy.reshape(pixels.shape), level=85))
    return made


def real() -> list[tuple[Picture, Picture]]:
    """Each slide of the first laboratory with its twin of the other."""
    source = ut.open_source(REAL)
    parts = [source.read(ut.Box(y, x, y + SIDE, x + SIDE))[..., :3] for y, x in CORNERS]
    return [(part, elsewhere(part, seed)) for seed, part in enumerate(parts)]


def painted() -> list[tuple[Picture, Picture]]:
    """The same of made-up tissue; the third is faint, and the fourth has a mark of a pen."""
    pairs = []
    for seed in range(6):
        faint = 0.45 if seed == 2 else 1.0
        first = slide(SIDE, SIDE, seed, strength=(1.2 * faint, 0.8 * faint))
        other = slide(SIDE, SIDE, seed, (H2, E2), (0.8 * faint, 1.2 * faint), (232, 228, 240))
        if seed == 3:
            for one in (first, other):
                one[60:90, 100:500] = (30, 60, 160)
        pairs.append((first, other))
    return pairs


def colour_of(pixels: Picture, tissue: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The mean of the tissue in CIELAB, (3,)."""
    mean: NDArray[np.float64] = to_lab(pixels[tissue] / 255.0).mean(0)
    return mean


def torn(before: Picture, after: Picture, tissue: NDArray[np.bool_]) -> tuple[float, float]:
    """The correlation of lightness before and after, and by how much the share of black and white grew."""
    light = [one[tissue].astype(float).mean(1) for one in (before, after)]
    clipped = [((one[tissue] == 0) | (one[tissue] == 255)).any(1).mean() for one in (before, after)]
    return float(np.corrcoef(*light)[0, 1]), float(clipped[1] - clipped[0])


def measured(
    pairs: list[tuple[Picture, Picture]], method: str, style: Any, sheet: Path | None
) -> tuple[float, ...]:
    """The distance of both laboratories before and after, the factor, and the worst of `torn`; pictures of
    all slides, before and after, are written to ``sheet``."""
    WORK.mkdir(parents=True, exist_ok=True)
    path, kept, clipped = WORK / "cohort.tif", 1.0, 0.0
    colours: list[list[NDArray[np.float64]]] = [[], [], [], []]
    rows: list[list[Picture]] = [[], [], [], []]
    for pair in pairs:
        for laboratory, pixels in enumerate(pair):
            tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb")
            after = ut.fit_colour(path, style, model="stain", method=method, valid="tissue")(pixels)
            pen = pixels[..., 2].astype(int) - pixels[..., 0] > 60
            tissue = (-np.log((pixels.min(2) + 1.0) / 240.0) >= 0.3) & ~pen
            for kind, one in enumerate((pixels, after)):
                colours[2 * kind + laboratory].append(colour_of(one, tissue))
                rows[2 * laboratory + kind].append(one[::3, ::3])
            like, more = torn(pixels, after, tissue)
            kept, clipped = min(kept, like), max(clipped, more)
    path.unlink()
    if sheet:
        whole = np.concatenate([np.concatenate(row, 1) for row in rows])
        publish(sheet, imagecodecs.png_encode(whole))
    means = [np.mean(several, 0) for several in colours]
    before, after = (float(np.linalg.norm(means[k] - means[k + 1])) for k in (0, 2))
    return before, after, before / after, kept, 100 * clipped


@program
def main(words: Sequence[str]) -> None:
    """Measure both cohorts with every method, and print the table."""
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--pictures", type=new_folder, help="a folder for pictures of all slides, before and after"
    )
    parser.add_argument("--cohorts", type=partial(several, known=COHORTS), default=",".join(COHORTS))
    given = parser.parse_args(words)
    rows = []
    if given.pictures:
        make_folder(given.pictures)
    for name in given.cohorts if REAL.exists() else ["made-up"]:
        pairs = painted() if name == "made-up" else real()
        if name == "real without the fragment":
            pairs = pairs[REFERENCE:]
        for method, standard in (
            ("macenko", True),
            ("macenko", False),
            ("vahadane", False),
            ("reinhard", False),
        ):
            good = ut.array_source(pairs[REFERENCE if name == "real" else 0][0])
            style = "standard" if standard else ut.measure_look(good, model="stain", method=method)
            said = "standard" if standard else "slide"
            sheet = given.pictures / f"{name}-{said.split()[0]}-{method}.png" if given.pictures else None
            rows.append((name, method, said, *measured(pairs, method, style, sheet)))
            print(rows[-1], flush=True)
    header = (
        "slides", "method", "reference", "distance before", "after", "factor (>= 5)", "least correlation",
        "more clipped, %",
    )  # fmt: skip
    table("Two laboratories made alike: distance of the mean colours of tissue in CIELAB", header, rows)


if __name__ == "__main__":
    sys.exit(main())
