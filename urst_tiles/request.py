"""From what a user asks for to a recipe; what does not go together is refused here."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from urst_tiles import nets, queues, weights
from urst_tiles.errors import BadInput, MissingFile
from urst_tiles.field import Field, Lattice, Regions
from urst_tiles.labels import open_mask, spool_mask
from urst_tiles.nets.module_style import ModuleStyle
from urst_tiles.options import Options
from urst_tiles.progress import Progress, silent
from urst_tiles.recipe import Recipe

#: Where a job folder has its mask.
MASK = "mask.npy"

OneStyle = str | os.PathLike[str]
StyleArgument = OneStyle | Sequence[tuple[OneStyle, float]] | Mapping[int, OneStyle] | ModuleStyle | None


def recipe_of(style: StyleArgument, options: Options) -> Recipe:
    """The recipe of the style argument, with absolute paths, since workers have their own current folder.

    Raises
    ------
    BadInput, MissingFile : no style, an unknown model, a style image that is not there, or a control that
        does not go with the model.
    """
    if options.cluster:
        queues.require(options.cluster)
    model = style.model if isinstance(style, ModuleStyle) else options.model
    takes_style = nets.family(model).takes_style
    pairs, regions = _pairs(style)
    if takes_style and not pairs:
        raise BadInput("no style given: name a style image with --style")
    if (
        not takes_style
        and nets.module.only_here(model)
        and (options.workers > 1 or options.scheduler or options.cluster)
    ):
        raise BadInput(
            "a network handed over in Python is known to this process alone, and workers or a scheduler need"
            " others: give model='package.module:function'"
        )
    if pairs and not takes_style:
        raise BadInput(f"--model {model} is a style by itself; leave --style out")
    styles = tuple((_style_of(style, options), float(weight)) for style, weight in pairs)
    check_controls(model, styles, regions, options)
    return Recipe(
        model,
        weights.folder(options.weights).absolute(),
        styles,
        options.style_size,
        options.alpha,
        options.stroke,
        options.preserve_color,
        tuple(_stamp(style) for style, _ in styles if isinstance(style, Path)),
        regions,
    )


def _stamp(style: Path) -> tuple[int, int]:
    """Bytes, and nanoseconds of the last change."""
    state = style.stat()
    return state.st_size, state.st_mtime_ns


def _pairs(style: StyleArgument) -> tuple[list[tuple[OneStyle, float]], tuple[int, ...]]:
    """(style, weight) pairs, and the mask's number of each."""
    if style is None or isinstance(style, ModuleStyle):
        return [], ()
    if isinstance(style, Mapping):
        return [(one, 1.0) for one in style.values()], tuple(int(number) for number in style)
    return [(style, 1.0)] if isinstance(style, str | os.PathLike) else list(style), ()


def check_controls(
    model: str, styles: Sequence[tuple[Path | str, float]], regions: Sequence[int], options: Options
) -> None:
    """Raise BadInput for a control that does not go with the model, the styles or another control."""
    family = nets.family(model)
    whole = family.load_style is not None or not family.takes_style
    if bool(options.mask) != bool(regions):
        raise BadInput("--mask needs a style for each region, as in --style 1=a.jpg --style 2=b.jpg")
    if regions and not all(0 <= number <= 65535 for number in regions):
        raise BadInput(f"the numbers of --mask lie in 0..65535, got {', '.join(map(str, regions))}")
    if regions and whole:
        raise BadInput(
            f"--mask mixes styles inside the network, and the style of --model {model} is the whole network;"
            " choose another model"
        )
    if regions and options.statistics in ("local", "tile"):
        raise BadInput(f"--mask goes with --statistics thumbnail or exact, not with {options.statistics}")
    images = not whole and not any(isinstance(style, str) for style, _ in styles)
    if options.preserve_color == "coral" and not images:
        raise BadInput(
            "--preserve-color coral gives the image's colours to a style image, and there is none here;"
            " give one, or choose luminance"
        )


def _style_of(style: OneStyle, options: Options) -> Path | str:
    """The absolute path of a style image, or a named style's name."""
    path, name = Path(style), os.fspath(style)
    family = nets.family(options.model)
    if family.style_named:
        return name
    if path.is_file():
        return path.absolute()
    if family.load_style:
        raise MissingFile(f"there is no checkpoint {path}; --model {options.model} takes one as --style")
    known = nets.named.titles()
    if name in known and options.model != "lite":
        raise BadInput(f"{name} is a style of --model lite; give --model {options.model} a style image")
    if name in known and options.style_size != nets.named.SIZE:
        raise BadInput(
            f"the named style {name} was measured at --style-size {nets.named.SIZE}; give its image for"
            f" {options.style_size}"
        )
    if name in known:
        return name
    near = nets.named.near(name.lower())
    hint = f" (near it: {', '.join(near)})" if near else ""
    raise MissingFile(
        f"there is no style image {path} and no style of that name{hint}; `urst-tiles styles` lists them"
    )


def field_of(recipe: Recipe, shape: tuple[int, int], options: Options, folder: Path) -> Field | None:
    """What varies over an image of ``shape``: the regions of a mask, or the places of local statistics.

    ``folder`` is where `prepare_mask` leaves the mask.
    """
    if options.mask:
        mask = open_mask(options.mask, shape)
        return Regions(*shape, folder / MASK, recipe.regions, options.feather, mask.fingerprint)
    return Lattice.of_scale(*shape, options.local_scale) if options.statistics == "local" else None


def prepare_mask(options: Options, shape: tuple[int, int], folder: Path, progress: Progress = silent) -> None:
    """Unpack the mask into ``folder``, if there is one."""
    if options.mask:
        spool_mask(open_mask(options.mask, shape), folder / MASK, progress)
