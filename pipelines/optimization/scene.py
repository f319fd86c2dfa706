"""Everything but the image that is optimised: content, style, backbone, what the loss is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from optimization import pictures, reach
from optimization.objective import Terms, style_targets
from optimization.scales import ALONE, Scale, enlarged, halved
from optimization.settings import Settings, check, facts_of, make_terms
from optimization.tiles import Pixels
from urst_tiles import losses
from urst_tiles.errors import BadInput
from urst_tiles.geometry import Box
from urst_tiles.losses.backbones import backbone
from urst_tiles.source import Source
from urst_tiles.source.picture import read_picture
from urst_tiles.source.windows import WindowReader


@dataclass(frozen=True)
class Scene:
    """What a descent works with."""

    source: Source
    net: losses.FeatureNet
    terms: Terms
    grams: dict[str, Tensor]
    start: pictures.Boxes
    content: Pixels
    #: Tells device and type.
    like: Tensor
    reach: reach.Reach
    facts: dict[str, Any]

    @property
    def image(self) -> Box:
        """The whole."""
        return Box(0, 0, *self.source.shape)

    def tensor(self, values: NDArray[Any]) -> Tensor:
        """(3, h, w) -> (1, 3, h, w) on the device."""
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.like)[None]


def begin(settings: Settings, scale: Scale = ALONE) -> Scene:
    """Open and measure everything, with the content of that ``scale``; BadInput in one sentence."""
    check(settings)
    dtype = getattr(torch, settings.precision)
    like = torch.zeros((), dtype=dtype, device=settings.device)
    net = backbone(
        settings.backbone, settings.backbone_weights, settings.seed, device=settings.device, dtype=dtype
    )
    terms = make_terms(settings)
    found = reach.measure(net, terms.layers, like)
    if settings.tile % found.stride:
        raise BadInput(f"--tile must be a multiple of {found.stride} px, got {settings.tile}")
    style = torch.from_numpy(read_picture(settings.style, settings.style_size)).permute(2, 0, 1)[None]
    if min(style.shape[2:]) < found.minimum:
        raise BadInput(f"--style-size must be at least {found.minimum}, got {settings.style_size}")
    source = pictures.content_source(settings.content, settings.size, settings.out / "source")
    source = halved(source, scale.halvings, settings.out)
    if min(source.shape) < found.minimum:
        height, width = source.shape
        raise BadInput(f"{settings.content} has {width} x {height} px, the backbone needs {found.minimum}")
    grams = style_targets(net, terms, style.to(like))
    content = pictures.planes(WindowReader(source), settings.precision)
    first = content if settings.start == "content" else pictures.noise(settings.seed, settings.precision)
    facts = facts_of(settings, source, terms)
    if scale.above is not None:
        above = pictures.content_source(scale.above, 0, settings.out / "above")
        first = enlarged(pictures.planes(WindowReader(above), settings.precision), above.shape)
        facts |= {"the picture of the scale above": above.fingerprint}
    return Scene(
        source,
        net,
        terms,
        grams,
        first,
        lambda box: torch.from_numpy(content(box)).to(like)[None],
        like,
        found,
        facts,
    )
