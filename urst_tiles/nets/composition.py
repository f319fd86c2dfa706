"""Styles over a field: at every site a map that varies over the image.

A field gives each of its members a weight at every place in the image. A window in which only one member has
weight is run by that member's own network. Elsewhere the plain form runs, and at each site the maps of the
members are mixed by their weights there: y = sum_k w_k(place) (A_k x + b_k). This serves several styles in
the regions of a mask (spatial control; Huang and Belongie, ICCV 2017, section 7.3), and statistics that vary
over the image (ideas of KIN, Ho et al., ECCV 2022, and of Dense Normalization, ECCV 2024).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
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
    Curves,
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
from urst_tiles.nets.colour.float_histogram import Division, Lines

#: The weight of the whole image's statistics relative to a member's own, so that a flat part of the image is
#: not amplified to noise.
BACKING = 0.3

#: Name of a site -> the map of each member.
Maps = Mapping[str, tuple[Affine, ...]]
#: (a style, its statistics by site) -> the style's plain network.
Freeze = Callable[[Style, Mapping[str, Moments]], LocalNet]


@dataclass(frozen=True, eq=False)
class Composition:
    """A field with a style for each member. Properties of the family are those of its styles.

    Parameters
    ----------
    styles : styles of one family with the same weights: a single style for all members, or one style for each
        member except the rest of `Regions`, where the image stays as it is.
    field : the members and their weights.
    """

    styles: tuple[Style, ...]
    field: Field = Everywhere()

    @property
    def style(self) -> Style:
        """The first of the styles, which differ only in their maps."""
        return self.styles[0]

    @property
    def name(self) -> str:
        return self.style.name

    @property
    def sites(self) -> tuple[Site, ...]:
        return self.style.sites

    @property
    def halo(self) -> int:
        return self.style.halo

    @property
    def stride(self) -> int:
        return self.style.stride

    @property
    def minimum(self) -> int:
        return self.style.minimum

    @property
    def reads(self) -> int:
        """How many bands the input has."""
        return int(getattr(self.style, "reads", 3))

    @property
    def bands(self) -> int:
        """How many bands the output has."""
        return int(getattr(self.style, "bands", 3))

    @property
    def plain_bytes(self) -> float:
        """The style's own bytes per pixel, plus scale, shift and product at the largest site, and the memory
        for computing the weights."""
        largest = max((site.channels / site.stride**2 for site in self.sites), default=0.0)
        shares = 40.0 * self.field.members if isinstance(self.field, Regions) else 24.0
        return self.style.plain_bytes + 12.0 * largest + shares

    @property
    def fingerprint(self) -> str:
        """Hex digest of all styles; the field is not part of it."""
        return digest({}, {"styles": [style.fingerprint for style in self.styles]})

    def backed(self, moments: MemberMoments) -> MemberMoments:
        """The members' statistics with a share of the whole image's added, so that no member lacks a
        deviation that the whole image has."""
        return moments.backed(self.field.members, BACKING) if self.field.members > 1 else moments

    def maps(self, moments: Mapping[str, MemberMoments]) -> Maps:
        """The constant maps of all members, at the sites whose statistics are known."""
        sites = [site for site in self.sites if not site.measured or site.name in moments]
        return {site.name: tuple(self.map_at(site, moments)) for site in sites}

    def mixtures(self, moments: Mapping[str, MemberMoments]) -> dict[str, Mixture]:
        """`maps` in a form in which they can be mixed."""
        return {name: Mixture(affines) for name, affines in self.maps(moments).items()}

    def map_at(self, site: Site, moments: Mapping[str, MemberMoments]) -> list[Affine]:
        """The constant map of every member at one site."""
        return [
            self._map(k, site, moments[site.name].parts[k] if site.measured else NOTHING)
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
        moments : statistics of every member at each measured site, by the site's name; None for the identity
            at every site.
        freeze : makes the network of a single style, for windows in which no other member has weight.

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


def _like(site: Site) -> Any:
    """The identity in the form of the maps of ``site``: diagonal, full, or curves."""
    if site.bins and site.view is None:
        return Curves.identity(site.channels, site.bins.size)
    identity = Affine.identity(site.channels)
    return Affine(np.diag(identity.scale), identity.shift) if site.full else identity


#: The maps that are given by tables, each a dataclass of arrays.
TABLES = (Curves, Division, Lines)


def map_of(parts: Mapping[str, Any]) -> Any:
    """The map that has these arrays by name, as its fields are called."""
    for kind in (*TABLES, Affine):
        if parts.keys() == {field.name for field in fields(kind)}:
            return kind(**parts)
    raise KeyError(f"no map has {', '.join(parts)}")


class Mixture(nn.Module):
    """The maps of all members at one site, to be mixed by weights.

    Parameters
    ----------
    affines : the map of each member, diagonal or full; or all of them of one kind of `TABLES`.
    """

    def __init__(self, affines: Sequence[Any]):
        super().__init__()
        self.curved = any(isinstance(a, TABLES) for a in affines)
        self._fields = tuple(field.name for field in fields(affines[0]))
        if self.curved:
            for name in self._fields:
                self._put(f"{name}s", [getattr(a, name) for a in affines], len(affines))
            return
        full = any(a.scale.ndim == 2 for a in affines)
        alike = all(a is affines[0] for a in affines)
        distinct = affines[:1] if alike else affines
        scales = [np.diag(a.scale) if full and a.scale.ndim == 1 else a.scale for a in distinct]
        for name, values in (("scales", scales), ("shifts", [a.shift for a in distinct])):
            self._put(name, values, len(affines))

    def _put(self, name: str, values: Sequence[Any], members: int) -> None:
        stacked = torch.from_numpy(np.stack(values))
        self.register_buffer(name, stacked.expand(members, *stacked.shape[1:]))

    @property
    def parts(self) -> dict[str, Tensor]:
        """The tensors of the maps, (members, ...), by what they are: scale and shift, or tables."""
        return {name: self.get_buffer(f"{name}s") for name in self._fields}

    def affine(self, member: int) -> Any:
        """The map of one member."""
        return map_of({name: values[member].cpu().numpy() for name, values in self.parts.items()})

    def forward(self, x: Tensor, members: Sequence[int], weights: Tensor) -> Tensor:
        """Apply the mixed maps to ``x`` (1, C, h, w). ``weights`` (members, h, w) belong to ``members`` and
        sum to 1."""
        if self.curved:
            changed = [self.affine(k)(x) * weight for k, weight in zip(members, weights, strict=True)]
            return torch.stack(changed).sum(0)
        scales, shifts = (self.get_buffer(name)[list(members)].to(x) for name in ("scales", "shifts"))
        y = torch.einsum("kc,khw->chw", shifts, weights)
        if scales.ndim == 2:
            return torch.addcmul(y, x, torch.einsum("kc,khw->chw", scales, weights))
        for scale, weight in zip(scales, weights, strict=True):
            y = torch.addcmul(y, torch.einsum("dc,nchw->ndhw", scale, x), weight)
        return y


def mixing(composition: Composition, maps: Mapping[str, Mixture], box: Box) -> At:
    """The function that gives each site of ``composition`` its mixed map, in the window at ``box``."""
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
    """The plain network of a composition; it computes in float32 where members meet.

    Parameters
    ----------
    composition : the field and its styles.
    maps : the members' maps, by the name of the site.
    alone : the network of each style, for windows in which no other member has weight; empty for fields whose
        members always overlap.
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
        self.reads, self.bands = composition.reads, composition.bands
        self.as_is = getattr(composition.style, "as_is", False)

    @property
    def maps(self) -> dict[str, Mixture]:
        """The members' maps by the name of the site. (Names of sites contain dots, which names of modules
        must not.)"""
        mixtures: Any = self.mixtures
        return dict(zip(self._names, mixtures, strict=True))

    def forward(
        self, x: Tensor, boxes: Sequence[Box] | None = None, keep: Sequence[Box] | None = None
    ) -> Tensor:
        """Run windows ``x`` one after the other, each at its own place in the image; ``keep`` are the parts
        that are needed."""
        assert boxes is not None
        parts = keep or [box.within(box) for box in boxes]
        windows = zip(x.split(1), boxes, parts, strict=True)
        return torch.cat([self._window(window, box, part) for window, box, part in windows])

    def _window(self, x: Tensor, box: Box, part: Box) -> Tensor:
        members, rest = self.composition.field.active(box), self._rest
        if members == (rest,):
            return x[:, :3]
        if len(members) == 1 and self._nets:
            net = self._nets[members[0]]
            return net(x, [box], [part]) if net.selective else net(x, [box])
        y = self.composition.style.forward(x, mixing(self.composition, self.maps, box))
        if rest not in members:
            return y
        shares = self.composition.field.weights(box, 1)[1][members.index(rest)]
        return torch.lerp(y, x[:, :3], torch.from_numpy(shares).to(y))

    @property
    def _nets(self) -> list[LocalNet]:
        """The network of each style."""
        alone: Any = self.alone
        return list(alone)

    @property
    def _rest(self) -> int | None:
        """The member where the image stays as it is; None for fields without one."""
        field = self.composition.field
        return field.rest if isinstance(field, Regions) else None

    def bytes_per_pixel(self, precision: Precision) -> float:
        """The bytes of the plain form, or of a single style's network if that is more."""
        alone = [net.bytes_per_pixel(precision) for net in self._nets]
        return max(self.composition.plain_bytes, *alone, 0.0)

    def to_precision(self, precision: Precision) -> Varying:
        """The same network with the single styles' networks at ``precision``; elsewhere it computes in
        float32."""
        checked_precision(precision)
        alone = [net.to_precision(precision) for net in self._nets]
        return Varying(self.composition, self.maps, alone)

    def saved(self) -> tuple[State, dict[str, Any]]:
        """The state of every style, the maps of every member, and the field; `restored` is the inverse."""
        tensors: State = {}
        styles = []
        for k, style in enumerate(self.composition.styles):
            state, values = saved_style(style)
            tensors |= {f"style{k}.{name}": t for name, t in state.items()}
            styles.append(values)
        for name, mixture in self.maps.items():
            tensors |= {f"members.{name}.{part}": values for part, values in mixture.parts.items()}
        field = self.composition.field.described()
        return tensors, {"family": self.family, "styles": styles, "field": field, "kind": "varying"}


def restored(
    tensors: State, values: Mapping[str, Any], style: Callable[..., Style], frozen: Callable[..., LocalNet]
) -> Varying:
    """The inverse of ``Varying.saved``. ``style`` makes a style from its state and values, ``frozen`` a
    network from a style and its maps."""
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
        for k, each in enumerate(styles):
            alone.append(frozen(each, {name: mixture.affine(k) for name, mixture in maps.items()}))
    return Varying(composition, maps, alone)


def _mixture(tensors: State, name: str) -> Mixture:
    parts = parts_of(tensors, name)
    return Mixture([map_of(dict(zip(parts, one, strict=True))) for one in zip(*parts.values(), strict=True)])


def parts_of(tensors: State, name: str) -> dict[str, Any]:
    """The arrays whose names begin with ``name`` and a point, by the rest of their names."""
    start = f"{name}."
    found = {key.removeprefix(start): values for key, values in tensors.items() if key.startswith(start)}
    return {key: values.numpy() for key, values in found.items() if "." not in key}


#: What can be frozen.
Subject = Style | Composition


def composed(style: Subject) -> Composition:
    """``style`` as a composition; a plain style becomes a composition of one member."""
    return style if isinstance(style, Composition) else Composition((style,))


def measured_sites(style: Subject) -> list[Site]:
    """The sites whose maps depend on the image, in the order of the network."""
    return [site for site in style.sites if site.measured]
