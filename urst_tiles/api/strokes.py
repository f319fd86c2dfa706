"""How large the coarsest strokes of a picture become, where they are asked for as a length."""

from __future__ import annotations

from urst_tiles import nets
from urst_tiles.api.opening import told
from urst_tiles.lengths import in_words, metres
from urst_tiles.options import Options
from urst_tiles.recipe import Recipe
from urst_tiles.source import Source
from urst_tiles.source.pixel_size import pixel_size

#: More levels than any image has.
MOST = 64


def on_levels(recipe: Recipe, source: Source, options: Options) -> Recipe:
    """The recipe with as many levels as the option ``stroke`` asks for.

    Of a length these are the levels whose coarsest strokes, as they were measured, are nearest to it. The
    user is told which they are.

    Raises
    ------
    BadInput : the strokes are asked for as a length, and the file does not tell how large its pixels are.
    """
    if not isinstance(options.stroke, str):
        return recipe.on_levels(source.shape, options.stroke)
    size = pixel_size(source, f"--stroke {options.stroke}")
    levels = nets.painter.levels_for(metres(options.stroke) / size.side)
    chosen = recipe.on_levels(source.shape, 2 ** min(levels - 1, MOST))
    times, width = 1 << (chosen.levels - 1), nets.painter.stroke_width(chosen.levels)
    told.warning(
        "%s: --stroke %s: %s (as --stroke %d), whose coarsest strokes are about %s wide (%.2g px; %s)",
        source.path, options.stroke, f"{chosen.levels} level{'s' * (chosen.levels > 1)}", times,
        in_words(width * size.side), width, size.known_by,
    )  # fmt: skip
    return chosen
