"""The statistics that a style needs, of a whole image of any size.

``thumbnail`` is URST's Thumbnail Instance Normalization (Chen et al. 2022, section 3.2): the statistics of a
downsampled image. ``exact`` is the un-tiled network's own: one streamed pass over the full image per site,
the earlier sites frozen, merging moments window by window. Both are the same code on two images, in float32
features and float64 sums.

Invalid pixels count for nothing: a feature weighs the fraction of valid pixels in its stride cell. Where a
field shares the image out (regions of a mask, places of local statistics), every member has statistics of its
own, and a feature weighs in each what the member weighs in its cell.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import add
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from urst_tiles.engine.device import reproducible
from urst_tiles.engine.kernel import to_tensor
from urst_tiles.engine.loaded import Builds, build_style
from urst_tiles.engine.site_moments import SiteMoments, cell_weights, halo_of, if_it_fits, shared
from urst_tiles.engine.threads import ONE_THREAD, ComputeThreads
from urst_tiles.geometry import Box, Grid
from urst_tiles.moments import MemberMoments, Moments
from urst_tiles.nets import CascadeStyle, Composition, Site
from urst_tiles.nets.base import neutral
from urst_tiles.nets.composition import Mixture, Subject, composed, measured_sites, mixing
from urst_tiles.progress import Progress, silent
from urst_tiles.source import Source, array_source
from urst_tiles.source.windows import WindowReader
from urst_tiles.storage.publish import make_folder, publish
from urst_tiles.storage.stores import remove, side_by_side
from urst_tiles.workers.run import Cluster

log = logging.getLogger(__name__)

#: Sides of the windows' cores while measuring, and of a task's blocks, px. Features are float32 and nothing
#: is fused, so that a window of 1024 px no longer fits a processor's cache, and what is read beside such
#: windows is less than where blocks are stylised; a card would be idle with less.
CORE, BLOCK = 512, 2048
CARDS_CORE, CARDS_BLOCK = 1024, 4096


def measuring_grid(
    shape: tuple[int, int], style: Subject, site: Site | None = None, *, device: str = "cpu"
) -> Grid:
    """A grid whose cores partition the *padded* image, since the whole network sees the padding too; its
    windows reach as far as ``site`` sees (None: as the whole network)."""
    stride = style.stride
    core, block = (CORE, BLOCK) if device == "cpu" else (CARDS_CORE, CARDS_BLOCK)
    core = max(core, stride)
    image = Grid(*shape, stride=stride, core=core, block=max(block, core), minimum=style.minimum)
    return replace(image, height=image.padded.y1, width=image.padded.x1, halo=halo_of(style, site))


def measure_thumbnail(
    style: Subject, source: Source, *, device: str = "cpu", threads: int = 1, whole: bool = False
) -> dict[str, Any]:
    """Moments of every site, by name, of the source's thumbnail (URST's TIN).

    ``whole``: by one forward for all sites, which takes the plain network's memory for every pixel; else by
    windows, with one forward per site.
    """
    small = array_source(source.thumbnail)
    subject = on_thumbnail(style, *small.shape)
    found = _at_once(subject, small, device, threads) if whole else None
    if found is not None:
        return _for_style(style, found)
    return measure_here(subject, small, device=device, threads=threads)


def on_thumbnail(style: Subject, height: int, width: int) -> Subject:
    """What the thumbnail is measured with: fields at its size; it stands for every scale of a cascade."""
    if isinstance(style, Composition):
        styles = tuple(one.flattened() if isinstance(one, CascadeStyle) else one for one in style.styles)
        return Composition(styles, style.field.resized(height, width))
    return style.flattened() if isinstance(style, CascadeStyle) else style


def measure_here(
    style: Subject, source: Source, *, device: str = "cpu", threads: int = 1, progress: Progress = silent
) -> dict[str, Any]:
    """Moments of every measured site, by name, of the whole of ``source``, or `MemberMoments` for a
    composition: the plain loop, and the reference of `measure_exact`."""
    reader, over = WindowReader(source), composed(style)
    found: dict[str, MemberMoments] = {}
    compute = ComputeThreads(1, threads)
    for site in measured_sites(style):
        blocks, look = [], SiteMoments(over, site, over.mixtures(found), device, compute)
        grid = measuring_grid(source.shape, style, site, device=device)
        for index in range(len(grid)):
            blocks.append(_block_moments(look, reader, grid, index))
            progress(f"measuring {site.name}", index + 1, len(grid))
        found[site.name] = _usable(over, site, reduce(add, blocks))
    return _for_style(style, found)


def _at_once(style: Subject, source: Source, device: str, threads: int) -> dict[str, MemberMoments] | None:
    """What `measure_here` finds, by one forward of the whole image: each site goes on with what it found;
    None where the device has no room for that."""
    over, box = composed(style), measuring_grid(source.shape, style).padded
    pixels, valid = WindowReader(source).padded(box)
    found: dict[str, MemberMoments] = {}

    def at(site: Site, x: torch.Tensor) -> torch.Tensor:
        if site.measured:
            parts = (_strip_moments(over, site, x[0], valid, part) for part in _strips(box, over.stride))
            found[site.name] = _usable(over, site, reduce(add, parts))
        known = {site.name: found[site.name]} if site.measured else {}
        return mixing(over, {site.name: Mixture(over.map_at(site, known))}, box)(site, x)

    @torch.inference_mode()
    def run() -> dict[str, MemberMoments]:
        where = torch.device(device)
        with reproducible(where):
            over.style.forward(to_tensor(pixels[None], where), at)
        return found

    return if_it_fits(ComputeThreads(1, threads), run)


def _strips(box: Box, stride: int) -> list[Box]:
    """Rows of a box, whole cells, about as many pixels each as a window's core: sums are in float64."""
    rows = max(stride, CORE * CORE // box.x1 // stride * stride)
    return [Box(y, 0, min(y + rows, box.y1), box.x1) for y in range(0, box.y1, rows)]


def _strip_moments(
    over: Composition, site: Site, x: torch.Tensor, valid: NDArray[Any] | None, strip: Box
) -> MemberMoments:
    """Moments of one strip of the features ``x`` (C, h, w) of a whole image."""
    weights = None if valid is None else cell_weights(valid[strip.slices], site.stride)
    rows = x[:, strip.y0 // site.stride : strip.y1 // site.stride]
    return shared(over, site, rows.flatten(1).float(), weights, strip)


def _for_style(style: Subject, found: Mapping[str, MemberMoments]) -> dict[str, Any]:
    """What ``nets.freeze`` takes."""
    if isinstance(style, Composition):
        return dict(found)
    return {name: several.parts[0] for name, several in found.items()}


def _usable(over: Composition, site: Site, found: MemberMoments) -> MemberMoments:
    """Where no pixel is valid there is nothing to measure, and nothing to stylise: any moments do."""
    if not found.parts:
        found = MemberMoments({0: neutral(site)})
    return over.backed(found)


def _block_moments(look: SiteMoments, reader: WindowReader, grid: Grid, index: int) -> MemberMoments:
    """Moments over one block, merged window by window in the order of the grid."""
    cores = grid.cores(grid.block_box(index))
    around = grid.read_box(cores)
    rgb, valid = reader.padded(around)
    total = MemberMoments({})
    for core in cores:
        window = grid.window_box(core)
        weights = None
        if valid is not None:
            weights = cell_weights(valid[core.within(around).slices], look.site.stride)
            if not weights.any():
                continue
        total += look.moments(rgb[window.within(around).slices], window, core, weights)
    return total


@dataclass(frozen=True)
class SitePass:
    """Task: the moments of one site over one block, published as a small file. Idempotent."""

    recipe: Builds
    source: Source
    site: str
    found: Mapping[str, MemberMoments]
    folder: Path
    device: str
    compute: ComputeThreads

    def path(self, index: int) -> Path:
        """Where block ``index`` publishes."""
        return self.folder / f"{self.site}-{index}.npz"

    def __call__(self, index: int) -> None:
        """Measure block ``index``."""
        over = composed(build_style(self.recipe))
        site = next(s for s in over.sites if s.name == self.site)
        look = SiteMoments(over, site, over.mixtures(self.found), self.device, self.compute)
        grid = measuring_grid(self.source.shape, over, site, device=self.device)
        save(self.path(index), _block_moments(look, WindowReader(self.source), grid, index))


def measure_exact(
    recipe: Builds,
    source: Source,
    folder: Path,
    cluster: Cluster,
    *,
    device: str = "cpu",
    compute: ComputeThreads = ONE_THREAD,
    progress: Progress = silent,
) -> dict[str, Any]:
    """What `measure_here` finds: one pass of tasks per site, resumable through ``folder``."""
    make_folder(folder)
    style = build_style(recipe)
    count = len(measuring_grid(source.shape, style, device=device))
    over = composed(style)
    found: dict[str, MemberMoments] = {}
    for site in measured_sites(style):
        final = folder / f"{site.name}.npz"
        known = kept(final)
        if known is None:
            task = SitePass(recipe, source, site.name, dict(found), folder, device, compute)
            done = side_by_side(folder, is_kept, map(task.path, range(count)))
            missing = [i for i, there in enumerate(done) if not there]
            stage = partial(progress, f"measuring {site.name}")
            cluster.run_all(task, missing, total=count, progress=stage)
            known = _usable(over, site, reduce(add, (load(task.path(i)) for i in range(count))))
            save(final, known)
            side_by_side(folder, remove, map(task.path, range(count)))
        found[site.name] = known
    return _for_style(style, found)


def save(path: Path, several: MemberMoments) -> None:
    """Publish moments as an ``.npz`` file."""
    buffer = io.BytesIO()
    members, parts = list(several.parts), list(several.parts.values())
    n, mean, m2 = (np.array([getattr(part, name) for part in parts]) for name in ("n", "mean", "m2"))
    np.savez(buffer, members=np.array(members, np.int64), n=n, mean=mean, m2=m2)
    publish(path, buffer.getvalue())


def kept(path: Path) -> MemberMoments | None:
    """What an earlier run measured; None where it did not, or that is damaged: then it is made again."""
    try:
        return load(path)
    except FileNotFoundError:
        return None
    except (OSError, EOFError, KeyError, ValueError, BadZipFile) as error:
        log.warning("%s is damaged (%s) and is made again", path, error)
        return None


def is_kept(path: Path) -> bool:
    """Whether `kept` finds something; those of all blocks together need not fit in memory."""
    return kept(path) is not None


def load(path: Path) -> MemberMoments:
    """Read moments that `save` wrote."""
    with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        columns = zip(file["members"], file["n"], file["mean"], file["m2"], strict=True)
        return MemberMoments({int(k): Moments(float(n), mean, m2) for k, n, mean, m2 in columns})
