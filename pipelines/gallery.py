"""Show pictures of several methods side by side: a row for each image, a column for each method.

    python pipelines/gallery.py gallery.jpg --input scene.tif --input night.tif \\
        --style hokusai.jpg --method lite --method "lite --stroke 4" --method microast --method wct-16x

The first column shows the image itself. A method is a name for --model, followed by any flags of ``urst-tiles
stylize``; a --style among them takes the place of the common one. With --detail Y,X, in fractions of the
image, a square of full resolution around that point is shown below each whole picture. Each whole picture has
a label: the method, or what stands before "=" in it, as in "The Scream=painter --style munch-scream". With
--columns N the squares fill rows of N.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyvips
from before_after import GAP, SIDE, WHITE, detail, labelled, whole
from command_line import (
    Parser,
    existing_file,
    integer,
    keep_apart,
    new_picture,
    point,
    program,
    write_picture,
)

from urst_tiles.errors import BadInput


def stylised(image: Path, method: str, style: str, output: Path) -> Path:
    """Stylise the image with one method, by running the command line, and return the path of the result."""
    model, *flags = method.rpartition("=")[2].split()
    styles = [] if "--style" in flags else ["--style", style]
    command = ["urst-tiles", "stylize", str(image), str(output), *styles, "--model", model, *flags]
    print(" ".join(command), flush=True)
    try:
        subprocess.run(command, check=True)
    except FileNotFoundError:
        raise BadInput("there is no program urst-tiles: install it, or add its folder to PATH") from None
    return output


def method(text: str) -> str:
    """The words of a method, of which the first names its model."""
    if not text.rpartition("=")[2].strip():
        raise argparse.ArgumentTypeError(f"must be a name for --model and its flags, got {text!r}")
    return text


def rows_of(
    files: list[Path], labels: list[str], side: int, middle: tuple[float, float] | None
) -> list[pyvips.Image]:
    """The whole pictures with their labels, and then their details around ``middle``, if it is given."""
    wholes = [labelled(whole(file, side), text) for file, text in zip(files, labels, strict=True)]
    return wholes if middle is None else [*wholes, *(detail(file, side, middle) for file in files)]


@program
def main(words: Sequence[str]) -> None:
    """Run the command line: stylise the images, join the pictures and write the file."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("output", type=new_picture)
    parser.add_argument("--input", type=existing_file, action="append", required=True)
    parser.add_argument("--style", default="", help="of the methods that name none themselves")
    parser.add_argument("--method", type=method, action="append", required=True)
    parser.add_argument("--side", type=integer(most=SIDE), default=384, help="of each square, px")
    parser.add_argument(
        "--columns", type=integer(most=1000), help="squares in a row (default: one for each method)"
    )
    parser.add_argument("--detail", type=point, help="middle of the detail: Y,X in fractions of the image")
    args = parser.parse_args(words)
    keep_apart(args.output, *args.input)
    squares = []
    with tempfile.TemporaryDirectory() as made:
        for number, image in enumerate(args.input):
            files = [image]
            for k, one in enumerate(args.method):
                files.append(stylised(image, one, args.style, Path(made) / f"{number}-{k}.tif"))
            labels = ["image", *(one.split("=")[0] for one in args.method)]
            squares += rows_of(files, labels, args.side, args.detail)
        across = args.columns or len(args.method) + 1
        joined = pyvips.Image.arrayjoin(squares, across=across, shim=GAP, background=WHITE)
        write_picture(args.output, joined, **({"Q": 82} if args.output.suffix == ".jpg" else {}))
    print(f"{args.output}: each row an image, then by {', '.join(args.method)}")


if __name__ == "__main__":
    sys.exit(main())
