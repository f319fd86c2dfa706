"""Small pictures, wholly in memory: style images in, previews out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import BadInput, MissingFile
from urst_tiles.source.colour import in_rgb, libvips
from urst_tiles.storage.publish import publish

#: A style image above this many pixels is refused: it is decoded whole.
MAX_PIXELS = 1 << 30


def read_picture(path: Path, short_side: int) -> NDArray[np.float32]:
    """float32, (h, w, 3), sRGB in 0..1: any image libvips opens, upright, alpha over white, resized to
    ``short_side``.

    Raises
    ------
    MissingFile, BadInput : naming the file.
    """
    pyvips = libvips()
    path = Path(path)
    if not path.is_file():
        raise MissingFile(f"there is no style image {path}")
    try:
        header = pyvips.Image.new_from_file(str(path)).autorot()
        if header.width * header.height > MAX_PIXELS:
            raise BadInput(
                f"the style image {path} has {header.width} x {header.height} pixels; make it smaller first"
            )
        scale = short_side / min(header.width, header.height)
        image = pyvips.Image.thumbnail(
            str(path),
            max(1, round(header.width * scale)),
            height=max(1, round(header.height * scale)),
            size="force",
            fail_on="warning",
        )
        return np.asarray(_rgb(image).numpy(), np.float32) / 255.0
    except pyvips.Error:
        raise BadInput(f"the style image {path} cannot be read: it is no image, or it is damaged") from None


def _rgb(image: Any) -> Any:
    """8-bit sRGB without alpha."""
    image = in_rgb(image)
    if image.hasalpha():
        image = image.flatten(background=255 if image.format == "uchar" else 65535)
    image = image.colourspace("srgb").cast("uchar")
    return image.extract_band(0, n=3) if image.bands >= 3 else image[0].bandjoin([image[0], image[0]])


def write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write uint8 (h, w, 3) or (h, w, 4) as PNG, atomically.

    Raises
    ------
    DiskFull, BadInput, MissingFile : where the disk or its owner refuses.
    """
    pyvips = libvips()
    publish(Path(path), pyvips.Image.new_from_array(np.ascontiguousarray(pixels)).write_to_buffer(".png"))
