"""stain: normalisation of the stains of a whole slide, pixel by pixel, without any weights.

- ``macenko``: in optical density, the directions of hematoxylin and eosin are found as robust extremes of the
  angles in the plane that holds most of the tissue; the amounts of both are scaled so that their 99th
  percentiles are those of the reference, and mixed again with the stains of the reference [1].
- ``vahadane``: the same, but the stains are those of a sparse non-negative factorisation, and no amount is
  negative [4]; `urst_tiles.nets.colour.vahadane` has more.
- ``reinhard``: mean and standard deviation of the tissue in CIELAB become those of the reference [2, 3].

Glass neither counts nor changes: a pixel none of whose channels absorbs is left as it is, and from there to
tissue the result fades in. All that is measured is exact over the whole slide: the plane, the angles and the
amounts in a pass each, percentiles from histograms of 65536 values; for ``vahadane`` the stains in a pass,
from a histogram of densities, and the amounts.

References
----------
1. M. Macenko et al., "A Method for Normalizing Histology Slides for Quantitative Analysis", ISBI 2009.
2. E. Reinhard et al., "Color Transfer between Images", IEEE Computer Graphics and Applications 21(5), 2001.
3. D. Magee et al., "Colour Normalisation in Digital Histopathology Images", OPTIMHisE 2009.
4. A. Vahadane et al., "Structure-Preserving Color Normalization and Sparse Stain Separation for Histological
   Images", IEEE Transactions on Medical Imaging 35(8), 2016.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from urst_tiles.errors import BadInput
from urst_tiles.histogram import Bins, Histogram
from urst_tiles.moments import Moments
from urst_tiles.nets.base import (
    Affine,
    At,
    Site,
    State,
    StyleImages,
    checked_alpha,
    digest,
    shares,
)
from urst_tiles.nets.colour import checked_method, merged_moments, target_of, vahadane
from urst_tiles.nets.colour.look import Fitted, Look
from urst_tiles.nets.colour.separation import (
    BRIGHT,
    LEAST_SHARE,
    MOST,
    NEUTRAL,
    STANDARD,
    enough,
    estimated_white,
    factors,
    in_plane,
    inside,
    not_apart,
    plane_of,
    share_of,
    stains_of,
)
from urst_tiles.nets.colour.spaces import from_lab, mixed, to_lab
from urst_tiles.nets.identity import check as check
from urst_tiles.nets.identity import seeded as seeded

Float = NDArray[np.float64]

NAME, HALO, STRIDE, MINIMUM = "stain", 0, 1, 1
METHODS = ("macenko", "reinhard", "vahadane")

#: Optical density (natural logarithm) from which a pixel is tissue, and below half of which it is glass [1].
BETA = 0.15
#: Added to intensities before their logarithm is taken: one level of 8 bits.
OFFSET = 1.0 / 255
NAMES = ("hematoxylin", "eosin")
#: The methods that take a slide apart into the amounts of its stains.
APART = ("macenko", "vahadane")
#: An amount is written as so many levels of 16 bits for each 1 of optical density: up to 6.5535.
LEVELS_PER_AMOUNT = 10000

#: An amount is scaled by no more than this, nor by less than its inverse.
MOST_SCALE = 3.0

ANGLES, AMOUNTS, WHITES = Bins(65536, -math.pi, math.pi), Bins(65536, -2.0, 8.0), Bins(256)

# What is measured at the sites. Features are optical density or CIELAB (3), whether a pixel is tissue in
# every channel (1, for macenko; for vahadane the product of the two stains with each other), how much of it
# is tissue (0..1), and for macenko two coordinates in the plane, which become the amounts of both stains.


def see_white(x: Tensor) -> Tensor:
    """Red, green and blue of what looks like glass, and 0 for all else."""
    glass = (x.amin(0) >= BRIGHT) & (x.amax(0) - x.amin(0) <= NEUTRAL)
    return torch.where(glass, x, torch.zeros_like(x))


def see_tissue(x: Tensor) -> Tensor:
    """Optical densities where every channel absorbs, else 0; and whether it does."""
    return torch.cat([x[:3] * x[3], x[3:4]])


def see_angles(x: Tensor) -> Tensor:
    """The angles in the plane where every channel absorbs, else NaN; and whether it does."""
    angles = torch.atan2(x[6], x[5])
    return torch.stack([torch.where(x[3] > 0.5, angles, torch.full_like(angles, torch.nan)), x[3]])


def see_amounts(x: Tensor) -> Tensor:
    """The amounts of both stains in tissue, else NaN; and whether it is tissue."""
    tissue = x[4] >= 1.0
    amounts = torch.where(tissue, x[5:7], torch.full_like(x[5:7], torch.nan))
    return torch.cat([amounts, tissue[None].to(x)])


def see_lab(x: Tensor) -> Tensor:
    """CIELAB of tissue, else 0; and whether it is tissue."""
    tissue = (x[3] >= 1.0).to(x)
    return torch.cat([x[:3] * tissue, tissue[None]])


def _site(name: str, channels: int, view: Any, viewed: int, bins: Bins | None = None, **more: Any) -> Site:
    return Site(name, channels, 1, 0.0, 0, halo=0, view=view, viewed=viewed, bins=bins, **more)


class StainStyle:
    """A method with the stains of the reference.

    Parameters
    ----------
    method : one of ``METHODS``.
    target : the statistics of the reference, by name, as in `urst_tiles.nets.colour.look`.
    alpha : strength: the result is mixed with the image.
    white : red, green and blue of the glass of the image in 0..1; None to estimate them.
    maps : names of stains (`NAMES`) whose amounts are the result, a band for each, instead of colours; none
        for colours. Amounts are those of the image, not of the reference.
    floats : whether amounts are in optical density, of any size and sign; else as fractions of 65535 levels,
        of which `LEVELS_PER_AMOUNT` are a density of 1, so that amounts below 0 are cut off at 0.
    """

    name, halo, stride, minimum = NAME, HALO, STRIDE, MINIMUM
    plain_bytes = 220.0

    def __init__(
        self,
        method: str,
        target: Fitted,
        alpha: float = 1.0,
        white: Any = None,
        maps: Sequence[str] = (),
        floats: bool = False,
    ):
        self.maps, self.floats = tuple(maps), floats
        self.bands = len(self.maps) or 3
        self.method, self.target = checked_method(method, METHODS, NAME), dict(target)
        self.alpha, self.white = checked_alpha(alpha), None if white is None else tuple(white)
        first = _site("white", 3, see_white, 3, WHITES, measured=self.white is None)
        if method == "reinhard":
            self.sites: tuple[Site, ...] = (first, _site("lab", 4, see_lab, 4, full=True))
            return
        if method == "vahadane":
            apart: tuple[Site, ...] = (_site("stains", 7, vahadane.see_cells, 1, vahadane.CELLS),)
        else:
            apart = (
                _site("plane", 7, see_tissue, 4, full=True),
                _site("angles", 7, see_angles, 2, ANGLES),
            )
        last = () if self.maps else (_site("amounts", 7, see_amounts, 3, AMOUNTS),)
        self.sites = (first, *apart, *last)

    @property
    def fingerprint(self) -> str:
        return digest(*self.state())

    def forward(self, x: Tensor, at: At) -> Tensor:
        density = at(self.sites[0], x).clamp(min=OFFSET / 4).log().neg()
        tissue = (density.amax(1, keepdim=True) * (2.0 / BETA) - 1.0).clamp(0.0, 1.0)
        if self.method == "reinhard":
            found = at(self.sites[1], torch.cat([to_lab(x), tissue], 1))
            return self._faded(x, from_lab(found[:, :3]), found[:, 3:4])
        every = (density.amin(1, keepdim=True) - BETA).sign().clamp(min=0.0)
        features = torch.cat([density, every, tissue, torch.zeros_like(density[:, :2])], 1)
        for site in self.sites[1:]:
            features = at(site, features)
            if site.name == "stains":
                amounts = vahadane.sparse(features[:, 5], features[:, 6], features[:, 3])
                features = torch.cat([features[:, :5], torch.stack(amounts, 1)], 1)
            if self.maps and site is self.sites[-1]:
                maps = [features[:, 5 + NAMES.index(name)] for name in self.maps]
                return torch.stack(maps, 1) * (1.0 if self.floats else LEVELS_PER_AMOUNT / 65535)
        return self._faded(x, features[:, :3].neg().exp(), features[:, 4:5])

    def _faded(self, x: Tensor, y: Tensor, tissue: Tensor) -> Tensor:
        """The result ``y`` in tissue, the image elsewhere."""
        return x + (y - x) * (tissue * self.alpha)

    def affine(self, site: Site, moments: Any) -> Affine:
        """The map that a site becomes for the statistics of the image."""
        if site.name == "white":
            white = np.array(self.white if self.white is not None else estimated_white(moments)[0])
            return Affine(1.0 / white, OFFSET / white)
        found: dict[str, Any] = {
            "plane": self._plane, "angles": self._angles, "stains": self._stains, "amounts": self._amounts,
            "lab": self._lab,
        }  # fmt: skip
        made: Affine = found[site.name](moments)
        return made

    def _plane(self, moments: Moments) -> Affine:
        """Two coordinates in the plane of the tissue are added."""
        scale = np.eye(7)
        if inside(moments)[0] > 0:
            scale[5:7, :3] = plane_of(moments)
        return Affine(scale, np.zeros(7))

    def _angles(self, found: Histogram) -> Affine:
        """The two coordinates become the amounts of both stains."""
        scale = np.eye(7)
        stains = in_plane(found)
        if stains is None:
            scale[5:7, 5:7] = 0.0
            scale[5:7, :3] = np.linalg.pinv(self.target["stains"].T)
        else:
            scale[5:7, 5:7] = np.linalg.inv(stains.T)
        return Affine(scale, np.zeros(7))

    def _stains(self, found: Histogram) -> Affine:
        """For vahadane: the products of the density with both stains, less the penalty of amounts, and the
        product of the stains with each other."""
        scale, shift = np.eye(7), np.zeros(7)
        stains = factors(found)
        stains = self.target["stains"] if stains is None else stains
        scale[5:7, :3], shift[5:7] = stains, -vahadane.SPARSE_AMOUNTS
        scale[3, 3], shift[3] = 0.0, (stains[0] * stains[1]).sum()
        return Affine(scale, shift)

    def _amounts(self, found: Histogram) -> Affine:
        """The amounts become optical densities, in the amounts and the stains of the reference."""
        scale, shift = np.eye(7), np.zeros(7)
        if not enough(found, 2):
            scale[4, 4] = 0.0
            return Affine(scale, shift)
        scale[:3, :3] = 0.0
        scale[:3, 5:7] = self.target["stains"].T * self._scales(found)
        shift[:3] = -np.log(self.target["white"])
        return Affine(scale, shift)

    def _scales(self, found: Histogram) -> Float:
        """By what the amount of each stain is multiplied, (2,)."""
        most = np.array([found.quantile(k, MOST) for k in range(2)])
        wanted = self.target["concentrations"] / np.maximum(most, 1e-9)
        return np.clip(wanted, 1.0 / MOST_SCALE, MOST_SCALE)

    def _lab(self, moments: Moments) -> Affine:
        """Mean and deviation of the tissue become those of the reference."""
        share, mean, covariance = inside(moments)
        if share == 0:
            return Affine(np.diag([1.0, 1.0, 1.0, 0.0]), np.zeros(4))
        spread, wanted = np.diagonal(covariance), np.diagonal(self.target["covariance"])
        scale = np.where(spread < 1e-4, 1.0, np.sqrt(wanted / np.maximum(spread, 1e-4)))
        shift = np.append(self.target["mean"] - scale * mean, 0.0)
        return Affine(np.diag([*scale, 1.0]), shift)

    def notes(self, statistics: Mapping[str, Any]) -> list[str]:
        """What a user should know of the statistics of a slide, as sentences."""
        said = []
        if self.white is None and not estimated_white(statistics["white"])[1]:
            said.append("no glass is seen, its white is taken for 240; --white R,G,B says what it is")
        if self.method == "reinhard":
            share = inside(statistics["lab"])[0]
            return said if share else [*said, _too_little(statistics["lab"].mean[3], statistics["lab"].n)]
        amounts = None if self.maps else statistics["amounts"]
        if amounts is not None and not enough(amounts, 2):
            return [*said, _too_little(share_of(amounts, 2), float(amounts.counts[2].sum()))]
        if why := not_apart(self.method, statistics):
            said.append(f"its stains are not told apart ({why}); the reference's are taken")
        return said if amounts is None else [*said, *self._far_amounts(amounts)]

    def _far_amounts(self, amounts: Histogram) -> list[str]:
        """A sentence for each stain whose amount is too far from the reference's to be scaled to it."""
        said = []
        for k, name in enumerate(NAMES):
            most, wanted = amounts.quantile(k, MOST), float(self.target["concentrations"][k])
            if not 1 / MOST_SCALE <= wanted / max(most, 1e-9) <= MOST_SCALE:
                said.append(
                    f"it has {'little' if most < wanted else 'much'} {name}: the 99th percentile of its"
                    f" amount is {most:.3g}, that of the reference {wanted:.3g}; it is scaled by"
                    f" {self._scales(amounts)[k]:.3g}, no further"
                )
        return said

    def scaled(self, statistics: Mapping[str, Any]) -> dict[str, float]:
        """By what the amount of each stain is multiplied, by its name; empty where none is."""
        if self.method == "reinhard" or not enough(statistics["amounts"], 2):
            return {}
        return dict(zip(NAMES, self._scales(statistics["amounts"]).tolist(), strict=True))

    def state(self) -> tuple[State, dict[str, Any]]:
        tensors = {name: torch.from_numpy(np.array(values)) for name, values in self.target.items()}
        white = None if self.white is None else list(self.white)
        settings = {"method": self.method, "alpha": self.alpha, "white": white}
        settings |= {"maps": list(self.maps)} if self.maps else {}
        return tensors, settings | ({"floats": True} if self.floats else {})

    def with_maps(self, names: Sequence[str], floats: bool = False) -> StainStyle:
        """The same style, whose result are the amounts of the stains ``names``."""
        return StainStyle(self.method, self.target, self.alpha, self.white, names, floats)


def _too_little(share: float, pixels: float) -> str:
    return (
        f"too little tissue to normalise: {100 * share:.3g} % of {pixels:.0f} pixels absorb (optical density"
        f" of {BETA} or more), at least {100 * LEAST_SHARE:g} % are needed; it is left as it is"
    )


def fitted(style: StainStyle, statistics: Mapping[str, Any]) -> Fitted:
    """What a reference gives to a style: its statistics, as they were measured at the sites of a style.

    Raises
    ------
    BadInput : it has too little tissue, or its stains are not told apart.
    """
    known = style.white
    white = np.array(known) if known is not None else estimated_white(statistics["white"])[0]
    if style.method == "reinhard":
        share, mean, covariance = inside(statistics["lab"])
        if not share:
            raise BadInput("the reference has too little tissue; choose another")
        return {"white": white, "mean": mean, "covariance": covariance}
    stains = stains_of(style.method, statistics)
    if stains is None or not enough(statistics["amounts"], 2):
        published = ", or --style standard" if style.method == METHODS[0] else ""
        raise BadInput(f"the reference does not show two stains; choose another{published}")
    amounts = [statistics["amounts"].quantile(k, MOST) for k in range(2)]
    return {
        "white": white,
        "stains": stains,
        "concentrations": np.array(amounts),
    }


def merged(method: str, parts: Sequence[tuple[Fitted, float]]) -> Fitted:
    """The common statistics of several references: means of whites, stains and amounts, or the moments of all
    tissue together, where each reference has the weight that stands beside it."""
    if len(parts) == 1:
        return parts[0][0]
    white = np.sum([share * one["white"] for one, share in parts], 0)
    if method == "reinhard":
        return {"white": white, **merged_moments(parts)}
    stains = np.sum([share * one["stains"] for one, share in parts], 0)
    return {
        "white": white,
        "stains": stains / np.linalg.norm(stains, axis=1, keepdims=True),
        "concentrations": np.sum([share * one["concentrations"] for one, share in parts], 0),
    }


def measuring(method: str, depth: int, white: Any = None, bands: int = 3) -> StainStyle:
    """A style whose sites measure what ``method`` takes from a reference."""
    target = STANDARD
    if method == "reinhard":
        target = {"white": STANDARD["white"], "mean": np.zeros(3), "covariance": np.eye(3)}
    return StainStyle(method, target, white=white)


def build(states: Mapping[str, State], styles: StyleImages, alpha: float = 1.0) -> StainStyle:
    """A style from looks; images, which tests give, stand for the published reference."""
    method, white = METHODS[0], None
    parts: list[tuple[Fitted, float]] = []
    for style, share in shares(styles):
        if isinstance(style, Look):
            method, white = style.method, style.given_white
        parts.append((style.statistics if isinstance(style, Look) else STANDARD, share))
    return StainStyle(method, merged(method, parts), alpha, white)


def restore(state: State, settings: Mapping[str, Any]) -> StainStyle:
    """The inverse of ``StainStyle.state``."""
    maps, floats = settings.get("maps", ()), settings.get("floats", False)
    return StainStyle(
        settings["method"], target_of(state), settings["alpha"], settings["white"], maps, floats
    )


def checked_names(text: str) -> tuple[str, ...]:
    """The names of the stains that a text such as ``H,E`` or ``eosin`` names.

    Raises
    ------
    BadInput : it names none, an unknown one, or one of them twice.
    """
    words = [word.strip().lower() for word in text.split(",")]
    found = tuple(name for word in words for name in NAMES if word and word in (name, name[0]))
    if len(found) != len(words) or len(set(found)) != len(found):
        raise BadInput(f"--stains takes H (hematoxylin), E (eosin) or both, as in H,E, got {text!r}")
    return found


def densities(x: Tensor, white: Affine) -> Tensor:
    """Optical densities of the pixels ``x``, (n, 3, h, w), by the map of the glass, channel by channel."""
    return mixed(x, np.diag(white.scale), white.shift).clamp_(min=OFFSET / 4).log_().neg_()


def fused(style: StainStyle, affines: Mapping[str, Affine], x: Tensor) -> Tensor:
    """`StainStyle.forward` for macenko with the maps of all sites in one matrix of optical densities."""
    density = densities(x, affines["white"])
    tissue = (density.amax(1, keepdim=True) * (2.0 / BETA) - 1.0).clamp_(0.0, 1.0)
    last = affines["amounts"]
    whole = last.scale @ affines["angles"].scale @ affines["plane"].scale
    y = mixed(density, whole[:3, :3], last.shift[:3]).neg_().exp_()
    return x + (y - x) * (tissue * (style.alpha * float(last.scale[4, 4])))
