"""Fixtures: networks with seeded weights, and pictures to run them on."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from urst_tiles import nets
from urst_tiles.moments import Moments
from urst_tiles.nets import LocalNet, Site, Style, load_frozen
from urst_tiles.nets.base import statistics_of

Measure = Callable[[Style, torch.Tensor], dict[str, Moments]]


def picture_of(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """uint8 (height, width, 3): edges and flat parts in several sizes, so that every layer has something to
    see."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    out = np.empty((height, width, 3))
    for c in range(3):
        waves = sum(np.sin((x * random.normal() + y * random.normal()) / size) for size in (3, 11, 37))
        out[..., c] = 128 + 40 * waves + random.normal(0, 20, (height, width))
    return np.clip(out, 0, 255).astype(np.uint8)


def tensor_of(image: NDArray[np.uint8]) -> torch.Tensor:
    """(1, 3, h, w) float32 in 0..1."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float().div(255)


def moments_of(style: Style, x: torch.Tensor) -> dict[str, Moments]:
    """The statistics of one image at every site."""
    found: dict[str, Moments] = {}

    def at(site: Site, features: torch.Tensor) -> torch.Tensor:
        if not site.measured:
            return style.affine(site, Moments.empty(0))(features)
        found[site.name] = statistics_of(site, features[0].flatten(1))
        return style.affine(site, found[site.name])(features)

    with torch.inference_mode():
        style.forward(x, at)
    return found


def check_kept(net: LocalNet, x: torch.Tensor, folder: Path) -> None:
    """What is saved in ``folder`` and loaded again is the same network of the same family and style."""
    net.save(folder / "net.safetensors")
    again = load_frozen(folder / "net.safetensors")
    with torch.inference_mode():
        assert torch.equal(net(x), again(x))
    assert again.family == net.family and again.style.fingerprint == net.style.fingerprint


@cache
def style_of(model: str, width: float = 1 / 8, alpha: float = 1.0) -> Style:
    word = nets.MODELS[model].style_named
    style = word("1") if word else picture_of(72, 88, seed=1).astype(np.float32) / 255
    return nets.seeded(model, [(style, 1.0)], alpha, width=width)


@cache
def net_of(model: str, width: float = 1 / 8) -> LocalNet:
    """Frozen on a picture that has more cells than the widest site has channels."""
    style = style_of(model, width)
    size = (512, 480) if style.stride > 8 else (128, 144)
    return nets.freeze(style, moments_of(style, tensor_of(picture_of(*size))))


@pytest.fixture
def picture() -> Callable[..., NDArray[np.uint8]]:
    return picture_of


@pytest.fixture
def as_tensor() -> Callable[[NDArray[np.uint8]], torch.Tensor]:
    return tensor_of


@pytest.fixture
def measured() -> Measure:
    return moments_of


@pytest.fixture
def seeded_style() -> Callable[..., Style]:
    """A style with seeded weights: ``seeded_style("adain", width=1 / 8)``."""
    return style_of


@pytest.fixture
def frozen() -> Callable[..., LocalNet]:
    """The same, frozen on a picture: ``frozen("adain", width=1 / 8)``."""
    return net_of


@pytest.fixture(scope="session")
def official(shared: Path) -> dict[str, NDArray[np.generic]]:
    """MicroAST's own output: ``content`` and ``style`` uint8 HWC, ``output`` float32 CHW."""
    with np.load(shared / "reference" / "microast_official.npz") as data:
        return dict(data)
