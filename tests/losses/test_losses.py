"""Losses against their formulas in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from urst_tiles import losses
from urst_tiles.errors import BadInput
from urst_tiles.losses import backbones


@pytest.mark.parametrize("eps", [1e-5, 1e-3])
def test_mean_std_and_its_gradient(eps):
    x = torch.randn(2, 3, 5, 7, dtype=torch.float64, requires_grad=True)
    mean, std = losses.mean_std(x, eps)
    assert torch.allclose(mean, x.mean((2, 3)))
    assert torch.allclose(std, (x.var((2, 3), correction=0) + eps).sqrt())
    a, b = torch.randn(2, 2, 3, dtype=torch.float64)
    (a * mean + b * std).sum().backward()
    again = x.detach().clone().requires_grad_()
    want = a * again.mean((2, 3)) + b * (again.var((2, 3), correction=0) + eps).sqrt()
    want.sum().backward()
    assert torch.allclose(x.grad, again.grad)


def test_mean_std_of_constant_features_has_a_finite_gradient():
    x = torch.full((1, 2, 4, 4), 3.0, requires_grad=True)
    losses.mean_std(x)[1].sum().backward()
    assert x.grad.isfinite().all()


def test_style_loss_is_the_formula():
    found = {"a": (torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, 0.5]]))}
    wanted = {"a": (torch.tensor([[0.0, 0.0]]), torch.tensor([[0.5, 1.5]]))}
    assert losses.style_loss(found, wanted).tolist() == [[(1 + 4) / 2 + 1 / 2]]


def test_gram_is_the_formula():
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    found = losses.gram(x)
    for n in range(2):
        for i in range(3):
            for j in range(3):
                assert found[n, i, j].item() == pytest.approx((x[n, i] * x[n, j]).sum().item() / 60)
    assert losses.gram(x.bfloat16()).dtype == torch.float32


def test_gram_loss_is_gatys_up_to_the_stated_factor():
    """E = 1/(4 C^2 M^2) sum (G - A)^2 with G = F F^T."""
    f, a = torch.randn(2, 1, 3, 4, 5, dtype=torch.float64)
    (loss,) = losses.gram_loss({"a": losses.gram(f)}, {"a": losses.gram(a)})[0]
    large = [(t[0].flatten(1) @ t[0].flatten(1).T).numpy() for t in (f, a)]
    assert loss.item() * 3**2 / 4 == pytest.approx(((large[0] - large[1]) ** 2).sum() / (4 * 3**2 * 20**2))


def test_content_is_where_and_not_which_colour():
    x = torch.rand(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    same = losses.content_loss(losses.normalised(3 * x + 1), losses.normalised(x))
    assert same.max() < 1e-3 and (losses.content_loss(3 * x + 1, x) > 0.1).all()
    other = losses.content_loss(losses.normalised(x.flip(3)), losses.normalised(x))
    assert (other > 0.5).all()


def test_total_variation_is_the_formula():
    x = torch.zeros(1, 1, 2, 3)
    x[0, 0, 0, 1] = 1.0
    assert losses.total_variation(x).item() == pytest.approx(1 / 3 + 2 / 4)


def test_stroke_perceptual_compares_a_patch_with_its_enlarged_thumbnail():
    net = backbones.backbone("distilled")
    thumbnail = torch.rand(2, 3, 32, 32, requires_grad=True)
    window = losses.enlarged_window(thumbnail, (8, 20), (32, 40))
    large = F.interpolate(thumbnail, size=(64, 64), mode="bilinear", align_corners=False)
    assert torch.equal(window, large[:, :, 8:40, 20:60])
    patch = window.detach().clone().requires_grad_()
    assert losses.stroke_perceptual(net, patch, thumbnail, (8, 20)).max() == 0
    loss = losses.stroke_perceptual(net, patch, thumbnail, (9, 20))
    assert (loss > 0).all()
    loss.sum().backward()
    assert patch.grad.abs().max() > 0 and thumbnail.grad is None


def test_strokes_of_any_layers_and_enlargement():
    net = backbones.backbone("distilled")
    thumbnail = torch.rand(1, 3, 24, 24)
    patch = torch.rand(1, 3, 32, 32)
    layers = ("relu2_1", "relu3_1")
    each = [losses.stroke_perceptual(net, patch, thumbnail, (40, 7), (k,), 4) for k in layers]
    both = losses.stroke_perceptual(net, patch, thumbnail, (40, 7), layers, 4)
    assert torch.allclose(both, each[0] + each[1])
    large = F.interpolate(thumbnail, scale_factor=4, mode="bilinear")[:, :, 40:72, 7:39]
    want = [(net(patch, [k])[k] - net(large, [k])[k]).square().mean().item() for k in layers]
    assert [e.item() for e in each] == pytest.approx(want, rel=1e-4)


def test_smoothing_is_the_formula():
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    e = np.exp(x.numpy())
    assert np.allclose(losses.smoothed(x, "channels"), e / e.sum(1, keepdims=True))
    assert np.allclose(losses.smoothed(x, "map"), e / e.sum((1, 2, 3), keepdims=True))
    assert torch.equal(losses.smoothed(x, "scale"), 0.001 * x)
    assert losses.smoothed(x, "none") is x
    large = losses.smoothed(torch.full((1, 2, 2, 2), 1e4, dtype=torch.bfloat16), "map")
    assert large.dtype == torch.float32 and (large == 1 / 8).all()
    with pytest.raises(BadInput, match="channels, map, scale, got 'chanels'"):
        losses.smoothed(x, "chanels")


@pytest.mark.parametrize("how", ["channels", "map"])
def test_smoothing_raises_the_entropy_of_peaky_features(how):
    """What SWAG is for: where most activations are 0, the few others no longer carry the whole loss."""
    x = (torch.rand(1, 8, 6, 6, generator=torch.Generator().manual_seed(0)) - 0.9).relu() * 10

    def entropy(f):
        p = (f / f.sum()).flatten().double()
        return -(p * p.clamp_min(1e-300).log()).sum().item() / math.log(p.numel())

    assert entropy(losses.smoothed(x, how)) > entropy(x)


def test_smooth_changes_the_layers_it_is_told():
    net, x = backbones.backbone("distilled"), torch.rand(1, 3, 32, 32)
    plain = net(x, backbones.LAYERS)
    deep = losses.Smooth(net, "scale", ("relu4_1", "relu5_1"))(x, backbones.LAYERS)
    for k in backbones.LAYERS:
        assert torch.equal(deep[k], plain[k] * (0.001 if k in ("relu4_1", "relu5_1") else 1.0))
    every = losses.Smooth(net, "channels")(x, ["relu2_1"])
    assert torch.allclose(every["relu2_1"].sum(1), torch.ones(1, 16, 16), atol=1e-5)


def test_lattice_sees_a_grid_and_no_texture():
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    grid = torch.zeros(1, 1, 64, 64)
    grid[..., ::4, :] = 0.1
    exact = 0.1**2 * (1 / 4) * (3 / 4)
    assert losses.lattice(x, x + grid, 4).tolist() == pytest.approx([exact] * 2, rel=1e-3)
    assert losses.lattice(x, x + 0.3, 4).max() < 1e-12
    texture = 0.1 * torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    assert losses.lattice(x, x + texture, 4).max() < 0.1 * texture.square().mean()
