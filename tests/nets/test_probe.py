"""Halo and stride of every family are what the probe finds, the halo no more than a stride larger."""

from __future__ import annotations

import pytest
import torch
from probe import probe, reaches
from torch import nn

from urst_tiles.geometry import round_up
from urst_tiles.nets import LocalNet
from urst_tiles.nets.families import MODELS

REACH = {
    "lite": (48, 4),
    "painter": (96, 4),
    "fast": (55, 4),
    "cin": (55, 4),
    "ghiasi": (55, 4),
    "multimodal": (524, 16),
    "msgnet": (38, 4),
    "linear-r31": (22, 4),
    "linear-r41": (62, 8),
    "wct": (246, 16),
    "wct-16x": (246, 16),
    "wct-3": (30, 4),
    "microast": (51, 4),
    "adain": (62, 8),
    "colour": (0, 1),
    "stain": (0, 1),
    "identity": (0, 1),
}


@pytest.mark.parametrize("model", MODELS)
def test_declared_footprint_is_the_probed_one(model, seeded_style):
    style = seeded_style(model)
    reach, stride = probe(style, side=max(256, 2 * style.halo + 128))
    assert (reach, stride) == REACH[model]
    assert style.stride == stride and style.halo % stride == 0
    assert reach <= style.halo < reach + stride
    assert (MODELS[model].halo, MODELS[model].stride) == (style.halo, style.stride)


@pytest.mark.parametrize("model", MODELS)
def test_declared_halos_of_sites_are_the_probed_ones(model, seeded_style):
    """Whole stride cells; those of a subnet of multimodal all have that of its last one."""
    style = seeded_style(model)
    found = reaches(style, side=max(256, 2 * style.halo + 128))
    halos = {name: round_up(reach, style.stride) for name, reach in found.items()}
    if model == "multimodal":
        halos = {name: max(h for n, h in halos.items() if n[:3] == name[:3]) for name in halos}
    if model == "msgnet":
        halos = {name: max(h for n, h in halos.items() if n[:8] == name[:8]) for name in halos}
    measured = [site for site in style.sites if site.measured]
    assert {site.name: site.halo for site in measured} == {site.name: halos[site.name] for site in measured}


class Layers(LocalNet):
    """Any layers as a net."""

    family, halo, stride, minimum = "test", 0, 1, 8

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x, boxes=None):
        return self.layers(x)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([nn.Conv2d(3, 3, 5, padding=2)], (2, 1)),
        ([nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)], (2, 1)),
        ([nn.Conv2d(3, 3, 2, stride=2), nn.Upsample(scale_factor=2)], (0, 2)),
        ([nn.Conv2d(3, 3, 4, stride=4), nn.Conv2d(3, 3, 3, padding=1), nn.Upsample(scale_factor=4)], (4, 4)),
        ([nn.MaxPool2d(2), nn.Upsample(scale_factor=2, mode="bilinear")], (2, 2)),
    ],
)
def test_reach_of_known_layers(layers, expected):
    assert probe(Layers(*layers), side=128) == expected


def test_reaching_everywhere_is_told():
    class Mean(nn.Module):
        def forward(self, x):
            return x + x.mean((2, 3), keepdim=True)

    with pytest.raises(ValueError, match="larger side"):
        probe(Layers(Mean()), side=64)


def test_a_dead_weight_does_not_hide_the_reach():
    layer = nn.Conv2d(3, 3, 7, padding=3)
    torch.nn.init.constant_(layer.weight, 1e-30)
    assert probe(Layers(layer), side=128) == (3, 1)
