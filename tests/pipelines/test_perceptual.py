"""A training's look at pictures: its losses are those of `losses`, at the layers that were asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from urst_tiles import losses
from urst_tiles.errors import BadInput
from urst_tiles.losses import backbones


@dataclass(frozen=True, kw_only=True)
class Settings:
    backbone: str = "distilled"
    backbone_files: tuple[Path, ...] = ()
    style_by: Any = "moments"
    style_layers: tuple[str, ...] = ("relu1_1", "relu3_1")
    content_layer: str = ""
    stroke_layers: tuple[str, ...] = ()
    stroke_factor: int = 2
    smoothing: losses.Smoothing = "none"
    precision: str = "float32"
    device: str = "cpu"
    seed: int = 3


@pytest.fixture(scope="module")
def module(pipeline: Callable[[str], ModuleType]) -> ModuleType:
    """Where the programs find ``training``."""
    from training import perceptual

    return perceptual


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_the_fixture_is_the_programs_own(module: ModuleType) -> None:
    assert sys.modules["training.perceptual"] is module


@pytest.mark.parametrize("smoothing", losses.SMOOTHINGS)
@pytest.mark.parametrize("by", ["moments", "gram"])
def test_style_and_content(module: ModuleType, pictures: torch.Tensor, by: str, smoothing: Any) -> None:
    look = module.look(Settings(style_by=by, smoothing=smoothing))
    net = backbones.backbone("distilled", seed=3)
    features = look.features(pictures)
    wanted = look.target(pictures.flip(0))
    for n, layer in enumerate(Settings.style_layers):
        f, g = (losses.smoothed(net(x, [layer])[layer], "none" if smoothing == "scale" else smoothing)
                for x in (pictures, pictures.flip(0)))  # fmt: skip
        if by == "gram":
            expected = (losses.gram(f) - losses.gram(g)).square().mean((1, 2))
        else:
            pairs = zip(losses.mean_std(f), losses.mean_std(g), strict=True)
            expected = sum((a - b).square().mean(1) for a, b in pairs)
        assert torch.allclose(look.style_loss(features, wanted)[:, n], expected, rtol=1e-4, atol=1e-12)
    deep = losses.smoothed(net(pictures, ["relu4_1"])["relu4_1"], smoothing)
    content = look.content_loss(features, {"relu4_1": torch.zeros_like(deep)})
    assert torch.allclose(content, deep.square().mean((1, 2, 3)), rtol=1e-4)


def test_strokes_are_compared_without_smoothing(module: ModuleType, pictures: torch.Tensor) -> None:
    one, other = (module.look(Settings(smoothing=s, stroke_factor=4)) for s in ("none", "map"))
    patch, thumbnail = pictures, pictures[:, :, :32, :32]
    found = [look.stroke_loss(patch, thumbnail, (16, 8)) for look in (one, other)]
    assert torch.equal(*found) and (found[0] > 0).all()


@pytest.mark.parametrize("layers", [{"style_layers": ("relu4_2",)}, {"content_layer": "conv3_5"}])
def test_a_layer_that_is_not_there(module: ModuleType, layers: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="distilled has no layer 'relu4_2'|distilled has no layer 'conv3_5'"):
        module.look(Settings(**layers))
