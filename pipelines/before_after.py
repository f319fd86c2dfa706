"""Put an image and its stylised twin side by side: the whole above, a detail at full resolution below.

python pipelines/before_after.py scene.tif stylised.tif before_after.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pyvips

from urst_tiles.source.picture import text_plate

GAP = 12
WHITE = [255, 255, 255]


def whole(path: Path, side: int) -> pyvips.Image:
    """The middle of the image, shrunk to a square of ``side`` pixels, from the overviews of the file if it
    has any."""
    small = pyvips.Image.thumbnail(str(path), side, height=side, crop="centre")
    return eight_bit_rgb(small)


def detail(path: Path, side: int, middle: tuple[float, float]) -> pyvips.Image:
    """A square of ``side`` pixels at full resolution around ``middle``, (y, x) in fractions of the image."""
    image = pyvips.Image.new_from_file(str(path))
    width, height = min(side, image.width), min(side, image.height)
    left = round(min(max(middle[1] * image.width - width / 2, 0), image.width - width))
    top = round(min(max(middle[0] * image.height - height / 2, 0), image.height - height))
    return eight_bit_rgb(image.crop(left, top, width, height))


def eight_bit_rgb(image: pyvips.Image) -> pyvips.Image:
    """The image as uint8 RGB; transparent pixels become white."""
    image = image.colourspace("srgb")
    return image.flatten(background=WHITE) if image.hasalpha() else image


def labelled(picture: pyvips.Image, text: str) -> pyvips.Image:
    """The picture, uint8 RGB, with a text in white on black in its lower left corner."""
    plate = pyvips.Image.new_from_array(text_plate(text, min(18, max(8, picture.height // 18))))
    plate = plate.crop(0, 0, min(plate.width, picture.width), min(plate.height, picture.height))
    plate = plate.bandjoin([plate, plate]).copy(interpretation="srgb")
    return picture.insert(plate, 0, picture.height - plate.height)


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


def main() -> None:
    """Run the command line: join the pictures, write the file and print a line about it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--side", type=int, default=640, help="of each square, px")
    parser.add_argument(
        "--detail", default="0.69,0.435", help="middle of the detail: Y,X in fractions of the image"
    )
    parser.add_argument("--label", nargs=2, metavar=("BEFORE", "AFTER"), help="what is written on the wholes")
    args = parser.parse_args()
    y, x = (float(part) for part in args.detail.split(","))
    before_after(args.before, args.after, args.side, (y, x), args.label and tuple(args.label)).write_to_file(
        str(args.output)
    )
    print(f"{args.output}: before and after, the whole and a detail")


if __name__ == "__main__":
    main()
