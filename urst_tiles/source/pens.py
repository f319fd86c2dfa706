"""The marks that somebody drew on a slide with a pen: green, blue, black or red.

Ink is told from stains by which channels it absorbs. In optical density hematoxylin, eosin and DAB, and every
mixture of them, absorb green at least about as much as red (or, DAB, blue more than either), and hardly any
stain absorbs all three channels alike (vectors of stains: A. Ruifrok and D. Johnston, Analytical and
Quantitative Cytology and Histology 23, 2001). Green and blue ink absorb red most, black ink absorbs all
alike, and red ink absorbs green and blue alike and almost no red, which blood absorbs a little.

The middle of a mark is also denser than tissue is on a thumbnail. Where the rule holds and the mark is thin,
as on its edge, is left to the caller: stains of other colours, such as the blue of Masson's trichrome, are
there. Dense ones look like ink.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]

#: Optical density (natural logarithm) from which the middle of a mark is dense, and its edge still coloured.
DENSE, FAINT = 0.75, 0.2


def marks(colour: NDArray[np.float32], seen: Mask) -> tuple[Mask, Mask]:
    """Where a picture of a slide has the colour of ink: where that is dense, and all of it; bool, (h, w).

    Parameters
    ----------
    colour : float32, (h, w, 3), red, green and blue in any unit in which 0 is black.
    seen : the pixels that count, bool, (h, w), at least one; pixels of pure black, which a scanner fills up
        with, are no ink.
    """
    brightest = colour.max(-1)
    white = max(float(np.quantile(brightest[seen], 0.99)), 1e-9)
    density = -np.log(np.clip(colour / white, 1 / 256, 1.0))
    red, green, blue = (density[..., k] for k in range(3))
    total = np.maximum(red + green + blue, 1e-9)
    low, high = np.minimum(np.minimum(red, green), blue), np.maximum(np.maximum(red, green), blue)
    blue_ink = (red > 1.15 * green) & (red > 0.45 * total)
    dark_blue = (blue < 0.16 * total) & (red > 0.9 * green) & (red > 1.5)
    green_ink = green < 0.25 * total
    red_ink = (red < 0.16 * green) & (blue > 0.8 * green)
    dark_red = (red < 0.3 * green) & (blue > 0.8 * green) & (blue > 1.7)
    black_ink = (high - low < 0.08 * total) & (low > 0.75)
    ink = seen & (brightest > 0) & (high > FAINT)
    ink &= blue_ink | dark_blue | green_ink | red_ink | dark_red | black_ink
    return ink & (high >= DENSE), ink
