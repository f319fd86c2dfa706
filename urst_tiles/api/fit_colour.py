"""`fit_colour`: the transfer that a job does, as an object that is applied to arrays and tensors."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles import nets
from urst_tiles.api.look import with_looks
from urst_tiles.api.opening import open_input, tell_choice, tell_notes
from urst_tiles.api.output import check_output
from urst_tiles.engine.kernel import LEVELS, Kernel
from urst_tiles.engine.statistics import measure_several
from urst_tiles.errors import BadInput
from urst_tiles.geometry import Box
from urst_tiles.nets import LocalNet, Look
from urst_tiles.nets.colour.cube import LEAST, MOST, cube_text, lattice
from urst_tiles.options import Options
from urst_tiles.progress import Progress, silent
from urst_tiles.recipe import Recipe, StyleArgument, parse_white, recipe_of
from urst_tiles.source import Source, array_source
from urst_tiles.storage.publish import publish

Image = str | os.PathLike[str] | Source | NDArray[Any]


class ColourTransform:
    """A transfer of colours whose statistics are fixed: a function of a pixel's colour alone.

    It can be pickled, and so be a transform of a ``torch.utils.data.Dataset`` with workers.

    Attributes
    ----------
    net : the frozen network, as in the file that a job makes.
    """

    def __init__(self, net: LocalNet) -> None:
        self.net = net

    def __call__(self, pixels: Any) -> Any:
        """The colours of ``pixels`` transferred, as a new array or tensor of the same shape and type.

        Parameters
        ----------
        pixels : a NumPy array (..., height, width, 3), or a torch tensor (..., 3, height, width); with as
            many channels as the image had bands, if those are not red, green and blue; uint8 or
            uint16 in their full range, or floats in 0..1. Integers become the very levels that a job writes
            into its output; floats are clipped to 0..1 and not rounded. If the image had floats that stay as
            they are, floats in its unit, which become those that a job writes.

        Raises
        ------
        BadInput : the shape or the type is another.
        """
        if isinstance(pixels, np.ndarray):
            return self._of_array(pixels)
        if not hasattr(pixels, "movedim"):
            raise BadInput(f"a NumPy array or a torch tensor is needed, got {type(pixels).__name__}")
        if pixels.ndim < 3 or pixels.shape[-3] != self.net.reads:
            raise BadInput(
                f"a tensor must be (..., {self.net.reads}, height, width), got {tuple(pixels.shape)}"
            )
        array = self._of_array(pixels.detach().cpu().movedim(-3, -1).numpy())
        return pixels.new_tensor(array).movedim(-1, -3).contiguous()

    def save_cube(self, path: str | os.PathLike[str], size: int = 33) -> None:
        """Write the transfer as a table of colours (``.cube``) with ``size`` steps, for programs that read
        these.

        Between the steps such programs interpolate, so a steep or bent transfer is met only about.

        Raises
        ------
        BadInput : the name does not end in ``.cube``, or the size is not allowed.
        """
        target = check_output(path, suffixes=None)
        if target.suffix.lower() != ".cube" or not LEAST <= size <= MOST:
            raise BadInput(
                f"a table of colours is a .cube file of {LEAST} to {MOST} steps, got {path} and {size}"
            )
        if self.net.reads != 3:
            raise BadInput(
                f"a table of colours is of red, green and blue, and not of {self.net.reads} band(s)"
            )
        table = self._of_array(lattice(size)).astype(np.float64).reshape(size, size, size, 3)
        publish(target, cube_text(table, "urst-tiles").encode())

    def _of_array(self, pixels: NDArray[Any]) -> NDArray[Any]:
        bands = self.net.reads
        if pixels.ndim < 3 or pixels.shape[-1] != bands:
            raise BadInput(f"an array must be (..., height, width, {bands}), got {pixels.shape}")
        if self.net.as_is and pixels.dtype.kind != "f":
            raise BadInput(f"pixels must be floats in the unit of the image, got {pixels.dtype}")
        if pixels.dtype not in LEVELS and pixels.dtype.kind != "f":
            raise BadInput(f"pixels must be uint8, uint16 or floats in 0..1, got {pixels.dtype}")
        flat = pixels.reshape(1, -1, pixels.shape[-2], bands)
        if not flat.size:
            return pixels.copy()
        box = Box(0, 0, *flat.shape[1:3])
        if self.net.as_is:
            made = Kernel(self.net, out_dtype=np.float32).run(flat.astype(np.float32), [box], [box])[0]
        elif pixels.dtype in LEVELS:
            made = Kernel(self.net, out_dtype=pixels.dtype).run(flat, [box], [box])[0]
        else:
            made = Kernel(self.net).run_unit(flat)
        return made.reshape(pixels.shape).astype(pixels.dtype, copy=False)


def fit_colour(
    source: Image | Sequence[Image],
    style: StyleArgument | Look = None,
    options: Options | None = None,
    *,
    method: str | None = None,
    progress: Progress = silent,
    **changes: Any,
) -> ColourTransform:
    """Measure an image and a reference, and fix the transfer from the colours of the one to those of the
    other.

    What it makes of a patch of the image equals, to the level, what `stylize` writes of the whole image with
    the same options.

    Parameters
    ----------
    source : the image whose colours are to be changed: a file, a prepared `Source`, or an array, uint8 or
        uint16, (height, width, 3 or 4), where 0 in a fourth channel marks invalid pixels. Or a list of these,
        which are measured together, as parts of one image.
    style : the reference, as for `stylize`: a path, or a list of (path, weight) pairs, of images or look
        files; or a `Look`. With ``model="stain"`` and the method macenko it may be "standard", the default.
    method : the method; one of ``model="stain"`` alone (macenko, vahadane) chooses that model.
    options, changes : the options of a job; the default of ``model`` is "colour", or "stain" for these. Its
        statistics are those of the full image, or of the thumbnail.

    Raises
    ------
    UrstError : an image cannot be read, or the options do not go together.
    """
    if options is None and "model" not in changes:
        only_stain = style == "standard" or method in set(nets.family("stain").methods) - set(
            nets.family("colour").methods
        )
        changes["model"] = style.model if isinstance(style, Look) else "stain" if only_stain else "colour"
    if method is not None:
        changes["method"] = method
    chosen = Options.of(options, changes)
    if chosen.stains:
        raise BadInput("fit_colour makes colours; leave stains out, and write their maps with stylize")
    if chosen.statistics not in ("auto", "exact", "thumbnail"):
        raise BadInput(f"fit_colour takes statistics exact or thumbnail, got {chosen.statistics!r}")
    several: list[Any] = list(source) if isinstance(source, list | tuple) else [source]
    if not several:
        raise BadInput("no image given to measure")
    with ExitStack() as stack:
        sources = [_prepared(one, chosen, stack, progress) for one in several]
        subject = _recipe(style, chosen, sources[0], progress).build()
        images = (
            [array_source(one.thumbnail, colours=one.colours, as_is=one.dtype.kind == "f") for one in sources]
            if chosen.statistics == "thumbnail"
            else sources
        )
        found = measure_several(subject, images, progress=progress)
        tell_notes(sources[0], nets.notes_of(subject, found))
        return ColourTransform(nets.freeze(subject, found))


def _prepared(image: Image, options: Options, stack: ExitStack, progress: Progress) -> Source:
    """An image as a prepared source; what is unpacked lies in a folder that goes with ``stack``."""
    if isinstance(image, Source):
        return image
    if not isinstance(image, str | os.PathLike):
        return array_source(image)
    source = open_input(image, options)
    tell_choice(source)
    folder = stack.enter_context(TemporaryDirectory(prefix="urst-tiles-"))
    return source.prepare(Path(folder), thumbnail=options.thumbnail, progress=progress)


def _recipe(style: StyleArgument | Look, options: Options, source: Source, progress: Progress) -> Recipe:
    """The recipe for a style, with its look."""
    if not isinstance(style, Look):
        return with_looks(recipe_of(style, options), source, options, progress)
    if (options.network, options.method or style.method) != (style.model, style.method):
        raise BadInput(f"this is a look of model {style.model!r} and method {style.method!r}")
    recipe = Recipe(
        model=style.model,
        weights=Path(),
        styles=(("look", 1.0),),
        alpha=options.alpha,
        method=style.method,
        white=parse_white(options.white),
    )
    return recipe.with_looks([style], 8 * source.dtype.itemsize)
