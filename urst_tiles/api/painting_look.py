"""Looks of painting networks: many images measured as one, and the style frozen once for all of them."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from urst_tiles import nets
from urst_tiles.api.opening import open_input, tell_choice
from urst_tiles.engine.device import resolve_device
from urst_tiles.engine.loaded import build_style
from urst_tiles.engine.statistics import measure_several
from urst_tiles.engine.threads import on_device
from urst_tiles.errors import BadInput
from urst_tiles.machine import cpu_count
from urst_tiles.nets import Measured, PaintingLook
from urst_tiles.nets.base import Stylised
from urst_tiles.nets.module import only_here
from urst_tiles.nets.module.style import ModuleStyle
from urst_tiles.options import TRANSFERS, Options
from urst_tiles.progress import Progress, silent
from urst_tiles.recipe import Recipe, StyleArgument, recipe_of
from urst_tiles.source import Source, array_source
from urst_tiles.source.stretch import stretch_text


def measure_painting_look(
    inputs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    style: StyleArgument,
    options: Options | None = None,
    *,
    progress: Progress = silent,
    **changes: Any,
) -> PaintingLook:
    """Measure images as if all were parts of one, and freeze a style for them all.

    At each site of the network the moments are merged over all valid pixels of all images before the next
    site is measured. Of thumbnails a pixel counts as many times as it stands for pixels of its image. Images
    that are not uint8 are all stretched as the first of them, unless ``stretch`` is given.

    Parameters
    ----------
    inputs : an image file, or a list of image files, each as `open_source` takes them.
    style : as for `stylize`, but for masks.
    options, changes : the options of a job, of which the model, its controls, ``statistics`` ("thumbnail",
        which is the default, or "exact"), ``device``, ``threads`` and those that say how an image is read
        have an effect.
    progress : called with the name of a stage, and how much of it is done out of how much.

    Raises
    ------
    UrstError : an image cannot be read, or the options do not go with a look.
    """
    chosen = Options.of(options, changes).for_looks()
    refuse_unfit(chosen, style)
    recipe = recipe_of(style, chosen)
    named = [inputs] if isinstance(inputs, str | os.PathLike) else list(inputs)
    if not named:
        raise BadInput("no image given: name the images to measure")
    with TemporaryDirectory(prefix="urst-tiles-") as folder:
        sources = _opened(named, chosen, Path(folder), progress)
        return _measured(recipe, sources, chosen, progress)


def refuse_unfit(options: Options, style: StyleArgument) -> None:
    """Raise BadInput if a look cannot be made as the options say."""
    model = style.model if isinstance(style, ModuleStyle) else options.network
    if model in TRANSFERS:
        raise BadInput(f"the look of --model {model} is a .json file of references; see measure_look")
    if nets.family(model).paints_levels:
        raise BadInput(
            f"--model {model} has statistics of its own for each level and size of an image, so no look holds"
            " for many images; choose another model, as --model lite"
        )
    if model == "identity":
        raise BadInput("--model identity changes nothing and measures nothing; choose another model")
    if only_here(model):
        raise BadInput(
            "a network handed over in Python is known to this process alone, and a look is for others too:"
            " give model='package.module:function'"
        )
    if options.statistics not in ("auto", "thumbnail", "exact"):
        raise BadInput(
            f"a look holds for the whole of many images: choose --statistics thumbnail or exact, not"
            f" {options.statistics}"
        )
    for name in ("look", "mask", "stroke"):
        if getattr(options, name) not in (None, 1):
            raise BadInput(f"a look is one network for whole images; leave --{name} out")
    if options.preserve_color != "none":
        raise BadInput(
            "a look knows no --preserve-color; leave it out, and give --preserve-color luminance to stylize"
        )


def _opened(
    named: Sequence[str | os.PathLike[str]], options: Options, folder: Path, progress: Progress
) -> list[Source]:
    """The images, prepared; all with the stretch that the first gets.

    Raises
    ------
    BadInput : some are uint8, and others are not.
    """
    sources: list[Source] = []
    for number, path in enumerate(named):
        source = open_input(path, options)
        tell_choice(source)
        first = sources[0] if sources else source
        if (first.file_dtype == np.uint8) != (source.file_dtype == np.uint8):
            raise BadInput(
                f"{source.path} is {source.file_dtype}, and {first.path} is {first.file_dtype}: their values"
                " do not mean the same; convert one of them, or measure looks of their own"
            )
        sources.append(source.prepare(folder / str(number), thumbnail=options.thumbnail, progress=progress))
        if number == 0 and sources[0].stretch is not None:
            options = replace(options, stretch=stretch_text(sources[0].stretch))
    return sources


def _measured(
    recipe: Recipe, sources: Sequence[Source], options: Options, progress: Progress
) -> PaintingLook:
    """The look of prepared images."""
    style, device = build_style(recipe), resolve_device(options.device)
    threads = options.threads or cpu_count()
    assert isinstance(style, nets.Style)
    seen = _OneByOne(sources, options.statistics != "exact")
    stands = [prod(source.shape) / prod(one.shape) for source, one in zip(sources, seen, strict=True)]
    weights = [one / min(stands) for one in stands]
    found = measure_several(style, seen, device=device, threads=threads, weights=weights, progress=progress)
    net = on_device(1, nets.freeze, style, found)
    assert isinstance(net, Stylised)
    stretch = sources[0].stretch
    told = recipe.told()
    facts = {
        "model": recipe.model,
        "alpha": recipe.alpha,
        "styles": json.loads(told["styles"]),
        "weights": json.loads(told["weights"]),
        "measured on": "exact" if options.statistics == "exact" else "thumbnail",
        "measured from": [asdict(_facts(source)) for source in sources],
        "stretch": None if stretch is None else stretch_text(stretch),
    }
    return PaintingLook(net, facts, found)


@dataclass(frozen=True)
class _OneByOne(Sequence[Source]):
    """Images, or their thumbnails, each made when it is asked for: the memory of one is free before the next.

    Attributes
    ----------
    sources : the prepared images.
    small : whether it is their thumbnails.
    """

    sources: Sequence[Source]
    small: bool

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: Any) -> Any:
        # What it keeps in memory, such as a thumbnail, goes with it.
        fresh = self.sources[index].without_metadata()
        return array_source(fresh.thumbnail) if self.small else fresh


def _facts(source: Source) -> Measured:
    height, width = source.shape
    return Measured(
        name=source.path.name,
        width=width,
        height=height,
        dtype=str(source.file_dtype),
        fingerprint=source.fingerprint,
    )
