"""MSG-Net against its definition, written out once more in numpy and float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from urst_tiles import nets
from urst_tiles.errors import BadWeights
from urst_tiles.nets import Frozen, live, load_frozen, msgnet

WIDTH = 1 / 16


def conv64(x, state, name, stride=1):
    """(c, h, w) float64; reflection padding."""
    weight, bias = (state[f"{name}.{part}"].double().numpy() for part in ("weight", "bias"))
    side, (h, w) = weight.shape[2], x.shape[1:]
    x = np.pad(x, ((0, 0), (side // 2,) * 2, (side // 2,) * 2), mode="reflect")
    taps = ((i, j) for i in range(side) for j in range(side))
    y = sum(np.tensordot(weight[:, :, i, j], x[:, i : i + h, j : j + w], 1) for i, j in taps)
    return (y + bias[:, None, None])[:, ::stride, ::stride]


def rectified_norm64(x):
    mean, variance = x.mean((1, 2), keepdims=True), x.var((1, 2), keepdims=True)
    return np.maximum((x - mean) / np.sqrt(variance + 1e-5), 0)


def double(x):
    return x.repeat(2, axis=1).repeat(2, axis=2)


def down64(x, state, name, stride):
    h = conv64(rectified_norm64(x), state, f"{name}.conv_block.2")
    h = conv64(rectified_norm64(h), state, f"{name}.conv_block.5.conv2d", stride)
    h = conv64(rectified_norm64(h), state, f"{name}.conv_block.8")
    return h + (x if stride == 1 else conv64(x, state, f"{name}.residual_layer", stride))


def up64(x, state, name):
    h = conv64(rectified_norm64(x), state, f"{name}.conv_block.2")
    h = conv64(double(rectified_norm64(h)), state, f"{name}.conv_block.5.conv2d")
    h = conv64(rectified_norm64(h), state, f"{name}.conv_block.8")
    return h + conv64(double(x), state, f"{name}.residual_layer.conv2d")


def encode64(x, state):
    x = conv64(255 * x[::-1], state, "model.0.0.conv2d")
    x = down64(rectified_norm64(x), state, "model.0.3", 2)
    return down64(x, state, "model.0.4", 2)


def msgnet64(content, style, state):
    f = encode64(style, state).reshape(state["model.1.weight"].shape[1], -1)
    gram = f @ f.T / f.size
    z = encode64(content, state)
    p = state["model.1.weight"][0].double().numpy() @ gram
    z = np.tensordot(p.T, z, 1)
    for k in range(2, 8):
        z = down64(z, state, f"model.{k}", 1)
    z = rectified_norm64(up64(up64(z, state, "model.8"), state, "model.9"))
    return conv64(z, state, "model.12.conv2d")[::-1] / 255


@pytest.fixture
def pair(picture, as_tensor):
    return as_tensor(picture(48, 64)), as_tensor(picture(56, 40, seed=1))


def style_of(pair, alpha=1.0):
    return nets.seeded("msgnet", [(pair[1][0].permute(1, 2, 0).numpy(), 1.0)], alpha, width=WIDTH)


def test_forward_is_the_definition(pair):
    style = style_of(pair)
    state = msgnet.seeded(0, WIDTH)[msgnet.FILE]
    want = msgnet64(pair[0][0].double().numpy(), pair[1][0].double().numpy(), state)
    with torch.inference_mode():
        got = style.forward(pair[0].double(), live(style))[0].numpy()
    assert want.std() > 0.1
    assert np.abs(got - want).max() < 1e-4


def test_it_has_the_published_form(pair):
    style = nets.seeded("msgnet", [(pair[1][0].permute(1, 2, 0).numpy(), 1.0)], width=1.0)
    *norms, comatch = style.sites
    assert [(s.name, (s.channels, s.stride)) for s in norms] == list(msgnet.norms().items())
    assert len(norms) == 32 and style.gram.shape == (512, 512)
    assert (comatch.name, comatch.full, comatch.measured) == (msgnet.COMATCH, True, False)


@pytest.mark.parametrize("alpha", [1.0, 0.4])
def test_frozen_at_its_own_statistics_is_the_network_itself(pair, measured, alpha, tmp_path):
    style = style_of(pair, alpha)
    net = nets.freeze(style, measured(style, pair[0]))
    net.save(tmp_path / "net.safetensors")
    with torch.inference_mode():
        assert (net(pair[0]) - style.forward(pair[0], live(style))).abs().max() < 1e-4
        assert torch.equal(load_frozen(tmp_path / "net.safetensors")(pair[0]), net(pair[0]))


def test_styles_steer(pair):
    one, other = style_of(pair), style_of((None, pair[0]))
    with torch.inference_mode():
        difference = one.forward(pair[0], live(one)) - other.forward(pair[0], live(other))
    assert difference.abs().mean() > 0.01


def test_layouts(tmp_path):
    state = msgnet.seeded(0, 1.0)[msgnet.FILE]
    twice = {k.replace("model.0.", "model1.", 1): t for k, t in state.items() if k.startswith("model.0.")}
    old = {"model.0.1.running_mean": torch.zeros(64), "ins.weight": state["model.1.weight"]}
    msgnet.check({**state, **twice, **old}, msgnet.FILE, tmp_path)
    del state["model.5.conv_block.2.weight"]
    with pytest.raises(BadWeights, match=r"model\.5\.conv_block\.2\.weight"):
        msgnet.check(state, msgnet.FILE, tmp_path)


def test_frozen_is_the_plain_form(pair, measured):
    assert isinstance(nets.freeze(style_of(pair), measured(style_of(pair), pair[0])), Frozen)
