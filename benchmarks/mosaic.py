"""Many files as one image: 64 tiles of random extents against the scene that they were cut from, and the plan
of an image of ten thousand files.

    python benchmarks/mosaic.py                        # 64 tiles of about 4096 px, a gigapixel
    python benchmarks/mosaic.py --side 512             # small
    python benchmarks/mosaic.py --files 10000          # the plan alone, of so many small files
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import tifffile
from harness import COMMAND, ROOT, WORK, Parser, integer, measured, program, table
from numpy.typing import NDArray

import urst_tiles as ut
from urst_tiles.geometry import Box

#: Where the scenes lie: in UTM zone 32, with pixels of 10 m.
EAST, NORTH, SIZE = 500000.0, 5200000.0, 10.0
KEYS = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32632)


def write(path: Path, pixels: NDArray[np.uint8], row: int, column: int) -> None:
    """A tiled GeoTIFF of a part of the scene that begins at this row and column."""
    tags = [
        (33550, 12, 3, (SIZE, SIZE, 0.0), True),
        (33922, 12, 6, (0.0, 0.0, 0.0, EAST + SIZE * column, NORTH - SIZE * row, 0.0), True),
        (34735, 3, len(KEYS), KEYS, True),
    ]
    tifffile.imwrite(
        path, pixels, tile=(256, 256), compression="deflate", photometric="rgb", metadata=None, extratags=tags
    )


def boxes(side: int, per_side: int, seed: int = 1) -> Iterator[Box]:
    """Boxes of random extents that cover a scene of ``side`` pixels, and overlap by up to 64."""
    random = np.random.default_rng(seed)
    step = side // per_side

    def edges() -> list[int]:
        inner = [step * k + int(random.integers(-step // 3, step // 3)) for k in range(1, per_side)]
        return [0, *inner, side]

    for y0, y1 in pairwise(edges()):
        for x0, x1 in pairwise(edges()):
            more = int(random.integers(0, 64))
            yield Box(y0, x0, min(side, y1 + more), min(side, x1 + more))


def same(one: Path, other: Path, side: int) -> int:
    """The largest difference between two outputs."""
    with tifffile.TiffFile(one) as a, tifffile.TiffFile(other) as b:
        assert a.pages[0].shape == b.pages[0].shape == (side, side, 3)
    first, second = (ut.open_source(path, stretch="0,65535") for path in (one, other))
    most = 0
    for box in Box(0, 0, side, side).cells(2048):
        most = max(most, int(np.abs(first.read(box).astype(int) - second.read(box)).max()))
    return most


def compare(side: int, folder: Path) -> None:
    """Stylise a scene, and the 64 tiles that it is cut into."""
    scene, tiles, whole = folder / "scene.tif", folder / "tiles", 8 * side
    make = [
        sys.executable,
        str(ROOT / "pipelines" / "make_scene.py"),
        str(scene),
        "--size",
        f"{whole}x{whole}",
    ]
    subprocess.run(make, check=True)
    source = ut.open_source(scene)
    tiles.mkdir()
    for number, box in enumerate(boxes(whole, 8)):
        write(tiles / f"tile{number}.tif", source.read(box), box.y0, box.x0)
    rows = []
    for name in ("scene.tif", "tiles"):
        output = folder / f"{name.removesuffix('.tif')}-out.tif"
        style = ["--model", "lite", "--style", "hokusai-wave", "--no-overviews", "--overwrite"]
        run = measured([*COMMAND, "stylize", str(folder / name), str(output), *style])
        if run.status:
            sys.exit(run.output)
        rows.append([name, f"{run.seconds:.0f}", f"{run.peak_bytes / 2**20:.0f}", ""])
    rows[1][3] = same(folder / "scene-out.tif", folder / "tiles-out.tif", whole)
    table(
        f"A scene of {whole} x {whole} px, and 64 tiles of it",
        ("input", "seconds", "peak MiB", "largest difference"),
        rows,
    )


def write_many(folder: Path, count: int) -> None:
    """So many files of 256 x 256 pixels, in a square: copies with other places."""
    random = np.random.default_rng(0)
    write(folder / "first.tif", random.integers(0, 255, (256, 256, 3), np.uint8), 0, 0)
    content = bytearray((folder / "first.tif").read_bytes())
    (folder / "first.tif").unlink()
    place = content.index(struct.pack("<2d", EAST, NORTH))
    per_side = int(np.ceil(np.sqrt(count)))
    for number in range(count):
        row, column = divmod(number, per_side)
        at = EAST + SIZE * 256 * column, NORTH - SIZE * 256 * row
        content[place : place + 16] = struct.pack("<2d", *at)
        (folder / f"tile{number}.tif").write_bytes(content)


def plan_many(count: int, folder: Path) -> None:
    """The plan of an image of so many files."""
    (folder / "many").mkdir()
    write_many(folder / "many", count)
    rows = []
    for command in (["info", "many"], ["plan", "many", "out.tif", "--style", "hokusai-wave"]):
        words = [str(folder / word) if word in ("many", "out.tif") else word for word in command]
        run = measured([*COMMAND, *words])
        if run.status:
            sys.exit(run.output)
        rows.append([command[0], f"{run.seconds:.1f}", f"{run.peak_bytes / 2**20:.0f}"])
    table(f"{count} files of 256 x 256 px as one image", ("command", "seconds", "peak MiB"), rows)


@program
def main(words: Sequence[str]) -> None:
    parser = Parser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--side", type=integer(64), default=4096, help="pixels of a side of a tile, about")
    parser.add_argument("--files", type=integer(), help="only plan an image of so many files")
    arguments = parser.parse_args(words)
    folder = WORK / "mosaic"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if arguments.files:
        plan_many(arguments.files, folder)
    else:
        compare(arguments.side, folder)
        plan_many(10_000, folder)
    shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
