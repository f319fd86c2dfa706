"""lite against its formulas, written out once more in numpy and float64; and the named styles."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from urst_tiles import nets, weights
from urst_tiles.errors import BadInput, BadWeights
from urst_tiles.nets import Frozen, lite, live, load_frozen, named_styles
from urst_tiles.nets.base import digest

ALPHAS = (1.0, 0.4)


def conv64(x, state, name):
    """(c, h, w) float64; 3x3 with reflection padding: the sum over taps, nothing else."""
    weight, bias = (state[f"{name}.{part}"].double().numpy() for part in ("weight", "bias"))
    h, w = x.shape[1:]
    x = np.pad(x, ((0, 0), (1, 1), (1, 1)), mode="reflect")
    taps = ((i, j) for i in range(3) for j in range(3))
    return (
        sum(np.tensordot(weight[:, :, i, j], x[:, i : i + h, j : j + w], 1) for i, j in taps)
        + bias[:, None, None]
    )


def cells64(x):
    """Channel 16 c + 4 i + j is row i, column j of each cell in colour c."""
    c, h, w = x.shape
    return x.reshape(c, h // 4, 4, w // 4, 4).transpose(0, 2, 4, 1, 3).reshape(16 * c, h // 4, w // 4)


def pixels64(x):
    c, h, w = x.shape
    return x.reshape(c // 16, 4, 4, h, w).transpose(0, 3, 1, 4, 2).reshape(c // 16, 4 * h, 4 * w)


def root64(matrix):
    """The positive root by Denman and Beavers' iteration: another way than eigenvalues."""
    y, z = matrix, np.eye(len(matrix))
    for _ in range(60):
        y, z = (y + np.linalg.inv(z)) / 2, (z + np.linalg.inv(y)) / 2
    return y


def colours64(x, mean, covariance):
    """The linear Monge-Kantorovich map: A S A = T with A symmetric."""
    flat = x.reshape(3, -1)
    source = np.cov(flat) + 1e-4 * np.eye(3)
    target = covariance + 1e-4 * np.eye(3)
    root = root64(source)
    inverse = np.linalg.inv(root)
    scale = inverse @ root64(root @ target @ root) @ inverse
    assert np.allclose(scale @ source @ scale, target, atol=1e-9) and np.allclose(scale, scale.T)
    return scale, mean - scale @ flat.mean(1)


def statistics64(h):
    flat = h.reshape(len(h), -1)
    return flat.mean(1), np.sqrt(flat.var(1, ddof=1) + 1e-3)


def strokes64(x, state, steer):
    z = conv64(cells64(x - 0.5), state, "enter")
    for k in range(1, 6):
        h = steer(k, conv64(z, state, f"block{k}.a"))
        z = z + conv64(np.maximum(h, 0), state, f"block{k}.b")
    return pixels64(conv64(z, state, "leave"))


def lite64(content, style, state, alpha):
    """The whole network on one image with its own statistics."""
    found = {}
    strokes64(style, state, lambda k, h: found.setdefault(k, statistics64(h)) and h)

    def steer(k, h):
        (mean, std), (want, spread) = statistics64(h), found[k]
        painted = (h - mean[:, None, None]) * (spread / std)[:, None, None] + want[:, None, None]
        return alpha * painted + (1 - alpha) * h

    flat = style.reshape(3, -1)
    scale, shift = colours64(content, flat.mean(1), np.cov(flat))
    scale, shift = alpha * scale + (1 - alpha) * np.eye(3), alpha * shift
    y = np.tensordot(scale, content, 1) + shift[:, None, None]
    return y + alpha * strokes64(y, state, steer)


def image64(x):
    return x[0].double().numpy()


@pytest.fixture
def pair(picture, as_tensor):
    """A content and a style, (1, 3, h, w)."""
    return as_tensor(picture(64, 80)), as_tensor(picture(72, 56, seed=1))


def style_of(pair, alpha=1.0, state=None):
    image = pair[1][0].permute(1, 2, 0).numpy()
    return lite.build({lite.FILE: state} if state else lite.seeded(0, 1 / 8), [(image, 1.0)], alpha)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_forward_is_the_formula(pair, alpha):
    style = style_of(pair, alpha)
    want = lite64(image64(pair[0]), image64(pair[1]), style.weights, alpha)
    with torch.inference_mode():
        got = style.forward(pair[0], live(style))[0].numpy()
    assert want.std() > 0.2
    assert np.abs(got - want).max() < 1e-4


def test_alpha_0_is_the_image(pair):
    style = style_of(pair, 0.0)
    with torch.inference_mode():
        assert torch.allclose(style.forward(pair[0], live(style)), pair[0], atol=1e-6)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("width", [1 / 8, 1.0])
def test_frozen_form_equals_the_plain_one(pair, measured, alpha, width):
    image = pair[1][0].permute(1, 2, 0).numpy()
    style = nets.seeded("lite", [(image, 1.0)], alpha, width=width)
    net = nets.freeze(style, measured(style, pair[0]))
    x = pair[0].contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        plain = Frozen(style, net.affines)(x)
        assert plain.std() > 0.1
        assert (net(x) - plain).abs().max() < 2e-5


def test_frozen_form_takes_any_memory_format_and_batches(pair, measured):
    style = style_of(pair)
    net = nets.freeze(style, measured(style, pair[0]))
    both = torch.cat([pair[0], pair[0].flip(3)])
    with torch.inference_mode():
        apart = torch.cat([net(one) for one in both.split(1)])
        assert (net(both) - apart).abs().max() < 1e-5
        assert (net(both.contiguous(memory_format=torch.channels_last)) - apart).abs().max() < 1e-5


def test_save_and_load(pair, measured, tmp_path):
    style = style_of(pair, 0.7)
    net = nets.freeze(style, measured(style, pair[0]))
    net.save(tmp_path / "net.safetensors")
    again = load_frozen(tmp_path / "net.safetensors")
    with torch.inference_mode():
        assert torch.equal(net(pair[0]), again(pair[0]))


def test_a_style_of_one_flat_colour_and_a_flat_content_give_numbers(pair, measured):
    flat = torch.full((1, 3, 32, 32), 0.3)
    for content, art in ((pair[0], flat), (flat, pair[1]), (flat, flat)):
        style = style_of((content, art))
        with torch.inference_mode():
            y = style.forward(content, live(style))
            z = nets.freeze(style, measured(style, content))(content)
        assert y.isfinite().all() and z.isfinite().all()


def test_styles_are_mixed_by_their_statistics(pair, picture):
    images = [picture(64, 64, seed=k).astype(np.float32) / 255 for k in (3, 4)]
    states = lite.seeded(0, 1 / 8)
    both = lite.build(states, [(images[0], 3.0), (images[1], 1.0)])
    one, two = (lite.build(states, [(image, 1.0)]) for image in images)
    for name, values in both.features.items():
        assert torch.allclose(values, 0.75 * one.features[name] + 0.25 * two.features[name])


def test_a_style_image_need_not_be_a_multiple_of_the_cell(pair, picture):
    states = lite.seeded(0, 1 / 8)
    ragged = picture(67, 59).astype(np.float32) / 255
    cropped = lite.build(states, [(ragged[:64, :56], 1.0)])
    assert lite.build(states, [(ragged, 1.0)]).fingerprint == cropped.fingerprint
    with pytest.raises(BadInput, match="at least 8 px"):
        lite.build(states, [(ragged[:7], 1.0)])


# What ships


def test_the_shipped_network_is_small():
    state = weights.load(weights.find("lite")[lite.FILE])
    weights.check_keys(state, lite.shapes(), "lite")
    per_cell = sum(t.numel() for name, t in state.items() if name.endswith("weight"))
    assert per_cell / lite.STRIDE**2 <= 35_000
    shipped = {path.name: path.stat().st_size for path in weights.TRAINED.glob("*.safetensors")}
    assert max(shipped.values()) <= 8_000_000 and sum(shipped.values()) <= 12_000_000


def test_ones_own_weights_come_before_the_shipped_ones(tmp_path):
    folder = tmp_path / "mine" / "lite"
    source = weights.find("lite")[lite.FILE]
    assert source.parent == weights.TRAINED
    weights.add("lite", {lite.FILE: source}, tmp_path / "mine")
    assert weights.find("lite", tmp_path / "mine")[lite.FILE].parent == folder
    assert "1 of 1" in weights.describe("lite", tmp_path / "mine")
    assert "comes with" in weights.describe("lite", tmp_path)


def test_named_styles_belong_to_the_shipped_weights():
    state = weights.load(weights.find("lite")[lite.FILE])
    assert digest(state, {}) == named_styles.measured_with()
    assert len(named_styles.titles()) >= 24


def test_named_styles_are_refused_with_other_weights(tmp_path):
    from safetensors.torch import save_file

    save_file(lite.initial(3), tmp_path / lite.FILE)
    weights.add("lite", {lite.FILE: tmp_path / lite.FILE}, tmp_path / "mine")
    with pytest.raises(BadWeights, match="named styles"):
        nets.build("lite", tmp_path / "mine", [(named_styles.features("hokusai-wave"), 1.0)])


def test_a_named_style_is_the_painting(shared):
    """The statistics in the file are those of the painting, measured anew."""
    from urst_tiles.source.picture import read_picture

    painting = next((shared / "data" / "train" / "style").glob("*Great_Wave*"))
    by_name = nets.build("lite", None, [(named_styles.features("hokusai-wave"), 1.0)])
    by_image = nets.build("lite", None, [(read_picture(painting, named_styles.SIZE), 1.0)])
    for name, values in by_image.features.items():
        assert torch.allclose(by_name.features[name], values, rtol=1e-3, atol=1e-3)


def test_named_styles_mix_with_images(picture):
    image = picture(64, 64).astype(np.float32) / 255
    mixed = nets.build("lite", None, [(named_styles.features("munch-scream"), 1.0), (image, 1.0)])
    alone = nets.build("lite", None, [(image, 1.0)])
    assert mixed.fingerprint != alone.fingerprint


def test_other_models_have_no_named_styles():
    with pytest.raises(BadInput, match="style image"):
        nets.seeded("microast", [(named_styles.features("munch-scream"), 1.0)])


def test_pack_is_undone_by_unpack():
    features = named_styles.features("munch-scream")
    again = lite.unpack(lite.pack(features))
    assert all(torch.equal(again[name], features[name]) for name in lite.feature_shapes())
    with pytest.raises(ValueError, match="nosuch"):
        named_styles.features("nosuch")
    assert "hokusai-wave" in named_styles.near("hokusai") and "munch-scream" in named_styles.near(
        "munch-screem"
    )
