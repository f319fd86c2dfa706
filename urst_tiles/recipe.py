"""Recipes: the names and files from which a style is built.

A recipe is small, so it can be sent to each worker, which builds the style once.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from urst_tiles import nets, weights
from urst_tiles.errors import BadInput, MissingFile
from urst_tiles.field import Field, Lattice, Regions
from urst_tiles.geometry import Box
from urst_tiles.moments import Moments
from urst_tiles.nets.keep_colours import recoloured
from urst_tiles.nets.module.style import ModuleStyle
from urst_tiles.options import Options
from urst_tiles.progress import Progress, silent
from urst_tiles.source import Source
from urst_tiles.source.mask import open_mask, spool_mask
from urst_tiles.source.picture import read_picture
from urst_tiles.storage.names import address, reason, require_file


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A model, the weights and the style images, and how they are used.

    Attributes
    ----------
    model : a name in ``nets.MODELS``, or package.module:function.
    weights : folder that has a subfolder for each model.
    styles : pairs of a style and a weight. A style is the path of a style image or checkpoint, or the name of
        a style of the model.
    style_size : short side, in pixels, to which a style image is resized.
    alpha : strength of the style: 0 leaves the content as it is, 1 applies the style in full.
    stroke : factor, a power of two, by which the image is reduced for the first of the passes from coarse to
        fine, for a network that does not paint levels.
    levels : for a network that paints levels, how many there are from this one up to the coarsest; else 0.
    number : how often the image was halved for this level.
    preserve_color : ``none``, ``luminance`` or ``coral``.
    stamps : size in bytes and time of the last change in nanoseconds of the file of each style that is a
        path. They tell apart files that had the same name at different times.
    regions : the number in the mask of each style; empty if all styles are mixed everywhere.
    field : the field over the image, for a mask or local statistics; None if one style and one set of
        statistics hold everywhere.
    method : of a model that transfers colours; else empty.
    white : red, green and blue of the glass of a slide, in 0..1; None to estimate them.
    stains : of the model stain, the names of the stains whose amounts are written instead of colours.
    stains_as : the data type of these amounts, "uint16" or "float32".
    looks : of a model that transfers colours, what was measured of the reference of each style, as the text
        of a look file (`urst_tiles.nets.colour.look`); filled in by `with_looks`.
    depth : bits of the samples of the image, 8 or 16.
    look : hex SHA-256 of the look of a painting network whose path is the only style; else empty.
    colours : mean (3) and covariance (3 x 3, row by row) of the colours of the image, if style images shall
        take on these colours; else None.
    """

    model: str
    weights: Path
    styles: tuple[tuple[Path | str, float], ...]
    style_size: int = 512
    alpha: float = 1.0
    stroke: int = 1
    levels: int = 0
    number: int = 0
    preserve_color: str = "none"
    stamps: tuple[tuple[int, int], ...] = ()
    regions: tuple[int, ...] = ()
    field: Field | None = None
    colours: tuple[float, ...] | None = None
    method: str = ""
    white: tuple[float, float, float] | None = None
    stains: tuple[str, ...] = ()
    stains_as: str = "uint16"
    looks: tuple[str, ...] = ()
    depth: int = 8
    look: str = ""

    def with_looks(self, looks: Sequence[nets.Look], depth: int) -> Recipe:
        """The same recipe with the looks of its styles, for an image whose samples have ``depth`` bits."""
        return replace(self, looks=tuple(look.to_json() for look in looks), depth=depth)

    def over(self, field: Field | None) -> Recipe:
        """The same recipe with another field."""
        return replace(self, field=field)

    def of_part(self, part: Box) -> Recipe:
        """The same recipe as seen from the corner of a part of the image."""
        return self if self.field is None else self.over(self.field.of_part(part))

    def on_levels(self, shape: tuple[int, int], stroke: float | None) -> Recipe:
        """The same recipe for an image of ``shape``, whose coarsest strokes are ``stroke`` times as large as
        the finest; None for as large as in the painting."""
        if not nets.family(self.model).paints_levels:
            return self
        factor = min(shape) / COARSEST if stroke is None else stroke
        most = max(1, int(math.log2(max(2, min(shape) / SMALLEST))))
        return replace(self, stroke=1, levels=max(1, min(most, 1 + round(math.log2(max(1.0, factor))))))

    def above(self) -> Recipe:
        """The recipe of the level above, whose result is the picture of the painting alone."""
        return replace(self, levels=self.levels - 1, number=self.number + 1, alpha=1.0, preserve_color="none")

    def in_colours(self, colours: Moments) -> Recipe:
        """The same recipe, whose style images take on ``colours``.

        ``colours`` are the moments, with a covariance, of the image's pixels (red, green, blue) in 0..1.
        """
        return replace(self, colours=(*colours.mean.tolist(), *colours.covariance().ravel().tolist()))

    def ingredients(self) -> nets.StyleImages:
        """Pairs of a style and a weight.

        A style image is read as float32, (h, w, 3), in 0..1. A named style or a checkpoint is a dict of
        tensors. Of a model that transfers colours it is a look.
        """
        if nets.family(self.model).methods:
            weighted = zip(self.looks, self.styles or (("standard", 1.0),), strict=True)
            return [(self._look(text), weight) for text, (_, weight) in weighted]
        return [(self._ingredient(style), weight) for style, weight in self.styles]

    def _look(self, text: str) -> Any:
        return replace(nets.Look.from_json(text), depth=self.depth, given_white=self.white)

    def _ingredient(self, style: Path | str) -> NDArray[np.float32] | dict[str, Tensor]:
        family = nets.family(self.model)
        if isinstance(style, str):
            return family.style_named(style) if family.style_named else nets.named_styles.features(style)
        if family.load_style:
            with weights.as_bad_weights(style):
                return family.load_style(style)
        if family.learns and nets.style_file.is_style_file(style):
            return nets.style_file.load_style_file(style)
        image = read_picture(style, self.style_size)
        if self.colours is None:
            return image
        values = np.array(self.colours)
        return recoloured(image, values[:3], values[3:].reshape(3, 3))

    def build(self) -> nets.Style | nets.Composition:
        """Read the files and build the style."""
        if self.look:
            return self.frozen_look().style
        ingredients = self.ingredients()
        groups = [[one] for one in ingredients] if self.regions else [ingredients]
        styles = tuple(self._style(group) for group in groups)
        if self.field is None:
            return styles[0]
        painters = [style for style in styles if isinstance(style, nets.PainterStyle)]
        return nets.Composition(nets.painter.alike(painters) if painters else styles, self.field)

    def _style(self, ingredients: nets.StyleImages) -> nets.Style:
        style = nets.build(self.model, self.weights, ingredients, alpha=self.alpha)
        if self.stains:
            return nets.stain_maps(style, self.stains, self.stains_as == "float32")
        if isinstance(style, nets.PainterStyle):
            return style.at_level(finer=self.levels > 1)
        return nets.CascadeStyle(style, self.stroke) if self.stroke > 1 else style

    def frozen_look(self) -> nets.PaintingLook:
        """The look of the recipe; BadInput if its file has changed since the recipe was made."""
        path = Path(self.styles[0][0])
        look = nets.read_painting_look(path, self.model)
        if look.sha256 != self.look:
            raise BadInput(f"{path} was changed while the job began; give the same command again")
        return look

    def finish(self, net: nets.LocalNet) -> nets.LocalNet:
        """The network with the steps that follow it: with ``preserve_color="luminance"`` the colours of the
        image return."""
        return nets.Luminance(net) if self.preserve_color == "luminance" else net

    def told(self) -> dict[str, str]:
        """The hashes of the weights, and the names and hashes of the styles, each as text in JSON.

        A style is ``{"name", "sha256", "weight"}``, with ``"region"`` where a mask says where it applies; the
        names of files are without their folders, and a style that comes with the model has no hash.
        """
        styles = [
            {"name": style if isinstance(style, str) else style.name, "weight": weight}
            | ({"sha256": weights.sha256_of(style)} if isinstance(style, Path) else {})
            | ({"region": self.regions[i]} if self.regions else {})
            for i, (style, weight) in enumerate(self.styles)
        ]
        files = {} if self.look else weights.hashes(self.model, self.weights)
        return {"styles": json.dumps(styles, sort_keys=True), "weights": json.dumps(files, sort_keys=True)}

    @property
    def masked(self) -> bool:
        """Whether a mask says where each style applies."""
        return isinstance(self.field, Regions)


#: The shorter side in pixels of the coarsest level of a picture, about, and the least that it may have.
COARSEST, SMALLEST = 512, 32

#: Name of the file in a job folder that holds the mask.
MASK = "mask.npy"

OneStyle = str | os.PathLike[str]
StyleArgument = OneStyle | Sequence[tuple[OneStyle, float]] | Mapping[int, OneStyle] | ModuleStyle | None


def recipe_of(style: StyleArgument, options: Options) -> Recipe:
    """The recipe for a style argument of `stylize` and the options.

    Paths in it are absolute, since workers run in other folders.

    Raises
    ------
    BadInput : no style is given, the model is unknown, or a control does not go with the model.
    MissingFile : a style image or checkpoint does not exist.
    """
    if options.look is not None:
        return _of_look(style, options.look, options)
    model = style.model if isinstance(style, ModuleStyle) else options.network
    takes_style, methods = nets.family(model).takes_style, nets.family(model).methods
    pairs, regions = pairs_of(style)
    if takes_style and nets.family(model).needs_style and not pairs and options.stains is None:
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
    method = method_of(model, options)
    if methods and options.method is None:
        method = next((look_method(one, model) for one, _ in styles if _is_look(one)), method)
    check_controls(model, styles, regions, options)
    return Recipe(
        model=model,
        weights=weights.folder(options.weights).absolute(),
        styles=styles,
        style_size=options.style_size,
        alpha=options.alpha,
        stroke=options.stroke if isinstance(options.stroke, int) else 1,
        preserve_color=options.preserve_color,
        stamps=tuple(_stamp(style) for style, _ in styles if isinstance(style, Path)),
        regions=regions,
        method=method,
        white=parse_white(options.white) if methods else None,
        stains=stains_of(model, method, options),
        stains_as="float32" if options.dtype == "float32" else "uint16",
    )


def _of_look(style: StyleArgument, path: Path, options: Options) -> Recipe:
    """The recipe for a look of a painting network."""
    if isinstance(style, ModuleStyle) or style:
        raise BadInput("--look holds its style; leave --style out")
    require_file(path, "look file")
    look = nets.read_painting_look(path.absolute(), options.model)
    if options.model not in (Options.model, look.model):
        raise BadInput(f"{path} is a look of --model {look.model} and knows it; leave --model out")
    return Recipe(
        model=look.model,
        weights=weights.folder(options.weights).absolute(),
        styles=((path.absolute(), 1.0),),
        alpha=look.alpha,
        preserve_color=options.preserve_color,
        stamps=(_stamp(path),),
        look=look.sha256,
    )


def _is_look(style: Path | str) -> bool:
    return isinstance(style, Path) and nets.is_look(style)


def look_method(style: Path | str, model: str) -> str:
    """The method of a look file; BadInput if it is one of another model than ``model``."""
    look = nets.read_look(Path(style))
    if look.model != model:
        raise BadInput(
            f"{style} is a look of --model {look.model}, not of {model}; give --model {look.model}"
        )
    return look.method


def method_of(model: str, options: Options) -> str:
    """The method of a model that transfers colours, by default its first; empty for other models.

    Raises
    ------
    BadInput : the model has no such method, or none at all; or a white is given to another model than stain.
    """
    methods = nets.family(model).methods
    if model != "stain" and options.white != "auto":
        raise BadInput(
            f"--white is the colour of the glass of a slide, for --model stain and not for {model}"
        )
    if options.method is None:
        return methods[0] if methods else ""
    if not methods:
        raise BadInput(f"--method is for --model colour and --model stain; leave it out with --model {model}")
    return nets.colour.checked_method(options.method, methods, model)


def stains_of(model: str, method: str, options: Options) -> tuple[str, ...]:
    """The names of the stains that ``--stains`` asks for, in its order; none where it is not given.

    Raises
    ------
    BadInput : the model or the method takes no slide apart, or a name is unknown.
    """
    if options.stains is None:
        return ()
    if model != "stain" or method not in nets.stain.APART:
        raise BadInput(
            "--stains writes amounts of stains, for --model stain with --method"
            f" {' or '.join(nets.stain.APART)}, got --model {model}"
            + (f" --method {method}" if method else "")
        )
    if options.tiles != "one":
        raise BadInput("--stains writes one file; leave --tiles out")
    if options.alpha != 1.0:
        raise BadInput("--stains writes amounts, which are not mixed with the image; leave --alpha out")
    return nets.stain.checked_names(options.stains)


def parse_white(text: str) -> tuple[float, float, float] | None:
    """Red, green and blue in 0..1 of a text such as ``245,243,240`` or ``240``, in levels from 0 to 255; None
    for ``auto``. BadInput for any other text."""
    if text == "auto":
        return None
    try:
        levels = [float(part) for part in text.split(",")]
    except ValueError:
        levels = []
    if len(levels) not in (1, 3) or not all(0 < level <= 255 for level in levels):
        raise BadInput(f"--white must be auto, R,G,B or one number, above 0 and up to 255, got {text!r}")
    red, green, blue = (level / 255 for level in (levels if len(levels) == 3 else levels * 3))
    return red, green, blue


def _stamp(style: Path) -> tuple[int, int]:
    """The size of a file in bytes, and the time of its last change in nanoseconds."""
    state = style.stat()
    return state.st_size, state.st_mtime_ns


def pairs_of(style: StyleArgument) -> tuple[list[tuple[OneStyle, float]], tuple[int, ...]]:
    """Pairs of a style and a weight, and the number in the mask of each; no numbers if there is no mask."""
    if style is None or isinstance(style, ModuleStyle):
        return [], ()
    if isinstance(style, Mapping):
        return [(one, 1.0) for one in style.values()], tuple(int(number) for number in style)
    return [(style, 1.0)] if isinstance(style, str | os.PathLike) else list(style), ()


def check_controls(
    model: str, styles: Sequence[tuple[Path | str, float]], regions: Sequence[int], options: Options
) -> None:
    """Raise BadInput if a control does not go with the model, with the styles or with another control."""
    family = nets.family(model)
    whole = family.load_style is not None or not family.takes_style
    if bool(options.mask) != bool(regions):
        raise BadInput("--mask needs a style for each region, as in --style 1=a.jpg --style 2=b.jpg")
    if options.mask_attribute is not None and not options.mask:
        raise BadInput("--mask-attribute names the numbers of polygons in the file of --mask; give that too")
    if regions and not all(0 <= number <= 65535 for number in regions):
        raise BadInput(f"the numbers of --mask lie in 0..65535, got {', '.join(map(str, regions))}")
    if regions and whole:
        raise BadInput(
            f"--mask mixes styles inside the network, and the style of --model {model} is the whole network;"
            " choose another model"
        )
    if regions and options.statistics in ("local", "tile"):
        raise BadInput(
            f"--mask goes with --statistics thumbnail, sampled or exact, not with {options.statistics}"
        )
    if isinstance(options.stroke, str) and not (family.paints_levels or family.methods):
        raise BadInput(
            f"--stroke {options.stroke} is for --model painter, whose strokes have a known size, and not for"
            f" {model}; choose it, or give a number such as 4"
        )
    if family.methods and (regions or options.stroke not in (None, 1) or options.preserve_color != "none"):
        which = (
            "--mask" if regions else "--stroke" if options.preserve_color == "none" else "--preserve-color"
        )
        raise BadInput(f"--model {model} transfers colours and paints nothing; leave {which} out")
    images = bool(styles) and not whole and all(map(is_style_image, (style for style, _ in styles)))
    if options.preserve_color == "coral" and not images:
        raise BadInput(
            "--preserve-color coral gives the image's colours to a style image, and there is none here;"
            " give one, or choose luminance"
        )


def is_style_image(style: Path | str) -> TypeGuard[Path]:
    """Whether a style is an image, and neither a name nor a style file."""
    return isinstance(style, Path) and not nets.style_file.is_style_file(style)


def _style_of(style: OneStyle, options: Options) -> Path | str:
    """The absolute path of a style image or checkpoint, or the name of a named style."""
    path, name = Path(style), os.fspath(style)
    family, learned = nets.family(options.network), nets.style_file.is_style_file(path)
    if family.learns and (learned or os.path.isfile(path) or os.sep in name):
        require_file(name, "style file" if learned else "style image")
        return path.absolute()
    if learned and os.path.isfile(path):
        raise BadInput(f"{name} is a learned style, which --model painter paints; give --model painter")
    if family.style_named or (options.network == "stain" and name == "standard"):
        return name
    if family.methods:
        require_file(name, "look file" if nets.is_look(path) else "reference image")
    if path.suffix.lower() == ".safetensors" and os.path.isfile(path) and not family.load_style:
        raise BadInput(f"{name} is no image; if it is a look, give it as --look {name} without --style")
    if os.path.isfile(path):
        return path.absolute()
    if family.load_style:
        require_file(name, "checkpoint")
    known = nets.named_styles.titles()
    if name in known and options.network != "lite":
        raise BadInput(
            f"{name} is a style of --model lite and painter; give --model {options.network} a style image"
        )
    if name in known and options.style_size != nets.named_styles.SIZE:
        raise BadInput(
            f"the named style {name} was measured at --style-size {nets.named_styles.SIZE};"
            f" give its image for {options.style_size}"
        )
    if name in known:
        return name
    if os.path.lexists(path) or os.sep in name or address(name) or reason(name):
        require_file(name, "style image")
    near = nets.named_styles.near(name.lower())
    hint = f" (near it: {', '.join(near)})" if near else ""
    raise MissingFile(
        f"there is no style image {path} and no style of that name{hint}; `urst-tiles styles` lists them"
    )


def field_of(recipe: Recipe, source: Source, options: Options, folder: Path) -> Field | None:
    """The field over an image for a mask or for local statistics; None if the options ask for
    neither.

    ``folder`` is the folder into which `prepare_mask` writes the mask.
    """
    shape = source.shape
    if options.mask:
        mask = open_mask(options.mask, source, options.mask_attribute)
        return Regions(*shape, folder / MASK, recipe.regions, options.feather, mask.fingerprint)
    return Lattice.of_scale(*shape, options.local_scale) if options.statistics == "local" else None


def prepare_mask(options: Options, source: Source, folder: Path, progress: Progress = silent) -> None:
    """Unpack the mask of the options for an image, if they have one, into ``folder``."""
    if options.mask:
        spool_mask(open_mask(options.mask, source, options.mask_attribute), folder / MASK, progress)
