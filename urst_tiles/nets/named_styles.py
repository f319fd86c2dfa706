"""Named styles: the statistics of public-domain paintings, which come with lite, so that a name stands for a
style."""

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

#: The file of the named styles: a tensor ``styles``, float32 (n, 652); names and titles are in the metadata.
FILE = TRAINED / "styles.safetensors"
#: Short side in pixels of the paintings when they were measured.
SIZE = 512


def encode(styles: Mapping[str, tuple[str, State]], fingerprint: str) -> bytes:
    """The bytes of a file of named styles. ``styles`` maps each name to (title, features); ``fingerprint`` is
    that of the weights with which the features were measured."""
    rows = torch.stack([lite.pack(features) for _, features in styles.values()])
    meta = {"titles": {name: title for name, (title, _) in styles.items()}, "weights": fingerprint}
    return save({"styles": rows.contiguous()}, {"urst_tiles": json.dumps(meta)})


@cache
def _table(path: Path) -> tuple[dict[str, str], str, Tensor]:
    """Titles by name, the fingerprint of the weights with which the styles were measured, and their rows of
    statistics."""
    with safe_open(path, "pt") as file:
        meta = json.loads(file.metadata()["urst_tiles"])
        return meta["titles"], meta["weights"], file.get_tensor("styles")


def titles() -> dict[str, str]:
    """Name of each style -> its painting and painter."""
    return dict(_table(FILE)[0])


def measured_with() -> str:
    """The fingerprint of the weights that the statistics belong to."""
    return _table(FILE)[1]


def features(name: str) -> State:
    """The statistics of the style called ``name``; raises ValueError for an unknown name."""
    names, _, rows = _table(FILE)
    return lite.unpack(rows[list(names).index(name)])


def check_weights(state: State) -> None:
    """Raise BadWeights unless these are the weights with which the named styles were measured."""
    if digest(state, {}) != measured_with():
        raise BadWeights(
            "named styles belong to the weights of lite that ship with the package; with other weights,"
            " give a style image"
        )


def near(word: str) -> list[str]:
    """Up to three names that resemble ``word``; if there are none, up to three with a part that ``word``
    contains."""
    names = list(titles())
    alike = get_close_matches(word, names, n=3, cutoff=0.5)
    return alike or [name for name in names if any(part in word for part in name.split("-"))][:3]
