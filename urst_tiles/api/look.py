"""Looks: what a method takes from reference images, measured once and used on any number of images."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from urst_tiles import nets
from urst_tiles.api.opening import open_input, tell_choice, told
from urst_tiles.engine.statistics import measure_here, measure_thumbnail
from urst_tiles.errors import BadInput
from urst_tiles.nets import Look, Measured
from urst_tiles.options import TISSUE, TRANSFERS, Options
from urst_tiles.progress import Progress, silent
from urst_tiles.recipe import Recipe, method_of, parse_white
from urst_tiles.source import Source


def measure_look(
    references: str | os.PathLike[str] | Source | Sequence[Any],
    options: Options | None = None,
    *,
    progress: Progress = silent,
    **changes: Any,
) -> Look:
    """Measure what a method takes from a reference, or from several together.

    Parameters
    ----------
    references : an image file, a prepared `Source` or a list of these. In a list each counts the same,
        however large it is.
    options, changes : the options of a job, of which ``model`` ("colour" or "stain"), ``method``,
        ``statistics``, ``white`` and those that say how an image is read have an effect.
    progress : called with the name of a stage, and how much of it is done out of how much.

    Raises
    ------
    UrstError : an image cannot be read, or the model does not transfer colours.
    """
    chosen = Options.of(options, changes)
    if chosen.model not in TRANSFERS:
        raise BadInput(f"a look is measured for --model {' or '.join(TRANSFERS)}, not for {chosen.model}")
    several = [references] if isinstance(references, str | os.PathLike | Source) else list(references)
    if not several:
        raise BadInput("no reference given: name an image to measure")
    looks = [(_measured(one, chosen, progress), 1.0) for one in several]
    return nets.merged_look(looks)


def with_looks(recipe: Recipe, source: Source, options: Options, progress: Progress = silent) -> Recipe:
    """The recipe with the look of each of its styles, read from look files or measured of reference images.

    Other recipes than those of models that transfer colours stay as they are. ``source`` is the image whose
    colours will be changed.

    Raises
    ------
    BadInput : a look is one of another model or method.
    UrstError : a reference cannot be read.
    """
    if not recipe.method:
        return recipe
    check_method(recipe, source)
    if options.statistics == "local" and recipe.method == "histogram" and source.dtype.kind == "f":
        raise BadInput(
            f"{source.path}: histograms of floats are those of the whole image; choose --statistics exact or"
            " thumbnail, --method mean-std, or give --stretch LOW,HIGH"
        )
    if recipe.stains and not recipe.styles:
        looks = [nets.unmixing_look(recipe.method)]
    else:
        styles = [style for style, _ in recipe.styles] or ["standard"]
        looks = [_look(style, options, recipe, progress) for style in styles]
    check_looks(recipe, looks, source)
    return recipe.with_looks(looks, 8 * source.dtype.itemsize)


def check_method(recipe: Recipe, source: Source) -> None:
    """Raise BadInput unless the method knows the bands of the image and their values."""
    if source.dtype.kind == "f" and recipe.method not in nets.colour.BANDWISE:
        raise BadInput(
            f"{source.path}: --method {recipe.method} needs to know which of its values, {source.file_dtype},"
            f" are black and white: give --stretch LOW,HIGH, or choose {', '.join(nets.colour.BANDWISE)}"
        )
    if source.colours != 3 and recipe.method not in nets.colour.BANDWISE:
        raise BadInput(
            f"--method {recipe.method} knows red, green and blue, and {source.colours} band(s) are asked for:"
            f" choose --method {', '.join(nets.colour.BANDWISE)}, or three --bands"
        )


def check_looks(recipe: Recipe, looks: Sequence[Look], source: Source) -> None:
    """Raise BadInput unless each look has the bands and the unit of the image."""
    if recipe.method not in nets.colour.BANDWISE:
        return
    floats = source.dtype.kind == "f"
    for (style, _), look in zip(recipe.styles, looks, strict=True):
        if look.as_is != floats:
            raise BadInput(
                f"{style} and {source.path.name} are not in the same unit: floats are taken as they are, and"
                " all else as a fraction of its full range; convert one, or give --stretch LOW,HIGH"
            )
        found = nets.colour.bands_in(look.statistics)
        if found != source.colours:
            raise BadInput(
                f"{style} has {found} band(s), and {source.path.name} is read with {source.colours}; name a"
                " reference with the same bands, or choose them with --bands"
            )


def _look(style: Path | str, options: Options, recipe: Recipe, progress: Progress) -> Look:
    """The look that a style names: the published one, a file's, or that of a reference image."""
    if isinstance(style, str):
        return nets.standard_look(recipe.method)
    if not nets.is_look(style):
        return _measured(style, options, progress, recipe.method)
    look = nets.read_look(style)
    if (look.model, look.method) != (recipe.model, recipe.method):
        raise BadInput(
            f"{style} is a look of --model {look.model} --method {look.method}, and {recipe.model}"
            f" {recipe.method} is asked for; choose those, or measure a look for these"
        )
    return look


def _measured(
    reference: str | os.PathLike[str] | Source, options: Options, progress: Progress, method: str = ""
) -> Look:
    """The look of one reference."""
    method, white = method or method_of(options.network, options), parse_white(options.white)
    with TemporaryDirectory(prefix="urst-tiles-") as folder:
        source = reference if isinstance(reference, Source) else _opened(reference, options)
        if not isinstance(reference, Source):
            source = source.prepare(Path(folder), thumbnail=options.thumbnail, progress=progress)
        style = nets.reference_style(
            options.network, method, 8 * source.dtype.itemsize, white, source.colours
        )
        thumbnail = options.statistics == "thumbnail"
        found = (
            measure_thumbnail(style, source) if thumbnail else measure_here(style, source, progress=progress)
        )
    height, width = source.shape
    facts = Measured(
        name=source.path.name,
        width=width,
        height=height,
        dtype=str(source.file_dtype),
        fingerprint=source.fingerprint,
    )
    on = "thumbnail" if thumbnail else "exact"
    try:
        as_is = source.dtype.kind == "f"
        return nets.look_of(options.network, method, style, found, on=on, sources=(facts,), as_is=as_is)
    except BadInput as error:
        raise BadInput(f"{source.path}: {error}") from None


def _opened(path: str | os.PathLike[str], options: Options) -> Source:
    """A reference, read as the image of the job is: with its bands and its stretch; its main page is taken.

    A reference that does not have these bands, such as a map in red, green and blue, is read by its own
    colours. A part and a mask of valid pixels are those of the image of the job, but tissue is found in both.
    """
    tissue = options.valid if options.valid == TISSUE else None
    alike = replace(options.without_part(), page=None, valid=tissue)
    try:
        source = open_input(path, alike)
    except BadInput:
        if (options.bands is None and options.channels is None) or options.plain_bands:
            raise
        source = open_input(path, replace(alike, bands=None, channels=None))
        told.warning("%s: has not the bands that were asked for, its own red, green and blue are read", path)
        return source
    tell_choice(source)
    return source
