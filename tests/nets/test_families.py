"""What is done with every family alike: freezing without statistics, and refusing the weights of another."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from urst_tiles import nets
from urst_tiles.errors import BadWeights
from urst_tiles.nets import OwnStatistics
from urst_tiles.nets.identity import IdentityNet, IdentityStyle


@pytest.mark.parametrize("model", sorted(set(nets.MODELS) - {"identity"}))
def test_without_moments_every_window_has_its_own_statistics(model, seeded_style):
    assert isinstance(nets.freeze(seeded_style(model), None), OwnStatistics)


def test_identity_needs_no_statistics():
    for moments in (None, {}):
        net = nets.freeze(IdentityStyle(), moments)
        assert isinstance(net, IdentityNet) and net.passthrough


@pytest.mark.parametrize("model", sorted(set(nets.MODELS) - {"identity"}))
def test_a_family_says_which_sizes_its_styles_have(model, seeded_style):
    family, style = nets.family(model), seeded_style(model)
    assert (family.name, family.halo, family.stride, family.minimum) == (
        model,
        style.halo,
        style.stride,
        style.minimum,
    )


@pytest.mark.parametrize("model", sorted(set(nets.MODELS) - {"identity"}))
def test_a_family_refuses_keys_that_are_not_its_own(model):
    family = nets.family(model)
    for file, state in family.seeded(0, 1 / 8).items():
        with pytest.raises(BadWeights):
            family.check({**state, "model.another.weight": torch.zeros(1)}, file, Path("folder", file))
