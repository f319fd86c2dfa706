"""Put an image and its stylised twin side by side: the whole above, a detail at full resolution below.

python pipelines/before_after.py scene.tif stylised.tif before_after.png
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pyvips
from command_line import (
    Parser,
    existing_file,
    integer,
    keep_apart,
    new_picture,
    point,
    program,
    reading,
    write_picture,
)

from urst_tiles.source.picture import labelled as pixels_labelled

GAP = 12
WHITE = [255, 255, 255]
SIDE = 16384  # of a square at most


def whole(path: Path, side: int) -> pyvips.Image:
    """The middle of the image, shrunk to a square of ``side`` pixels, from the overviews of the file if it
    has any."""
    with reading(path) as name:
        small = pyvips.Image.thumbnail(name, side, height=side, crop="centre", fail_on="warning")
        return eight_bit_rgb(small).copy_memory()


def detail(path: Path, side: int, middle: tuple[float, float]) -> pyvips.Image:
    """A square of ``side`` pixels at full resolution around ``middle``, (y, x) in fractions of the image."""
    with reading(path) as name:
        image = pyvips.Image.new_from_file(name, fail_on="warning")
        width, height = min(side, image.width), min(side, image.height)
        left = round(min(max(middle[1] * image.width - width / 2, 0), image.width - width))
        top = round(min(max(middle[0] * image.height - height / 2, 0), image.height - height))
        return eight_bit_rgb(image.crop(left, top, width, height)).copy_memory()


def eight_bit_rgb(image: pyvips.Image) -> pyvips.Image:
    """The image as uint8 RGB; transparent pixels become white."""
    image = image.colourspace("srgb")
    return image.flatten(background=WHITE) if image.hasalpha() else image


def labelled(picture: pyvips.Image, text: str) -> pyvips.Image:
    """The picture, uint8 RGB, with a text in white on black in its lower left corner, if there is any."""
    made = pixels_labelled(picture.numpy(), text, min(18, max(8, picture.height // 18)))
    return picture.insert(pyvips.Image.new_from_array(made, interpretation="srgb"), 0, 0)


def before_after(
    before: Path, after: Path, side: int, middle: tuple[float, float], labels: tuple[str, str] | None = None
) -> pyvips.Image:
    """Both images as two rows of two squares on white: the wholes above, with labels if there are any, the
    details below."""
    wholes = [whole(before, side), whole(after, side)]
    if labels:
        wholes = [labelled(picture, text) for picture, text in zip(wholes, labels, strict=True)]
    rows = [
        *wholes,
        detail(before, side, middle),
        detail(after, side, middle),
    ]
    return pyvips.Image.arrayjoin(rows, across=2, shim=GAP, background=WHITE)


@program
def main(words: Sequence[str]) -> None:
    """Run the command line: join the pictures, write the file and print a line about it."""
    parser = Parser(description=__doc__.split("\n")[0])
    parser.add_argument("before", type=existing_file)
    parser.add_argument("after", type=existing_file)
    parser.add_argument("output", type=new_picture)
    parser.add_argument("--side", type=integer(most=SIDE), default=640, help="of each square, px")
    parser.add_argument(
        "--detail",
        type=point,
        default="0.69,0.435",
        help="middle of the detail: Y,X in fractions of the image",
    )
    parser.add_argument("--label", nargs=2, metavar=("BEFORE", "AFTER"), help="what is written on the wholes")
    args = parser.parse_args(words)
    keep_apart(args.output, args.before, args.after)
    joined = before_after(args.before, args.after, args.side, args.detail, args.label and tuple(args.label))
    write_picture(args.output, joined)
    print(f"{args.output}: before and after, the whole and a detail")


if __name__ == "__main__":
    sys.exit(main())
