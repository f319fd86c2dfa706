"""WCT against the formulas of the paper, written out once more in numpy and float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from law1 import tiled_float
from probe import probe

from urst_tiles import nets, weights
from urst_tiles.engine.kernel import Kernel
from urst_tiles.errors import BadWeights
from urst_tiles.geometry import Box, Grid
from urst_tiles.nets import Frozen, LocalNet, live, load_frozen, wct
from urst_tiles.nets.frozen import wct as frozen_wct
from urst_tiles.nets.frozen.chain import needs

ALPHAS = (1.0, 0.6)


def conv64(x, weight, bias):
    """(c, h, w) float64; 3x3 with reflection padding, then ReLU."""
    h, w = x.shape[1:]
    x = np.pad(x, ((0, 0), (1, 1), (1, 1)), mode="reflect")
    taps = ((i, j) for i in range(3) for j in range(3))
    y = sum(np.tensordot(weight[:, :, i, j], x[:, i : i + h, j : j + w], 1) for i, j in taps)
    return np.maximum(y + bias[:, None, None], 0)


class Level64:
    """One level's encoder and decoder from their files: VGG-19 cut at relu``level``_1, and its mirror."""

    ORDER = ("11", "12", "pool", "21", "22", "pool", "31", "32", "33", "34", "pool", "41", "42", "43", "44",
             "pool", "51")  # fmt: skip

    def __init__(self, encoder, decoder, level):
        self.encoder, self.decoder = (
            {k: t.double().numpy() for k, t in state.items()} for state in (encoder, decoder)
        )
        self.steps = self.ORDER[: self.ORDER.index(f"{level}1") + 1]

    def encode(self, x):
        weight, bias = self.encoder["conv0.weight"][:, :, 0, 0], self.encoder["conv0.bias"]
        x = np.tensordot(weight, x, 1) + bias[:, None, None]
        for step in self.steps:
            if step == "pool":
                c, h, w = x.shape
                x = x.reshape(c, h // 2, 2, w // 2, 2).max(axis=(2, 4))
            else:
                x = conv64(x, self.encoder[f"conv{step}.weight"], self.encoder[f"conv{step}.bias"])
        return x

    def decode(self, x):
        for step in reversed(self.steps):
            if step == "pool":
                x = x.repeat(2, axis=1).repeat(2, axis=2)
            else:
                x = conv64(x, self.decoder[f"conv{step}.weight"], self.decoder[f"conv{step}.bias"])
        return x


def root64(matrix, sign):
    """The square root of a covariance, or of its inverse, by singular values."""
    u, s, vt = np.linalg.svd(matrix)
    return u @ np.diag(s ** (sign / 2)) @ vt


def wct64(content, style, states, model, alpha):
    x = content
    for level in wct.LEVELS_OF[model]:
        encoder, decoder = wct.FILES[model][level]
        net = Level64(states[encoder], states[decoder], level)
        f, s = net.encode(x), net.encode(style).reshape(-1, style[0].size // 4 ** (level - 1))
        flat = f.reshape(len(f), -1)
        centred = flat - flat.mean(1, keepdims=True)
        content_covariance = np.cov(flat) + (1e-4 + 1e-2 * np.cov(flat).trace() / len(flat)) * np.eye(
            len(flat)
        )
        painted = root64(np.cov(s), 1) @ root64(content_covariance, -1) @ centred
        painted = painted + s.mean(1, keepdims=True)
        x = net.decode((alpha * painted + (1 - alpha) * flat).reshape(f.shape))
    return x


@pytest.fixture
def pair(picture, as_tensor):
    """A content and a style, (1, 3, h, w)."""
    return as_tensor(picture(64, 96)), as_tensor(picture(80, 64, seed=1))


def style_of(pair, model="wct-16x", alpha=1.0, width=1 / 8):
    return nets.seeded(model, [(pair[1][0].permute(1, 2, 0).numpy(), 1.0)], alpha, width=width)


@pytest.mark.parametrize("model", ["wct", "wct-16x", "wct-3"])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_forward_is_the_formula(pair, model, alpha):
    style = style_of(pair, model, alpha)
    states = wct.seeded(model, 0, 1 / 8)
    want = wct64(pair[0][0].double().numpy(), pair[1][0].double().numpy(), states, model, alpha)
    with torch.inference_mode():
        got = style.forward(pair[0].double(), live(style))[0].numpy()
    assert want.std() > 0.1
    # the style's statistics are float32's, and few positions make whitening steep
    assert np.abs(got - want).max() < 1e-3 * np.abs(want).max()


def double(net):
    """The same network in float64, whose rounding whitening does not amplify into sight."""
    net.low = torch.float64
    for name, (weight, bias) in frozen_wct.folded(net.style, net.affines).items():
        net.register_buffer(f"{name}_weight", torch.from_numpy(weight.copy()))
        net.register_buffer(f"{name}_bias", torch.from_numpy(bias.copy()))
    return net


@pytest.mark.parametrize("model", ["wct", "wct-16x", "wct-3"])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_frozen_form_equals_the_plain_one(pair, measured, model, alpha):
    style = style_of(pair, model, alpha)
    net = nets.freeze(style, measured(style, pair[0]))
    with torch.inference_mode():
        plain = Frozen(style, net.affines)(pair[0].double())
        assert plain.std() > 0.1
        assert (double(net)(pair[0].double()) - plain).abs().max() < 1e-8


@pytest.mark.parametrize("size", [(32, 32), (48, 400), (304, 64)])
@pytest.mark.parametrize("values", [1, 2**22])
def test_strips_of_any_height_are_the_plain_network(size, values, monkeypatch, picture, as_tensor, measured):
    """32 rows, the least there is; and all at once."""
    monkeypatch.setattr(frozen_wct, "STRIP", values)
    x = as_tensor(picture(*size))
    style = style_of((x, as_tensor(picture(64, 64, seed=1))))
    net = nets.freeze(style, measured(style, as_tensor(picture(96, 96))))
    with torch.inference_mode():
        plain = Frozen(style, net.affines)(x.double())
        assert plain.std() > 0.1
        assert (double(net)(x.double()) - plain).abs().max() < 1e-8


@pytest.mark.parametrize(
    "keep", [Box(0, 0, 16, 16), Box(301, 11, 302, 13), Box(600, 0, 640, 32), Box(7, 3, 633, 30)]
)
def test_what_is_not_needed_is_left_out_and_nothing_else_changes(picture, as_tensor, measured, keep):
    x = as_tensor(picture(640, 32))
    style = style_of((x, as_tensor(picture(64, 64, seed=1))))
    net = double(nets.freeze(style, measured(style, x)))
    with torch.inference_mode():
        whole, part = net(x.double()), net(x.double(), None, [keep])
    assert part.shape == whole.shape
    rows, columns = keep.slices
    assert (part[:, :, rows, columns] - whole[:, :, rows, columns]).abs().max() < 1e-8
    if keep.y1 - keep.y0 < 100:
        assert (part != whole).any(), "everything was computed"


class Levels(LocalNet):
    """Some of the levels alone."""

    family, halo, stride, minimum = "test", 0, 1, 32

    def __init__(self, weights, *levels):
        super().__init__()
        self.weights, self.levels = weights, levels

    def forward(self, x, boxes=None):
        for level in self.levels:
            x = wct.decode(wct.encode(x, self.weights, level), self.weights, level)
        return x


@pytest.mark.parametrize("level", wct.LEVELS)
def test_reach_of_each_level_is_what_the_probe_finds(pair, level):
    net = Levels(style_of(pair).weights, level)
    assert probe(net, side=512) == (frozen_wct.REACH[level], 2 ** (level - 1))


@pytest.mark.parametrize("level", wct.LEVELS)
def test_a_chain_needs_what_its_level_reaches(level):
    """The walk from output to input finds the probe's reach, both ends of a level together."""
    cell = max(frozen_wct.CELL, 2 ** (level - 1))
    box = Box(512, 256, 512 + cell, 256 + cell)
    assert needs(frozen_wct.chain_of(level), box) == box.grow(frozen_wct.REACH[level])


def test_enlarging_and_cells_are_the_convolutions_they_stand_for():
    random = np.random.default_rng(0)
    weight, bias, x = random.normal(size=(3, 4, 3, 3)), random.normal(size=3), random.normal(size=(4, 6, 8))
    large = conv64(x.repeat(2, axis=1).repeat(2, axis=2), weight, bias + 100) - 100
    joined = torch.from_numpy(frozen_wct.enlarging(weight))
    y = frozen_wct.enlarged(torch.from_numpy(x)[None], joined, torch.from_numpy(bias))[0].numpy()
    assert np.abs(y - large[:, 1:-1, 1:-1]).max() < 1e-10
    cells = torch.nn.functional.conv2d(
        torch.from_numpy(x)[None], torch.from_numpy(frozen_wct.in_cells(weight)), stride=2
    )
    pixels = cells[0].reshape(2, 2, 3, 2, 3).permute(2, 3, 0, 4, 1).reshape(3, 4, 6).numpy()
    plain = conv64(x, weight, np.full(3, 100.0)) - 100
    assert np.abs(pixels - plain[:, 1:-1, 1:-1]).max() < 1e-10


def test_a_level_leaves_out_what_its_picture_does_not_need(picture, as_tensor, measured, monkeypatch):
    """Multiplications of the window's middle: less than the whole, and far less in the late layers."""
    x = as_tensor(picture(832, 832))
    style = style_of((x, as_tensor(picture(64, 64, seed=1))))
    net = nets.freeze(style, measured(style, as_tensor(picture(128, 128))))
    seen: dict[str, int] = {}
    layer_of = net._layer

    def counted(z, layer):
        y = layer_of(z, layer)
        seen[layer.name] = seen.get(layer.name, 0) + y[0, 0].numel()
        return y

    monkeypatch.setattr(net, "_layer", counted)
    with torch.inference_mode():
        net(x)
        whole = dict(seen)
        seen.clear()
        net(x, None, [Box(256, 256, 576, 576)])
    share = {name: seen[name] / whole[name] for name in whole}
    assert share["e5_11"] > 0.9
    core = (320 / 832) ** 2
    assert core <= share["d1_11"] < 1.1 * core
    assert core < share["d5_11"] < ((320 + 2 * 96) / 832) ** 2 * 1.1


def test_tiled_equals_whole_and_its_twins_fail(picture, as_tensor, measured):
    """An image longer than its windows: 832 px with windows of 576."""
    image = picture(32, 832)
    style = style_of((None, as_tensor(picture(64, 64, seed=1))))
    net = nets.freeze(style, measured(style, as_tensor(image)))
    kernel = Kernel(net)
    grid = Grid(32, 832, net.halo, net.stride, 64, 64, 64, net.minimum)
    assert grid.window[1] < 832
    whole = kernel.run_float(image[None], [grid.padded])[0]
    assert whole.std() > 0.1
    assert np.abs(tiled_float(kernel, image, grid) - whole).max() <= 1e-4
    assert np.abs(tiled_float(kernel, image, grid, shift=1) - whole).max() > 0.01
    short = Grid(32, 832, net.halo - 10 * net.stride, net.stride, 64, 64, 64, net.minimum)
    assert np.abs(tiled_float(kernel, image, short) - whole).max() > 1e-4


def test_levels_of_cores_equal_those_of_the_whole(picture, as_tensor, measured):
    """As `urst-tiles` runs it: each window does what its core needs."""
    image = picture(48, 832)
    style = style_of((None, as_tensor(picture(64, 64, seed=1))))
    net = nets.freeze(style, measured(style, as_tensor(image)))
    kernel = Kernel(net)
    grid = Grid(48, 832, net.halo, net.stride, 64, 64, 64, net.minimum)
    whole = kernel.run(image[None], [grid.padded], [grid.image])[0].astype(int)
    for core in grid.cores(grid.image):
        box = grid.window_box(core)
        part = kernel.run(image[box.slices][None], [box], [core])[0]
        assert np.abs(part - whole[core.slices]).max() <= 1


def test_flat_images_and_flat_styles_give_numbers(pair, measured):
    flat = torch.full((1, 3, 32, 32), 0.3)
    for content, art in ((pair[0], flat), (flat, pair[1]), (flat, flat)):
        style = style_of((content, art))
        with torch.inference_mode():
            assert nets.freeze(style, measured(style, content))(content).isfinite().all()


def test_save_and_load(pair, measured, tmp_path):
    style = style_of(pair, alpha=0.7)
    net = nets.freeze(style, measured(style, pair[0]))
    net.save(tmp_path / "net.safetensors")
    with torch.inference_mode():
        assert torch.equal(net(pair[0]), load_frozen(tmp_path / "net.safetensors")(pair[0]))


def test_published_small_networks_load_and_paint(weights_dir, inputs, measured, as_tensor):
    """Collaborative Distillation's own weights: colours of the style, contents of the image."""
    from urst_tiles.source.picture import read_picture

    content = read_picture(inputs / "photo" / "brighton_DJI_0018.JPG", 320)[:256, :320]
    art = read_picture(inputs / "photo" / "nasa_pia19808.webp", 256)[:256, :256]
    style = nets.build("wct-16x", weights_dir, [(art, 1.0)])
    x = torch.from_numpy(content).permute(2, 0, 1)[None]
    with torch.inference_mode():
        y = style.forward(x, live(style))[0].permute(1, 2, 0).numpy()
    assert np.abs(y.mean((0, 1)) - art.mean((0, 1))).max() < 0.06
    assert np.abs(y.std((0, 1)) - art.std((0, 1))).max() < 0.08
    painted, here, elsewhere = (image.mean(2).ravel() for image in (y, content, content[::-1]))
    like, unlike = (np.corrcoef(painted, other)[0, 1] for other in (here, elsewhere))
    assert like > 0.1 and like > 3 * abs(unlike)


def test_other_files_are_refused(weights_dir, tmp_path):
    state = weights.load(weights_dir / "collaborative_wct" / "4SE.pth", "model")
    with pytest.raises(BadWeights, match="conv42"):
        nets.MODELS["wct-16x"].check(state, "5SE.pth", tmp_path / "5SE.pth")


def numbered(state, side, level):
    """A file's tensors under the numbers that the layers have where level 3 is that of LinearWCT."""
    names = ["0", *wct.layers(level)]
    first = 1
    if side == "decoder":
        first, names = len(names) + 1, [*reversed(wct.layers(level))]
    numbers = {f"conv{name}": f"conv{first + k}" for k, name in enumerate(names)}
    return {f"{numbers[key.rsplit('.', 1)[0]]}.{key.rsplit('.', 1)[1]}": t for key, t in state.items()}


def test_layers_may_be_numbered(pair, tmp_path):
    """The weights of three levels under either names are the same network; added as a user adds them."""
    named = wct.seeded("wct-3", 0, 1 / 8)
    style = [(pair[1][0].permute(1, 2, 0).numpy(), 1.0)]
    files = {}
    for level, names in wct.FILES["wct-3"].items():
        for side, file in zip(("encoder", "decoder"), names, strict=True):
            files[file] = tmp_path / file
            torch.save(numbered(named[file], side, level), files[file])
    assert "conv11.weight" in torch.load(files["decoder3.pth"], weights_only=True)  # the last, and no "11"
    weights.add("wct-3", files, tmp_path / "weights")
    built = nets.build("wct-3", tmp_path / "weights", style)
    assert built.fingerprint == wct.build("wct-3", named, style).fingerprint
    with pytest.raises(BadWeights, match="encoder3"):
        nets.MODELS["wct-3"].check(
            numbered(named["encoder2.pth"], "encoder", 2), "encoder3.pth", tmp_path / "encoder3.pth"
        )


def test_published_levels_1_to_3_paint_and_tile(weights_dir, inputs, measured, tmp_path):
    """Real weights: the colours of the style, the content's shapes, and in windows the whole picture."""
    from urst_tiles.source.picture import read_picture

    content = read_picture(inputs / "photo" / "brighton_DJI_0018.JPG", 320)[:224, :288]
    art = read_picture(inputs / "photo" / "nasa_pia19808.webp", 256)[:192, :192]
    published = weights_dir / "wct_levels_1_to_3"
    files = {name: published / name for pair in wct.FILES["wct-3"].values() for name in pair}
    weights.add("wct-3", files, tmp_path)
    style = nets.build("wct-3", tmp_path, [(art, 1.0)])
    x = torch.from_numpy(content.copy()).permute(2, 0, 1)[None]
    net = nets.freeze(style, measured(style, x))
    image = (255 * content).round().astype(np.uint8)
    kernel, grid = Kernel(net), Grid(224, 288, net.halo, net.stride, 64, 64, 64, net.minimum)
    whole = kernel.run_float(image[None], [grid.padded])[0]
    assert np.abs(tiled_float(kernel, image, grid) - whole).max() <= 1e-4 * max(1.0, np.abs(whole).max())
    y = whole[:224, :288]
    assert np.abs(y.mean((0, 1)) - art.mean((0, 1))).max() < 0.06
    assert np.abs(y.std((0, 1)) - art.std((0, 1))).max() < 0.08
    painted, here, elsewhere = (image.mean(2).ravel() for image in (y, content, content[::-1]))
    like, unlike = (np.corrcoef(painted, other)[0, 1] for other in (here, elsewhere))
    assert like > 0.3 and like > 3 * abs(unlike)
