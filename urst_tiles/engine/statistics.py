"""Measures the statistics that a style needs, over a whole image of any size.

``thumbnail`` statistics are those of a downsampled image, the Thumbnail Instance Normalization (TIN) of URST
(Chen et al. 2022, section 3.2). ``exact`` statistics are those that the network would have without tiles: one
pass over the full image for each site, with the earlier sites frozen, merges moments window by window. The
same code measures both, on two images, with float32 features and float64 sums. Where the network sees one
pixel at a time, the colours of the image are counted instead, in one pass for all sites
(`urst_tiles.engine.counted`).

Invalid pixels do not count: the weight of a feature is the fraction of valid pixels in its stride cell. Where
a field shares the image out (regions of a mask, places of local statistics), every member has statistics of
its own; in these the weight of a feature is multiplied by the weight of the member in its cell.
"""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial, reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np

from urst_tiles.engine.at_once import Sample, measure_at_once
from urst_tiles.engine.counted import count_exact, count_here, is_counted, measure_counted
from urst_tiles.engine.counted import saved_paths as counted_paths
from urst_tiles.engine.loaded import Builds, build_style
from urst_tiles.engine.seen import seen_by
from urst_tiles.engine.site_moments import SiteMoments, cell_weights, for_style, halo_of, usable
from urst_tiles.engine.threads import ONE_THREAD, ComputeThreads
from urst_tiles.errors import DamagedFile
from urst_tiles.geometry import Grid
from urst_tiles.histogram import Bins, Histogram
from urst_tiles.moments import MemberMoments, Moments
from urst_tiles.nets import CascadeStyle, Composition, Site
from urst_tiles.nets.composition import Mixture, Subject, composed, measured_sites
from urst_tiles.progress import Progress, silent
from urst_tiles.source import Source, array_source
from urst_tiles.source.levels import PaintedLevel, windows_of
from urst_tiles.source.windows import WindowReader
from urst_tiles.storage.publish import make_folder, publish
from urst_tiles.storage.stores import open_file, remove, side_by_side, state_of
from urst_tiles.workers.run import Cluster

log = logging.getLogger(__name__)

#: Sides in pixels of the cores of windows, and of the blocks of tasks, while measuring on a CPU. They are
#: smaller than for stylising: features are float32 and no layers are fused, so a window of 1024 px no longer
#: fits into the cache of a CPU. On a card they are larger, since small windows would leave it idle.
CORE, BLOCK = 512, 2048
CARDS_CORE, CARDS_BLOCK = 1024, 4096


def measuring_grid(
    shape: tuple[int, int], style: Subject, site: Site | None = None, *, device: str = "cpu"
) -> Grid:
    """The grid of a pass that measures ``site``; None stands for the output of the network.

    The cores partition the padded image, not the image, since the network without tiles sees the padding too.
    The halo is as large as the features at the site need.
    """
    stride = style.stride
    core, block = (CORE, BLOCK) if device == "cpu" else (CARDS_CORE, CARDS_BLOCK)
    core = max(core, stride)
    image = Grid(*shape, stride=stride, core=core, block=max(block, core), minimum=style.minimum)
    return replace(image, height=image.padded.y1, width=image.padded.x1, halo=halo_of(style, site))


def measure_thumbnail(
    style: Subject, source: Source, *, device: str = "cpu", threads: int = 1, whole: bool = False
) -> dict[str, Any]:
    """The moments at every measured site, by name, of the thumbnail of the source (the TIN of URST).

    Parameters
    ----------
    whole : whether one forward pass over the whole thumbnail measures all sites, which takes the memory of
        the plain network for every pixel; else the thumbnail is measured by windows, in one pass for each
        site. Windows are also used if the device has no room for the whole.
    """
    small = array_source(source.thumbnail, colours=source.colours, as_is=source.dtype.kind == "f")
    subject = on_thumbnail(style, *small.shape)
    over, everything = composed(subject), measuring_grid(small.shape, subject).padded
    sample = Sample(everything, everything)
    reader = windows_of(seen_by(style.name, small))
    moments = measure_at_once(over, reader, [sample], device, threads) if whole else None
    if moments is not None:
        return for_style(style, moments)
    return measure_here(subject, small, device=device, threads=threads)


def on_thumbnail(style: Subject, height: int, width: int) -> Subject:
    """The style as it measures a thumbnail of ``height`` x ``width`` pixels.

    The field is resized to the thumbnail. A cascade becomes its style at a single scale, since the thumbnail
    stands for every scale of the cascade.
    """
    if isinstance(style, Composition):
        styles = tuple(s.flattened() if isinstance(s, CascadeStyle) else s for s in style.styles)
        return Composition(styles, style.field.resized(height, width))
    return style.flattened() if isinstance(style, CascadeStyle) else style


def measure_here(
    style: Subject,
    source: Source | PaintedLevel,
    *,
    device: str = "cpu",
    threads: int = 1,
    progress: Progress = silent,
) -> dict[str, Any]:
    """The moments at every measured site, by name, over the whole of ``source``, in a plain loop.

    They are `Moments`, or for a composition `MemberMoments`. This is the reference for `measure_exact`.
    """
    return measure_several(style, [source], device=device, threads=threads, progress=progress)


def measure_several(
    style: Subject,
    sources: Sequence[Source | PaintedLevel],
    *,
    device: str = "cpu",
    threads: int = 1,
    weights: Sequence[float] | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """The same as `measure_here` over several images together, as if they were parts of one; more than one
    only for styles without a field.

    Each site is measured over all images before the next, since its map follows from all of them. ``weights``
    are what a pixel of each image counts; None where all count 1.
    """
    over = composed(style)
    sources = [seen_by(style.name, source) for source in sources]
    moments: dict[str, MemberMoments] = {}
    compute = ComputeThreads(1, threads)
    shares = weights or [1.0] * len(sources)
    images = [source for source in sources if is_counted(source, style)]
    if measured_sites(style) and len(images) == len(sources):
        counts = (share * count_here(image, progress) for image, share in zip(images, shares, strict=True))
        return for_style(style, measure_counted(style, reduce(add, counts), device, compute))
    for site in measured_sites(style):
        total = MemberMoments({})
        at_site = SiteMoments(over, site, over.mixtures(moments), device, compute)
        for source, weight in zip(sources, shares, strict=True):
            reader, grid = windows_of(source), measuring_grid(source.shape, style, site, device=device)
            for index in range(len(grid)):
                total += _weighted(_block_moments(at_site, reader, grid, index), weight)
                progress(f"measuring {site.name}", index + 1, len(grid))
        moments[site.name] = usable(over, site, total)
    return for_style(style, moments)


def _weighted(moments: MemberMoments, weight: float) -> MemberMoments:
    """Moments of which every pixel counts ``weight`` times."""
    if weight == 1:
        return moments
    return MemberMoments({member: part.scaled(weight) for member, part in moments.parts.items()})


def _block_moments(at_site: SiteMoments, reader: WindowReader, grid: Grid, index: int) -> MemberMoments:
    """The moments over one block, merged window by window in the order of the grid."""
    cores = grid.cores(grid.block_box(index))
    around = grid.read_box(cores)
    rgb, valid = reader.padded(around)
    total = MemberMoments({})
    for core in cores:
        window = grid.window_box(core)
        weights = None
        if valid is not None:
            weights = cell_weights(valid[core.within(around).slices], at_site.site.stride)
            if not weights.any():
                continue
        total += at_site.moments(rgb[window.within(around).slices], window, core, weights)
    return total


@dataclass(frozen=True)
class SitePass:
    """The task that measures the moments at one site over one block, and publishes them as a small file.

    It may be repeated without harm.

    Attributes
    ----------
    recipe, source : the recipe of the style, and the image that is measured.
    site : name of the site.
    earlier : names of the sites before it, whose moments lie in the folder: those of many members are large.
    folder : where the files are published.
    device : name of the device that computes windows.
    compute : the threads that compute windows.
    """

    recipe: Builds
    source: Source | PaintedLevel
    site: str
    earlier: tuple[str, ...]
    folder: Path
    device: str
    compute: ComputeThreads

    def path(self, index: int) -> Path:
        """The path of the file of block ``index``."""
        return self.folder / f"{self.site}-{index}.npz"

    def _maps(self) -> dict[str, Mixture]:
        """The maps of the sites before, and of those that are not measured."""
        states = tuple(state_of(self.folder / f"{name}.npz") for name in self.earlier)
        with _loading:
            return _maps(self.recipe, self.earlier, self.folder, states)

    def __call__(self, index: int) -> None:
        """Measure block ``index`` and publish the moments."""
        over = composed(build_style(self.recipe))
        site = next(s for s in over.sites if s.name == self.site)
        at_site = SiteMoments(over, site, self._maps(), self.device, self.compute)
        grid = measuring_grid(self.source.shape, over, site, device=self.device)
        save(self.path(index), _block_moments(at_site, windows_of(self.source), grid, index))


_loading = threading.Lock()


@lru_cache(maxsize=1)
def _maps(
    recipe: Builds, earlier: tuple[str, ...], folder: Path, states: tuple[Hashable, ...]
) -> dict[str, Mixture]:
    """The maps of the sites ``earlier``, from their moments in ``folder``, for all blocks that this process
    measures of one site; ``states`` only tell the files apart that have lain there."""
    moments = {name: load(folder / f"{name}.npz") for name in earlier}
    return composed(build_style(recipe)).mixtures(moments)


def measure_exact(
    recipe: Builds,
    source: Source | PaintedLevel,
    folder: Path,
    cluster: Cluster,
    *,
    device: str = "cpu",
    compute: ComputeThreads = ONE_THREAD,
    progress: Progress = silent,
) -> dict[str, Any]:
    """The same moments as those of `measure_here`, measured by tasks on a cluster, in one pass for each site.

    Finished blocks and sites are saved in ``folder``, and a later call with the same folder does not measure
    them again.
    """
    style = build_style(recipe)
    if not measured_sites(style):
        return {}
    make_folder(folder)
    pixels = source.without_metadata()
    if is_counted(source, style):
        counts = count_exact(source, folder, cluster, progress)
        return for_style(style, measure_counted(style, counts, device, compute))
    count = len(measuring_grid(source.shape, style, device=device))
    over = composed(style)
    moments: dict[str, MemberMoments] = {}
    for site in measured_sites(style):
        final = folder / f"{site.name}.npz"
        at_site = load_saved(final)
        if at_site is None:
            task = SitePass(recipe, pixels, site.name, tuple(moments), folder, device, compute)
            finished = side_by_side(folder, is_saved, map(task.path, range(count)))
            missing = [i for i, is_finished in enumerate(finished) if not is_finished]
            stage = partial(progress, f"measuring {site.name}")
            cluster.run_all(task, missing, total=count, progress=stage)
            at_site = usable(over, site, reduce(add, (load(task.path(i)) for i in range(count))))
            save(final, at_site)
            side_by_side(folder, remove, map(task.path, range(count)))
        moments[site.name] = at_site
    return for_style(style, moments)


def saved_paths(
    style: Subject, source: Source | PaintedLevel, folder: Path, device: str = "cpu"
) -> Iterator[Path]:
    """All files that `measure_exact` writes into ``folder``."""
    if is_counted(source, style):
        yield from counted_paths(source, folder)
        return
    count = len(measuring_grid(source.shape, style, device=device))
    for site in measured_sites(style):
        yield folder / f"{site.name}.npz"
        yield from (folder / f"{site.name}-{index}.npz" for index in range(count))


def save(path: Path, several: MemberMoments) -> None:
    """Publish moments, or histograms, as an ``.npz`` file; `load` reads it."""
    buffer = io.BytesIO()
    members, parts = list(several.parts), list(several.parts.values())
    if parts and isinstance(parts[0], Histogram):
        counts = np.array([part.counts for part in parts])
        np.savez_compressed(buffer, members=np.array(members, np.int64), bins=parts[0].bins, counts=counts)
        publish(path, buffer.getvalue())
        return
    n, mean, m2 = (np.array([getattr(part, name) for part in parts]) for name in ("n", "mean", "m2"))
    np.savez(buffer, members=np.array(members, np.int64), n=n, mean=mean, m2=m2)
    publish(path, buffer.getvalue())


def load_saved(path: Path) -> MemberMoments | None:
    """The moments that an earlier run saved at ``path``; None if the file does not exist or is damaged."""
    try:
        return load(path)
    except FileNotFoundError:
        return None
    except DamagedFile as error:
        log.warning("%s, and is made again", error)
        return None


def is_saved(path: Path) -> bool:
    """Whether `load_saved` can read the file; the moments are dropped at once, since those of all blocks may
    not fit into memory."""
    return load_saved(path) is not None


def load(path: Path) -> MemberMoments:
    """Read the moments that `save` wrote.

    Raises
    ------
    FileNotFoundError : the file does not exist.
    DamagedFile : it cannot be read.
    """
    try:
        return _load(path)
    except FileNotFoundError:
        raise
    except Exception as error:  # NumPy and zipfile raise errors of many kinds
        raise DamagedFile(f"{path} is damaged ({error})") from error


def _load(path: Path) -> MemberMoments:
    with open_file(path) as opened, np.load(opened, allow_pickle=False) as file:
        if "counts" in file:
            count, low, high = file["bins"].tolist()
            bins = Bins(int(count), low, high)
            histograms: Any = zip(file["members"], file["counts"], strict=True)
            return MemberMoments({int(k): Histogram(bins, counts) for k, counts in histograms})
        columns = zip(file["members"], file["n"], file["mean"], file["m2"], strict=True)
        return MemberMoments({int(k): Moments(float(n), mean, m2) for k, n, mean, m2 in columns})
