"""Reading frozen networks from the files that ``LocalNet.save`` writes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from urst_tiles.errors import BadWeights, MissingFile
from urst_tiles.nets import cascade, composition
from urst_tiles.nets.base import Affine, LocalNet, State, Style
from urst_tiles.nets.cascade import CascadeStyle
from urst_tiles.nets.families import family, frozen
from urst_tiles.nets.keep_colours import Luminance
from urst_tiles.nets.own_statistics import OwnStatistics
from urst_tiles.storage.stores import fetched, utf8_name


def load_frozen(path: Path) -> LocalNet:
    """The network that ``LocalNet.save`` wrote to ``path``.

    Raises
    ------
    MissingFile : the file does not exist.
    BadWeights : the file holds no frozen network.
    """
    try:
        path = fetched(path)
        with utf8_name(path) as name, safe_open(name, "pt") as file:
            meta = json.loads((file.metadata() or {}).get("urst_tiles", "null"))
            tensors: State = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise MissingFile(f"{path} is missing") from None
    except (SafetensorError, ValueError) as error:
        raise BadWeights(f"{path} is no frozen network: {error}") from error
    if not meta:
        raise BadWeights(f"{path} is no frozen network")
    return restored(tensors, meta)


def restored(tensors: State, values: Mapping[str, Any]) -> LocalNet:
    """The network from the tensors and values that ``LocalNet.saved`` gave."""
    kind = values.get("kind")
    if kind == "luminance":
        return Luminance(restored(tensors, values["net"]))
    if kind == "varying":
        return composition.restored(tensors, values, restored_style, frozen)
    style = restored_style(tensors, values)
    if values["own_statistics"]:
        return OwnStatistics(style)
    return frozen(style, {site.name: _affine(tensors, site.name) for site in style.sites})


def restored_style(tensors: State, values: Mapping[str, Any]) -> Style:
    """The style from its tensors, and its family and settings."""
    settings = values["settings"]
    if values["family"] == cascade.NAME:
        return CascadeStyle(restored_style(tensors, settings["inner"]), settings["factor"])
    return family(values["family"]).restore(tensors, settings)


def _affine(tensors: State, name: str) -> Affine:
    """The map of site ``name``."""
    return Affine(tensors[f"site.{name}.scale"].numpy(), tensors[f"site.{name}.shift"].numpy())
