"""The pictures before and after of docs/balance.md and docs/colour.md.

    python pipelines/colour_pieces.py mosaic docs/balance.jpg
    python pipelines/colour_pieces.py slides docs/stain.jpg
    python pipelines/colour_pieces.py prints docs/colour.jpg --photo photo.webp

``mosaic``: six scenes of one ground, each under another sun, one with clouds, as they are and balanced.
``slides``: the same kind of tissue from two laboratories and scanners, as it is and normalised.
``prints``: a photo as three prints that faded in different ways, as they are and with the colours of the
fourth, which did not.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyvips
import tifffile
from command_line import Parser, existing_file, keep_apart, new_picture, program, reading, write_picture
from make_scene import geotiff_tags
from numpy.typing import NDArray
from scenery.landscape import Landscape

import urst_tiles as ut

Pixels = NDArray[np.uint8]
Float = NDArray[np.float64]

GAP, QUALITY = 12, 82
WHITE = [255, 255, 255]

#: The ground of the mosaic, and of each of its scenes the box, the gain of each channel, and the offset.
HEIGHT, WIDTH = 1200, 1800
SUNS = (
    ((1.0, 1.0, 1.0), 0.0), ((0.72, 0.75, 0.85), 0.06), ((1.15, 1.05, 0.85), -0.02),
    ((1.2, 1.15, 1.1), -0.05), ((0.85, 0.95, 1.1), 0.03), ((0.7, 0.7, 0.7), 0.0),
)  # fmt: skip

#: Hematoxylin and eosin as two laboratories have them, in optical density, and the white of their scanners.
LABORATORIES = (
    (([0.60, 0.72, 0.34], [0.14, 0.92, 0.36]), (1.2, 0.8), (243, 241, 238)),
    (([0.68, 0.63, 0.37], [0.25, 0.88, 0.40]), (0.75, 1.2), (232, 238, 246)),
)

#: How the three prints faded: the gain of red, green and blue, the offset, and the exponent.
FADED = (
    ((0.62, 0.5, 0.42), (0.34, 0.3, 0.22), 0.9), ((0.8, 0.72, 0.9), (0.02, 0.1, 0.12), 1.25),
    ((0.5, 0.55, 0.5), (0.22, 0.2, 0.16), 1.0),
)  # fmt: skip


def write_placed(path: Path, pixels: Pixels, y: int, x: int) -> None:
    """Write a scene whose corner is at this row and column of the ground, of pixels of one metre."""
    tags = [(*tag, True) for tag in geotiff_tags(y, x)]
    tifffile.imwrite(
        path, pixels, tile=(256, 256), compression="zlib", photometric="rgb", extratags=tags, metadata=None
    )


def write_scenes(folder: Path) -> None:
    """Two rows of three scenes, which overlap by a seventh; the fifth has clouds."""
    ground = Landscape(3).draw(0, 0, HEIGHT, WIDTH).astype(np.float64)
    rows, columns = (np.linspace(0, side, parts + 1).astype(int) for side, parts in ((HEIGHT, 2), (WIDTH, 3)))
    random = np.random.default_rng(1)
    for number, (gain, offset) in enumerate(SUNS):
        row, column = divmod(number, 3)
        y0, x0 = max(0, rows[row] - 45), max(0, columns[column] - 45)
        part = ground[y0 : rows[row + 1] + 45, x0 : columns[column + 1] + 45]
        seen = part * np.array(gain) + offset + random.normal(0, 0.006, part.shape)
        if number == 4:
            y, x = np.mgrid[: part.shape[0], : part.shape[1]]
            wave = np.sin(x / 83) * np.sin(y / 61 + x / 190) + 0.3 * np.sin(x / 29 + y / 37)
            cloud = np.clip(4 * (wave - 0.55), 0, 1)[..., None]
            seen = seen * (1 - cloud) + 0.93 * cloud
        write_placed(folder / f"scene{number}.tif", to_uint8(seen), y0, x0)


def to_uint8(values: Float) -> Pixels:
    """Colours in 0..1 as uint8; none is quite black, which stands for invalid in many scenes."""
    return np.rint(np.clip(values * 255, 1, 254)).astype(np.uint8)


def mosaic(folder: Path) -> list[list[Pixels]]:
    """The scenes as one image, before and after."""
    scenes, balanced = folder / "scenes", folder / "balanced"
    scenes.mkdir()
    write_scenes(scenes)
    report = ut.balance(scenes, balanced, reference=scenes / "scene0.tif")
    print(
        "the largest difference of means in an overlap, before and after: {:.1%}, {:.2%}".format(
            *report.table.seams
        )
    )
    return [
        [ut.open_source(one).prepare(None, thumbnail=440).thumbnail[..., :3]] for one in (scenes, balanced)
    ]


def tissue(side: int, seed: int, laboratory: int) -> Pixels:
    """A made-up piece of tissue with glands and nuclei on glass, by Beer and Lambert's law."""
    stains, strength, white = LABORATORIES[laboratory]
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side].astype(np.float64)
    centre, wave = (x - side / 2) ** 2 + (y - side / 2) ** 2, np.sin(x / 37 + seed) * np.sin(y / 31)
    inside = centre < (0.42 * side) ** 2 * (
        1 + 0.25 * np.sin(3 * np.arctan2(y - side / 2, x - side / 2) + seed)
    )
    gland = np.clip(3 * (wave - 0.45), 0, 1)
    nuclei = np.zeros((side, side))
    for cy, cx, r in random.uniform((0, 0, 2.2), (side, side, 4.2), (side * side // 110, 3)):
        box = np.s_[max(0, int(cy) - 5) : int(cy) + 6, max(0, int(cx) - 5) : int(cx) + 6]
        nuclei[box] = np.maximum(nuclei[box], (y[box] - cy) ** 2 + (x[box] - cx) ** 2 < r * r)
    amounts = np.stack([0.15 + 1.4 * nuclei + 0.2 * gland, 0.75 - 0.45 * nuclei - 0.35 * gland])
    amounts *= random.uniform(0.85, 1.15, (2, side, side)) * np.array(strength)[:, None, None] * inside
    density = np.einsum("khw,kc->hwc", amounts, [np.array(one) / np.linalg.norm(one) for one in stains])
    light = np.array(white) * np.exp(-density) + random.normal(0, 1.0, (side, side, 3))
    return np.rint(np.clip(light, 0, 255)).astype(np.uint8)


def slides(folder: Path) -> list[list[Pixels]]:
    """Two slides of each laboratory: before, and with the stains of the published reference."""
    before = [tissue(300, seed, laboratory) for laboratory in (0, 1) for seed in (1, 2)]
    return [before, [ut.fit_colour(one, "standard", model="stain")(one) for one in before]]


def prints(folder: Path, photo: Path) -> list[list[Pixels]]:
    """Three faded prints of a photo: before, and with the colours of its good print, which stands behind."""
    with reading(photo) as name:
        good = pyvips.Image.thumbnail(name, 300, height=300, crop="attention", fail_on="warning")
        good = good.colourspace("srgb").numpy()[..., :3]
    faded = [to_uint8((good / 255.0) ** e * np.array(gain) + offset) for gain, offset, e in FADED]
    after = [ut.fit_colour(one, write_png(folder / "good.png", good))(one) for one in faded]
    return [[*faded, good], [*after, good]]


def write_png(path: Path, pixels: Pixels) -> Path:
    """Write a picture, and return its path."""
    pyvips.Image.new_from_array(pixels, interpretation="srgb").write_to_file(str(path))
    return path


def write(rows: list[list[Pixels]], output: Path, across: int) -> None:
    """Write pictures in rows, with white between them."""
    images = [pyvips.Image.new_from_array(one, interpretation="srgb") for row in rows for one in row]
    joined = pyvips.Image.arrayjoin(images, across=across, shim=GAP, background=WHITE)
    write_picture(output, joined, **({"Q": QUALITY} if output.suffix == ".jpg" else {}))
    print(f"{output}: {joined.width} x {joined.height}, {output.stat().st_size // 1000} kB")


@program
def main(words: Sequence[str]) -> None:
    """Run the command line: make the pictures, join them and write the file."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("mosaic", "slides", "prints"))
    parser.add_argument("output", type=new_picture)
    parser.add_argument("--photo", type=existing_file, help="of prints: any photo")
    args = parser.parse_args(words)
    if args.what == "prints" and args.photo is None:
        raise ut.BadInput("prints are made of a photo: give --photo FILE")
    keep_apart(args.output, args.photo)
    made: dict[str, Callable[[Path], list[list[Pixels]]]] = {
        "mosaic": mosaic, "slides": slides, "prints": lambda folder: prints(folder, args.photo)
    }  # fmt: skip
    with TemporaryDirectory() as folder:
        rows = made[args.what](Path(folder))
    write(rows, args.output, across=len(rows) if args.what == "mosaic" else len(rows[0]))


if __name__ == "__main__":
    sys.exit(main())
