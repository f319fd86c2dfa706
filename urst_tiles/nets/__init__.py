"""Networks: a dict of families, each of which freezes to a plain local CNN."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from urst_tiles import weights as table
from urst_tiles.errors import BadWeights, MissingFile
from urst_tiles.nets import (
    cascade,
    composition,
    lite,
    named_styles,
)
from urst_tiles.nets.base import (
    Affine,
    Frozen,
    LocalNet,
    OwnStatistics,
    Precision,
    Site,
    State,
    Style,
    StyleImages,
    live,
)
from urst_tiles.nets.base import checked_precision as checked_precision
from urst_tiles.nets.cascade import Cascade, CascadeStyle
from urst_tiles.nets.composition import Composition
from urst_tiles.nets.families import MODELS, Family, family
from urst_tiles.nets.keep_colours import Luminance
from urst_tiles.storage.stores import fetched

__all__ = [
    "MODELS",
    "Affine",
    "CascadeStyle",
    "Composition",
    "Family",
    "Frozen",
    "LocalNet",
    "Luminance",
    "OwnStatistics",
    "Precision",
    "Site",
    "Style",
    "best_precision",
    "build",
    "live",
    "load_frozen",
    "seeded",
]


def build(model: str, weights: Path | None, styles: StyleImages, alpha: float = 1.0) -> Style:
    """A style whose weights come from a folder.

    Parameters
    ----------
    model : key of ``MODELS``, or "package.module:function", which is imported and called and needs no folder.
    weights : folder with one subfolder per model; None for URST_TILES_WEIGHTS or the user's cache.
    styles : images (h, w, 3) float32 in 0..1 with their weights in the mixture.
    alpha : strength, 0..1.

    Raises
    ------
    MissingFile, BadWeights, BadInput
    """
    chosen = family(model)
    states = {}
    for file, path in (table.find(model, weights) if model in MODELS else {}).items():
        states[file] = table.load(path, table.entry(model).inside or None)
        chosen.check(states[file], file, path)
    if model == lite.NAME and any(isinstance(style, Mapping) for style, _ in styles):
        named_styles.check_weights(states[lite.FILE])
    return chosen.build(states, styles, alpha)


def seeded(
    model: str, styles: StyleImages, alpha: float = 1.0, *, width: float = 1 / 8, seed: int = 0
) -> Style:
    """The same topology, ``width`` times as wide, with random weights that keep the signal alive: for
    tests."""
    chosen = family(model)
    return chosen.build(chosen.seeded(seed, width), styles, alpha)


def best_precision(model: str, device: str) -> Precision:
    """What ``--precision auto`` takes: the fastest that keeps the float32 picture (bfloat16 only where it
    is fast)."""
    kind = str(device).split(":")[0]
    best = family(model).precisions.get(kind, "float32")
    fast = (
        torch.cuda.is_bf16_supported(including_emulation=False)
        if kind == "cuda"
        else cpu_multiplies_bfloat16()
    )
    return best if fast else "float32"


def cpu_multiplies_bfloat16() -> bool:
    """Whether this processor has bfloat16 dot products; elsewhere bfloat16 is emulated and slower than
    float32."""
    can = torch.cpu.get_capabilities()
    return any(can.get(name, False) for name in ("avx512_bf16", "amx_bf16", "arm_bf16", "bf16"))


def load_frozen(path: Path) -> LocalNet:
    """The network that ``LocalNet.save`` wrote; MissingFile or BadWeights."""
    try:
        path = fetched(path)
        with safe_open(path, "pt") as file:
            meta = json.loads((file.metadata() or {}).get("urst_tiles", "null"))
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise MissingFile(f"{path} is missing") from None
    except (SafetensorError, ValueError) as error:
        raise BadWeights(f"{path} is no frozen network: {error}") from error
    if not meta:
        raise BadWeights(f"{path} is no frozen network")
    return restored(tensors, meta)


def restored(tensors: State, values: Mapping[str, Any]) -> LocalNet:
    """The inverse of ``LocalNet.saved``."""
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
    """The style of a state and its family and settings."""
    settings = values["settings"]
    if values["family"] == cascade.NAME:
        return CascadeStyle(restored_style(tensors, settings["inner"]), settings["factor"])
    return family(values["family"]).restore(tensors, settings)


def frozen(style: Style, affines: Mapping[str, Affine]) -> LocalNet:
    """The plain network of a style with given maps."""
    if not isinstance(style, CascadeStyle):
        return family(style.name).frozen(style, affines)
    passes = {
        scale: frozen(style.inner, style.of_scale(scale, affines)) for scale in cascade.scales(style.factor)
    }
    return Cascade(style, affines, passes)


def _affine(tensors: Mapping[str, Tensor], name: str) -> Affine:
    """The map of site ``name``."""
    return Affine(tensors[f"site.{name}.scale"].numpy(), tensors[f"site.{name}.shift"].numpy())
