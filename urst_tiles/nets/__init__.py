"""Networks: families of styles, each of which is frozen to a plain local convolutional network."""

from urst_tiles.nets import module, named_styles
from urst_tiles.nets.base import (
    Affine,
    Frozen,
    LocalNet,
    Precision,
    Site,
    State,
    Style,
    StyleImages,
)
from urst_tiles.nets.cascade import CascadeStyle
from urst_tiles.nets.composition import Composition
from urst_tiles.nets.families import (
    MODELS,
    Family,
    best_precision,
    build,
    family,
    freeze,
    neutral_net,
    seeded,
)
from urst_tiles.nets.keep_colours import Luminance
from urst_tiles.nets.own_statistics import OwnStatistics, live
from urst_tiles.nets.painter import PainterStyle
from urst_tiles.nets.saved import load_frozen

__all__ = [
    "MODELS",
    "Affine",
    "CascadeStyle",
    "Composition",
    "Family",
    "Frozen",
    "LocalNet",
    "Luminance",
    "OwnStatistics",
    "PainterStyle",
    "Precision",
    "Site",
    "State",
    "Style",
    "StyleImages",
    "best_precision",
    "build",
    "family",
    "freeze",
    "live",
    "load_frozen",
    "module",
    "named_styles",
    "neutral_net",
    "seeded",
]
