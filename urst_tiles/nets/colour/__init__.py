"""colour: transfer of the statistics of colour from a reference, pixel by pixel, without any weights.

Every method measures something of the colours of the whole image, and maps them so that they have what the
reference has: a point operation, of halo 0 and stride 1.

- ``mean-std``: mean and standard deviation of red, green and blue, each by itself.
- ``monge-kantorovich``: mean and covariance of the three together, by the linear map that moves colours least
  [1].
- ``reinhard``: mean and standard deviation of l, alpha and beta, which are nearly independent in photographs
  [2].
- ``reinhard-lab``: the same in CIELAB, as papers on histology use it [3].
- ``histogram``: the whole distribution of red, green and blue, each by itself. Floats in a unit of their own
  are counted in two passes (`urst_tiles.nets.colour.float_histogram`).
- ``lut``: nothing is measured; a table of colours from a file ``.cube`` is looked up.
- ``gain-offset``: nothing is measured; each channel is multiplied by a gain and an offset is added, which a
  look file gives (`urst_tiles.api.balance` writes one for each scene).

References
----------
1. F. Pitie and A. Kokaram, "The Linear Monge-Kantorovitch Linear Colour Mapping for Example-Based Colour
   Transfer", CVMP 2007.
2. E. Reinhard et al., "Color Transfer between Images", IEEE Computer Graphics and Applications 21(5), 2001.
3. D. Magee et al., "Colour Normalisation in Digital Histopathology Images", MICCAI workshop OPTMHisE 2009.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from urst_tiles.errors import BadInput
from urst_tiles.histogram import LEVELS, Histogram, matched
from urst_tiles.moments import Moments
from urst_tiles.nets.base import (
    Affine,
    At,
    Curves,
    Site,
    State,
    StyleImages,
    checked_alpha,
    digest,
    shares,
    style_tensor,
)
from urst_tiles.nets.colour.cube import looked_up
from urst_tiles.nets.colour.float_histogram import KEYS, STEPS, distribution, divided, lines, see_keys
from urst_tiles.nets.colour.float_histogram import merged as merged_distributions
from urst_tiles.nets.colour.look import Fitted, Look
from urst_tiles.nets.colour.spaces import from_lab, from_lalphabeta, to_lab, to_lalphabeta
from urst_tiles.nets.identity import check as check
from urst_tiles.nets.identity import seeded as seeded

NAME, HALO, STRIDE, MINIMUM = "colour", 0, 1, 1
#: The methods that know bands of any number, and not red, green and blue alone.
BANDWISE = ("monge-kantorovich", "mean-std", "histogram")
METHODS = ("monge-kantorovich", "mean-std", "reinhard", "reinhard-lab", "histogram", "lut", "gain-offset")

#: Variances below this are rounding and no colour, and are not amplified: of red, green and blue in 0..1, of
#: decimal logarithms (a deviation of 0.2 %), and in CIELAB (a deviation of 0.01).
LEAST_VARIANCE = {"reinhard": 1e-6, "reinhard-lab": 1e-4}
LEAST_VARIANCE_RGB = 1e-12
#: The deviation of floats that is rounding, relative to their mean, squared.
FLAT = 1e-13
#: Directions of colour whose variance is this much smaller than the largest have none.
NO_SPREAD = 1e-9


class ColourStyle:
    """A method with the statistics of the reference.

    Parameters
    ----------
    method : one of ``METHODS``.
    target : the statistics of the reference, by name: "mean" (C,) and "covariance" (C, C) in the space of the
        method, float64; or for ``histogram`` "counts" (C, 65536), of floats "distribution" (C, pairs, 2); or
        for ``lut`` "table" (N, N, N, 3). C is the number of bands, 3 for methods other than `BANDWISE`.
    alpha : strength: the map is blended with the identity.
    depth : bits of the samples of the image, 8 or 16, or 32 for floats in a unit of their own; ``reinhard``
        takes logarithms of no less than one level.
    """

    name, halo, stride, minimum = NAME, HALO, STRIDE, MINIMUM

    def __init__(self, method: str, target: Fitted, alpha: float = 1.0, depth: int = 8):
        self.method, self.target = checked_method(method, METHODS, NAME), dict(target)
        self.alpha, self.depth = checked_alpha(alpha), depth
        self.reads = self.bands = bands_in(self.target)
        self.plain_bytes = 32.0 * self.bands
        bins = LEVELS if method == "histogram" else None
        full = method == "monge-kantorovich"
        self.sites: tuple[Site, ...] = ()
        if method == "lut":
            self.table = torch.from_numpy(np.array(self.target["table"], np.float32))
            return
        if method == "gain-offset":
            self.line = Affine(self.target["gains"], self.target["offsets"]).blend(self.alpha)
            return
        if "distribution" in self.target:
            self.plain_bytes = 80.0 * self.bands
            self.sites = (
                Site("keys", self.bands, 1, 0.0, 0, halo=0, bins=KEYS, view=see_keys),
                Site("steps", self.bands, 1, 0.0, 0, halo=0, bins=STEPS, view=torch.floor),
            )
            return
        self.sites = (Site("colours", self.bands, 1, 0.0, 0, full=full, halo=0, bins=bins),)

    @property
    def as_is(self) -> bool:
        """Whether pixels are floats in a unit of their own."""
        return self.depth == 32

    @property
    def channelwise(self) -> bool:
        """Whether each channel of the result depends on the same channel of the image alone."""
        return self.method in ("mean-std", "histogram", "gain-offset")

    @property
    def fingerprint(self) -> str:
        return digest(*self.state())

    def forward(self, x: Tensor, at: At) -> Tensor:
        if self.method == "gain-offset":
            return self.line(x)
        if self.method == "lut":
            return self._mixed(x, looked_up(x, self.table.to(x)))
        if self.method == "reinhard":
            floor = 1.0 / (2**self.depth - 1)
            return self._mixed(x, from_lalphabeta(at(self.sites[0], to_lalphabeta(x, floor))))
        if self.method == "reinhard-lab":
            return self._mixed(x, from_lab(at(self.sites[0], to_lab(x))))
        if len(self.sites) == 2:
            return self._mixed(x, at(self.sites[1], at(self.sites[0], x)))
        return at(self.sites[0], x)

    def _mixed(self, x: Tensor, y: Tensor) -> Tensor:
        """The image and the result mixed by alpha, where the map of the site cannot do that."""
        return y if self.alpha == 1.0 else torch.lerp(x, y, self.alpha)

    def affine(self, site: Site, moments: Any) -> Any:
        """The map that gives the colours of the image, of which ``moments`` (or a histogram) were measured,
        those of the reference."""
        if site.name in ("keys", "steps"):
            return divided(moments) if site.name == "keys" else lines(moments, self.target["distribution"])
        if isinstance(moments, Histogram):
            target = Histogram(LEVELS, self.target["counts"])
            return Curves(matched(moments, target).astype(np.float32)).blend(self.alpha)
        mean, covariance = self.target["mean"], self.target["covariance"]
        if site.full:
            least = LEAST_VARIANCE_RGB if self.depth < 32 else 0.0
            scale = linear_map(moments.covariance(), covariance, least)
        else:
            spread = moments.variance()
            least = LEAST_VARIANCE.get(self.method, LEAST_VARIANCE_RGB)
            flat = spread <= (least if self.depth < 32 else FLAT * moments.mean**2)
            scale = np.sqrt(np.where(flat, 1.0, np.diagonal(covariance) / np.where(flat, 1.0, spread)))
        shift = mean - (scale @ moments.mean if site.full else scale * moments.mean)
        whole = Affine(scale, shift)
        return whole if self.method.startswith("reinhard") else whole.blend(self.alpha)

    def state(self) -> tuple[State, dict[str, Any]]:
        tensors = {name: torch.from_numpy(np.array(values)) for name, values in self.target.items()}
        return tensors, {"method": self.method, "alpha": self.alpha, "depth": self.depth}


def bands_in(target: Fitted) -> int:
    """How many bands the statistics of a reference have."""
    return next(
        (len(target[name]) for name in ("counts", "distribution", "mean", "gains") if name in target), 3
    )


def linear_map(
    source: NDArray[np.float64], target: NDArray[np.float64], least: float = LEAST_VARIANCE_RGB
) -> NDArray[np.float64]:
    """The symmetric map, float64 (C, C), that gives colours of covariance ``source`` the covariance
    ``target`` and moves them least: S^-1/2 (S^1/2 T S^1/2)^1/2 S^-1/2 [1, equation 10].

    In directions in which the source has no spread, as the colours of a grey image, the result has none
    either.
    """
    values, vectors = np.linalg.eigh(source)
    some = values > max(NO_SPREAD * values[-1], least)
    roots = np.sqrt(np.where(some, values, 1.0))
    root = (vectors * np.where(some, roots, 0.0)) @ vectors.T
    inverse = (vectors * np.where(some, 1.0 / roots, 0.0)) @ vectors.T
    values, vectors = np.linalg.eigh(root @ target @ root)
    return inverse @ (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T @ inverse


def checked_method(method: str, allowed: Sequence[str], model: str) -> str:
    """``method``; BadInput unless it is one of ``allowed``, the methods of ``model``."""
    if method not in allowed:
        raise BadInput(f"--model {model} has the methods {', '.join(allowed)}, got --method {method}")
    return method


def fitted(style: ColourStyle, statistics: Mapping[str, Any]) -> Fitted:
    """What a reference gives to a style: its statistics, as they were measured at the sites of a style."""
    if "steps" in statistics:
        return {"distribution": distribution(statistics["keys"], statistics["steps"])}
    found = statistics["colours"]
    if isinstance(found, Histogram):
        return {"counts": found.counts}
    spread = found.m2 if found.m2.ndim == 2 else np.diag(found.m2)
    return {"mean": found.mean, "covariance": spread / max(found.n, 1.0)}


def merged(method: str, parts: Sequence[tuple[Fitted, float]]) -> Fitted:
    """The common statistics of several references: those of all their pixels together, where each reference
    has the weight that stands beside it."""
    if len(parts) == 1:
        return parts[0][0]
    if len({bands_in(one) for one, _ in parts}) > 1:
        raise BadInput(
            "references with different numbers of bands do not mix; give those with the same bands"
        )
    if "distribution" in parts[0][0]:
        return {"distribution": merged_distributions([(one["distribution"], share) for one, share in parts])}
    if method == "histogram":
        counts = [share / max(one["counts"][0].sum(), 1.0) * one["counts"] for one, share in parts]
        return {"counts": np.sum(counts, 0)}
    if method == "lut":
        if len({one["table"].shape for one, _ in parts}) > 1:
            raise BadInput("tables of colours of different sizes do not mix; give one of them")
        return {"table": np.sum([share * one["table"] for one, share in parts], 0)}
    if method == "gain-offset":
        return {name: np.sum([share * one[name] for one, share in parts], 0) for name in parts[0][0]}
    return merged_moments(parts)


def merged_moments(parts: Sequence[tuple[Fitted, float]]) -> dict[str, NDArray[np.float64]]:
    """Mean and covariance of several references together."""
    total = reduce(add, (Moments(share, one["mean"], share * one["covariance"]) for one, share in parts))
    return {"mean": total.mean, "covariance": total.m2 / total.n}


def measuring(method: str, depth: int, white: Any = None, bands: int = 3) -> ColourStyle:
    """A style whose sites measure what ``method`` takes from a reference; it changes nothing worth
    knowing."""
    if method == "lut":
        raise BadInput("--method lut takes a table of colours, a .cube file, and measures no image")
    if method == "gain-offset":
        raise BadInput(
            "--method gain-offset takes a look file of `urst-tiles balance`, and measures no image"
        )
    target: Fitted = {"mean": np.zeros(bands), "covariance": np.eye(bands)}
    if method == "histogram":
        target = {"counts": np.zeros((bands, LEVELS.size))}
        target = {"distribution": np.ones((bands, 1, 2))} if depth == 32 else target
    return ColourStyle(method, target, depth=depth)


def build(states: Mapping[str, State], styles: StyleImages, alpha: float = 1.0) -> ColourStyle:
    """A style from the look of a reference, or from images, float32 (h, w, 3) in 0..1, by the first
    method."""
    look, depth = METHODS[0], 8
    parts: list[tuple[Fitted, float]] = []
    for style, share in shares(styles):
        if isinstance(style, Look):
            look, depth = style.method, style.depth
            parts.append((style.statistics, share))
        else:
            pixels = style_tensor(style, MINIMUM)[0].flatten(1).numpy()
            found = Moments.of(pixels, full=True)
            parts.append(({"mean": found.mean, "covariance": found.covariance()}, share))
    return ColourStyle(look, merged(look, parts), alpha, depth)


def target_of(state: State) -> dict[str, NDArray[Any]]:
    """What a style takes from its reference, of the state in which it is saved."""
    return {name: values.numpy() for name, values in state.items() if "." not in name and name != "format"}


def restore(state: State, settings: Mapping[str, Any]) -> ColourStyle:
    """The inverse of ``ColourStyle.state``."""
    return ColourStyle(settings["method"], target_of(state), settings["alpha"], settings["depth"])
