"""Makes the plan of a job from its options, and decides once what the options leave open."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from math import prod
from typing import Any, Literal, cast

import numpy as np

from urst_tiles import nets
from urst_tiles.budget import measures_image, needs_of, thumbnail_bytes
from urst_tiles.encoding import make_encoding, resolve_dtype
from urst_tiles.engine.colour_table import COLOURS, TABLE_BYTES
from urst_tiles.engine.counted import measuring_passes
from urst_tiles.engine.device import device_kind, resolve_device
from urst_tiles.engine.kernel import Kernel, is_looked_up
from urst_tiles.engine.threads import on_device
from urst_tiles.errors import BadInput, JobDiffers
from urst_tiles.geometry import Box, Grid
from urst_tiles.job.folder import differences
from urst_tiles.machine import available_memory, cpu_count
from urst_tiles.nets.composition import Subject, measured_sites
from urst_tiles.options import Options, Statistics
from urst_tiles.plan import EXPECTED_RATIO, ITEMSIZE, Footprint, Plan
from urst_tiles.pyramid.formats import FORMATS, check_bands, check_size
from urst_tiles.recipe import Recipe
from urst_tiles.source import Source
from urst_tiles.source.mask import AnyMask, open_mask, spool_bytes
from urst_tiles.source.part import cut_out, part_of

#: Side of a TIFF tile of the output in pixels; small images have tiles of half of it.
TILE = 512

#: The least pixels for which a table of all colours is made: each worker process makes it.
WORTH_A_TABLE = 2 * COLOURS

#: Memory that measuring the whole thumbnail at once may take.
THUMBNAIL_BYTES = 3 << 29

#: Memory that the activations of one window may take, unless the options set the size of windows.
WINDOW_BYTES = 1 << 30

#: Time for reading, halving, encoding and writing a pixel (measured by ``benchmarks/identity.py``).
SECONDS_PER_PIXEL = 8e-8

#: Libraries whose version may change the bytes of the output.
PINNED_LIBRARIES = ("torch", "imagecodecs", "tifffile", "pyvips-binary")


def make_plan(
    source: Source,
    recipe: Recipe,
    style: Subject,
    options: Options,
    *,
    pinned: Mapping[str, str] | None = None,
) -> Plan:
    """The plan of a job.

    Parameters
    ----------
    style : the style that `build_style` makes of the recipe.
    pinned : identity of an earlier run of the job. Where the options leave a choice to the machine (threads,
        precision), the choice of that run stays, so that a job can continue on another machine.

    Raises
    ------
    BadPlan : the options do not go together.
    BadInput : this machine does not have the device, or the mask cannot be used.
    """
    pinned = pinned or {}
    options = replace(options, statistics=resolve_statistics(options, recipe.model))
    device = resolve_device(options.device)
    precision = resolve_precision(options.precision, recipe.model, device, pinned)
    mask = open_mask(options.mask, source, options.mask_attribute) if options.mask else None
    part = part_of(source, options.region, options.bbox, options.bbox_crs)
    seen = cut_out(source, part.box) if part and options.statistics_of == "region" else source
    at_once = resolve_measuring(style, seen, options, pinned)
    seam, halo = resolve_seam(options, style)
    network = footprint(recipe, style, precision)
    grid = make_grid(source, options, network, halo, device, part.box if part else None)
    output = FORMATS["tif" if options.format == "auto" else options.format]
    colours = bands_of(style)
    check_bands(output, colours)
    if options.each is None:  # else each file is checked, see `urst_tiles.api.pieces`
        check_size(output, *grid.made.shape)
    dtype = resolve_dtype(options.dtype, source, output, options.stains)
    encoding = make_encoding(
        source, dtype, options.compression, options.quality_for(output.name), grid.tile,
        output=output, predictor=options.predictor == "yes", overviews=options.overview_resampling,
        colours=colours,
    )  # fmt: skip
    if not has_table(source, grid, dtype, device):
        network = replace(network, table_bytes=0)
    threads = options.threads or int(pinned.get("threads", 0)) or cpu_count()
    encoders = 2 if device == "cpu" else max(2, cpu_count() // 2)
    needs = needs_of(
        source, recipe, style, options, grid=grid, encoding=encoding, device=device, encoders=encoders,
        weight_bytes=network.weight_bytes, at_once=at_once, seen=seen, mask=mask,
        output=output.name,
    )  # fmt: skip
    plan = Plan(
        grid=grid,
        footprint=network,
        seam=seam,
        source_channels=source.channels,
        colours=colours,
        source_colours=source.colours,
        source_dtype=str(source.dtype),
        dtype=dtype,
        compression=options.compression,
        quality=options.quality_for(output.name),
        precision=precision,
        device=device,
        threads=threads,
        batch=1,
        in_flight=min(2 if device == "cpu" else 3, len(grid)),
        encoders=encoders,
        workers=1 if options.cluster else min(options.workers, len(grid)),  # on this machine
        spool_bytes=source.spool_bytes
        + (spool_bytes(mask) if mask else 0)
        + levels_bytes(recipe, source)
        + cut_bytes(source, options, dtype),
        levels=recipe.levels,
        level=recipe.number,
        statistics=options.statistics,
        statistics_of=options.statistics_of,
        measure_at_once=at_once,
        passes=1 + measuring_passes(style, seen) * measures_image(options),
        identity={},
        format=output.name,
        predictor=encoding.predictor,
        overview_resampling=encoding.overviews,
        bigtiff=options.bigtiff,
        **needs,
    )
    identity = _identity(plan, source, recipe.model, style, options) | varied(recipe, options, mask)
    return plan.identified({name: str(value) for name, value in sorted(identity.items())})


def resolve_precision(wanted: str, model: str, device: str, pinned: Mapping[str, str]) -> nets.Precision:
    """The precision that ``wanted`` names.

    ``auto`` is the precision in ``pinned``, or else the fastest whose result looks like that of float32.
    """
    chosen = wanted if wanted != "auto" else pinned.get("precision") or nets.best_precision(model, device)
    return cast(nets.Precision, chosen)


def resolve_statistics(options: Options, model: str) -> Statistics:
    """What statistics are measured on; ``auto`` is a sample for a network that paints levels, the whole image
    for one that transfers colours, and the thumbnail for others.

    Raises
    ------
    BadInput : a thumbnail, or a part of the image, is to be measured, and the network paints levels; or local
        ones are, for stains.
    """
    if options.look is not None:
        return cast(Statistics, "look")
    paints, transfers = nets.family(model).paints_levels, bool(nets.family(model).methods)
    wanted = options.statistics
    if paints and options.statistics_of == "region":
        raise BadInput(f"--model {model} measures each level of the whole image; leave --statistics-of out")
    if paints and wanted in ("thumbnail", "tile"):
        raise BadInput(
            f"--model {model} measures each level at its own scale; choose --statistics sampled, exact or"
            " local"
        )
    if model == "stain" and wanted == "local":
        raise BadInput(
            "--model stain looks for the stains of the whole slide; choose --statistics exact, sampled or"
            " thumbnail"
        )
    best = "sampled" if paints else "exact" if transfers else "thumbnail"
    chosen = wanted if wanted != "auto" else best
    return cast(Statistics, chosen)


def levels_bytes(recipe: Recipe, source: Source) -> int:
    """Disk for the levels above: the halved images and their pictures, each a quarter of the one below."""
    pixel = source.channels * source.dtype.itemsize
    return int(3 * pixel * prod(source.shape) * sum(0.25**k for k in range(1, recipe.levels)))


def cut_bytes(source: Source, options: Options, dtype: str) -> int:
    """Disk for the files that are cut from the whole, if there is an output for each input."""
    if options.tiles == "one":
        return 0
    pixels = sum(box.area for _, box in source.members)
    raw = pixels * source.channels * ITEMSIZE[dtype] * 4 // 3
    return int(raw * EXPECTED_RATIO[options.compression])


def resolve_seam(options: Options, style: Subject) -> tuple[Literal["crop", "blend", "cut"], int]:
    """How windows are joined, and their halo in pixels.

    Unless the options say how, windows are cropped if the halo suffices for that, and blended if not.

    Raises
    ------
    BadInput : the options ask for cropping with too small a halo.
    """
    halo = style.halo if options.halo is None else options.halo
    seam = options.seam
    if seam == "auto":
        seam = "crop" if halo >= style.halo else "blend"
    if seam == "crop" and halo < style.halo:
        raise BadInput(f"--seam crop needs --halo of at least {style.halo} for this network, got {halo}")
    return seam, halo


def tile_side(height: int, width: int) -> int:
    """Side of the TIFF tiles of an output in pixels: 512, or 256 for an image of at most 256 x 256 pixels.

    libvips refuses tiles that are far larger than the image.
    """
    return TILE if max(height, width) > TILE // 2 else TILE // 2


def make_grid(
    source: Source, options: Options, needs: Footprint, halo: int, device: str, part: Box | None = None
) -> Grid:
    """The grid for a source, or for a part of it, from the options and the needs of the network."""
    core = options.tile or default_core(halo, options.block, needs.bytes_per_pixel, device)
    height, width = source.shape
    # libvips refuses tiles that are far larger than the image ("tile size out of range").
    tile = options.blocksize or min(tile_side(*(part.shape if part else source.shape)), options.block)
    return Grid(height, width, halo, needs.stride, core, options.block, tile, needs.minimum, part)


def default_core(halo: int, block: int, bytes_per_pixel: float, device: str = "cpu") -> int:
    """The side of a window's core in pixels, where the options leave it open.

    It is the smallest power of two from 1024 on for which the core is at least 0.8 of the window's area. On a
    card it is at least 2048, since smaller windows leave a card idle. It is at most ``block``, and smaller if
    a window would take more than ``WINDOW_BYTES``.
    """
    core, least = 1024, 1024 if device == "cpu" else 2048
    while core < min(block, least) or (core < block and (core / (core + 2 * halo)) ** 2 < 0.8):
        if (2 * core + 2 * halo) ** 2 * bytes_per_pixel > WINDOW_BYTES:
            break
        core *= 2
    return min(core, block)


def footprint(recipe: Recipe, style: Subject, precision: nets.Precision) -> Footprint:
    """The needs of the network at ``precision``.

    They are the same for all statistics, which change the values of the network but not its size; the table
    is that of an image for which `has_table` holds.
    """
    net = recipe.finish(nets.neutral_net(style)).to_precision(precision)
    weights = sum(t.nbytes for t in (*net.parameters(), *net.buffers()))
    table = TABLE_BYTES if is_looked_up(net, np.uint8, np.uint8) else 0
    return Footprint(style.halo, style.stride, style.minimum, net.bytes_per_pixel(precision), weights, table)


def has_table(source: Source, grid: Grid, dtype: str, device: str) -> bool:
    """Whether an image is worth a table of all colours, if the network can have one
    (`urst_tiles.engine.kernel.is_looked_up`)."""
    eight_bits = source.colours == 3 and str(source.dtype) == dtype == "uint8"
    return device == "cpu" and eight_bits and grid.made.area >= WORTH_A_TABLE


def guess_seconds(plan: Plan, recipe: Recipe, style: Subject) -> float:
    """A guess at the wall time in seconds on machines like this one, from one forward pass of a small window.

    Statistics of the whole image take one more pass for each site, which runs the plain network up to that
    site, or one pass that counts colours. The guess is that it takes as long as the whole frozen network;
    what is looked up takes no time worth knowing.
    """
    if isinstance(style, nets.Composition) and recipe.masked:
        style = style.style  # the job has not yet read the mask, and most windows lie in one region
    kernel = Kernel(recipe.finish(nets.neutral_net(style)), device=plan.device, precision=plan.precision)
    h, w = (min(side, 512 // style.stride * style.stride) for side in plan.grid.window)
    box, window = Box(0, 0, h, w), np.zeros((1, h, w, plan.source_colours), np.uint8)
    on_device(plan.threads, kernel.run, window, [box], [box])
    started = time.perf_counter()
    on_device(plan.threads, kernel.run, window, [box], [box])
    seconds_per_pixel = (time.perf_counter() - started) / (h * w)
    work = plan.forwards * prod(plan.grid.window) + (plan.passes - 1) * plan.measured.area
    computed = COLOURS if plan.footprint.table_bytes else work
    return (computed * seconds_per_pixel + work * SECONDS_PER_PIXEL) / plan.workers


def varied(recipe: Recipe, options: Options, mask: AnyMask | None) -> dict[str, Any]:
    """Facts for the identity: what varies over the image, what happens before and after the network, and what
    the output tells of how it was made."""
    facts: dict[str, Any] = {"stroke": recipe.stroke, "preserve color": options.preserve_color}
    if recipe.levels:
        facts |= {"levels": recipe.levels, "level": recipe.number}
    if recipe.method:
        facts |= {"method": recipe.method, "white": options.white}
    if recipe.stains:
        facts["stains"] = ",".join(recipe.stains)
    if recipe.look:
        facts |= {"style": recipe.look, "alpha": recipe.alpha}
    asked = {"input level": options.level, "input magnification": options.magnification}
    facts |= {name: value for name, value in asked.items() if value is not None}
    facts["provenance"] = "yes" if options.provenance else "no"
    if options.provenance:
        facts |= recipe.told() | {"style size": options.style_size}
    if options.statistics == "local":
        facts["local scale"] = options.local_scale
    if mask:
        facts |= {"mask": mask.fingerprint, "regions": recipe.regions, "feather": options.feather}
    return facts


def resolve_measuring(style: Subject, source: Source, options: Options, pinned: Mapping[str, str]) -> bool:
    """Whether one forward pass over the whole thumbnail measures all sites at once.

    It does if there are several sites and the pass takes at most ``THUMBNAIL_BYTES`` and half of the memory.
    A choice in ``pinned`` stays.
    """
    if options.statistics != "thumbnail" or len(measured_sites(style)) < 2:
        return False
    if "measured" in pinned:
        return pinned["measured"] == "at once"
    allowed = min(THUMBNAIL_BYTES, (options.memory or available_memory()) // 2)
    return thumbnail_bytes(style, source, options) <= allowed


def bands_of(style: Subject) -> int:
    """How many bands the network makes: red, green and blue unless its style says otherwise."""
    return int(getattr(style, "bands", 3))


def _identity(plan: Plan, source: Source, model: str, style: Subject, options: Options) -> dict[str, Any]:
    """The facts that decide the bytes of the output, by name; `varied` has the others."""
    return {
        "source": source.fingerprint,
        **({"valid": valid_said(source)} if source.areas else {}),
        "page": options.page or "default",
        "channels": options.channels or "default",
        "bands": options.bands or "default",
        "stretch": _stretch_said(source, options),
        "overviews": options.overviews,
        "model": model,
        "style": style.fingerprint,
        "alpha": options.alpha,
        "thumbnail": options.thumbnail,
        **_decided(plan),
        "device": device_kind(plan.device),
        "urst-tiles": version("urst-tiles"),
        **{name: installed(name) for name in PINNED_LIBRARIES},
    }


def _stretch_said(source: Source, options: Options) -> str:
    """The stretch as a fact of the identity."""
    if source.file_dtype == np.uint8:
        return "none"
    return source.stretch_text if options.look else options.stretch_for(str(source.file_dtype))


def _decided(plan: Plan) -> dict[str, Any]:
    """The facts of the identity that are fields of the plan."""
    grid = plan.grid
    lossy = plan.compression in ("jpeg", "webp") or FORMATS[plan.format].lossy
    lossy |= plan.format == "jp2" and plan.quality < 100
    return {
        **_unusual(plan),
        "statistics": plan.statistics,
        "measured": "at once" if plan.measure_at_once else "by site",
        "size": f"{grid.width} x {grid.height}",
        **({"region": grid.part.xywh} if grid.part else {}),
        **({"statistics of": "region"} if grid.part and plan.statistics_of == "region" else {}),
        "tile": grid.core,
        "block": grid.block,
        "halo": grid.halo,
        "seam": plan.seam,
        "precision": plan.precision,
        "threads": plan.threads,
        "batch": plan.batch,
        "dtype": plan.dtype,
        "compression": plan.compression,
        "quality": plan.quality if lossy else "lossless",
    }


def valid_said(source: Source) -> str:
    """What of a source the user calls valid, as a fact of the identity; empty if nothing was said."""
    return ", ".join(area.fingerprint for area in source.areas)


def _unusual(plan: Plan) -> dict[str, Any]:
    """Facts about the output that are named only where they are not what they usually are."""
    grid, usual = plan.grid, tile_side(*plan.grid.made.shape)
    facts = {
        "format": (plan.format, "tif"),
        "predictor": ("yes" if plan.predictor else "no", "yes"),
        "overview resampling": (plan.overview_resampling, "average"),
        "blocksize": (grid.tile, min(usual, grid.block)),
    }
    return {name: value for name, (value, default) in facts.items() if value != default}


def contradictions(plan: Plan) -> str:
    """Where a plan that was read from a file says something else than its identity, as a phrase for a
    message; empty where it does not."""
    said = {name: str(value) for name, value in _decided(plan).items()}
    return differences({name: plan.identity.get(name, "not set") for name in said}, said)


@cache
def installed(name: str) -> str:
    """The version of a library; "none" if it is not installed."""
    try:
        return version(name)
    except ModuleNotFoundError:
        return "none"


def plan_here(plan: Plan, device: str | None, threads: int | None, workers: int | None) -> Plan:
    """The plan for this machine, with another device or number of threads or workers if given.

    Raises
    ------
    JobDiffers : the device or a library differs from those of the plan, so the bytes might differ.
    BadInput : a number is below 1, or the number of threads on a CPU differs from that of the plan.
    """
    Options(threads=threads, workers=1 if workers is None else workers)  # raises BadInput for numbers below 1
    device = resolve_device(device or plan.device)
    now = {"device": device_kind(device), "urst-tiles": version("urst-tiles")}
    now |= {name: installed(name) for name in PINNED_LIBRARIES}
    planned = {name: plan.identity[name] for name in now}
    if planned != now:
        raise JobDiffers(
            f"the bytes of the output might differ here: {differences(planned, now)}; work on machines alike,"
            " or plan anew with --overwrite"
        )
    if threads not in (None, plan.threads) and device == "cpu":
        raise BadInput(
            f"--threads must be the plan's {plan.threads}, got {threads}: on a CPU their number decides how"
            " sums round; plan with another number, or take more --workers"
        )
    workers = min(workers or plan.workers, len(plan.grid))
    return replace(plan, device=device, threads=threads or plan.threads, workers=workers)
