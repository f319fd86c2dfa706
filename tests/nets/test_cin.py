"""Conditional instance norms against the formula, written out once more in numpy and float64."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from networks import check_kept
from safetensors.torch import save_file

from urst_tiles import nets, weights
from urst_tiles.errors import BadInput, BadWeights, MissingFile
from urst_tiles.nets import Frozen, cin, live
from urst_tiles.nets.style_rows import style_named

WIDTH = 1 / 4
IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def layer64(x, state, name, side, share=None, stride=1):
    """(c, h, w) float64: reflection padding, convolution, and the norm of the styles' shares."""
    weight, bias = (state[f"{name}.{part}"].double().numpy() for part in ("weight", "bias"))
    h, w = x.shape[1:]
    x = np.pad(x, ((0, 0), (side // 2,) * 2, (side // 2,) * 2), mode="reflect")
    taps = ((i, j) for i in range(side) for j in range(side))
    y = sum(np.tensordot(weight[:, :, i, j], x[:, i : i + h, j : j + w], 1) for i, j in taps)
    y = (y + bias[:, None, None])[:, ::stride, ::stride]
    if share is None:
        return y
    mean, variance = y.mean((1, 2), keepdims=True), y.var((1, 2), keepdims=True)
    gamma, beta = (
        sum(s * rows for s, rows in zip(share, state[f"{name}.{part}"].double().numpy(), strict=True))
        for part in ("gamma", "beta")
    )
    return gamma[:, None, None] * (y - mean) / np.sqrt(variance + 1e-5) + beta[:, None, None]


def relu(x):
    return np.maximum(x, 0)


def cin64(x, state, share):
    """(3, h, w) as the layout has it -> same; ``share`` of each style."""
    for k, (side, stride) in enumerate([(9, 1), (3, 2), (3, 2)], 1):
        x = relu(layer64(x, state, f"conv{k}", side, share, stride))
    for k in range(1, 6):
        h = relu(layer64(x, state, f"res{k}.conv1", 3, share))
        x = x + layer64(h, state, f"res{k}.conv2", 3, share)
    for k in (1, 2):
        x = relu(layer64(x.repeat(2, axis=1).repeat(2, axis=2), state, f"deconv{k}", 3, share))
    return layer64(x, state, "deconv3", 9)


def state_of(layout="pytorch", names=("dawn", "noon", "night")):
    """A random checkpoint of three styles whose numbers are in the range of ``layout``."""
    state = {k: t.clone() for k, t in cin.seeded(0, WIDTH)[cin.FILE].items() if k not in ("styles", "layout")}
    if layout == "linder-noren":
        state["conv1.weight"] *= 60
        state["deconv3.weight"] /= 60
        state["deconv3.bias"] /= 600
    return cin.checkpoint(state, layout, names)


def built(styles, alpha=1.0, **kind):
    return cin.build({cin.FILE: state_of(**kind)}, [(style_named(s), w) for s, w in styles], alpha)


@pytest.fixture
def content(picture, as_tensor):
    return as_tensor(picture(40, 56))


@pytest.mark.parametrize("layout", ["pytorch", "linder-noren"])
@pytest.mark.parametrize(
    ("styles", "share"),
    [([("noon", 1.0)], (0, 1, 0)), ([("1", 3.0), ("night", 1.0)], (0.75, 0, 0.25))],
    ids=["one", "mixture"],
)
def test_forward_is_the_formula(content, layout, styles, share):
    state = state_of(layout)
    x = content[0].double().numpy()
    mean, std = (np.array(v)[:, None, None] for v in IMAGENET)
    if layout == "pytorch":
        want = cin64(255 * x, state, share) / 255
    else:
        want = cin64((x - mean) / std, state, share) * std + mean
    style = built(styles, layout=layout)
    assert len(style.sites) == 15 and {(s.eps, s.ddof) for s in style.sites} == {(1e-5, 0)}
    with torch.inference_mode():
        got = style.forward(content, live(style))[0].numpy()
    assert want.std() > 0.1
    assert np.abs(got - want).max() < 1e-4 * max(1, np.abs(want).max())


def test_styles_differ_and_a_mixture_is_neither(content):
    styles = [built([("1", 1.0)]), built([("2", 1.0)]), built([("1", 0.5), ("2", 0.5)])]
    with torch.inference_mode():
        one, two, both = (style.forward(content, live(style)) for style in styles)
    assert all((a - b).abs().mean() > 0.02 for a, b in ((one, two), (one, both), (two, both)))
    assert len({style.fingerprint for style in styles}) == 3


def test_weights_are_shares():
    gamma = {k: built(styles).weights["conv2.gamma"] for k, styles in enumerate([
        [("dawn", 1.0)], [("night", 1.0)], [("dawn", 2.0), ("night", 6.0)], [("night", 0.3), ("1", 0.1)],
        [("dawn", 5.0)], [("dawn", 1.0), ("2", 0.0)],
    ])}  # fmt: skip
    assert torch.allclose(gamma[2], 0.25 * gamma[0] + 0.75 * gamma[1], atol=1e-7)
    assert torch.allclose(gamma[2], gamma[3], atol=1e-7)
    assert torch.equal(gamma[4], gamma[0]) and torch.equal(gamma[5], gamma[0])
    with pytest.raises(BadInput, match="sum to more than 0"):
        built([("dawn", 0.0)])


def test_names_come_before_numbers_and_numbers_count_from_1():
    odd = state_of(names=("2", "b", "c"))
    rows = {w: cin.build({cin.FILE: odd}, [(style_named(w), 1.0)]).weights["conv1.beta"] for w in "123bc"}
    assert torch.equal(rows["2"], rows["1"]) and torch.equal(rows["3"], rows["c"])
    assert cin.names_of(state_of(names=())) == ["1", "2", "3"]
    assert torch.equal(rows["3"], built([("3", 1.0)], names=()).weights["conv1.beta"])


@pytest.mark.parametrize("word", ["4", "0", "-1", "dusk", "Dawn", "", "photo.jpg", "été"])
def test_unknown_styles_are_told_the_known_ones(word):
    with pytest.raises(BadInput, match=f"no style '{word}'.*1 dawn, 2 noon, 3 night"):
        built([(word, 1.0)])
    with pytest.raises(BadInput, match="one of 1, 2, 3, by"):
        built([(word if word != "4" else "5", 1.0)], names=())


def test_a_picture_is_no_style(picture):
    with pytest.raises(BadInput, match="no style image; give --style one of its own styles: 1 dawn"):
        nets.seeded("cin", [(picture(32, 32).astype(np.float32) / 255, 1.0)])
    with pytest.raises(BadInput, match="no style image"):
        nets.seeded("cin", [({"mean": torch.zeros(3)}, 1.0)])


@pytest.mark.parametrize("layout", ["pytorch", "linder-noren"])
@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_frozen_form_equals_the_plain_one(content, measured, layout, alpha):
    style = built([("1", 1.0), ("2", 2.0)], alpha, layout=layout)
    net = nets.freeze(style, measured(style, content))
    with torch.inference_mode():
        plain = Frozen(style, net.affines)(content)
        assert plain.std() > 0.1
        assert (net(content) - plain).abs().max() < 3e-5 * plain.abs().max().clamp_min(1)


def test_save_and_load(content, measured, tmp_path):
    style = built([("1", 1.0), ("3", 1.0)], 0.5, layout="linder-noren")
    net = nets.freeze(style, measured(style, content))
    assert net.family == "cin"
    assert net.style.fingerprint == style.fingerprint
    check_kept(net, content, tmp_path)


def test_the_fingerprint_tells_cin_from_fast():
    style = built([("1", 1.0)])
    same = nets.fast.FastStyle(style.weights, style.layout)
    assert same.name == "fast" and same.fingerprint != style.fingerprint


def test_a_file_in_the_weights_folder(tmp_path):
    file = tmp_path / "cin.safetensors"
    save_file(state_of(), file)
    with pytest.raises(MissingFile, match=r"weights add cin cin\.safetensors"):
        nets.build("cin", tmp_path / "weights", [(style_named("dawn"), 1.0)])
    with pytest.raises(BadWeights, match="weights add cin"):
        weights.fetch("cin", tmp_path / "weights")
    weights.add("cin", {file.name: file}, tmp_path / "weights")
    style = nets.build("cin", tmp_path / "weights", [(style_named("dawn"), 1.0)])
    assert style.fingerprint == built([("dawn", 1.0)]).fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"res2.conv1.bias": None}, r"misses res2\.conv1\.bias"),
        ({"res2.conv1.extra": torch.ones(2)}, r"unknown res2\.conv1\.extra"),
        ({"res5.conv2.gamma": torch.ones(2, 32)}, r"res5\.conv2\.gamma has .*\(2, 32\), expected \(3, 32\)"),
        ({"conv1.gamma": torch.ones(8)}, r"conv1\.gamma has shape"),
        ({"conv1.gamma": None}, r"misses conv1\.gamma"),
        ({"layout": None}, "misses layout"),
        ({"layout": torch.tensor(4)}, r"layout is 4, expected one of 0 \(pytorch\), 1 \(linder-noren\), 2"),
        ({"layout": torch.tensor(0.5)}, "layout is 0.5"),
        ({"styles": ["a", "b"]}, "styles must be a JSON list of 3 different words"),
        ({"styles": ["a", "b", "b"]}, "3 different words"),
        ({"styles": ["a", "b", 3]}, "3 different words"),
        ({"styles": {"a": 1, "b": 2, "c": 3}}, "3 different words"),
        ({"styles": torch.tensor([200, 201], dtype=torch.uint8)}, "3 different words"),
    ],
)  # fmt: skip
def test_other_checkpoints_are_refused(change, message, tmp_path):
    state = state_of() | change
    if not isinstance(state["styles"], torch.Tensor):
        state["styles"] = torch.tensor(list(json.dumps(state["styles"]).encode()), dtype=torch.uint8)
    with pytest.raises(BadWeights, match=message):
        cin.check({k: t for k, t in state.items() if t is not None}, cin.FILE, tmp_path / cin.FILE)


def test_a_checkpoint_without_styles_is_refused(tmp_path):
    state = {k: t[:0] if k.endswith(("gamma", "beta")) else t for k, t in state_of(names=()).items()}
    with pytest.raises(BadWeights, match=r"conv1\.gamma has no row"):
        cin.check(state, cin.FILE, tmp_path / cin.FILE)


def test_published_width_is_accepted(tmp_path):
    state = cin.seeded(0)[cin.FILE]
    cin.check(state, cin.FILE, tmp_path / cin.FILE)
    assert state["res1.conv1.gamma"].shape == (3, 128) and cin.names_of(state) == ["dawn", "noon", "night"]


def test_the_command_line_takes_a_name_or_a_number(tmp_path, picture, as_tensor, capsys):
    """On an image no larger than the thumbnail it is the network's own picture."""
    from PIL import Image

    from urst_tiles.cli import main

    save_file(state_of(), tmp_path / "cin.safetensors")
    weights.add("cin", {"cin.safetensors": tmp_path / "cin.safetensors"}, tmp_path / "weights")
    image, style = picture(88, 108), built([("night", 1.0)])
    Image.fromarray(image).save(tmp_path / "in.png")
    with torch.inference_mode():
        want = 255 * style.forward(as_tensor(image), live(style))[0].permute(1, 2, 0).clamp(0, 1).numpy()
    rest = ["--model", "cin", "--weights", str(tmp_path / "weights"), "--style"]
    for word in ("dusk", str(tmp_path / "in.png")):
        assert main(["stylize", str(tmp_path / "in.png"), str(tmp_path / "no.tif"), *rest, word]) == 2
        assert "1 dawn, 2 noon, 3 night" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cin.safetensors", "in.png", "weights"]
    for word in ("night", "3"):
        output = tmp_path / f"{word}.tif"
        assert main(["stylize", str(tmp_path / "in.png"), str(output), *rest, word]) == 0
        with Image.open(output) as out:
            assert np.abs(np.asarray(out).astype(float) - want).max() <= 1
