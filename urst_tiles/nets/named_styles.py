"""Named styles: statistics of public-domain paintings that ship with lite, so that a word is a style."""

from __future__ import annotations

import json
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from urst_tiles.errors import BadWeights
from urst_tiles.nets import lite
from urst_tiles.nets.base import State, digest
from urst_tiles.weights.table import TRAINED

#: One tensor, ``styles`` float32 (n, 652); names and titles are its metadata.
FILE = TRAINED / "styles.safetensors"
#: Short side of the paintings when they were measured, px.
SIZE = 512


def encode(styles: Mapping[str, tuple[str, State]], fingerprint: str) -> bytes:
    """A file of named styles from name -> (title, features), measured with the weights of ``fingerprint``."""
    rows = torch.stack([lite.pack(features) for _, features in styles.values()])
    meta = {"titles": {name: title for name, (title, _) in styles.items()}, "weights": fingerprint}
    return save({"styles": rows.contiguous()}, {"urst_tiles": json.dumps(meta)})


@cache
def _table(path: Path) -> tuple[dict[str, str], str, Tensor]:
    """Titles by name, the fingerprint of the weights they were measured with, and the rows."""
    with safe_open(path, "pt") as file:
        meta = json.loads(file.metadata()["urst_tiles"])
        return meta["titles"], meta["weights"], file.get_tensor("styles")


def titles() -> dict[str, str]:
    """Name -> painting and painter."""
    return dict(_table(FILE)[0])


def measured_with() -> str:
    """Fingerprint of the weights that the statistics belong to."""
    return _table(FILE)[1]


def features(name: str) -> State:
    """The statistics of the style called ``name``; ValueError for another word."""
    names, _, rows = _table(FILE)
    return lite.unpack(rows[list(names).index(name)])


def check_weights(state: State) -> None:
    """BadWeights unless these are the weights that the named styles were measured with."""
    if digest(state, {}) != measured_with():
        raise BadWeights(
            "named styles belong to the weights of lite that ship with the package; with other weights,"
            " give a style image"
        )


def near(word: str) -> list[str]:
    """Names that resemble ``word``, or contain it."""
    names = list(titles())
    alike = get_close_matches(word, names, n=3, cutoff=0.5)
    return alike or [name for name in names if any(part in word for part in name.split("-"))][:3]
