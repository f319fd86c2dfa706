"""Looks of painting networks: a network frozen for a style and the statistics of many images together.

Such a file is that of a frozen network (`urst_tiles.nets.saved`), with the moments from which it was frozen
and with what it was made of. It is read as tensors and JSON alone, and names no code that runs unasked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from urst_tiles.errors import BadInput, BadWeights
from urst_tiles.histogram import Histogram
from urst_tiles.nets.base import LocalNet, State, Style, Stylised
from urst_tiles.nets.families import family
from urst_tiles.nets.saved import LOOK, load_frozen, look_facts
from urst_tiles.weights import sha256_of

FORMAT, VERSION = "urst-tiles look", 1


@dataclass(frozen=True, eq=False)
class PaintingLook:
    """A look that was read from a file, or measured.

    Attributes
    ----------
    net : the frozen network, float32.
    facts : what the look was made of: "model", "alpha", "measured on" ("thumbnail" or "exact"), "measured
        from" (the images), "styles", "weights" and "stretch", the values that become black and white in each
        band, as ``--stretch`` takes them, None if the images are uint8.
    moments : the merged moments of each measured site by its name; empty if the look was read from a file.
    sha256 : hex SHA-256 of the file; empty if there is none.
    """

    net: Stylised
    facts: Mapping[str, Any]
    moments: Mapping[str, Any]
    sha256: str = ""

    @property
    def model(self) -> str:
        """The model, as ``--model`` names it."""
        return self.net.family

    @property
    def style(self) -> Style:
        """The style before it was frozen: the network with the features of the style."""
        return self.net.style

    @property
    def alpha(self) -> float:
        """The strength with which it was frozen."""
        return float(self.facts["alpha"])

    def save(self, path: Path) -> None:
        """Write the look as a safetensors file; `read_painting_look` reads it.

        Its tensors are those of the frozen network, and ``look.moments.SITE.n``, ``.mean`` (C,) and ``.m2``
        (C,) or (C, C) in float64, see `urst_tiles.moments.Moments`; of a histogram ``.counts``.
        """
        more: State = {}
        for site, found in self.moments.items():
            names = ("counts",) if isinstance(found, Histogram) else ("n", "mean", "m2")
            for name in names:
                values = torch.as_tensor(getattr(found, name), dtype=torch.float64)
                more[f"{LOOK}.moments.{site}.{name}"] = values
        self.net.save(path, more, **{LOOK: {"format": FORMAT, "version": VERSION, **self.facts}})


def read_painting_look(path: Path, model: str | None = None) -> PaintingLook:
    """The look in a file that `PaintingLook.save` wrote.

    Parameters
    ----------
    path : the file.
    model : the user's "package.module:function" that may be run to make the network again, as for
        `load_frozen`.

    Raises
    ------
    MissingFile : the file does not exist.
    BadInput : it is no look, or one of another version; or it names code that ``model`` does not name.
    BadWeights : it is damaged.
    """
    facts = dict(look_facts(path))
    if (facts.get("format"), facts.get("version")) != (FORMAT, VERSION):
        raise BadInput(f"{path} is a look of another version of this program; measure it anew")
    net: LocalNet = load_frozen(path, model)
    alpha = facts.get("alpha")
    if family(net.family).paints_levels or not isinstance(net, Stylised) or type(alpha) not in (int, float):
        raise BadWeights(f"{path} is damaged; make it anew with urst-tiles measure")
    return PaintingLook(net, facts, {}, sha256_of(path))
