"""Feed-forward networks against the formula, written out once more in numpy and float64; both layouts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from urst_tiles import nets
from urst_tiles.errors import BadInput, BadWeights
from urst_tiles.nets import Frozen, fast, fast_layouts, live, load_frozen


def conv64(x, state, name, side, stride=1):
    """(c, h, w) float64; reflection padding."""
    weight, bias = (state[f"{name}.{part}"].double().numpy() for part in ("weight", "bias"))
    h, w = x.shape[1:]
    x = np.pad(x, ((0, 0), (side // 2,) * 2, (side // 2,) * 2), mode="reflect")
    taps = ((i, j) for i in range(side) for j in range(side))
    y = sum(np.tensordot(weight[:, :, i, j], x[:, i : i + h, j : j + w], 1) for i, j in taps)
    return (y + bias[:, None, None])[:, ::stride, ::stride]


def norm64(x, state, name, batch):
    flat = x.reshape(len(x), -1)
    mean, variance = flat.mean(1), flat.var(1)
    if batch:
        mean, variance = (state[f"{name}.running_{part}"].double().numpy() for part in ("mean", "var"))
    gamma, beta = (state[f"{name}.{part}"].double().numpy() for part in ("weight", "bias"))
    scale = gamma / np.sqrt(variance + 1e-5)
    return (x - mean[:, None, None]) * scale[:, None, None] + beta[:, None, None]


def relu(x):
    return np.maximum(x, 0)


def double(x):
    return x.repeat(2, axis=1).repeat(2, axis=2)


def pytorch64(x, state, batch):
    """As pytorch/examples has it, 0..255."""
    for k, (side, stride) in enumerate([(9, 1), (3, 2), (3, 2)], 1):
        x = relu(norm64(conv64(x, state, f"conv{k}.conv2d", side, stride), state, f"in{k}", batch))
    for k in range(1, 6):
        h = relu(norm64(conv64(x, state, f"res{k}.conv1.conv2d", 3), state, f"res{k}.in1", batch))
        x = x + norm64(conv64(h, state, f"res{k}.conv2.conv2d", 3), state, f"res{k}.in2", batch)
    for k in (1, 2):
        x = relu(norm64(conv64(double(x), state, f"deconv{k}.conv2d", 3), state, f"in{k + 3}", batch))
    return conv64(x, state, "deconv3.conv2d", 9)


def linder_noren64(x, state, batch):
    """As Linder-Noren's has it, normalised colours: eleven parts in a row."""
    for k in range(11):
        if 3 <= k <= 7:
            h = relu(part64(x, state, f"model.{k}.block.0", 3, 1, batch))
            x = x + part64(h, state, f"model.{k}.block.1", 3, 1, batch)
        elif k == 10:
            x = conv64(x, state, "model.10.block.1", 9)
        else:
            x = double(x) if k > 7 else x
            x = relu(part64(x, state, f"model.{k}", 9 if k == 0 else 3, 2 if k in (1, 2) else 1, batch))
    return x


def part64(x, state, name, side, stride, batch):
    return norm64(conv64(x, state, f"{name}.block.1", side, stride), state, f"{name}.norm", batch)


def checkpoint(layout, batch=False, seed=0):
    """A random checkpoint; the other layout has the same tensors under other names."""
    state = fast.seeded(seed)[""]
    if layout == "linder-noren":
        theirs, ours = fast_layouts.linder_noren_names(), fast_layouts.pytorch_names()
        pairs = [pair for name in fast_layouts.LAYERS for pair in zip(ours[name], theirs[name], strict=True)]
        state = {
            f"{new}.{part}": state[f"{old}.{part}"]
            for old, new in pairs
            for part in ("weight", "bias")
            if f"{old}.{part}" in state
        }
    if batch:
        random = torch.Generator().manual_seed(seed)
        for key in [k for k, t in state.items() if t.ndim == 1 and ("norm" in k or ".in" in f".{k}")]:
            name = key.rsplit(".", 1)[0]
            state[f"{name}.running_mean"] = torch.randn(len(state[key]), generator=random)
            state[f"{name}.running_var"] = torch.rand(len(state[key]), generator=random) + 0.5
            state[f"{name}.num_batches_tracked"] = torch.tensor(1)
    return state


@pytest.fixture
def content(picture, as_tensor):
    return as_tensor(picture(40, 56))


@pytest.mark.parametrize("layout", ["pytorch", "linder-noren"])
@pytest.mark.parametrize("batch", [False, True], ids=["instance", "batch"])
def test_forward_is_the_formula(content, layout, batch):
    state = checkpoint(layout, batch)
    style = fast.build({}, [(state, 1.0)])
    assert len(style.sites) == (0 if batch else 15)
    x = content[0].double().numpy()
    mean, std = (np.array(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    if layout == "pytorch":
        want = pytorch64(255 * x, state, batch) / 255
    else:
        want = linder_noren64((x - mean) / std, state, batch) * std + mean
    with torch.inference_mode():
        got = style.forward(content, live(style))[0].numpy()
    assert want.std() > 0.1
    assert np.abs(got - want).max() < 1e-4 * max(1, np.abs(want).max())


@pytest.mark.parametrize("layout", ["pytorch", "linder-noren"])
@pytest.mark.parametrize("batch", [False, True], ids=["instance", "batch"])
@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_frozen_form_equals_the_plain_one(content, measured, layout, batch, alpha):
    style = fast.build({}, [(checkpoint(layout, batch), 1.0)], alpha)
    net = nets.freeze(style, measured(style, content))
    with torch.inference_mode():
        plain = Frozen(style, net.affines)(content)
        assert plain.std() > 0.1
        assert (net(content) - plain).abs().max() < 3e-5 * plain.abs().max().clamp_min(1)


def test_save_and_load(content, measured, tmp_path):
    style = fast.build({}, [(checkpoint("linder-noren"), 1.0)], 0.5)
    net = nets.freeze(style, measured(style, content))
    net.save(tmp_path / "net.safetensors")
    with torch.inference_mode():
        assert torch.equal(net(content), load_frozen(tmp_path / "net.safetensors")(content))


def test_deprecated_statistics_of_instance_norms_are_left_out(content):
    state = checkpoint("pytorch")
    old = {**state, "in1.running_mean": torch.ones(32), "res1.in1.running_var": torch.ones(128)}
    one, two = (fast.build({}, [(s, 1.0)]) for s in (state, old))
    assert one.fingerprint == two.fingerprint and len(two.sites) == 15


def test_other_checkpoints_are_refused(tmp_path):
    state = checkpoint("pytorch")
    torch.save({**state, "extra.weight": torch.ones(2)}, tmp_path / "extra.pth")
    with pytest.raises(BadWeights, match=r"extra\.pth has unknown extra\.weight"):
        fast.load_style(tmp_path / "extra.pth")
    del state["conv1.conv2d.bias"]
    torch.save(state, tmp_path / "short.pth")
    with pytest.raises(BadWeights, match=r"short\.pth misses conv1\.conv2d\.bias"):
        fast.load_style(tmp_path / "short.pth")


def test_a_picture_is_no_style(picture):
    with pytest.raises(BadInput, match="checkpoint"):
        nets.build("fast", None, [(picture(32, 32).astype(np.float32) / 255, 1.0)])
    with pytest.raises(BadInput, match="one checkpoint"):
        nets.build("fast", None, [(checkpoint("pytorch"), 1.0)] * 2)


def test_the_command_line_takes_a_checkpoint_as_style(tmp_path, picture):
    from PIL import Image

    from urst_tiles.cli import main

    torch.save(checkpoint("pytorch"), tmp_path / "mosaic.pth")
    Image.fromarray(picture(90, 110)).save(tmp_path / "in.png")
    arguments = ["stylize", str(tmp_path / "in.png"), str(tmp_path / "out.tif"), "--model", "fast", "--style"]
    assert main([*arguments, str(tmp_path / "nosuch.pth")]) == 2
    assert main([*arguments, str(tmp_path / "mosaic.pth")]) == 0
    with Image.open(tmp_path / "out.tif") as out:
        assert out.size == (110, 90) and np.asarray(out).std() > 10
