"""Ghiasi et al. against the formulas, written out once more in numpy and float64, and the published files
against what onnxruntime makes of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import check_kept

from urst_tiles import nets, weights
from urst_tiles.errors import BadInput, BadWeights, MissingFile
from urst_tiles.nets import Frozen, ghiasi, live
from urst_tiles.nets.style_rows import style_named

WIDTH = 1 / 8
EPS = 1e-5


@pytest.fixture(scope="module")
def states():
    return ghiasi.seeded(0, WIDTH)


@pytest.fixture
def content(picture, as_tensor):
    return as_tensor(picture(40, 56))


@pytest.fixture
def art(picture):
    return lambda seed, *size: picture(*(size or (256, 256)), seed).astype(np.float32) / 255


def conv64(x, weight, bias=0.0, stride=1):
    """(c, h, w) float64, padded already; ``weight`` (d, c, k, k), or (c, 1, k, k) with a kernel for each
    channel."""
    side = weight.shape[-1]
    h, w = (n - side + 1 for n in x.shape[1:])
    out = 0.0
    for i in range(side):
        for j in range(side):
            part, tap = x[:, i : i + h, j : j + w][:, ::stride, ::stride], weight[:, :, i, j]
            out = out + (tap[:, :, None] * part if tap.shape[1] == 1 < len(x) else np.tensordot(tap, part, 1))
    return out + np.reshape(bias, (-1, 1, 1))


def in64(state):
    return {key: tensor.double().numpy() for key, tensor in state.items()}


# The predictor


def predict64(image, state):
    """The numbers of (3, 256, 256): a MobileNet V2 as table 2 of its paper has it."""

    def same(x, name, stride=1):
        deep = "depthwise" in name
        weight = state[f"{name}/depthwise_weights" if deep else f"{name}/weights"]
        bias = state[f"{name}/depthwise_bias" if deep else f"{name}/Conv2D_bias"]
        side, n = weight.shape[-1], x.shape[1]
        total = max((-(-n // stride) - 1) * stride + side - n, 0)  # TensorFlow's SAME
        x = np.pad(x, ((0, 0), *[(total // 2, total - total // 2)] * 2))
        return conv64(x, weight, bias, stride)

    def relu6(x):
        return np.clip(x, 0, 6)

    x, number = relu6(same(image, "MobilenetV2/Conv", 2)), 0
    for count, first in ((1, 1), (2, 2), (3, 2), (4, 2), (3, 1), (3, 2), (1, 1)):
        for k in range(count):
            name = f"MobilenetV2/expanded_conv_{number}" if number else "MobilenetV2/expanded_conv"
            y = relu6(same(x, f"{name}/expand")) if number else x
            y = relu6(same(y, f"{name}/depthwise", first if k == 0 else 1))
            y = same(y, f"{name}/project")
            x, number = x + y if k else y, number + 1
    pooled = relu6(same(x, "MobilenetV2/Conv_1")).mean((1, 2))
    return state["mobilenet_conv/Conv/weights"][:, :, 0, 0] @ pooled


def test_the_numbers_are_those_of_the_formula(states, art):
    state = states[ghiasi.PREDICTOR]
    image = art(3)
    want = predict64(image.transpose(2, 0, 1).astype(float), in64(state))
    with torch.inference_mode():
        got = ghiasi.predict(torch.from_numpy(image).permute(2, 0, 1)[None], state).numpy()
    assert want.std() > 0.1 and np.abs(got - want).max() < 1e-5 * np.abs(want).max()


def test_the_middle_square_is_seen(art):
    image = torch.from_numpy(art(1)).permute(2, 0, 1)[None]
    assert torch.allclose(ghiasi.square(image), image, atol=1e-6)
    for wide in (torch.nn.functional.pad(image, (70, 71)), torch.nn.functional.pad(image, (0, 0, 8, 8))):
        assert torch.allclose(ghiasi.square(wide), image, atol=1e-6)
    y, x = torch.meshgrid(torch.arange(1024), torch.arange(1024), indexing="ij")
    chequered = ((x + y) % 2).float().expand(1, 3, -1, -1)
    assert (ghiasi.square(chequered) - 0.5).abs().max() < 0.02
    assert ghiasi.square(image[:, :, :8, :9]).shape == (1, 3, 256, 256)


# The transformer


def transform64(x, state, numbers):
    """(3, h, w) in 0..1 -> same: gamma is ``Conv_1`` of the numbers and beta is ``Conv``."""

    def reflected(x, name, stride=1):
        weight = state[f"{name}/weights"]
        side = weight.shape[-1] // 2
        x = np.pad(x, ((0, 0), (side, side), (side, side)), mode="reflect")
        return conv64(x, weight, state.get(f"{name}/Conv2D_bias", 0.0), stride)

    def normed(x, name):
        gamma, beta = (
            state[f"style_params/{name}/StyleNorm/{part}/weights"][:, :, 0, 0] @ numbers
            + state[f"style_params/{name}/StyleNorm/{part}/Conv2D_bias"]
            for part in ("Conv_1", "Conv")
        )
        mean, variance = x.mean((1, 2), keepdims=True), x.var((1, 2), keepdims=True)
        return gamma[:, None, None] * (x - mean) / np.sqrt(variance + EPS) + beta[:, None, None]

    for k, stride in ((1, 1), (2, 2), (3, 2)):
        x = np.maximum(reflected(x, f"transformer/contract/conv{k}", stride), 0)
    for k in range(1, 6):
        names = [f"transformer/residual/residual{k}/conv{i}" for i in (1, 2)]
        h = np.maximum(normed(reflected(x, names[0]), names[0]), 0)
        x = x + normed(reflected(h, names[1]), names[1])
    for k in (1, 2, 3):
        x = x if k == 3 else x.repeat(2, axis=1).repeat(2, axis=2)
        name = f"transformer/expand/conv{k}/conv"
        x = normed(reflected(x, name), name)
        x = 1 / (1 + np.exp(-x)) if k == 3 else np.maximum(x, 0)
    return x


def test_forward_is_the_formula(states, content, art):
    state = in64(states[ghiasi.TRANSFORMER])
    numbers = predict64(art(1).transpose(2, 0, 1).astype(float), in64(states[ghiasi.PREDICTOR]))
    want = transform64(content[0].double().numpy(), state, numbers)
    style = ghiasi.build(states, [(art(1), 1.0)])
    assert [site.name for site in style.sites][:1] == ["res1.conv1"] and len(style.sites) == 13
    assert {(site.eps, site.ddof) for site in style.sites} == {(EPS, 0)}
    with torch.inference_mode():
        got = style.forward(content, live(style))[0].numpy()
    assert want.std() > 0.1 and np.abs(got - want).max() < 1e-4


def test_images_are_mixed_by_their_numbers(states, content, art):
    one, two = (ghiasi.build(states, [(art(seed), 1.0)]) for seed in (1, 2))
    both = ghiasi.build(states, [(art(1), 3.0), (art(2), 1.0)])
    for key in one.weights:
        assert torch.allclose(both.weights[key], 0.75 * one.weights[key] + 0.25 * two.weights[key], atol=1e-6)
    assert len({style.fingerprint for style in (one, two, both)}) == 3
    with torch.inference_mode():
        outputs = [style.forward(content, live(style)) for style in (one, two, both)]
    assert all((outputs[i] - outputs[j]).abs().mean() > 1e-3 for i, j in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_frozen_form_equals_the_plain_one(states, content, measured, alpha, art):
    style = ghiasi.build(states, [(art(1), 1.0)], alpha)
    net = nets.freeze(style, measured(style, content))
    with torch.inference_mode():
        plain = Frozen(style, net.affines)(content)
        assert plain.std() > 0.05 and (net(content) - plain).abs().max() < 3e-5


def test_save_and_load(states, content, measured, tmp_path, art):
    style = ghiasi.build(states, [(art(1), 1.0)], 0.5)
    net = nets.freeze(style, measured(style, content))
    assert net.family == "ghiasi"
    assert net.style.fingerprint == style.fingerprint
    check_kept(net, content, tmp_path)


def test_a_style_is_an_image(states, art):
    with pytest.raises(BadInput, match="no named styles"):
        ghiasi.build(states, [(style_named("1"), 1.0)])
    with pytest.raises(BadInput, match="at least 8 px on each side, got 7 x 8"):
        ghiasi.build(states, [(art(1, 8, 7), 1.0)])


# The files


@pytest.mark.parametrize("width", [1, 1 / 2, 1 / 8])
def test_narrower_networks_are_accepted_and_others_refused(width, tmp_path):
    for file, state in ghiasi.seeded(0, width).items():
        constants = {"scales__1129": torch.ones(4), "a/batchnorm/add/y": torch.ones(1)}
        ghiasi.check(state | constants, file, tmp_path / file)
        key = next(iter(state))
        with pytest.raises(BadWeights, match=f"misses {key}"):
            ghiasi.check({k: t for k, t in state.items() if k != key}, file, tmp_path / file)
        with pytest.raises(BadWeights, match=f"{key} has shape"):
            ghiasi.check(state | {key: state[key][:, :1]}, file, tmp_path / file)


def test_the_sizes_are_those_of_the_papers():
    count = sum(np.prod(shape) for shape in ghiasi.shapes()[ghiasi.PREDICTOR].values())
    assert 2.2e6 < count < 2.4e6
    layers = ghiasi.shapes()[ghiasi.TRANSFORMER]
    assert layers["transformer/contract/conv1/weights"] == (8, 3, 9, 9)
    assert layers["transformer/residual/residual5/conv2/weights"] == (32, 32, 3, 3)
    assert layers["style_params/transformer/expand/conv3/conv/StyleNorm/Conv_1/weights"] == (3, 100, 1, 1)


def test_missing_files_are_fetched(tmp_path, art):
    with pytest.raises(MissingFile, match="weights fetch ghiasi"):
        nets.build("ghiasi", tmp_path, [(art(1), 1.0)])


def test_published_files_paint_as_in_onnxruntime(weights_dir, picture, as_tensor, art):
    """The expected values are those of onnxruntime 1.32, with the two graphs less the nodes that quantise
    features."""
    style = nets.build("ghiasi", weights_dir, [(art(1), 1.0)])
    state = weights.load(weights.find("ghiasi", weights_dir)[ghiasi.PREDICTOR])
    with torch.inference_mode():
        numbers = ghiasi.predict(as_tensor(picture(256, 256, 1)), state)
        got = style.forward(as_tensor(picture(384, 384)), live(style))[0]
    assert numbers[:6].tolist() == pytest.approx(
        [0.33051, -0.47459, 1.11655, 0.93236, -0.72042, -0.5284], abs=1e-4
    )
    pixels = {
        (0, 0): [0.77732, 0.68612, 0.38948],
        (100, 200): [0.75129, 0.45336, 0.62556],
        (383, 383): [0.66662, 0.26535, 0.35828],
    }
    for (y, x), colour in pixels.items():
        assert got[:, y, x].tolist() == pytest.approx(colour, abs=1e-3)
    assert got.mean((1, 2)).tolist() == pytest.approx([0.47527, 0.37141, 0.52493], abs=1e-3)
