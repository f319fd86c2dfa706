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
import tempfile
from pathlib import Path

import pyvips
from before_after import GAP, WHITE, detail, labelled, whole


def stylised(image: Path, method: str, style: str, output: Path) -> Path:
    """Stylise the image with one method, by running the command line, and return the path of the result."""
    model, *flags = method.rpartition("=")[2].split()
    styles = [] if "--style" in flags else ["--style", style]
    command = ["urst-tiles", "stylize", str(image), str(output), *styles, "--model", model, *flags]
    print(" ".join(command), flush=True)
    subprocess.run(command, check=True)
    return output


def rows_of(
    files: list[Path], labels: list[str], side: int, middle: tuple[float, float] | None
) -> list[pyvips.Image]:
    """The whole pictures with their labels, and then their details around ``middle``, if it is given."""
    wholes = [labelled(whole(file, side), text) for file, text in zip(files, labels, strict=True)]
    return wholes if middle is None else [*wholes, *(detail(file, side, middle) for file in files)]


def main() -> None:
    """Run the command line: stylise the images, join the pictures and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--input", type=Path, action="append", required=True)
    parser.add_argument("--style", default="", help="of the methods that name none themselves")
    parser.add_argument("--method", action="append", required=True)
    parser.add_argument("--side", type=int, default=384, help="of each square, px")
    parser.add_argument("--columns", type=int, help="squares in a row (default: one for each method)")
    parser.add_argument("--detail", help="middle of the detail: Y,X in fractions of the image")
    args = parser.parse_args()
    y, x = (float(part) for part in (args.detail or "0,0").split(","))
    squares = []
    with tempfile.TemporaryDirectory() as made:
        for number, image in enumerate(args.input):
            files = [image]
            for k, method in enumerate(args.method):
                files.append(stylised(image, method, args.style, Path(made) / f"{number}-{k}.tif"))
            labels = ["image", *(method.split("=")[0] for method in args.method)]
            squares += rows_of(files, labels, args.side, (y, x) if args.detail else None)
        across = args.columns or len(args.method) + 1
        joined = pyvips.Image.arrayjoin(squares, across=across, shim=GAP, background=WHITE)
        joined.write_to_file(str(args.output), **({"Q": 82} if args.output.suffix == ".jpg" else {}))
    print(f"{args.output}: each row an image, then by {', '.join(args.method)}")


if __name__ == "__main__":
    main()
