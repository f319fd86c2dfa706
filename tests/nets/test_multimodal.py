"""Multimodal transfer against its definition, written out once more in numpy and float64; both layouts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import check_kept

from urst_tiles import nets
from urst_tiles.engine.kernel import Kernel
from urst_tiles.engine.statistics import measure_thumbnail
from urst_tiles.errors import BadInput, BadWeights
from urst_tiles.geometry import Grid
from urst_tiles.nets import Frozen, live, multimodal
from urst_tiles.source import array_source

WIDTH = 1 / 8
MEAN, STD = (np.array(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
LIMIT = np.array([0.299, 0.224, 0.225])[:, None, None]


def conv64(x, state, name, stride=1):
    """(c, h, w) float64; reflection padding."""
    weight, bias = (state[f"{name}.{part}"].double().numpy() for part in ("weight", "bias"))
    side, (h, w) = weight.shape[2], x.shape[1:]
    x = np.pad(x, ((0, 0), (side // 2,) * 2, (side // 2,) * 2), mode="reflect")
    taps = ((i, j) for i in range(side) for j in range(side))
    y = sum(np.tensordot(weight[:, :, i, j], x[:, i : i + h, j : j + w], 1) for i, j in taps)
    return (y + bias[:, None, None])[:, ::stride, ::stride]


def norm64(x, state, name, eps=1e-5):
    gamma, beta = (state[f"{name}.{part}"].double().numpy()[:, None, None] for part in ("weight", "bias"))
    return gamma * (x - x.mean((1, 2), keepdims=True)) / np.sqrt(x.var((1, 2), keepdims=True) + eps) + beta


def relu(x):
    return np.maximum(x, 0)


def double(x):
    return x.repeat(2, axis=1).repeat(2, axis=2)


def smooth_double(x):
    """Bilinear between the centres of pixels, edges replicated."""
    for axis in (1, 2):
        last = x.shape[axis] - 1
        before = np.take(x, np.maximum(np.arange(last + 1) - 1, 0), axis)
        behind = np.take(x, np.minimum(np.arange(last + 1) + 1, last), axis)
        pair = np.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * behind], axis + 1)
        x = pair.reshape([n * (2 if k == axis else 1) for k, n in enumerate(x.shape)])
    return x


def clip(x):
    return np.clip(x, (0 - MEAN) / LIMIT, (1 - MEAN) / LIMIT)


def residual64(x, state, name):
    h = relu(norm64(conv64(x, state, f"{name}.conv1.conv2d"), state, f"{name}.in1"))
    return x + norm64(conv64(h, state, f"{name}.conv2.conv2d"), state, f"{name}.in2")


def style64(x, state):
    sides = {"rgb": x, "l": conv64(x, state, "style_subnet.togray")}
    for side, z in sides.items():
        for k in (1, 2, 3):
            name = f"style_subnet.{side}_"
            z = conv64(z, state, f"{name}conv{k}.conv2d", 1 if k == 1 else 2)
            z = relu(norm64(z, state, f"{name}in{k}", 1e-9))
        for k in (1, 2, 3):
            z = residual64(z, state, f"style_subnet.{side}_res{k}")
        sides[side] = z
    z = np.concatenate([sides["rgb"], sides["l"]])
    for k in (4, 5, 6):
        z = residual64(z, state, f"style_subnet.res{k}")
    for k in (1, 2):
        z = conv64(double(z), state, f"style_subnet.rezconv{k}.conv2d")
        z = relu(norm64(z, state, f"style_subnet.in{k + 3}", 1e-9))
    return conv64(z, state, "style_subnet.rezconv3.conv2d")


def later64(z, state, subnet, down, blocks, up):
    """The enhance and the refine subnet: so many layers that shrink, residual blocks, and that enlarge."""
    for k in range(1, down + 1):
        z = conv64(z, state, f"{subnet}.conv{k}.conv2d", 1 if k == 1 else 2)
        z = relu(norm64(z, state, f"{subnet}.in{k}"))
    for k in range(1, blocks + 1):
        z = residual64(z, state, f"{subnet}.res{k}")
    for k in range(1, up + 1):
        z = conv64(double(z), state, f"{subnet}.rezconv{k}.conv2d")
        z = relu(norm64(z, state, f"{subnet}.in{down + k}"))
    return conv64(z, state, f"{subnet}.rezconv{up + 1}.conv2d")


def multimodal64(image, state):
    """(3, h, w) in 0..1 -> same."""
    c, h, w = image.shape
    z = (image.reshape(c, h // 4, 4, w // 4, 4).mean((2, 4)) - MEAN) / STD
    z = smooth_double(clip(style64(z, state)))
    z = smooth_double(clip(later64(z, state, "enhance_subnet", 4, 6, 3)))
    return clip(later64(z, state, "refine_subnet", 3, 3, 2) + z) * STD + MEAN


def checkpoint(layout="ours", width=WIDTH, seed=0):
    """A random checkpoint; norms of the style subnet are named as FeliMe's or shaped as URST's."""
    state = dict(multimodal.seeded(seed, width)[""])
    for key in [k for k in state if ".in" in k or "_in" in k]:
        t = state.pop(key)
        own = key.startswith("style_subnet.") and "res" not in key
        if layout == "FeliMe" and own:
            state[key.replace(".weight", ".scale").replace(".bias", ".shift")] = t
        else:
            state[key] = t.reshape(1, -1, 1, 1) if layout == "URST" else t
    return state


def style_of(alpha=1.0, **kind):
    return multimodal.build({}, [(checkpoint(**kind), 1.0)], alpha)


@pytest.fixture
def content(picture, as_tensor):
    return as_tensor(picture(96, 160))


def test_forward_is_the_definition(content):
    style, state = style_of(), checkpoint()
    want = multimodal64(content[0].double().numpy(), state)
    with torch.inference_mode():
        got = style.forward(content.double(), live(style))[0].numpy()
        single = style.forward(content, live(style))[0].numpy()
    assert want.std() > 0.1
    assert np.abs(got - want).max() < 1e-9
    assert np.abs(single - want).max() < 1e-3 and np.abs(single - want).mean() < 1e-5


def test_it_has_the_published_form():
    style = style_of(width=1.0)
    sites = {site.name: site for site in style.sites}
    assert len(style.sites) == len(sites) == 28 + 19 + 11 - 2
    assert (sites["style_subnet.res6.in2"].channels, sites["style_subnet.res6.in2"].stride) == (128, 16)
    assert (sites["enhance_subnet.in4"].channels, sites["enhance_subnet.in4"].stride) == (256, 16)
    assert (sites["enhance_subnet.in7"].channels, sites["enhance_subnet.in7"].stride) == (32, 2)
    assert (sites["refine_subnet.in5"].channels, sites["refine_subnet.in5"].stride) == (32, 1)
    assert {s.eps for s in style.sites if "res" in s.name or "style" not in s.name} == {1e-5}
    assert sites["style_subnet.l_in3"].eps == sites["style_subnet.in5"].eps == 1e-9
    assert {s.ddof for s in style.sites} == {0}


def test_sites_see_features_at_their_stride(content):
    style, seen = style_of(), {}

    def at(site, x):
        seen[site.name] = site
        assert x.shape[1] == site.channels and x.shape[2] * site.stride == content.shape[2]
        return x

    style.forward(content, at)
    assert list(seen.values()) == list(style.sites)


@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_frozen_form_equals_the_plain_one(content, measured, alpha):
    """Both round: random weights amplify that a hundredfold, and neither form more than the other."""
    style = style_of(alpha)
    net = nets.freeze(style, measured(style, content))
    with torch.inference_mode():
        plain = Frozen(style, net.affines)
        exact = plain(content.double())
        errors = [(form(content) - exact).abs() for form in (plain, net)]
        assert exact.std() > 0.1
        assert errors[1].mean() < 2 * errors[0].mean() < 4e-5
        assert errors[1].max() < 5e-4
        assert (exact - style.forward(content.double(), live(style))).abs().max() < 1e-4


def test_save_and_load(content, measured, tmp_path):
    style = style_of(0.5)
    net = nets.freeze(style, measured(style, content))
    assert net.family == "multimodal"
    assert net.style.fingerprint == style.fingerprint
    check_kept(net, content, tmp_path)


def tiled(kernel, image, grid, shift=0):
    """The cores cut from every window's float result; ``shift`` moves windows off the stride."""
    out = np.full(image.shape, np.nan, np.float32)
    for core in grid.cores(grid.image):
        box = grid.window_box(core)
        if shift and box.x0 > 0 and box.x1 < grid.padded.x1:
            box = box.shift(0, shift)
        out[core.slices] = kernel.run_float(image[box.slices][None], [box])[0][core.within(box).slices]
    return out


@pytest.mark.parametrize(
    "size", [(32, 1408), pytest.param((1360, 48), marks=pytest.mark.slow)], ids=["wide", "high"]
)
def test_tiled_equals_whole_and_its_twins_fail(size, frozen, picture):
    """An image larger than a window, unlike those that all families are tested with."""
    net, image = frozen("multimodal"), picture(*size)
    kernel = Kernel(net)
    grid = Grid(*size, net.halo, net.stride, 32, 256, 32, net.minimum)
    assert max(grid.window) < max(size)
    whole = kernel.run_float(image[None], [grid.padded])[0]
    assert whole.std(axis=(0, 1)).min() >= 0.1
    assert np.abs(tiled(kernel, image, grid) - whole).max() <= 1e-4
    short = Grid(*size, net.halo - 12 * net.stride, net.stride, 32, 256, 32, net.minimum)
    assert np.abs(tiled(kernel, image, short) - whole).max() > 1e-4
    if size[1] > size[0]:
        assert np.abs(tiled(kernel, image, grid, shift=1) - whole).max() > 0.05


def test_the_smallest_image(frozen):
    net = frozen("multimodal")
    x = torch.rand((1, 3, net.minimum, net.minimum), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert (net(x) - Frozen(net.style, net.affines)(x)).abs().max() < 5e-4


def test_statistics_of_a_thumbnail(picture):
    """Those of an image no larger than the thumbnail are the network's own."""
    style, image = style_of(), picture(128, 192)
    source = array_source(image)
    net = nets.freeze(style, measure_thumbnail(style, source))
    x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        assert (net(x) - style.forward(x, live(style))).abs().max() < 1e-4


@pytest.mark.parametrize("layout", ["FeliMe", "URST"])
def test_published_layouts_are_read(layout):
    assert style_of(layout=layout).fingerprint == style_of().fingerprint


def test_published_width_is_accepted():
    state = checkpoint("URST", width=1.0)
    assert state["enhance_subnet.res6.conv2.conv2d.weight"].shape == (256, 256, 3, 3)
    assert multimodal.build({}, [(state, 1.0)]).weights["enhance_subnet.in4.bias"].shape == (256,)


def test_other_checkpoints_are_refused(tmp_path):
    state, path = checkpoint("FeliMe"), tmp_path / "mosaic.pth"

    def refused(changed, message):
        torch.save({k: t for k, t in changed.items() if t is not None}, path)
        with pytest.raises(BadWeights, match=message):
            multimodal.load_style(path)

    torch.save(state, path)
    assert set(multimodal.load_style(path)) == set(state)
    refused({**state, "extra": torch.ones(1)}, r"mosaic\.pth has unknown extra")
    refused({**state, "refine_subnet.in3.bias": None}, r"misses refine_subnet\.in3\.bias")
    refused({**state, "style_subnet.l_in2.scale": None}, r"misses style_subnet\.l_in2\.weight")
    refused({**state, "style_subnet.l_in2.weight": torch.ones(4)}, r"unknown style_subnet\.l_in2\.scale")
    refused({**state, "style_subnet.in4.shift": torch.ones(9)}, r"style_subnet\.in4\.bias has shape \(9,\)")
    refused({k: t for k, t in state.items() if k.startswith("style")}, r"misses enhance_subnet\.conv1")
    torch.save({name: torch.nn.Conv2d(1, 1, 1) for name in ("style_subnet", "refine_subnet")}, path)
    with pytest.raises(BadWeights, match="no plain tensors"):
        multimodal.load_style(path)


def test_a_picture_is_no_style(picture):
    with pytest.raises(BadInput, match="checkpoint"):
        nets.build("multimodal", None, [(picture(32, 32).astype(np.float32) / 255, 1.0)])
    with pytest.raises(BadInput, match="one checkpoint"):
        nets.build("multimodal", None, [(checkpoint(), 1.0)] * 2)


@pytest.mark.parametrize("statistics", ["thumbnail", "exact"])
def test_the_command_line_takes_a_checkpoint_as_style(tmp_path, picture, as_tensor, statistics):
    """On an image no larger than the thumbnail both ways to measure give the network's own picture."""
    from PIL import Image

    from urst_tiles.cli import main

    torch.save(checkpoint("URST"), tmp_path / "mosaic.pth")
    image, style = picture(96, 112), style_of()
    Image.fromarray(image).save(tmp_path / "in.png")
    arguments = ["stylize", str(tmp_path / "in.png"), str(tmp_path / "out.tif"), "--model", "multimodal"]
    arguments += ["--statistics", statistics, "--style"]
    assert main([*arguments, str(tmp_path / "nosuch.pth")]) == 2
    assert main([*arguments, str(tmp_path / "mosaic.pth")]) == 0
    with Image.open(tmp_path / "out.tif") as out:
        got = np.asarray(out).astype(float)
    with torch.inference_mode():
        want = 255 * style.forward(as_tensor(image), live(style))[0].permute(1, 2, 0).clamp(0, 1).numpy()
    assert got.shape == (96, 112, 3) and got.std() > 10
    assert np.abs(got - want).max() <= 1
