"""What is said of the network that was not named, and of a style that is predicted from an image."""

from __future__ import annotations

from pathlib import Path

from urst_tiles import nets, weights
from urst_tiles.api.opening import told
from urst_tiles.nets import painter
from urst_tiles.nets.style_rows import names_in
from urst_tiles.options import Options, default_model
from urst_tiles.recipe import Recipe
from urst_tiles.source.picture import read_picture

#: So many styles are named, those with the largest shares.
NAMED = 3


def tell_model(options: Options) -> None:
    """Say in one line which network paints where none was named and it is not the one that is expected."""
    if (options.model, options.look) == ("auto", None) and options.network != default_model():
        why = "a part of the image" if options.statistics_of == "region" else "a thumbnail"
        told.warning("%s paints, since %s does not measure %s", options.network, default_model(), why)


def tell_predicted(recipe: Recipe) -> None:
    """Say in one line of each style image, of a network that learns styles, which styles of the network paint
    it, and how it is painted better."""
    if not nets.family(recipe.model).learns:
        return
    images = [
        style
        for style, _ in recipe.styles
        if isinstance(style, Path) and not nets.style_file.is_style_file(style)
    ]
    if not images:
        return
    file = weights.find(recipe.model, recipe.weights)[painter.FILE]
    state = weights.load(file)
    names = names_in(state["styles"])
    for image in images:
        share, _ = painter.predicted_shares(read_picture(image, recipe.style_size), state, names)
        if share is None:
            continue
        most = sorted(zip(share, names, strict=True), reverse=True)[:NAMED]
        mixed = ", ".join(name for part, name in most if part > 0)
        told.warning(
            "%s: no network was trained on it, so its style is predicted from others, mostly %s;"
            " `urst-tiles learn` makes a better one",
            image,
            mixed,
        )
