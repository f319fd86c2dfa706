"""Checkpoints of several programs against their networks, written out once more in numpy and float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from probe import probe, reaches

from urst_tiles import nets, weights
from urst_tiles.engine.kernel import Kernel
from urst_tiles.errors import BadWeights
from urst_tiles.geometry import Box, round_up
from urst_tiles.nets import Frozen, cin, fast, fast_layouts, live
from urst_tiles.nets.style_rows import style_named

NARROW = 1 / 8


def random_tensors(seed, shapes):
    """Weights of convolutions that keep the size of signals, gammas near 1, betas near 0."""
    random = np.random.default_rng(seed)
    state = {}
    for key, (shape, kind) in shapes.items():
        if kind == "weight":
            values = random.normal(0, (3.0 / (np.prod(shape) / max(shape[-2:]))) ** 0.5, shape)
        else:
            values = random.uniform(0.5, 1.5, shape) if kind == "gamma" else random.normal(0, 0.3, shape)
        state[key] = torch.from_numpy(values.astype(np.float32))
    return state


def lengstrom(seed=0):
    """A checkpoint with an eighth of the published channels: convolution, shift, scale of each layer."""
    shapes = {}
    for place, (name, (inputs, outputs, side)) in enumerate(fast_layouts.wide(NARROW).items()):
        turned = name in ("deconv1", "deconv2")
        kernel = (side, side, outputs, inputs) if turned else (side, side, inputs, outputs)
        for offset, (shape, kind) in enumerate(
            [(kernel, "weight"), ((outputs,), "beta"), ((outputs,), "gamma")]
        ):
            number = 3 * place + offset
            shapes[f"Variable_{number}" if number else "Variable"] = shape, kind
    return random_tensors(seed, shapes)


def magenta(seed=0, rows=3):
    """A checkpoint of ``rows`` styles with few channels and six residual blocks."""
    sides = {f"contract.{k}": size for k, size in enumerate([(8, 3, 9, 9), (8, 8, 3, 3), (8, 8, 3, 3)])}
    sides |= {f"res.{i}.{k}": (8, 8, 3, 3) for i in range(6) for k in (0, 1)}
    sides |= {f"expand.{k}": size for k, size in enumerate([(6, 8, 3, 3), (4, 6, 3, 3), (3, 4, 9, 9)])}
    shapes = {}
    for name, size in sides.items():
        shapes[f"{name}.w"] = size, "weight"
        shapes |= {f"{name}.norm.{part}": ((rows, size[0]), part) for part in ("gamma", "beta")}
    return random_tensors(seed, shapes)


def padded64(x, before, behind, mode):
    return np.pad(x, ((0, 0), (before, behind), (before, behind)), mode=mode)


def conv64(x, kernel, stride=1, before=0, behind=0, mode="constant"):
    """(c, h, w) -> (c', h', w'); ``kernel`` is (h, w, inputs, outputs)."""
    x, side = padded64(x, before, behind, mode), kernel.shape[0]
    h, w = ((n - side) // stride + 1 for n in x.shape[1:])
    out = np.zeros((kernel.shape[3], h, w))
    for i in range(side):
        for j in range(side):
            part = x[:, i : i + stride * (h - 1) + 1 : stride, j : j + stride * (w - 1) + 1 : stride]
            out += np.einsum("chw,co->ohw", part, kernel[i, j])
    return out


def transposed64(x, kernel):
    """Each pixel paints its kernel, (h, w, outputs, inputs), at twice its place."""
    c, h, w = x.shape
    out = np.zeros((kernel.shape[2], 2 * h + 1, 2 * w + 1))
    for i in range(3):
        for j in range(3):
            out[:, i : i + 2 * h : 2, j : j + 2 * w : 2] += np.einsum("chw,oc->ohw", x, kernel[i, j])
    return out[:, : 2 * h, : 2 * w]


def norm64(x, gamma, beta, eps):
    mean, variance = x.mean((1, 2), keepdims=True), x.var((1, 2), keepdims=True)
    return (x - mean) / np.sqrt(variance + eps) * gamma[:, None, None] + beta[:, None, None]


def lengstrom64(x, state):
    """(3, h, w) in 0..1 -> same."""
    values = iter([state["Variable"], *(state[f"Variable_{k}"] for k in range(1, 48))])

    def layer(z, convolve):
        kernel, beta, gamma = (next(values).double().numpy() for _ in range(3))
        return norm64(convolve(z, kernel), gamma, beta, 1e-3)

    z = np.maximum(layer(255 * x, lambda z, k: conv64(z, k, 1, 4, 4)), 0)
    for _ in range(2):
        z = np.maximum(layer(z, lambda z, k: conv64(z, k, 2, 0, 1)), 0)
    for _ in range(5):
        inner = np.maximum(layer(z, lambda z, k: conv64(z, k, 1, 1, 1)), 0)
        z = z + layer(inner, lambda z, k: conv64(z, k, 1, 1, 1))
    for _ in range(2):
        z = np.maximum(layer(z, transposed64), 0)
    return (np.tanh(layer(z, lambda z, k: conv64(z, k, 1, 4, 4))) * 150 + 127.5) / 255


def magenta64(x, state, row):
    """(3, h, w) in 0..1 -> same, in the style of a row."""

    def layer(z, name, stride=1):
        kernel = state[f"{name}.w"].double().numpy().transpose(2, 3, 1, 0)
        gamma, beta = (state[f"{name}.norm.{part}"][row].double().numpy() for part in ("gamma", "beta"))
        half = len(kernel) // 2
        return norm64(conv64(z, kernel, stride, half, half, "reflect"), gamma, beta, 1e-5)

    z = np.maximum(layer(x, "contract.0"), 0)
    for name in ("contract.1", "contract.2"):
        z = np.maximum(layer(z, name, 2), 0)
    for i in range(6):
        z = z + layer(np.maximum(layer(z, f"res.{i}.0"), 0), f"res.{i}.1")
    for name in ("expand.0", "expand.1"):
        z = np.maximum(layer(z.repeat(2, axis=1).repeat(2, axis=2), name), 0)
    return 1 / (1 + np.exp(-layer(z, "expand.2")))


def style_of(layout):
    if layout == "lengstrom":
        return fast.build({}, [(lengstrom(), 1.0)])
    return cin.build({cin.FILE: magenta()}, [(style_named("2"), 1.0)])


LAYOUTS = ["lengstrom", "magenta"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_forward_is_the_formula(layout, picture, as_tensor):
    content = as_tensor(picture(40, 56))
    style, x = style_of(layout), content[0].double().numpy()
    want = lengstrom64(x, lengstrom()) if layout == "lengstrom" else magenta64(x, magenta(), 1)
    with torch.inference_mode():
        got = style.forward(content, live(style))[0].numpy()
    assert want.std() > 0.1
    assert np.abs(got - want).max() < 1e-4


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [(40, 56), (8, 12), (64, 36)])
def test_the_frozen_form_equals_the_plain_one(layout, size, picture, as_tensor, measured):
    style, x = style_of(layout), as_tensor(picture(*size))
    net = nets.freeze(style, measured(style, as_tensor(picture(64, 72))))
    with torch.inference_mode():
        plain = Frozen(style, net.affines)(x)
        assert plain.std() > 0.05
        assert (net(x) - plain).abs().max() < 3e-5


@pytest.mark.parametrize("layout", LAYOUTS)
def test_halos_are_the_probed_ones(layout):
    style = style_of(layout)
    reach, stride = probe(style, side=320)
    assert stride == style.stride and reach <= style.halo < reach + 3 * stride
    found = reaches(style, side=320)
    assert all(round_up(found[site.name], stride) <= site.halo for site in style.sites)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_windows_equal_the_whole(layout, picture, as_tensor, measured):
    style, image = style_of(layout), picture(256, 320)
    kernel = Kernel(nets.freeze(style, measured(style, as_tensor(image))))
    everything = Box(0, 0, 256, 320)
    whole = kernel.run(image[None], [everything], [everything])[0]
    for core in (Box(64, 0, 128, 64), Box(128, 128, 192, 192), Box(192, 256, 256, 320)):
        window = core.grow(style.halo).clip(everything)
        part = kernel.run(image[window.slices][None], [window], [core])[0]
        assert np.abs(part.astype(int) - whole[core.slices]).max() <= 1


@pytest.mark.parametrize("changed", ["plain", "module", "renamed"])
def test_files_of_urst_are_those_of_linder_noren_with_other_names(changed):
    state = fast.seeded(0, NARROW)[""]
    ours, theirs = fast_layouts.pytorch_names(), fast_layouts.urst_names()
    renamed = {
        f"{new}.{part}": state[f"{old}.{part}"]
        for name in ours
        for old, new in zip(ours[name], theirs[name], strict=True)
        for part in ("weight", "bias")
        if f"{old}.{part}" in state
    }
    assert {"conv1.block.1.weight", "conv1.norm.bias", "res3.block2.norm.weight"} < set(renamed)
    if changed == "module":
        renamed = {f"module.{key}": t for key, t in renamed.items()}
    if changed == "renamed":  # what the authors' rename.py writes, with norms as their network has them
        renamed = {key.replace("norm", "norm.norm"): t for key, t in renamed.items()}
        renamed = {k: t.reshape(1, -1, 1, 1) if "norm" in k else t for k, t in renamed.items()}
    found, layout = fast_layouts.read(renamed, "x.pth")
    plain, _ = fast_layouts.read(state, "y.pth")
    assert layout == "linder-noren" and found.keys() == plain.keys()
    assert all(torch.equal(found[key], plain[key]) for key in plain)


def test_damage_is_named(tmp_path):
    state = lengstrom()
    state["Variable_3"] = state["Variable_3"][:2]
    torch.save(state, tmp_path / "cut.pth")
    with pytest.raises(BadWeights, match=r"cut\.pth: Variable_3 has shape"):
        fast.load_style(tmp_path / "cut.pth")
    state = magenta()
    del state["res.5.1.w"]
    with pytest.raises(BadWeights, match=r"multi\.pth has not the tensors of Magenta's network"):
        cin.check(state, cin.FILE, tmp_path / "multi.pth")


def test_a_file_of_magenta_is_added_and_used(tmp_path, picture):
    from PIL import Image

    from urst_tiles.cli import main

    torch.save(magenta(), tmp_path / "multistyle.pth")
    Image.fromarray(picture(90, 110)).save(tmp_path / "in.png")
    folder = ["--weights", str(tmp_path / "weights")]
    assert main(["weights", "add", "cin", str(tmp_path / "multistyle.pth"), *folder]) == 0
    assert (tmp_path / "weights" / "cin" / "cin.safetensors").is_file()
    made = tmp_path / "out.tif"
    arguments = ["stylize", str(tmp_path / "in.png"), str(made), "--model", "cin", *folder, "--style"]
    assert main([*arguments, "4"]) == 2
    assert main([*arguments, "3"]) == 0
    with Image.open(made) as out:
        assert out.size == (110, 90) and np.asarray(out).std() > 10


def test_published_nets_of_lengstrom_paint(shared, picture, as_tensor):
    """Small enough for every run: an output of full range that is another picture than the input."""
    state = weights.load(shared / "weights" / "fast_small" / "starry-night.pth")
    style, content = fast.build({}, [(state, 1.0)]), as_tensor(picture(96, 128))
    with torch.inference_mode():
        got = style.forward(content, live(style))
    assert -0.09 <= got.min() < 0.2 and 0.8 < got.max() <= 1.09
    assert 0.05 < (got - content).abs().mean() < 0.6
