"""LinearWCT against its definition, written out once more in numpy and float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from urst_tiles import nets
from urst_tiles.errors import BadWeights
from urst_tiles.nets import linear, live, load_frozen

WIDTH = 1 / 8
LAYERS = ("r31", "r41")


def conv64(x, state, name, mode="reflect"):
    """(c, h, w) float64."""
    weight, bias = (state[f"{name}.{part}"].double().numpy() for part in ("weight", "bias"))
    side, (h, w) = weight.shape[2], x.shape[1:]
    x = np.pad(x, ((0, 0), (side // 2,) * 2, (side // 2,) * 2), mode=mode)
    taps = ((i, j) for i in range(side) for j in range(side))
    y = sum(np.tensordot(weight[:, :, i, j], x[:, i : i + h, j : j + w], 1) for i, j in taps)
    return y + bias[:, None, None]


def relu(x):
    return np.maximum(x, 0)


#: conv numbers of the original, and "pool".
ENCODER = {
    "r31": (2, 3, "pool", 4, 5, "pool", 6),
    "r41": (2, 3, "pool", 4, 5, "pool", 6, 7, 8, 9, "pool", 10),
}
DECODER = {
    "r31": (7, "double", 8, 9, "double", 10, 11),
    "r41": (11, "double", 12, 13, 14, 15, "double", 16, 17, "double", 18, 19),
}


def encode64(x, state, layer):
    x = conv64(x, state, "conv1")
    for step in ENCODER[layer]:
        if step == "pool":
            c, h, w = x.shape
            x = x.reshape(c, h // 2, 2, w // 2, 2).max(axis=(2, 4))
        else:
            x = relu(conv64(x, state, f"conv{step}"))
    return x


def decode64(x, state, layer):
    for step in DECODER[layer]:
        if step == "double":
            x = x.repeat(2, axis=1).repeat(2, axis=2)
        else:
            x = conv64(x, state, f"conv{step}")
            x = x if step == DECODER[layer][-1] else relu(x)
    return x


def matrix64(x, state, net):
    for k in (0, 2, 4):
        x = conv64(x, state, f"{net}.convs.{k}", "constant")
        x = relu(x) if k < 4 else x
    flat = x.reshape(32, -1)
    gram = flat @ flat.T / flat.shape[1]
    weight, bias = (state[f"{net}.fc.{part}"].double().numpy() for part in ("weight", "bias"))
    return (weight @ gram.ravel() + bias).reshape(32, 32)


def linear64(content, style, states, layer, alpha):
    encoder, decoder, matrix = (
        states[linear.files(layer)[part]] for part in ("encoder", "decoder", "matrix")
    )
    f, s = encode64(content, encoder, layer), encode64(style, encoder, layer)
    mean = s.mean((1, 2), keepdims=True)
    centred = f - f.mean((1, 2), keepdims=True)
    transformation = matrix64(s - mean, matrix, "snet") @ matrix64(centred, matrix, "cnet")
    z = np.tensordot(transformation, conv64(centred, matrix, "compress"), 1)
    z = conv64(z, matrix, "unzip") + mean
    return decode64(alpha * z + (1 - alpha) * f, decoder, layer)


@pytest.fixture
def pair(picture, as_tensor):
    return as_tensor(picture(48, 64)), as_tensor(picture(56, 40, seed=1))


def style_of(pair, layer, alpha=1.0):
    image = pair[1][0].permute(1, 2, 0).numpy()
    return nets.seeded(f"linear-{layer}", [(image, 1.0)], alpha, width=WIDTH)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("alpha", [1.0, 0.4])
def test_forward_is_the_definition(pair, layer, alpha):
    style = style_of(pair, layer, alpha)
    states = linear.seeded(layer, 0, WIDTH)
    want = linear64(pair[0][0].double().numpy(), pair[1][0].double().numpy(), states, layer, alpha)
    with torch.inference_mode():
        got = style.forward(pair[0].double(), live(style))[0].numpy()
    assert want.std() > 0.05
    assert np.abs(got - want).max() < 1e-4 * max(1, np.abs(want).max())


@pytest.mark.parametrize("layer", LAYERS)
def test_frozen_at_its_own_statistics_is_the_network_itself(pair, measured, layer, tmp_path):
    style = style_of(pair, layer)
    net = nets.freeze(style, measured(style, pair[0]))
    net.save(tmp_path / "net.safetensors")
    with torch.inference_mode():
        assert (net(pair[0]) - style.forward(pair[0], live(style))).abs().max() < 1e-4
        assert torch.equal(load_frozen(tmp_path / "net.safetensors")(pair[0]), net(pair[0]))


@pytest.mark.parametrize("layer", LAYERS)
def test_measured_in_windows_is_measured_at_once(pair, measured, layer, picture, as_tensor):
    """What the matrix is predicted from reaches farther than the picture: the halo covers it."""
    from urst_tiles.engine.statistics import measure_here
    from urst_tiles.source import array_source

    style, image = style_of(pair, layer), picture(600, 64)
    here, there = measure_here(style, array_source(image)), measured(style, as_tensor(image))
    for name, moments in there.items():
        np.testing.assert_allclose(here[name].mean, moments.mean, rtol=1e-4, atol=1e-5)
        spread = np.abs(moments.m2).max()
        np.testing.assert_allclose(here[name].m2, moments.m2, rtol=1e-4, atol=1e-5 * spread)


def test_other_files_are_refused(tmp_path):
    states = linear.seeded("r31")
    linear.check("r31", states["r31.pth"], "r31.pth", tmp_path)
    del states["r31.pth"]["unzip.bias"]
    with pytest.raises(BadWeights, match=r"unzip\.bias"):
        linear.check("r31", states["r31.pth"], "r31.pth", tmp_path)
