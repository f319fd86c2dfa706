"""The painter in training: one small network that paints each level of a picture over the one above.

A picture is painted from coarse to fine. The content is halved some times; at the coarsest level the network
paints over the content in the colours of the painting, at each finer one over the enlarged picture of the
level above, to which half of the detail was added that the content has here and had not before, and what it
paints there keeps the colours of that picture. The coarsest level is then painted over its own picture once
more. It is the same network each time, but for three sets of affine parameters in each style: for the
coarsest level, for all finer ones, and for the coarsest painted again. About 32 000 multiplications per pixel
of each pass.

Here the network paints crops in many styles at once and gradients are kept; `urst_tiles.nets.painter` is the
same network in one style, on windows of images of any size.

References
----------
1. V. Dumoulin, J. Shlens, M. Kudlur, "A Learned Representation For Artistic Style", ICLR 2017: a style is a
   row of affine parameters.
2. F. Pitie and A. Kokaram, "The Linear Monge-Kantorovitch Linear Colour Mapping for Example-Based Colour
   Transfer", CVMP 2007: the colours of the coarsest level's guide.
3. C. Wellons, "Hash Prospector", github.com/skeeto/hash-prospector: the integer hash of the noise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from urst_tiles.learning.features import lowered
from urst_tiles.nets.base import State
from urst_tiles.nets.lite import monge_kantorovich
from urst_tiles.nets.painter import COLOUR_EPS, DETAIL, EPS, doubled, enlarged, lost
from urst_tiles.nets.painter_styles import AGAIN, COARSEST, DDOF, FINER, PER_STYLE, STRIDE, kinds_of
from urst_tiles.nets.tones import bend, curve
from urst_tiles.source.levels import COLUMN, FACTORS

# Noise

#: What the sum of 32 bits is cut to.
MASK = 0xFFFFFFFF


def mixed(x: Tensor) -> Tensor:
    """A permutation of the numbers of 32 bits that leaves no pattern [3], on int64 from 0 to 2^32 - 1.

    No product reaches 2^63, since both factors are below 2^31: all devices compute the same.
    """
    x = x ^ (x >> 16)
    x = (x * FACTORS[0]) & MASK
    x = x ^ (x >> 15)
    x = (x * FACTORS[1]) & MASK
    return x ^ (x >> 15)


def noise(origins: Tensor, size: tuple[int, int], level: int, seed: int) -> Tensor:
    """(n, 1, h, w) float32 in -0.5 to 0.5, a hash of the absolute position, the level and the seed: the same
    as in `urst_tiles.source.levels.noise`, of 24 bits.

    A window of a picture has the same noise as that part of the whole, bit for bit, on every device.

    Parameters
    ----------
    origins : int64 (n, 2), where each window begins in its level, (y, x).
    size : (h, w) of the windows.
    level : how often the picture was halved; 0 for full resolution.
    """
    device = origins.device
    key = mixed(mixed(torch.tensor(seed & MASK, device=device)) ^ level)
    y, x = (
        (origins[:, axis, None] + torch.arange(n, device=device)) & MASK
        for axis, n in zip((0, 1), size, strict=True)
    )
    rows, columns = mixed(y ^ key), mixed((x + COLUMN) & MASK)
    bits = mixed(rows[:, None, :, None] ^ columns[:, None, None, :])
    return (bits >> 8).float() / 2**24 - 0.5


def random_origins(levels: int, count: int, random: np.random.Generator) -> Tensor:
    """Where crops might begin in their wholes, int64 (count, 2): on the cells of the coarsest of so many
    levels."""
    cell = STRIDE << (levels - 1)
    return torch.from_numpy(cell * random.integers(2**20, size=(count, 2)))


# The network


def conv(x: Tensor, state: State, name: str) -> Tensor:
    """3x3 with reflection padding, in the type of ``x``."""
    weight, bias = lowered(state[f"{name}.weight"], x.dtype), state[f"{name}.bias"].to(x.dtype)
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), weight, bias)


def affine(h: Tensor, gamma: Tensor, beta: Tensor, norm: bool) -> Tensor:
    """Each channel times ``gamma`` (n, C) plus ``beta``, behind an instance norm with ``norm``."""
    gamma, beta = gamma[:, :, None, None], beta[:, :, None, None]
    if norm:
        variance, mean = torch.var_mean(h.float(), (2, 3), correction=DDOF, keepdim=True)
        gamma = gamma / (variance + EPS).sqrt()
        beta = beta - mean * gamma
    return torch.addcmul(beta.to(h.dtype), h, gamma.to(h.dtype))


def paint_level(
    state: State, content: Tensor, guide: Tensor, grain: Tensor, rows: Sequence[Tensor], dtype: torch.dtype
) -> Tensor:
    """The picture (n, 3, h, w) of one level, h and w multiples of `STRIDE`.

    Parameters
    ----------
    content, guide : (n, 3, h, w) in 0..1.
    grain : (n, 1, h, w) of noise.
    rows : the parameters of `PER_STYLE` of each picture's style and this kind of level.
    """
    gamma, beta, half_gamma, half_beta = rows
    pair = torch.cat([content, guide], 1) - 0.5
    cells = lowered(F.pixel_unshuffle(torch.cat([pair, grain], 1), STRIDE), dtype)  # 112, h/4, w/4
    z = F.relu(affine(conv(cells, state, "enter"), gamma[:, 0], beta[:, 0], True))
    for k in range((gamma.shape[1] - 1) // 2):
        h = F.relu(affine(conv(z, state, f"a.{k}"), gamma[:, 1 + 2 * k], beta[:, 1 + 2 * k], True))
        z = z + affine(conv(h, state, f"b.{k}"), gamma[:, 2 + 2 * k], beta[:, 2 + 2 * k], False)
    again = lowered(F.pixel_unshuffle(pair, 2), dtype)  # 24, h/2, w/2
    h = conv(torch.cat([doubled(z), again], 1).contiguous(memory_format=torch.channels_last), state, "mid")
    h = F.relu(affine(h, half_gamma, half_beta, True))
    return guide + conv(doubled(h), state, "full").float()


def halved(x: Tensor, times: int = 1) -> Tensor:
    """Means of 2 x 2 pixels, ``times`` over."""
    return F.avg_pool2d(x, 2**times) if times else x


def paint(
    state: State,
    content: Tensor,
    guides: Sequence[Tensor],
    index: Tensor,
    origins: Tensor,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> list[Tensor]:
    """The pictures of all levels, from coarse to fine.

    Parameters
    ----------
    content : (n, 3, h, w) in 0..1, h and w multiples of 4 times 2^(levels - 1).
    guides : the same at each level in the colours of the painting, from coarse to fine, as `recoloured` gives
        it; the first is the guide of the coarsest level.
    index : int64 (n,), the style of each picture.
    origins : int64 (n, 2), where each picture begins in its whole, multiples of 2^(levels - 1).
    """
    pictures: list[Tensor] = []

    def over(guide: Tensor, level: int, kind: int) -> Tensor:
        here, rows = halved(content, level), [state[k][index, kind] for k in PER_STYLE]
        grain = noise(origins >> level, (here.shape[2], here.shape[3]), level, seed)
        return paint_level(state, here, guide, grain, rows, dtype)

    for level, colours in zip(reversed(range(len(guides))), guides, strict=True):
        colours = colours.clamp(0, 1)
        if pictures:
            guide = enlarged(pictures[-1]) + DETAIL * (colours - enlarged(halved(colours)))
            painting = over(guide, level, FINER)
            pictures.append(painting + lost(painting, pictures[-1]))
            continue
        painting = over(colours, level, COARSEST)
        if kinds_of(state) > AGAIN:
            painting = over(painting.clamp(0, 1), level, AGAIN)
        pictures.append(painting)
    return pictures


# Colours


def moments(x: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean (n, 3) and covariance (n, 3, 3) of the colours of each picture."""
    rows = x.flatten(2).double()
    mean = rows.mean(2, keepdim=True)
    covariance = (rows - mean) @ (rows - mean).mT / (rows.shape[2] - 1)
    return mean[:, :, 0].cpu().numpy(), covariance.cpu().numpy()


#: The mean (n, 3) and covariance (n, 3, 3) of the colours of paintings, and the skewness (n,) of their
#: luminance.
Colours = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def recoloured(x: Tensor, colours: Colours, levels: int = 1) -> list[Tensor]:
    """Pictures (n, 3, h, w) at so many levels, from coarse to fine, each in the colours of a painting, by the
    linear map that moves colours least [2]; the tones of each level are bent to the painting's skewness."""
    maps = []
    for centre, spread, want_centre, want_spread in zip(*moments(x), *colours[:2], strict=True):
        scale = monge_kantorovich(spread, want_spread, COLOUR_EPS)
        maps.append((scale, (want_centre - scale @ centre)[:, None]))
    scales, shifts = (torch.from_numpy(np.stack(part)).to(x) for part in zip(*maps, strict=True))
    mapped = (scales @ x.flatten(2) + shifts).view_as(x)
    found = [halved(mapped, level) for level in reversed(range(levels))]
    for each in found:
        for one, mean, covariance, skewness in zip(each, *colours, strict=True):
            bend(one, 0, curve(mean, covariance, float(skewness)))
    return found
