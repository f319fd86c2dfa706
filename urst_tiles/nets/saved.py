"""Reading frozen networks from the files that ``LocalNet.save`` writes.

Such a file may come from somebody else. It names the family of its network, and a name such as
"package.module:function" would be imported and called; so that name counts only if the caller gives the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from urst_tiles.errors import BadInput, BadWeights, MissingFile, UrstError
from urst_tiles.nets import cascade, composition
from urst_tiles.nets.base import LocalNet, State, Style
from urst_tiles.nets.cascade import CascadeStyle
from urst_tiles.nets.colour.look import is_look
from urst_tiles.nets.families import family, frozen
from urst_tiles.nets.keep_colours import Luminance
from urst_tiles.nets.module import is_module, only_here
from urst_tiles.nets.own_statistics import OwnStatistics
from urst_tiles.storage.stores import fetched, utf8_name

#: What a file says under this name is about the look that it is, and so are tensors whose names begin so.
LOOK = "look"

#: What reading a damaged description of a network may raise.
DAMAGE = (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError)


def load_frozen(path: Path, model: str | None = None) -> LocalNet:
    """The network that ``LocalNet.save`` wrote to ``path``.

    Parameters
    ----------
    path : the file.
    model : the user's "package.module:function" that may be run to make the network again; with None the file
        must hold a network of one of the families of this package.

    Raises
    ------
    MissingFile : the file does not exist.
    BadWeights : the file holds no frozen network, or is damaged.
    BadInput : the file names another function of a user than ``model``.
    """
    values, tensors = _read(path, with_tensors=True)
    _refuse_code(path, values, model)
    try:
        if LOOK in values:
            tensors = {name: t for name, t in tensors.items() if not name.startswith(f"{LOOK}.")}
        return restored(tensors, values)
    except UrstError:
        raise
    except DAMAGE as error:
        raise BadWeights(f"{path} is no frozen network ({type(error).__name__}: {error})") from error


def look_facts(path: Path) -> Mapping[str, Any]:
    """What a look file of a painting network says of itself; no tensors are read.

    Raises
    ------
    MissingFile : the file does not exist.
    BadInput : the file is no look.
    """
    if is_look(path):
        raise BadInput(
            f"{path} is a look of --model colour or stain: give that model, and the look as --style"
        )
    try:
        facts = _read(path)[0].get(LOOK)
    except BadWeights:
        facts = None
    if not isinstance(facts, Mapping):
        raise BadInput(
            f"{path} is no look of a painting network; `urst-tiles measure INPUT... --style STYLE -o"
            " LOOK.safetensors` makes one"
        )
    return facts


def check_code(path: Path, model: str | None) -> None:
    """Raise what `load_frozen` would raise if the file names code that ``model`` does not name.

    Nothing is loaded or run; the errors are those of `load_frozen`.
    """
    _refuse_code(path, _read(path)[0], model)


def _read(path: Path, with_tensors: bool = False) -> tuple[Mapping[str, Any], State]:
    """The description in a file of ``LocalNet.save``, and its tensors where they are wanted."""
    try:
        with utf8_name(fetched(path)) as local, safe_open(local, "pt") as file:
            values = json.loads((file.metadata() or {}).get("urst_tiles", "null"))
            names = file.keys() if with_tensors else ()
            tensors: State = {name: file.get_tensor(name) for name in names}
    except FileNotFoundError:
        raise MissingFile(f"{path} is missing") from None
    except (SafetensorError, OSError, *DAMAGE) as error:
        raise BadWeights(f"{path} is no frozen network: {error}") from error
    if not values or not isinstance(values, Mapping):
        raise BadWeights(f"{path} is no frozen network")
    return values, tensors


def _refuse_code(path: Path, values: Mapping[str, Any], model: str | None) -> None:
    """Raise BadInput if the description names a function of a user that is not ``model``."""
    for name in sorted(_functions(values) - {model}):
        raise BadInput(
            f"{path} names code, {name!r}, and no file of a job may do that by itself; if you wrote this"
            f" function or trust it, name it in the call: --model {name}"
        )


def _functions(values: Any) -> set[str]:
    """All functions of users that a description names, at any depth.

    A name that `from_module` made up is none: it is never imported, only looked up in this process.
    """
    if isinstance(values, Mapping):
        named = values.get("family")
        here = {named} if isinstance(named, str) and is_module(named) and not only_here(named) else set()
        return here.union(*map(_functions, values.values()))
    return set().union(*map(_functions, values)) if isinstance(values, list) else set()


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


def _affine(tensors: State, name: str) -> Any:
    """The map of site ``name``."""
    return composition.map_of(composition.parts_of(tensors, f"site.{name}"))
