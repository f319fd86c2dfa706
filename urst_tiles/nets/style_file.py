"""Style files: one style of a network of this package, some kB that `urst_tiles.learn` made of a painting.

A style file is a safetensors file, so it holds tensors and text and no code. Its tensors are those that a
style has in the network's own weights, without their first axis. Of ``--model painter`` these are ``gamma``
and ``beta`` (3, 11, 64), ``half_gamma`` and ``half_beta`` (3, 24), float16, for the coarsest level, for all
finer ones, and for the coarsest painted again, which files of versions 1 to 3 do not have;
``colour.mean`` (3) and ``colour.covariance`` (3, 3), float32, of the painting's colours in 0..1;
``colour.skewness`` () of their luminance, which files of versions 1 and 2 do not have; and the changes of the
weights of the convolutions, int8, as `urst_tiles.nets.low_rank` has them; files of version 1 have none of
these. Its metadata hold, under ``urst_tiles``, JSON with what the style is and was made of: "format" and
"version" of the file, "model", "network" (the fingerprint of the weights that the style belongs to),
"tensors" (their fingerprint), "painting" (its name) and "sha256", and how it was learned.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from urst_tiles.errors import BadInput, BadWeights, MissingFile
from urst_tiles.nets.base import State, digest
from urst_tiles.nets.style_rows import letters, text_of
from urst_tiles.storage.stores import fetched, utf8_name

#: The suffix by which a style file is known.
SUFFIX = ".style"
FORMAT, VERSION = "urst-tiles style", 4
#: Keys of the tensors in which `load_style_file` passes the file's name, and the network that it belongs to.
FILE, NETWORK = "style.file", "style.network"


def is_style_file(path: Path) -> bool:
    """Whether a file is named as a style file."""
    return path.suffix.lower() == SUFFIX


def to_bytes(row: State, model: str, network: str, facts: Mapping[str, Any]) -> bytes:
    """The content of a style file.

    Parameters
    ----------
    row : the tensors of the style, of any device, in the types in which they are kept.
    model, network : the model's name, and the fingerprint of its weights.
    facts : what else the file says of itself, as JSON-able values.
    """
    tensors = {k: t.detach().cpu().contiguous().clone() for k, t in row.items()}
    said = {"format": FORMAT, "version": VERSION, "model": model, "network": network, **facts}
    said["tensors"] = digest(tensors, {})
    return save(tensors, {"urst_tiles": json.dumps(said, sort_keys=True)})


def read_style_file(path: Path) -> tuple[State, dict[str, Any]]:
    """The tensors of a style file, and what it says of itself.

    Raises
    ------
    MissingFile : the file does not exist.
    BadInput : it is no style file, or one of a later version.
    BadWeights : it is damaged.
    """
    try:
        with utf8_name(fetched(path)) as local, safe_open(local, "pt") as file:
            said = json.loads((file.metadata() or {}).get("urst_tiles", "null"))
            row: State = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise MissingFile(f"there is no style file {path}") from None
    except (SafetensorError, OSError, ValueError):
        raise BadInput(
            f"{path} is no style file, or it is damaged; `urst-tiles learn PAINTING -o {path.name}` makes one"
        ) from None
    if not isinstance(said, dict) or said.get("format") != FORMAT:
        raise BadInput(f"{path} is no style file; `urst-tiles learn PAINTING -o {path.name}` makes one")
    if said.get("version") not in range(1, VERSION + 1):
        raise BadInput(
            f"{path} is a style file of version {said.get('version')!r}, and this program knows version"
            f" {VERSION}; take a newer program, or learn the style anew"
        )
    finite = all(bool(t.isfinite().all()) for t in row.values())
    if not finite or said.get("tensors") != digest(row, {}):
        raise BadWeights(f"{path} is damaged: its numbers are not those that were written; learn it anew")
    return row, said


def load_style_file(path: Path) -> State:
    """The tensors of a style file, float32, in the form that a family's ``build`` takes; the errors are those
    of `read_style_file`."""
    row, said = read_style_file(path)
    named = {FILE: letters(str(path)), NETWORK: letters(str(said.get("network")))}
    return {k: t.float() for k, t in row.items()} | named


def row_in(style: State, network: str, shapes: Mapping[str, tuple[int, ...]]) -> State:
    """The tensors of a style that `load_style_file` gave, float64.

    Parameters
    ----------
    network : the fingerprint of the weights that are to paint in the style.
    shapes : name and shape of each tensor of a style of these weights.

    Raises
    ------
    BadInput : the style belongs to other weights. BadWeights : it has other tensors.
    """
    file = text_of(style[FILE])
    if text_of(style[NETWORK]) != network:
        raise BadInput(
            f"{file} was learned with other weights of the network than are used here, and fits those alone:"
            " learn it anew, by `urst-tiles learn`, or give --weights the folder of those"
        )
    row = {k: t for k, t in style.items() if k not in (FILE, NETWORK)}
    if {k: tuple(t.shape) for k, t in row.items()} != dict(shapes):
        raise BadWeights(f"{file} is damaged: it has not the tensors of its network; learn it anew")
    return {k: t.to(torch.float64) for k, t in row.items()}
