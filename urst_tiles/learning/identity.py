"""A painting in its own style is to stay as it is: the identity loss [1].

What a network paints over a picture that is a painting of the style already adds strokes to strokes. To be
shown the painting itself now and then is to teach it to leave them alone.

Reference
---------
1. D. Y. Park, K. H. Lee, "Arbitrary Style Transfer with Style-Attentional Networks", CVPR 2019: what a
   network makes of a picture in that picture's own style is compared with the picture.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from urst_tiles.learning.crops import to_tensor
from urst_tiles.learning.painting import Colours, paint, random_origins, recoloured
from urst_tiles.learning.paintings import BLURS
from urst_tiles.nets.base import State

#: The longest side of a part of a painting in pixels, and the most levels on which it is painted.
LONGEST, LEVELS = 640, 2


def large_part(image: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """A part of a painting (h, w, 3), nearly all of it, since its colours are to be those of the whole: sides
    of at most `LONGEST`, multiples of the largest of `BLURS`, at a random place, turned and mirrored."""
    sides = [min(n, LONGEST) // BLURS[-1] * BLURS[-1] for n in image.shape[:2]]
    y, x = (int(random.integers(n - side + 1)) for n, side in zip(image.shape[:2], sides, strict=True))
    part = np.rot90(image[y : y + sides[0], x : x + sides[1]], int(random.integers(4)))
    return part[:, ::-1] if random.random() < 0.5 else part


def identity_distance(
    state: State,
    image: NDArray[np.uint8],
    colours: Colours,
    random: np.random.Generator,
    *,
    seed: int = 0,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """(): the mean difference of a large part of a painting and what the network makes of it in its style.

    Parameters
    ----------
    state : the network's tensors, with one style.
    image : uint8 (h, w, 3), the painting.
    colours : of the painting, one row each.
    random : gives the part and the number of levels.
    seed : of the noise.
    dtype : the type in which the network computes.
    """
    x = to_tensor([large_part(image, random)], device)
    levels = int(random.integers(1, LEVELS + 1))
    zero = torch.zeros(1, dtype=torch.int64, device=device)
    origins = random_origins(LEVELS, 1, random).to(device)
    pictures = paint(state, x, recoloured(x, colours, levels), zero, origins, seed, dtype)
    return (pictures[-1] - x).abs().mean()
