"""Formulas for the host memory that a job takes besides its blocks, in bytes, known before it begins.

`needs_of` has them all.

`Plan` has the formulas for blocks, and `urst_tiles.pyramid.budget` those for writing them.
"""

from __future__ import annotations

import sys
from math import prod
from typing import TypedDict

from urst_tiles import nets
from urst_tiles.engine.counted import COUNT_BYTES, SUM_BYTES, is_counted
from urst_tiles.engine.device import built_for_cards
from urst_tiles.engine.sampled import sample_pixels
from urst_tiles.engine.statistics import measuring_grid
from urst_tiles.geometry import Grid, ceil_div
from urst_tiles.nets.base import Site, SteppedStyle
from urst_tiles.nets.composition import Subject, measured_sites
from urst_tiles.nets.keep_colours import ColourStatistics
from urst_tiles.options import Options
from urst_tiles.plan import (
    BASE_BYTES,
    CARDS_BASE_BYTES,
    CARDS_BUILD_BASE_BYTES,
    FILL_BYTES_PER_PIXEL,
    ITEMSIZE,
    read_bytes,
)
from urst_tiles.pyramid import Encoding, write_bytes
from urst_tiles.pyramid.finish import finish_bytes as format_bytes
from urst_tiles.pyramid.parts import SUPER
from urst_tiles.recipe import Recipe, is_style_image
from urst_tiles.source import Source, thumbnail_shape
from urst_tiles.source.mask import AnyMask, reading_bytes
from urst_tiles.source.picture import picture_shape

#: How many copies of the metadata there are for a moment, beyond that which is held, while it is read from
#: the source or written into the output.
METADATA_COPIES = 4

#: How many copies of the weights there are while a network is frozen, which is done in float64.
FREEZING_COPIES = 5


#: What a pass whose large arrays lie apart takes of one that leaves gaps between them, for which the bytes
#: per pixel of networks stand.
APART = 0.95


class Needs(TypedDict):
    """The memory that a plan names besides that of its blocks; each is described at `Plan`."""

    base_bytes: int
    prepare_bytes: int
    held_bytes: int
    fill_pixels: int
    finish_bytes: int
    reader_bytes: int
    writer_bytes: int
    measure_bytes: int
    measure_read_bytes: int


def needs_of(
    source: Source,
    recipe: Recipe,
    style: Subject,
    options: Options,
    *,
    grid: Grid,
    encoding: Encoding,
    device: str,
    encoders: int,
    weight_bytes: int,
    at_once: bool,
    seen: Source,
    mask: AnyMask | None = None,
    output: str = "tif",
) -> Needs:
    """What a job needs besides its blocks.

    Parameters
    ----------
    style : the style that `build_style` makes of the recipe.
    options : the options of the job, of which ``statistics`` is no longer ``auto``.
    grid, encoding, device, encoders : those of the plan.
    weight_bytes : size of the weights of the network at the precision of the plan.
    at_once : whether one forward pass over the whole thumbnail measures every site.
    seen : what is measured: the source, or the part of it that is made.
    mask : that of the options, if there is one.
    output : the format of the output, by the word of ``--format``.
    """
    return Needs(
        base_bytes=base_bytes(device),
        prepare_bytes=max(
            begin_bytes(source, recipe, style, options, weight_bytes),
            seen.prepare_bytes(options.thumbnail),
            reading_bytes(mask) if mask else 0,
        ),
        held_bytes=held_bytes(source, seen, style, options),
        fill_pixels=thumbnail_pixels(source, options) * ceil_div(source.colours, 3)
        if source.has_valid
        else 0,
        finish_bytes=ending_bytes(source, grid, encoding, encoders, output),
        reader_bytes=source.reader_bytes,
        writer_bytes=write_bytes(grid, encoding, encoders),
        measure_bytes=measure_bytes(style, seen, options, device, at_once),
        measure_read_bytes=measure_read_bytes(style, seen, options, device),
    )


def base_bytes(device: str) -> int:
    """Memory of the libraries in one process that computes on ``device``."""
    if device != "cpu":
        return CARDS_BASE_BYTES
    return CARDS_BUILD_BASE_BYTES if built_for_cards() else BASE_BYTES


def begin_bytes(source: Source, recipe: Recipe, style: Subject, options: Options, weight_bytes: int) -> int:
    """Peak memory of what comes before the first block, besides libraries and what is held (`held_bytes`).

    The steps are: read the metadata, build the style, unpack the source and make its thumbnail, freeze the
    network, whose weights take ``weight_bytes``.
    """
    return max(
        METADATA_COPIES * encoded_bytes(source),
        building_bytes(recipe, style),
        source.prepare_bytes(options.thumbnail),
        FREEZING_COPIES * weight_bytes,
    )


def held_bytes(source: Source, seen: Source, style: Subject, options: Options) -> int:
    """Memory that the process of a job holds to its end: the style, the metadata for the output, and the
    thumbnail of ``seen``, which is measured."""
    measured = options.statistics == "thumbnail" and bool(measured_sites(style))
    pixel = source.channels * source.dtype.itemsize
    thumbnail = thumbnail_pixels(seen, options) * pixel if measured else 0
    return style_bytes(style) + metadata_bytes(source) + thumbnail


def thumbnail_pixels(source: Source, options: Options) -> int:
    """The number of pixels of the thumbnail."""
    return prod(thumbnail_shape(source.shape, options.thumbnail))


def style_bytes(style: Subject) -> int:
    """Memory of the weights and features of a style; tensors that styles share count once."""
    styles = style.styles if isinstance(style, nets.Composition) else (style,)
    tensors = {t.data_ptr(): t.nbytes for one in styles for t in one.state()[0].values()}
    return sum(tensors.values())


def building_bytes(recipe: Recipe, style: Subject) -> int:
    """Peak memory of building a style: its style images as float32, one pass of the plain network over the
    largest of them, and the weights as they are read."""
    images = (
        []
        if nets.family(recipe.model).load_style or recipe.looks or recipe.look
        else [s for s, _ in recipe.styles if is_style_image(s)]
    )
    areas = [prod(picture_shape(path, recipe.style_size)) for path in images]
    return int(12 * sum(areas) + max(areas, default=0) * style.plain_bytes) + style_bytes(style)


def metadata_bytes(source: Source) -> int:
    """Memory of the metadata for the output as Python holds it: a number takes 32 bytes."""
    return _metadata_bytes(source, 32)


def encoded_bytes(source: Source) -> int:
    """Bytes of the metadata in the output, at most."""
    return _metadata_bytes(source, 8)


def _metadata_bytes(source: Source, number_bytes: int) -> int:
    info = source.info
    values = [tag.value for tag in info.geo] + [info.icc or b"", info.gdal_metadata or ""]
    return sum(number_bytes * len(v) if isinstance(v, tuple) else sys.getsizeof(v) for v in values)


def finish_bytes(source: Source, grid: Grid, encoding: Encoding, encoders: int) -> int:
    """Peak memory of making the levels above the blocks, and of writing the output."""
    writing = METADATA_COPIES * encoded_bytes(source)
    if grid.block_overviews == grid.overviews:
        return writing
    side = SUPER * grid.tile
    above = Grid(side, side, core=grid.tile, block=side, tile=grid.tile)
    pixels = side * side * encoding.channels * ITEMSIZE[encoding.dtype]
    return max(writing, pixels + write_bytes(above, encoding, encoders))


def ending_bytes(source: Source, grid: Grid, encoding: Encoding, encoders: int, output: str) -> int:
    """The same for an output of any format, by the word of ``--format``."""
    return max(finish_bytes(source, grid, encoding, encoders), format_bytes(output, grid.output, encoding))


def measure_bytes(style: Subject, source: Source, options: Options, device: str, whole: bool) -> int:
    """Peak memory of one forward pass that measures, in which all is float32 and no layers are fused.

    ``whole`` : whether it runs over the whole thumbnail, and not over one window.
    """
    colours = _site_bytes(ColourStatistics(), source, device) if options.preserve_color == "coral" else 0
    if options.statistics in ("tile", "look") or not style.sites:
        return colours
    if whole:
        return max(colours, int(APART * thumbnail_bytes(style, source, options)))
    if options.statistics == "sampled":
        pixel = style.stepped_bytes if isinstance(style, SteppedStyle) else style.plain_bytes
        return max(colours, int(sample_pixels(style, source.shape) * pixel))
    return max(colours, _site_bytes(style, source, device)) + histogram_bytes(style)


def histogram_bytes(style: Subject) -> int:
    """Memory of the histograms at a site, of all members of a field: there are three of each for a moment,
    the sum, what is added to it, and the map that is made of it."""
    members = style.field.members if isinstance(style, nets.Composition) else 1
    counted = [site.measures * site.bins.size for site in measured_sites(style) if site.bins]
    return 3 * 8 * members * max(counted, default=0)


def _site_bytes(style: Subject, source: Source, device: str) -> int:
    """Peak memory of measuring one window at any site of a style, or of counting colours: the sum of the
    counts of two tasks or more takes as much as three of them."""
    if is_counted(source, style):
        return max(COUNT_BYTES, SUM_BYTES // 2)
    passes = (
        (site, measuring_grid(source.shape, style, site, device=device)) for site in measured_sites(style)
    )
    return max((int(_window_bytes(style, site, grid)) for site, grid in passes), default=0)


def _window_bytes(style: Subject, site: Site, grid: Grid) -> float:
    """Peak memory of measuring one window: the pass up to the site; or the features there, twice as float32
    and twice as float64, beside the window."""
    area, core = prod(grid.window), min(grid.core, grid.height) * min(grid.core, grid.width)
    reaching = site.plain_bytes
    if reaching is None or isinstance(style, nets.Composition):
        reaching = pass_bytes(style)
    return max(area * reaching, 12 * area + core * 24 * site.channels / site.stride**2)


def measure_read_bytes(style: Subject, source: Source, options: Options, device: str) -> int:
    """Memory of the pixels that one measuring task reads: of a block of the full image, or of the thumbnail.

    Where the image is continued by reflection, there are two arrays of the pixels for a moment. The thumbnail
    of an image with invalid pixels is a source of its own, with a thumbnail, and a fill of floats.
    """
    styles: list[Subject] = [style, ColourStatistics()] if options.preserve_color == "coral" else [style]
    pixel = source.channels * source.dtype.itemsize
    if options.statistics == "sampled":  # twice: as windows, and stacked
        return 2 * sample_pixels(style, source.shape) * (source.channels + 4) * source.dtype.itemsize
    if not measures_image(options):
        measured = options.statistics == "thumbnail" and any(map(measured_sites, styles))
        copies = pixel if not source.has_valid else 2 * pixel + FILL_BYTES_PER_PIXEL
        return thumbnail_pixels(source, options) * copies if measured else 0
    grids = [
        measuring_grid(source.shape, one, site, device=device)
        for one in styles
        for site in measured_sites(one)
    ]
    copies = 1 if all((grid.height, grid.width) == source.shape for grid in grids) else 2
    return copies * max((read_bytes(grid, source.channels, str(source.dtype)) for grid in grids), default=0)


def measures_image(options: Options) -> bool:
    """Whether the statistics are measured on the whole image, not on the thumbnail or on each window."""
    return options.statistics in ("exact", "local")


def thumbnail_bytes(style: Subject, source: Source, options: Options) -> int:
    """Memory that the plain network takes for the whole thumbnail at once."""
    return int(thumbnail_pixels(source, options) * pass_bytes(style))


def pass_bytes(style: Subject) -> float:
    """Peak bytes per pixel of one pass of the plain network that measures.

    At a site of a covariance the map is a matrix: its product with the features, and the sum of that with the
    shift, are two more arrays. A composition counts its maps itself.
    """
    full = (site.channels / site.stride**2 for site in style.sites if site.full)
    return style.plain_bytes + (0.0 if isinstance(style, nets.Composition) else 8.0 * max(full, default=0.0))
