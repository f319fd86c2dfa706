"""The structural similarity of pictures to their guides."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import picture

from urst_tiles.learning.structure import structure_distance


def test_structure_is_what_the_luminance_lacks_of_the_guides() -> None:
    """Nothing where they are equal, more the more of it is noise, and as much in the dark."""
    guide = torch.from_numpy(picture(128, 160, 5).astype(np.float32) / 255).permute(2, 0, 1)[None]
    noise = torch.rand(guide.shape, generator=torch.Generator().manual_seed(0))
    noise = torch.nn.functional.interpolate(noise[:, :, ::16, ::16], scale_factor=16)
    far = [float(structure_distance(torch.lerp(guide, noise, t), guide)) for t in (0.0, 0.3, 0.6, 1.0)]
    assert far[0] == pytest.approx(0.0, abs=1e-5) and far == sorted(far) and far[3] > 1.2
    dark = float(structure_distance(0.2 * noise, 0.2 * guide))
    assert dark == pytest.approx(far[3], rel=0.15)
    shifted = guide.roll(24, 3)
    assert structure_distance(shifted, guide) > 0.5
