"""The named styles of the networks lite and painter, as a list and as a picture."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from urst_tiles import nets, weights
from urst_tiles.api.opening import open_input, tell_choice
from urst_tiles.engine.kernel import Kernel
from urst_tiles.engine.sampled import measure_sampled
from urst_tiles.engine.seen import seen_by
from urst_tiles.errors import BadInput
from urst_tiles.geometry import Box, round_up
from urst_tiles.options import Options, default_model
from urst_tiles.recipe import StyleArgument, recipe_of
from urst_tiles.source import array_source
from urst_tiles.source.levels import windows_of
from urst_tiles.source.picture import labelled, picture_of

#: The networks that have the named styles.
MODELS = ("lite", "painter")


def named_styles() -> dict[str, str]:
    """The named styles of the networks lite and painter: a dict from the name to painting and painter."""
    return nets.named_styles.titles()


def contact_sheet(
    image: str | os.PathLike[str] | None = None,
    *,
    side: int = 256,
    columns: int = 6,
    gap: int = 8,
    model: str | None = None,
    labels: bool = False,
) -> NDArray[np.uint8]:
    """A picture as it is, and then in each named style, side by side: uint8, (h, w, 3), sRGB.

    The styles have the order of `named_styles` and fill the sheet row by row.

    Parameters
    ----------
    image : an image as `stylize` takes it, of which the middle square is taken; None for a scene that comes
        with the package.
    side : side of each square in pixels.
    columns : number of squares in a row.
    gap : width of the white gaps between squares in pixels.
    model : the network that paints, lite or painter; None for that of `default_model`. painter paints the
        square on one level.
    labels : whether the name of each style is written into the corner of its square.

    Raises
    ------
    BadInput : the model has no named styles of these names.
    """
    model = model or default_model()
    if model not in MODELS:
        raise BadInput(f"the named styles are those of --model {' and '.join(MODELS)}, not of {model}")
    source = open_input(image if image is not None else weights.TRAINED / "scene.webp", Options(model=model))
    tell_choice(source)
    picture = picture_of(source, side)
    h, w = picture.shape[:2]
    top, left = (h - side) // 2, (w - side) // 2
    square = np.rint(255 * picture[top : top + side, left : left + side]).astype(np.uint8)
    pictures = [square, *(in_style(square, name, model) for name in named_styles())]
    if labels:
        names = ["the picture", *named_styles()]
        pictures = [
            labelled(one, name, max(8, len(one) // 18)) for one, name in zip(pictures, names, strict=True)
        ]
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * (side + gap) - gap, columns * (side + gap) - gap, 3), 255, np.uint8)
    for k, one in enumerate(pictures):
        y, x = (n * (side + gap) for n in divmod(k, columns))
        sheet[y : y + side, x : x + side] = one
    return sheet


def in_style(pixels: NDArray[np.uint8], style: StyleArgument, model: str) -> NDArray[np.uint8]:
    """Stylise a small image, uint8 (h, w, 3), with a network that has named styles: in memory and at once, as
    a job would on one level, in float32."""
    built = recipe_of(style, Options(model=model)).build()
    h, w = (max(built.minimum, round_up(n, built.stride)) for n in pixels.shape[:2])
    source = array_source(pixels)
    box, core = Box(0, 0, h, w), Box(0, 0, *pixels.shape[:2])
    kernel = Kernel(nets.freeze(built, measure_sampled(built, source)))
    window = windows_of(seen_by(model, source)).padded(box)[0]
    return kernel.run(window[None], [box], [core])[0]
