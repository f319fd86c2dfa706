"""AdaIN against the formulas of the paper, written out once more in numpy and float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from urst_tiles import nets, weights
from urst_tiles.errors import BadWeights
from urst_tiles.nets import Frozen, adain, live, load_frozen


def conv64(x, weight, bias):
    """(c, h, w) float64; 3x3 with reflection padding, or 1x1: the sum over taps, nothing else."""
    side = weight.shape[2]
    h, w = x.shape[1:]
    x = np.pad(x, ((0, 0), (side // 2,) * 2, (side // 2,) * 2), mode="reflect")
    taps = ((i, j) for i in range(side) for j in range(side))
    return (
        sum(np.tensordot(weight[:, :, i, j], x[:, i : i + h, j : j + w], 1) for i, j in taps)
        + bias[:, None, None]
    )


def vgg64(x, state):
    """relu4_1: conv1_1, conv1_2, pool, conv2_1, conv2_2, pool, conv3_1 .. conv3_4, pool, conv4_1."""
    for i in (0, 2, 5, "pool", 9, 12, "pool", 16, 19, 22, 25, "pool", 29):
        if i == "pool":
            c, h, w = x.shape
            x = x.reshape(c, h // 2, 2, w // 2, 2).max(axis=(2, 4))
            continue
        x = conv64(x, state[f"{i}.weight"].double().numpy(), state[f"{i}.bias"].double().numpy())
        x = x if i == 0 else np.maximum(x, 0)
    return x


def decoder64(x, state):
    for i in (1, "up", 5, 8, 11, 14, "up", 18, 21, "up", 25, 28):
        if i == "up":
            x = x.repeat(2, axis=1).repeat(2, axis=2)
            continue
        x = conv64(x, state[f"{i}.weight"].double().numpy(), state[f"{i}.bias"].double().numpy())
        x = x if i == 28 else np.maximum(x, 0)
    return x


def adain64(content, styles, states, alpha):
    """t = alpha sum w_k AdaIN(f(c), f(s_k)) + (1 - alpha) f(c), decoded; unbiased deviations, eps 1e-5
    inside the root."""
    f = vgg64(content, states[adain.ENCODER])
    flat = f.reshape(len(f), -1)
    normal = (flat - flat.mean(1)[:, None]) / np.sqrt(flat.var(1, ddof=1) + 1e-5)[:, None]
    t = 0
    for style, share in styles:
        s = vgg64(style, states[adain.ENCODER]).reshape(len(f), -1)
        t = t + share * (normal * np.sqrt(s.var(1, ddof=1) + 1e-5)[:, None] + s.mean(1)[:, None])
    return decoder64((alpha * t + (1 - alpha) * flat).reshape(f.shape), states[adain.DECODER])


@pytest.mark.parametrize("alpha", [1.0, 0.6])
def test_equals_the_formulas(alpha, picture, as_tensor, measured):
    states = adain.seeded(seed=2, width=1 / 8)
    content, a, b = picture(48, 64), picture(32, 40, seed=1), picture(40, 24, seed=2)
    planes = [p.astype(np.float64).transpose(2, 0, 1) / 255 for p in (content, a, b)]
    expected = adain64(planes[0], [(planes[1], 0.75), (planes[2], 0.25)], states, alpha)
    assert expected.std() >= 0.1
    mixture = [(a.astype(np.float32) / 255, 3.0), (b.astype(np.float32) / 255, 1.0)]
    style = adain.build(states, mixture, alpha)
    x = as_tensor(content)
    with torch.inference_mode():
        plain = style.forward(x, live(style))[0].numpy()
        fast = nets.freeze(style, measured(style, x))(x)[0].numpy()
    assert np.abs(plain - expected).max() <= 1e-4
    assert np.abs(fast - expected).max() <= 1e-4


@pytest.mark.slow
def test_equals_the_formulas_at_full_width(picture, as_tensor, measured):
    states = adain.seeded(seed=2, width=1.0)
    content, art = picture(32, 48), picture(32, 40, seed=1)
    planes = [p.astype(np.float64).transpose(2, 0, 1) / 255 for p in (content, art)]
    expected = adain64(planes[0], [(planes[1], 1.0)], states, 1.0)
    style = adain.build(states, [(art.astype(np.float32) / 255, 1.0)])
    x = as_tensor(content)
    with torch.inference_mode():
        fast = nets.freeze(style, measured(style, x))(x)[0].numpy()
    assert expected.std() >= 0.1
    assert np.abs(fast - expected).max() <= 1e-4


@pytest.mark.parametrize("size", [(16, 16), (24, 16), (16, 144), (136, 24), (272, 136)])
def test_fast_form_equals_plain_form(size, seeded_style, measured, picture, as_tensor):
    style = seeded_style("adain")
    net = nets.freeze(style, measured(style, as_tensor(picture(128, 128))))
    x = torch.cat([as_tensor(picture(*size, seed=s)) for s in (3, 4)])
    with torch.inference_mode():
        fast, plain = net(x), Frozen(style, net.affines)(x)
    assert fast.shape == x.shape and fast.dtype == torch.float32
    assert (fast - plain).abs().max() <= 2e-5 * max(1.0, float(plain.abs().max()))


def test_has_as_many_weights_as_published():
    counts = {f: sum(int(np.prod(s)) for s in keys.values()) for f, keys in adain.shapes().items()}
    assert counts == {adain.ENCODER: 3_505_740, adain.DECODER: 3_505_219}


def test_saved_net_needs_nothing_else(frozen, picture, as_tensor, tmp_path):
    net, x = frozen("adain"), as_tensor(picture(64, 64))
    net.save(tmp_path / "net.safetensors")
    again = load_frozen(tmp_path / "net.safetensors")
    with torch.inference_mode():
        assert torch.equal(net(x), again(x))


def files(folder, states):
    """The two files as users have them: PyTorch states, recorded by ``weights add``."""
    folder.mkdir()
    for name, state in states.items():
        torch.save(state, folder / name)
    return {name: folder / name for name in states}


@pytest.mark.slow
def test_loads_the_widely_used_files(tmp_path, picture):
    states = adain.seeded()
    beyond = {key: torch.zeros(1) for key in adain.BEYOND}
    encoder = {**states[adain.ENCODER], **beyond}
    weights.add("adain", files(tmp_path / "got", {**states, adain.ENCODER: encoder}), tmp_path / "kept")
    art = [(picture(40, 48).astype(np.float32) / 255, 1.0)]
    style = nets.build("adain", tmp_path / "kept", art)
    assert style.fingerprint == adain.build(states, art).fingerprint


def test_keys_are_exact_but_for_the_layers_beyond():
    check = nets.MODELS["adain"].check
    states = {f: {k: torch.empty(s) for k, s in keys.items()} for f, keys in adain.shapes().items()}
    encoder, decoder = states[adain.ENCODER], states[adain.DECODER]
    check({**encoder, "32.weight": torch.zeros(1)}, adain.ENCODER, "e.pth")
    with pytest.raises(BadWeights, match="unknown 99.weight"):
        check({**encoder, "99.weight": torch.zeros(1)}, adain.ENCODER, "e.pth")
    with pytest.raises(BadWeights, match="misses 29.bias"):
        check({k: v for k, v in encoder.items() if k != "29.bias"}, adain.ENCODER, "e.pth")
    with pytest.raises(BadWeights, match="unknown 32.weight"):
        check({**decoder, "32.weight": torch.zeros(1)}, adain.DECODER, "d.pth")
    with pytest.raises(BadWeights, match="shape"):
        check({**decoder, "28.bias": torch.zeros(4)}, adain.DECODER, "d.pth")
