"""From names and files to a style: small enough to travel to a worker, which builds it once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from urst_tiles import nets, weights
from urst_tiles.errors import BadInput, MissingFile
from urst_tiles.field import Field, Lattice, Regions
from urst_tiles.moments import Moments
from urst_tiles.nets.keep_colours import recoloured
from urst_tiles.nets.module.style import ModuleStyle
from urst_tiles.options import Options
from urst_tiles.progress import Progress, silent
from urst_tiles.source.mask import open_mask, spool_mask
from urst_tiles.source.picture import read_picture


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A model, its weights, its style images, and how they are used.

    Attributes
    ----------
    model : a name of ``nets.MODELS``, or package.module:function.
    weights : folder with one subfolder per model.
    styles : (path of a style image or checkpoint, or name of a style of the model; weight) pairs.
    style_size : short side the style image is resized to; the size of the strokes follows it.
    alpha : 0 keeps the content, 1 takes the style in full.
    stroke : how many times as large strokes become, a power of two.
    preserve_color : ``none``, ``luminance`` or ``coral``.
    stamps : size and time of change of each style's file: another may have taken its name since.
    regions : the mask's number of each style; empty where all styles are one mixture.
    field : what varies over the image, if anything does.
    colours : mean (3) and covariance (3 x 3) of the image's colours, row by row, where styles take them over.
    """

    model: str
    weights: Path
    styles: tuple[tuple[Path | str, float], ...]
    style_size: int = 512
    alpha: float = 1.0
    stroke: int = 1
    preserve_color: str = "none"
    stamps: tuple[tuple[int, int], ...] = ()
    regions: tuple[int, ...] = ()
    field: Field | None = None
    colours: tuple[float, ...] | None = None

    def over(self, field: Field | None) -> Recipe:
        """The same over a field."""
        return replace(self, field=field)

    def in_colours(self, colours: Moments) -> Recipe:
        """The same with style images that take over ``colours``, of the image's pixels in 0..1."""
        return replace(self, colours=(*colours.mean.tolist(), *colours.covariance().ravel().tolist()))

    def ingredients(self) -> nets.StyleImages:
        """The style images, float32 (h, w, 3) in 0..1, or tensors of named styles and checkpoints; with
        weights."""
        return [(self._ingredient(style), weight) for style, weight in self.styles]

    def _ingredient(self, style: Path | str) -> NDArray[np.float32] | dict[str, Tensor]:
        family = nets.family(self.model)
        if isinstance(style, str):
            return family.style_named(style) if family.style_named else nets.named_styles.features(style)
        if family.load_style:
            return family.load_style(style)
        image = read_picture(style, self.style_size)
        if self.colours is None:
            return image
        values = np.array(self.colours)
        return recoloured(image, values[:3], values[3:].reshape(3, 3))

    def build(self) -> nets.Style | nets.Composition:
        """Read the files and build the style."""
        ingredients = self.ingredients()
        groups = [[one] for one in ingredients] if self.regions else [ingredients]
        styles = tuple(self._style(group) for group in groups)
        return styles[0] if self.field is None else nets.Composition(styles, self.field)

    def _style(self, ingredients: nets.StyleImages) -> nets.Style:
        style = nets.build(self.model, self.weights, ingredients, alpha=self.alpha)
        return nets.CascadeStyle(style, self.stroke) if self.stroke > 1 else style

    def finish(self, net: nets.LocalNet) -> nets.LocalNet:
        """What comes behind the style's network."""
        return nets.Luminance(net) if self.preserve_color == "luminance" else net

    @property
    def masked(self) -> bool:
        """Whether a mask tells which style is where."""
        return isinstance(self.field, Regions)


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
        model=model,
        weights=weights.folder(options.weights).absolute(),
        styles=styles,
        style_size=options.style_size,
        alpha=options.alpha,
        stroke=options.stroke,
        preserve_color=options.preserve_color,
        stamps=tuple(_stamp(style) for style, _ in styles if isinstance(style, Path)),
        regions=regions,
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
    known = nets.named_styles.titles()
    if name in known and options.model != "lite":
        raise BadInput(f"{name} is a style of --model lite; give --model {options.model} a style image")
    if name in known and options.style_size != nets.named_styles.SIZE:
        raise BadInput(
            f"the named style {name} was measured at --style-size {nets.named_styles.SIZE};"
            f" give its image for {options.style_size}"
        )
    if name in known:
        return name
    near = nets.named_styles.near(name.lower())
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
