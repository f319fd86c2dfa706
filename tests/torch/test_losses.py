"""Losses against their formulas in float64, and the networks they look through."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from urst_tiles import losses
from urst_tiles.errors import BadWeights, MissingFile

DOUBLE = {"dtype": torch.float64}


def random_vgg(path, last="2_1", seed=0):
    """A raw file of VGG-19 to ``last`` with random numbers, and these by layer."""
    random, layers, values = np.random.default_rng(seed), {}, []
    for name, i, o in losses.convolutions(last):
        weight, bias = random.normal(0, 0.05, (o, i, 3, 3)), random.normal(0, 0.5, o)
        layers[name] = weight.astype("<f4"), bias.astype("<f4")
        values += [layers[name][0].ravel(), layers[name][1]]
    np.concatenate(values).tofile(path)
    return layers


def random_distilled(seed=0):
    random = torch.Generator().manual_seed(seed)
    return {k: torch.randn(s, generator=random) * 0.2 for k, s in losses.distilled_shapes().items()}


def test_vgg_is_the_formula(tmp_path):
    layers = random_vgg(tmp_path / "vgg.raw")
    x = torch.rand(1, 3, 12, 16, dtype=torch.float64)
    found = losses.vgg19_raw(tmp_path / "vgg.raw", "2_1", **DOUBLE)(x, ["relu1_1", "relu2_1"])

    def conv(h, name):
        weight, bias = (part.astype(float) for part in layers[name])
        rows, columns = h.shape[1:]
        h = np.pad(h, ((0, 0), (1, 1), (1, 1)))
        taps = [(i, j) for i in range(3) for j in range(3)]
        y = sum(np.tensordot(weight[:, :, i, j], h[:, i : i + rows, j : j + columns], 1) for i, j in taps)
        return np.maximum(y + bias[:, None, None], 0)

    first = conv(255 * x[0].numpy() - np.array(losses.IMAGENET)[:, None, None], "1_1")
    second = conv(first, "1_2")
    second = second.reshape(64, 6, 2, 8, 2).max(axis=(2, 4))
    assert np.allclose(found["relu1_1"][0], first / 20.6, atol=1e-5)
    assert np.allclose(found["relu2_1"][0], conv(second, "2_1") / 113.0, atol=1e-5)


def test_vgg_files_of_another_size_or_place_are_refused(tmp_path):
    random_vgg(tmp_path / "vgg.raw")
    with pytest.raises(BadWeights, match="conv3_1 has 555328"):
        losses.vgg19_raw(tmp_path / "vgg.raw")
    with pytest.raises(MissingFile, match=r"nosuch\.raw"):
        losses.vgg19_raw(tmp_path / "nosuch.raw")


def test_only_what_is_asked_for_is_computed():
    """Deep layers are not touched for shallow features: their weights may be missing."""
    state = random_distilled()
    short = {k: t for k, t in state.items() if k.startswith(("conv0", "conv1", "conv21"))}
    x = torch.rand(1, 3, 32, 32)
    found = losses.DistilledVGG19(short)(x, ["relu2_1"])
    assert set(found) == {"relu2_1"}
    everything = losses.DistilledVGG19(state)(x, losses.LAYERS)
    assert torch.equal(found["relu2_1"], everything["relu2_1"])
    assert [f.shape[1:] for f in everything.values()] == [
        (64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 2, 2)
    ]  # fmt: skip


def test_the_distilled_network_resembles_vgg(shared):
    """Real files: the stand-in's relu3_1 follows VGG-19's own over channels and images."""
    from urst_tiles.picture import read_picture

    weights = shared / "weights"
    net = losses.teachers(weights / "vgg19_relu3_1.raw", weights / "collaborative_wct" / "5SE.pth")
    stand_in = losses.distilled_vgg19(weights / "collaborative_wct" / "5SE.pth")
    paths = sorted((shared / "data" / "train" / "content").glob("kodak*"))[:12]
    pictures = [torch.from_numpy(read_picture(path, 128)[:128, :128]).permute(2, 0, 1) for path in paths]
    with torch.inference_mode():
        true, like = (n(torch.stack(pictures), ["relu3_1"])["relu3_1"].mean((2, 3)) for n in (net, stand_in))
    pairs = [np.corrcoef(true[:, c], like[:, c])[0, 1] for c in range(256)]
    assert np.nanmedian(pairs) > 0.8


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
    net = losses.DistilledVGG19(random_distilled())
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


def test_lattice_sees_a_grid_and_no_texture():
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    grid = torch.zeros(1, 1, 64, 64)
    grid[..., ::4, :] = 0.1
    exact = 0.1**2 * (1 / 4) * (3 / 4)
    assert losses.lattice(x, x + grid, 4).tolist() == pytest.approx([exact] * 2, rel=1e-3)
    assert losses.lattice(x, x + 0.3, 4).max() < 1e-12
    texture = 0.1 * torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    assert losses.lattice(x, x + texture, 4).max() < 0.1 * texture.square().mean()
