"""The statistics that a style needs, of a whole image of any size.

``thumbnail`` is URST's Thumbnail Instance Normalization (Chen et al. 2022, section 3.2): the statistics of a
downsampled image. ``exact`` is the un-tiled network's own: one streamed pass over the full image per site,
the earlier sites frozen, merging moments window by window. Both are the same code on two images, in float32
features and float64 sums.

Invalid pixels count for nothing: a feature weighs the fraction of valid pixels in its stride cell.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial, reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from urst_tiles.execute import Cluster, current_style, on_device
from urst_tiles.files import publish
from urst_tiles.geometry import Box, Grid
from urst_tiles.kernel import exact_float32, to_tensor
from urst_tiles.moments import Moments
from urst_tiles.nets import Site, Style
from urst_tiles.progress import Progress, silent
from urst_tiles.reader import Reader
from urst_tiles.recipe import Recipe
from urst_tiles.source import Source, array_source

#: Side of the windows' cores while measuring: small, since features are float32 and nothing is fused.
CORE = 512


class _Reached(Exception):
    """Raised at the site that is measured: what comes after need not be computed."""


def measuring_grid(shape: tuple[int, int], style: Style, block: int = 4096) -> Grid:
    """A grid whose cores partition the *padded* image, since the whole network sees the padding too."""
    core = max(CORE, style.stride)
    grid = Grid(
        *shape, halo=style.halo, stride=style.stride, core=core, block=max(block, core), minimum=style.minimum
    )
    return Grid(
        *grid.padded.shape,
        halo=style.halo,
        stride=style.stride,
        core=core,
        block=grid.block,
        minimum=style.minimum,
    )


def measure_thumbnail(
    style: Style, source: Source, *, device: str = "cpu", threads: int = 1
) -> dict[str, Moments]:
    """Moments of every site, by name, of the source's thumbnail (URST's TIN)."""
    return measure(style, array_source(source.thumbnail), device=device, threads=threads)


def measure(
    style: Style, source: Source, *, device: str = "cpu", threads: int = 1, progress: Progress = silent
) -> dict[str, Moments]:
    """Moments of every site, by name, of the whole of ``source``: the plain loop, and the reference of
    `measure_exact`."""
    reader = Reader(source)
    grid = measuring_grid(source.shape, style)
    found: dict[str, Moments] = {}
    for site in style.sites:
        blocks = []
        for index in range(len(grid)):
            blocks.append(_block_moments(style, site, found, reader, grid, index, device, threads))
            progress(f"measuring {site.name}", index + 1, len(grid))
        found[site.name] = _usable(reduce(add, blocks))
    return found


def _usable(moments: Moments) -> Moments:
    """Where no pixel is valid there is nothing to measure, and nothing to stylise: any moments do."""
    if moments.n > 0:
        return moments
    return Moments(
        2.0, moments.mean, moments.m2 + (np.eye(moments.channels) if moments.m2.ndim == 2 else 1.0)
    )


def _block_moments(
    style: Style,
    site: Site,
    found: Mapping[str, Moments],
    reader: Reader,
    grid: Grid,
    index: int,
    device: str,
    threads: int,
) -> Moments:
    """Moments of ``site`` over one block, merged window by window in the order of the grid."""
    cores = grid.cores(grid.block_box(index))
    around = grid.read_box(cores)
    rgb, valid = reader.padded(around)
    total = Moments.empty(site.channels, full=site.full)
    for core in cores:
        window = grid.window_box(core)
        weights = None if valid is None else cell_weights(valid[core.within(around).slices], site.stride)
        if weights is not None and not weights.any():
            continue
        pixels = rgb[window.within(around).slices]
        features = on_device(threads, features_at, style, site, found, pixels, core.within(window), device)
        total += Moments.of(features, weights, full=site.full)
    return total


def cell_weights(valid: NDArray[Any], stride: int) -> NDArray[np.float64]:
    """float64 (cells,): the fraction of valid pixels in each stride x stride cell, row by row."""
    h, w = valid.shape
    return (valid > 0).reshape(h // stride, stride, w // stride, stride).mean(axis=(1, 3)).ravel()


@torch.inference_mode()
def features_at(
    style: Style,
    site: Site,
    found: Mapping[str, Moments],
    pixels: NDArray[np.generic],
    core: Box,
    device: str,
) -> NDArray[np.float32]:
    """float32 (channels, cells): what reaches ``site`` over ``core`` (in window coordinates), the sites
    before it frozen."""
    reached: list[torch.Tensor] = []

    def at(here: Site, x: torch.Tensor) -> torch.Tensor:
        if here.name == site.name:
            reached.append(x)
            raise _Reached
        return style.affine(here, found[here.name])(x)

    where = torch.device(device)
    with suppress(_Reached), exact_float32(where):
        style.forward(to_tensor(pixels[None], where), at)
    s = site.stride
    cells = reached[0][0, :, core.y0 // s : core.y1 // s, core.x0 // s : core.x1 // s]
    return cells.reshape(site.channels, -1).float().cpu().numpy()


@dataclass(frozen=True)
class SitePass:
    """Task: the moments of one site over one block, published as a small file. Idempotent."""

    recipe: Recipe
    source: Source
    site: str
    found: Mapping[str, Moments]
    folder: Path
    device: str
    threads: int

    def path(self, index: int) -> Path:
        """Where block ``index`` publishes."""
        return self.folder / f"{self.site}-{index}.npz"

    def __call__(self, index: int) -> None:
        """Measure block ``index``."""
        style = current_style(self.recipe)
        site = next(s for s in style.sites if s.name == self.site)
        grid = measuring_grid(self.source.shape, style)
        moments = _block_moments(
            style, site, self.found, Reader(self.source), grid, index, self.device, self.threads
        )
        save(self.path(index), moments)


def measure_exact(
    recipe: Recipe,
    source: Source,
    folder: Path,
    cluster: Cluster,
    *,
    device: str = "cpu",
    threads: int = 1,
    progress: Progress = silent,
) -> dict[str, Moments]:
    """Moments of every site, by name, of the full image: one pass of tasks per site, resumable through
    ``folder``."""
    folder.mkdir(exist_ok=True)
    style = current_style(recipe)
    count = len(measuring_grid(source.shape, style))
    found: dict[str, Moments] = {}
    for site in style.sites:
        final = folder / f"{site.name}.npz"
        if not final.exists():
            task = SitePass(recipe, source, site.name, dict(found), folder, device, threads)
            missing = [i for i in range(count) if not task.path(i).exists()]
            stage = partial(progress, f"measuring {site.name}")
            cluster.run_all(task, missing, total=count, progress=stage)
            save(final, _usable(reduce(add, (load(task.path(i)) for i in range(count)))))
            for i in range(count):
                task.path(i).unlink(missing_ok=True)
        found[site.name] = load(final)
    return found


def save(path: Path, moments: Moments) -> None:
    """Publish moments as an ``.npz`` file."""
    buffer = io.BytesIO()
    np.savez(buffer, n=moments.n, mean=moments.mean, m2=moments.m2)
    publish(path, buffer.getvalue())


def load(path: Path) -> Moments:
    """Read moments that `save` wrote."""
    with np.load(path, allow_pickle=False) as file:
        return Moments(float(file["n"]), file["mean"], file["m2"])
