"""Whether the finest strokes of a picture run level and upright more than others do.

A network that enlarges by repeating pixels and then convolves makes lines along its rows and columns more
easily than any others. They hardly change a Gram matrix, and the eye sees them at once, as a weave of
hairlines. In the power spectrum of the picture they lie on its two axes. Most paintings have about as much on
the axes as beside them, above an eighth of a cycle a pixel.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from urst_tiles.learning.structure import luminance

#: Spatial frequencies in cycles a pixel, from and up to.
BANDS = ((1 / 8, 1 / 4), (1 / 4, 1 / 2))
#: Angles from an axis in degrees: below the first one a frequency is on the axis; from the second to the
#: third it is beside it.
ON, FROM, UP_TO = 3.0, 5.0, 15.0
#: What is added to each mean power, of luminance in 0..1; that of rounding to 8 bits is an eighth of it.
LEAST = 1e-5


def sectors(height: int, width: int, device: torch.device | str = "cpu") -> Iterator[tuple[Tensor, Tensor]]:
    """Masks (height, width // 2 + 1) of the frequencies on an axis and beside it: for each of `BANDS`, of
    upright lines, then of level ones."""
    down = torch.fft.fftfreq(height, device=device).abs()[:, None]
    across = torch.fft.rfftfreq(width, device=device)[None]
    frequency, angle = torch.hypot(down, across), torch.rad2deg(torch.atan2(down, across))
    for low, high in BANDS:
        band = (frequency >= low) & (frequency < high)
        for off in (angle, 90 - angle):
            yield band & (off < ON), band & (off >= FROM) & (off < UP_TO)


def along_axes(x: Tensor) -> Tensor:
    """(n, bands, 2): natural logarithm of how many times as much power pictures (n, 3, h, w) in 0..1 have in
    upright lines, and in level ones, as in lines a little turned from them; in `BANDS`."""
    height, width = x.shape[2:]
    values = luminance(x.float())[:, 0]
    fade = [torch.hann_window(side, periodic=False, device=x.device) for side in (height, width)]
    window = fade[0][:, None] * fade[1][None]
    values = (values - values.mean((1, 2), keepdim=True)) * window
    power = torch.fft.rfft2(values).abs().square() / window.square().sum()
    found = [
        ((power[:, on].mean(1) + LEAST) / (power[:, beside].mean(1) + LEAST)).log()
        for on, beside in sectors(height, width, x.device)
    ]
    return torch.stack(found, 1).view(len(x), len(BANDS), 2)


def axes_distance(x: Tensor, guide: Tensor, painting: Tensor) -> Tensor:
    """(): how much more of the power of pictures ``x`` lies along the axes than is due, as a mean of natural
    logarithms over `BANDS` and both axes.

    As much is due as the ``guide`` has, (n, 3, h, w) as ``x``, whose houses and horizons stay, or as the
    painting, (n, bands, 2) by `along_axes`, and not less than beside the axes.
    """
    with torch.no_grad():
        due = torch.maximum(along_axes(guide.clamp(0, 1)), painting).clamp(min=0)
    return (along_axes(x) - due).clamp(min=0).mean()
