"""Networks: families of styles, each of which is frozen to a plain local convolutional network."""

from urst_tiles.nets import colour, module, named_styles, style_file
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
from urst_tiles.nets.colour import stain
from urst_tiles.nets.colour.distance import Moved, moved_pixels
from urst_tiles.nets.colour.look import Look, Measured, is_look, read_look
from urst_tiles.nets.colour.references import (
    amounts_of,
    look_of,
    merged_look,
    notes_of,
    reference_style,
    stain_maps,
    standard_look,
    unmixing_look,
)
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
from urst_tiles.nets.painting_look import PaintingLook, read_painting_look
from urst_tiles.nets.saved import load_frozen, look_facts

__all__ = [
    "MODELS",
    "Affine",
    "CascadeStyle",
    "Composition",
    "Family",
    "Frozen",
    "LocalNet",
    "Look",
    "Luminance",
    "Measured",
    "Moved",
    "OwnStatistics",
    "PainterStyle",
    "PaintingLook",
    "Precision",
    "Site",
    "State",
    "Style",
    "StyleImages",
    "amounts_of",
    "best_precision",
    "build",
    "colour",
    "family",
    "freeze",
    "is_look",
    "live",
    "load_frozen",
    "look_facts",
    "look_of",
    "merged_look",
    "module",
    "moved_pixels",
    "named_styles",
    "neutral_net",
    "notes_of",
    "read_look",
    "read_painting_look",
    "reference_style",
    "seeded",
    "stain",
    "stain_maps",
    "standard_look",
    "style_file",
    "unmixing_look",
]
