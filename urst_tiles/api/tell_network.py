"""What is said of the network that was not named, and of a style that is predicted from an image."""

from __future__ import annotations

from urst_tiles import nets
from urst_tiles.api.opening import told
from urst_tiles.options import Options, default_model
from urst_tiles.recipe import Recipe, is_style_image


def tell_model(options: Options) -> None:
    """Say in one line which network paints where none was named and it is not the one that is expected."""
    if (options.model, options.look) == ("auto", None) and options.network != default_model():
        why = "a part of the image" if options.statistics_of == "region" else "a thumbnail"
        told.warning("%s paints, since %s does not measure %s", options.network, default_model(), why)


def tell_predicted(recipe: Recipe) -> None:
    """Say in one line of each style image, of a network that learns styles, that the style is predicted, and
    how it is painted better."""
    if not nets.family(recipe.model).learns:
        return
    for style, _ in recipe.styles:
        if is_style_image(style):
            told.warning(
                "%s: the style is predicted from the colours and textures of this image; `urst-tiles learn`"
                " makes a nearer one in some minutes",
                style,
            )
