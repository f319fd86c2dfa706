"""Peak memory of the whole process tree against the formula of the plan and against the size of the image.

``python benchmarks/memory.py [--full] [--model lite]`` runs lite or another model on the CPU, on crops of
NASA's Black Marble, or on procedural scenes if this image is missing; ``--full`` adds all 1.07 gigapixels.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from harness import COMMAND, SHARED, WORK, Parser, measured, program, scene, style_image, table

MARBLE = SHARED / "data/inputs/geotiff/nasa_black_marble_2012_z7_32768_bigtiff_jpeg_3857.tif"


def crop(side: int) -> Path:
    """The path of a crop from the middle of Black Marble, which has JPEG tiles as the whole image has."""
    import pyvips

    path = WORK / f"marble-{side}.tif"
    WORK.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        image = pyvips.Image.new_from_file(str(MARBLE))
        start = (image.width - side) // 2
        part = image.crop(start, start // 2, side, side)
        part.tiffsave(str(path), tile=True, tile_width=512, tile_height=512, compression="jpeg", Q=70)
    return path


def run(source: Path, model: str) -> tuple[object, ...]:
    """The row of one image: the memory that was planned, and the memory that was used."""
    output = WORK / f"out-{source.stem[:24]}.tif"
    arguments = [str(source), str(output), "--style", str(style_image()), "--model", model, "--json"]
    arguments += ["--weights", str(SHARED / "weights"), "--overwrite"]
    planned = json.loads(measured([*COMMAND, "plan", *arguments]).output.splitlines()[-1])["peak_bytes"]
    used = measured([*COMMAND, "stylize", *arguments])
    if used.status:
        raise SystemExit(used.output)
    done = json.loads(used.output.splitlines()[-1])
    return (
        source.stem[:24], done["megapixels"], planned >> 20, used.peak_bytes >> 20, used.peak_bytes / planned,
        used.seconds, done["megapixels"] / used.seconds, output.stat().st_size >> 20,
    )  # fmt: skip


@program
def main(words: Sequence[str]) -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--model", default="lite")
    chosen = parser.parse_args(words)
    sources = [crop(side) for side in (4096, 8192)] if MARBLE.exists() else [scene(67), scene(256)]
    if chosen.full:
        sources.append(MARBLE)
    header = (
        "image",
        "megapixels",
        "planned MiB",
        "peak MiB",
        "used of plan (0.6 to 1)",
        "seconds",
        "Mpx/s",
        "output MiB",
    )
    rows = [run(source, chosen.model) for source in sources]
    table(f"Peak memory of the whole process tree, {chosen.model} on the CPU", header, rows)


if __name__ == "__main__":
    sys.exit(main())
