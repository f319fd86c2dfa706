"""Styles over a field: a map at every site that varies over the image.

Where one member of the field is alone, a window is one style's own network. Elsewhere the plain form runs,
and at each site the maps of the members are mixed by their weights there: y = sum_k w_k(place) (A_k x + b_k).
This serves several styles in the regions of a mask (spatial control; Huang and Belongie, ICCV 2017, section
7.3), and statistics that vary over the image (ideas of KIN, Ho et al., ECCV 2022, and of Dense Normalization,
ECCV 2024).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from urst_tiles.errors import BadPlan
from urst_tiles.field import Everywhere, Field, Regions
from urst_tiles.field import restored as field_of
from urst_tiles.geometry import Box
from urst_tiles.moments import MemberMoments, Moments
from urst_tiles.nets.base import (
    NOTHING,
    Affine,
    At,
    LocalNet,
    Precision,
    Site,
    State,
    Style,
    checked_precision,
    digest,
    neutral_moments,
    saved_style,
)

#: How much the statistics of the whole weigh beside a member's own: a flat part is not stretched to noise.
BACKING = 0.3

Maps = Mapping[str, tuple[Affine, ...]]
#: (a style, its statistics by site) -> the style's plain network.
Freeze = Callable[[Style, Mapping[str, Moments]], LocalNet]


@dataclass(frozen=True, eq=False)
class Composition:
    """A field with the style of each member.

    Parameters
    ----------
    styles : of one family, with the same weights: one for all members, or one for each but the rest of
        `Regions`, which keeps its picture.
    """

    styles: tuple[Style, ...]
    field: Field = Everywhere()

    @property
    def style(self) -> Style:
        """Any of them: they differ in their maps alone."""
        return self.styles[0]

    @property
    def name(self) -> str:
        """Of the family."""
        return self.style.name

    @property
    def sites(self) -> tuple[Site, ...]:
        """Of the family."""
        return self.style.sites

    @property
    def halo(self) -> int:
        """Of the family."""
        return self.style.halo

    @property
    def stride(self) -> int:
        """Of the family."""
        return self.style.stride

    @property
    def minimum(self) -> int:
        """Of the family."""
        return self.style.minimum

    @property
    def plain_bytes(self) -> float:
        """Of the family, with scale, shift and product at the largest site, and what makes the weights."""
        largest = max((site.channels / site.stride**2 for site in self.sites), default=0.0)
        shares = 40.0 * self.field.members if isinstance(self.field, Regions) else 24.0
        return self.style.plain_bytes + 12.0 * largest + shares

    @property
    def fingerprint(self) -> str:
        """Hex digest of every style."""
        return digest({}, {"styles": [style.fingerprint for style in self.styles]})

    def backed(self, found: MemberMoments) -> MemberMoments:
        """The members' statistics, none of them without a deviation that the whole has."""
        return found.backed(self.field.members, BACKING) if self.field.members > 1 else found

    def maps(self, found: Mapping[str, MemberMoments]) -> Maps:
        """Every member's constant map at the sites that are known."""
        known = [site for site in self.sites if not site.measured or site.name in found]
        return {site.name: tuple(self.map_at(site, found)) for site in known}

    def mixtures(self, found: Mapping[str, MemberMoments]) -> dict[str, Mixture]:
        """The same, to be mixed."""
        return {name: Mixture(affines) for name, affines in self.maps(found).items()}

    def map_at(self, site: Site, found: Mapping[str, MemberMoments]) -> list[Affine]:
        """Every member's constant map at one site."""
        return [
            self._map(k, site, found[site.name].parts[k] if site.measured else NOTHING)
            for k in range(self.field.members)
        ]

    def _map(self, member: int, site: Site, moments: Moments) -> Affine:
        if isinstance(self.field, Regions) and member == self.field.rest:
            return Affine.identity(site.channels)
        return self.styles[member if len(self.styles) > 1 else 0].affine(site, moments)

    def frozen(self, moments: Mapping[str, MemberMoments] | None, freeze: Freeze) -> Varying:
        """The network that varies over the image; ``nets.freeze`` calls this.

        Parameters
        ----------
        moments : of every member at each measured site; None for the identity at every site.
        freeze : makes the network of one style, for windows where it is alone.

        Raises
        ------
        BadPlan : statistics are missing at a site.
        """
        masked = isinstance(self.field, Regions)
        if moments is None:
            maps = {site.name: Mixture(self.field.members * (_like(site),)) for site in self.sites}
            return Varying(self, maps, [freeze(s, neutral_moments(s)) for s in self.styles if masked])
        missing = [site.name for site in self.sites if site.measured and site.name not in moments]
        if missing:
            raise BadPlan(f"{self.name} needs statistics at {', '.join(missing)}")
        alone = []
        for k, style in enumerate(self.styles if masked else ()):
            alone.append(freeze(style, {name: several.parts[k] for name, several in moments.items()}))
        return Varying(self, self.mixtures(moments), alone)


def _like(site: Site) -> Affine:
    """A map of the kind that ``site`` has."""
    one = Affine.identity(site.channels)
    return Affine(np.diag(one.scale), one.shift) if site.full else one


class Mixture(nn.Module):
    """The members' maps at one site, to be mixed by weights.

    Parameters
    ----------
    affines : of every member, diagonal or full.
    """

    def __init__(self, affines: Sequence[Affine]):
        super().__init__()
        full = any(a.scale.ndim == 2 for a in affines)
        alike = all(a is affines[0] for a in affines)
        given = affines[:1] if alike else affines
        scales = [np.diag(a.scale) if full and a.scale.ndim == 1 else a.scale for a in given]
        for name, values in (("scales", scales), ("shifts", [a.shift for a in given])):
            stacked = torch.from_numpy(np.stack(values))
            self.register_buffer(name, stacked.expand(len(affines), *stacked.shape[1:]))

    def affine(self, member: int) -> Affine:
        """The map of one member."""
        scales, shifts = self.get_buffer("scales"), self.get_buffer("shifts")
        return Affine(scales[member].cpu().numpy(), shifts[member].cpu().numpy())

    def forward(self, x: Tensor, members: Sequence[int], weights: Tensor) -> Tensor:
        """(1, C, h, w) -> same; ``weights`` (members, h, w) of the ``members``, summing to 1."""
        scales, shifts = (self.get_buffer(name)[list(members)].to(x) for name in ("scales", "shifts"))
        y = torch.einsum("kc,khw->chw", shifts, weights)
        if scales.ndim == 2:
            return torch.addcmul(y, x, torch.einsum("kc,khw->chw", scales, weights))
        for scale, weight in zip(scales, weights, strict=True):
            y = torch.addcmul(y, torch.einsum("dc,nchw->ndhw", scale, x), weight)
        return y


def mixing(composition: Composition, maps: Mapping[str, Mixture], box: Box) -> At:
    """An ``at`` for one window at ``box``."""
    shares: dict[int, tuple[tuple[int, ...], Tensor]] = {}
    active = composition.field.active(box)

    def at(site: Site, x: Tensor) -> Tensor:
        if len(active) == 1:
            return maps[site.name].affine(active[0])(x)
        if site.stride not in shares:
            members, weights = composition.field.weights(box, site.stride)
            shares[site.stride] = members, torch.from_numpy(weights).to(x)
        return maps[site.name](x, *shares[site.stride])

    return at


class Varying(LocalNet):
    """The plain network of a composition: float32 where members meet.

    Parameters
    ----------
    maps : the members' maps at each site.
    alone : each style's own network, for windows that it has to itself; none for members that always meet.
    """

    selective = True

    def __init__(self, composition: Composition, maps: Mapping[str, Mixture], alone: Sequence[LocalNet]):
        super().__init__()
        self.composition, self._names = composition, list(maps)
        self.mixtures = nn.ModuleList(maps.values())
        self.alone = nn.ModuleList(alone)
        self.family = composition.name
        self.halo, self.stride = composition.halo, composition.stride
        self.minimum = composition.minimum

    @property
    def maps(self) -> dict[str, Mixture]:
        """The members' maps by site (names of sites have dots, which names of modules must not)."""
        mixtures: Any = self.mixtures
        return dict(zip(self._names, mixtures, strict=True))

    def forward(
        self, x: Tensor, boxes: Sequence[Box] | None = None, keep: Sequence[Box] | None = None
    ) -> Tensor:
        """One window after the other, each at its own place."""
        assert boxes is not None
        parts = keep or [box.within(box) for box in boxes]
        windows = zip(x.split(1), boxes, parts, strict=True)
        return torch.cat([self._window(one, box, part) for one, box, part in windows])

    def _window(self, x: Tensor, box: Box, part: Box) -> Tensor:
        members, rest = self.composition.field.active(box), self._rest
        if members == (rest,):
            return x
        if len(members) == 1 and self._nets:
            net = self._nets[members[0]]
            return net(x, [box], [part]) if net.selective else net(x, [box])
        y = self.composition.style.forward(x, mixing(self.composition, self.maps, box))
        if rest not in members:
            return y
        shares = self.composition.field.weights(box, 1)[1][members.index(rest)]
        return torch.lerp(y, x, torch.from_numpy(shares).to(y))

    @property
    def _nets(self) -> list[LocalNet]:
        """Each style's own network."""
        alone: Any = self.alone
        return list(alone)

    @property
    def _rest(self) -> int | None:
        """The member whose picture stays as it is."""
        field = self.composition.field
        return field.rest if isinstance(field, Regions) else None

    def bytes_per_pixel(self, precision: Precision) -> float:
        """The plain form's, or that of a style alone."""
        alone = [net.bytes_per_pixel(precision) for net in self._nets]
        return max(self.composition.plain_bytes, *alone, 0.0)

    def to_precision(self, precision: Precision) -> Varying:
        """Where a style is alone, its network at ``precision``; elsewhere float32."""
        checked_precision(precision)
        alone = [net.to_precision(precision) for net in self._nets]
        return Varying(self.composition, self.maps, alone)

    def saved(self) -> tuple[State, dict[str, Any]]:
        """Every style's state, every member's maps, and the field; `restored` is its inverse."""
        tensors: State = {}
        styles = []
        for k, style in enumerate(self.composition.styles):
            state, values = saved_style(style)
            tensors |= {f"style{k}.{name}": t for name, t in state.items()}
            styles.append(values)
        for name, mixture in self.maps.items():
            for part in ("scale", "shift"):
                tensors[f"members.{name}.{part}"] = mixture.get_buffer(f"{part}s")
        field = self.composition.field.described()
        return tensors, {"family": self.family, "styles": styles, "field": field, "kind": "varying"}


def restored(
    tensors: State, values: Mapping[str, Any], style: Callable[..., Style], frozen: Callable[..., LocalNet]
) -> Varying:
    """The inverse of ``Varying.saved``; ``style`` makes a style from its state and values, ``frozen`` a
    net from a style and its maps."""
    field = field_of(values["field"])
    styles = []
    for k, saved in enumerate(values["styles"]):
        prefix = f"style{k}."
        state = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        styles.append(style(state, saved))
    composition = Composition(tuple(styles), field)
    maps = {site.name: _mixture(tensors, f"members.{site.name}") for site in composition.sites}
    alone = []
    if isinstance(field, Regions):
        for k, one in enumerate(styles):
            alone.append(frozen(one, {name: mixture.affine(k) for name, mixture in maps.items()}))
    return Varying(composition, maps, alone)


def _mixture(tensors: State, name: str) -> Mixture:
    scales, shifts = (tensors[f"{name}.{part}"].numpy() for part in ("scale", "shift"))
    return Mixture([Affine(scale, shift) for scale, shift in zip(scales, shifts, strict=True)])


Subject = Style | Composition


def composed(style: Subject) -> Composition:
    """A plain style is a composition of one."""
    return style if isinstance(style, Composition) else Composition((style,))


def measured_sites(style: Subject) -> list[Site]:
    """Those whose maps depend on the image, in the order of the network."""
    return [site for site in style.sites if site.measured]
