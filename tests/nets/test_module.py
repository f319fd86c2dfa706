"""User modules: the same picture un-tiled as by themselves, law 1, what is measured, and what is refused."""

from __future__ import annotations

import copy
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from law1 import TOLERANCE, grid_of, tiled_float, whole_float
from probe import probe, reaches
from torch import nn

import urst_tiles as ut
from urst_tiles import nets
from urst_tiles.engine.kernel import Kernel
from urst_tiles.engine.statistics import measure_here
from urst_tiles.errors import BadInput, BadWeights
from urst_tiles.geometry import round_up
from urst_tiles.nets import Affine, live, load_frozen, module
from urst_tiles.source import array_source

SIZES = [(1, 1), (1, 7), (17, 1), (31, 33), (97, 41), (201, 155), (255, 257)]


# Networks as users have them


class Residual(nn.Module):
    def __init__(self, width, norm):
        super().__init__()
        layers = [nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), norm(width), nn.ReLU(True)]
        layers += [nn.Dropout(0.5), nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), norm(width)]
        self.conv_block = nn.Sequential(*layers)

    def forward(self, x):
        return x + self.conv_block(x)


class ResNet(nn.Module):
    """CycleGAN's generator (Zhu et al. 2017), narrower: pixels in -1..1."""

    def __init__(self, width=4, blocks=9, norm=nn.InstanceNorm2d):
        super().__init__()
        layers = [nn.ReflectionPad2d(3), nn.Conv2d(3, width, 7), norm(width), nn.ReLU(True)]
        for n in (width, 2 * width):
            layers += [nn.Conv2d(n, 2 * n, 3, stride=2, padding=1), norm(2 * n), nn.ReLU(True)]
        layers += [Residual(4 * width, norm) for _ in range(blocks)]
        for n in (4 * width, 2 * width):
            up = nn.ConvTranspose2d(n, n // 2, 3, stride=2, padding=1, output_padding=1)
            layers += [up, norm(n // 2), nn.ReLU(True)]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, x):
        return self.model(x)


class Level(nn.Module):
    """One level of pix2pix's U-Net (Isola et al. 2017) around the deeper ones."""

    def __init__(self, outer, inner, deeper=None, norm=nn.InstanceNorm2d):
        super().__init__()
        down = [nn.LeakyReLU(0.2), nn.Conv2d(outer, inner, 4, 2, 1)]
        up = [nn.ReLU(), nn.ConvTranspose2d(2 * inner if deeper else inner, outer, 4, 2, 1), norm(outer)]
        self.model = nn.Sequential(*down, *([norm(inner), deeper] if deeper else []), *up)

    def forward(self, x):
        return torch.cat([x, self.model(x)], 1)


class UNet(nn.Module):
    """``levels`` halvings, zero padding; pixels in -1..1."""

    def __init__(self, levels, width=4):
        super().__init__()
        deep = None
        for k in reversed(range(levels - 1)):
            deep = Level(width * min(8, 2**k), width * min(8, 2 ** (k + 1)), deep)
        up = nn.ConvTranspose2d(2 * width, 3, 4, 2, 1)
        self.model = nn.Sequential(nn.Conv2d(3, width, 4, 2, 1), deep, nn.ReLU(), up, nn.Tanh())

    def forward(self, x):
        return self.model(x)


def lively(net, seed=0):
    """Random weights that keep the signal alive, and norms that do something."""
    torch.manual_seed(seed)
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(layer.weight)
            if isinstance(layer, nn.ConvTranspose2d):
                layer.weight.data.mul_(2 * (layer.out_channels / layer.in_channels) ** 0.5)
            nn.init.normal_(layer.bias, std=0.1)
        if getattr(layer, "running_mean", None) is not None:
            nn.init.normal_(layer.running_mean, std=0.2)
            nn.init.uniform_(layer.running_var, 0.3, 1.5)
        if isinstance(layer, nn.InstanceNorm2d | nn.BatchNorm2d | nn.GroupNorm) and layer.weight is not None:
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.3)
    return net


def with_affine(channels):
    return nn.InstanceNorm2d(channels, affine=True)


def padded_conv(inputs, outputs):
    return nn.Conv2d(inputs, outputs, 3, padding=1)


@pytest.fixture(scope="module")
def generator():
    return lively(ResNet())


@pytest.fixture(scope="module")
def monet(generator):
    """CycleGAN's generator as a style."""
    return ut.from_module(generator, range=(-1, 1))


def own(net, x):
    """The module itself on the whole picture, its norms alive, in float64."""
    net = copy.deepcopy(net).double().eval()
    with torch.inference_mode():
        return (net(2 * x.double() - 1) + 1) / 2


# The same picture as by itself


@pytest.mark.parametrize(
    "net",
    [
        ResNet(),
        ResNet(norm=with_affine),
        ResNet(norm=lambda n: nn.GroupNorm(2, n), blocks=2),
        ResNet(norm=lambda n: nn.BatchNorm2d(n, track_running_stats=False), blocks=2),
        UNet(4),
    ],
    ids=["instance", "affine", "group", "batch-of-one", "unet"],
)
def test_the_whole_picture_is_the_modules_own(net, picture, as_tensor, measured):
    net = lively(net)
    style, x = ut.from_module(net, range=(-1, 1)), as_tensor(picture(128, 96))
    want = own(net, x)
    with torch.inference_mode():
        alive = style.forward(x, live(style)).double()
        frozen = nets.freeze(style, measured(style, x))(x).double()
    assert want.std() > 0.1
    assert (alive - want).abs().max() < TOLERANCE
    assert (frozen - want).abs().max() < TOLERANCE


def test_the_sites_are_the_norms_in_order(monet):
    assert len(monet.sites) == 23
    assert [(s.name, s.channels, s.stride) for s in monet.sites[:4]] == [
        ("model.2", 4, 1),
        ("model.5", 8, 2),
        ("model.8", 16, 4),
        ("model.10.conv_block.2", 16, 4),
    ]
    assert all((s.eps, s.ddof) == (1e-5, 0) for s in monet.sites)


def test_the_module_is_left_as_it_was(generator):
    net = copy.deepcopy(generator).train()
    before = copy.deepcopy(net.state_dict())
    ut.from_module(net, range=(-1, 1))
    assert net.training and isinstance(net.model[2], nn.InstanceNorm2d)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_norms_with_running_statistics_are_no_sites(picture, as_tensor):
    for norm in (nn.BatchNorm2d, lambda n: nn.InstanceNorm2d(n, affine=True, track_running_stats=True)):
        net = lively(ResNet(norm=norm, blocks=2))
        style, x = ut.from_module(net, range=(-1, 1)), as_tensor(picture(64, 96))
        assert style.sites == ()
        with torch.inference_mode():
            assert (nets.freeze(style, {})(x).double() - own(net, x)).abs().max() < TOLERANCE


def test_alpha_mixes_with_the_image(generator, monet, picture, as_tensor, measured):
    x = as_tensor(picture(64, 64))
    weak = ut.from_module(generator, range=(-1, 1), alpha=0.25)
    with torch.inference_mode():
        y, z = (nets.freeze(style, measured(style, x))(x) for style in (monet, weak))
    assert torch.allclose(z, 0.25 * y + 0.75 * x, atol=1e-6)
    assert monet.fingerprint != weak.fingerprint


class Painter(nn.Module):
    """An AdaIN-like module: it holds a style's mean and deviation (unbiased, as AdaIN's)."""

    def __init__(self, channels):
        super().__init__()
        self.mean, self.std = nn.Parameter(torch.randn(channels)), nn.Parameter(torch.rand(channels) + 0.5)

    def forward(self, x):
        mean, std = x.mean((2, 3), keepdim=True), x.std((2, 3), keepdim=True)
        return (x - mean) / (std + 1e-5) * self.std[:, None, None] + self.mean[:, None, None]


def painted(layer, moments):
    scale = layer.std.double().numpy() / (moments.std(ddof=1) + 1e-5)
    return Affine(scale, layer.mean.double().numpy() - scale * moments.mean)


def test_an_adain_like_module_is_a_site(picture, as_tensor, measured):
    net = lively(nn.Sequential(padded_conv(3, 8), nn.ReLU(), Painter(8), nn.ReLU(), padded_conv(8, 3)))
    with pytest.raises(BadInput, match=r"Painter '2'.*sites="):
        ut.from_module(net, range=(-1, 1))
    style, x = ut.from_module(net, range=(-1, 1), sites={Painter: painted}), as_tensor(picture(64, 80))
    assert [site.name for site in style.sites] == ["2"] and (style.halo, style.stride) == (2, 1)
    with torch.inference_mode():
        assert (nets.freeze(style, measured(style, x))(x).double() - own(net, x)).abs().max() < TOLERANCE


def test_a_function_of_sites_must_give_a_map():
    with pytest.raises(BadInput, match="site 0 must give an Affine, got float"):
        ut.from_module(nn.Sequential(Painter(3)), sites={Painter: lambda layer, moments: 1.0})


def test_two_windows_may_be_under_way_at_once(monet, picture, as_tensor, measured):
    """One with its statistics taken, one with them frozen, in two threads."""
    x = [as_tensor(picture(96, 96, seed)) for seed in range(8)]
    alone = [measured(monet, one)["model.8"] for one in x]
    with ThreadPoolExecutor(4) as pool:
        together = [found["model.8"] for found in pool.map(lambda one: measured(monet, one), x)]
    for a, b in zip(alone, together, strict=True):
        assert np.allclose(a.mean, b.mean, atol=1e-5) and np.allclose(a.m2, b.m2, rtol=1e-4)


# What is measured


def test_footprint_of_cyclegan(monet):
    """Aligned cells: a halo of 84 for a reach that the line by line probe finds too."""
    reach, stride = probe(monet, side=256)
    assert (monet.halo, monet.stride, monet.minimum) == (84, 4, 8)
    assert stride == 4 and reach <= monet.halo < reach + stride


@pytest.mark.parametrize(
    ("net", "footprint"),
    [
        (UNet(4), (32, 16, 16)),
        (nn.Sequential(padded_conv(3, 3), padded_conv(3, 3)), (2, 1, 1)),
        (nn.Conv2d(3, 3, 1), (0, 1, 1)),
        (nn.Sequential(nn.Conv2d(3, 3, 3, stride=3), nn.Upsample(scale_factor=3)), (0, 3, 3)),
        (nn.Sequential(nn.ReflectionPad2d(9), nn.Conv2d(3, 3, 19)), (9, 1, 10)),
        (nn.Sequential(nn.Conv2d(3, 3, 3, padding=40, dilation=40)), (40, 1, 1)),
    ],
    ids=["unet", "two-convs", "pointwise", "thirds", "reflection", "dilated"],
)
def test_footprints(net, footprint):
    style = ut.from_module(net)
    assert (style.halo, style.stride, style.minimum) == footprint


@pytest.mark.parametrize("name", ["resnet", "zero", "unet"])
def test_sites_see_as_far_as_the_line_by_line_probe_finds(name):
    style = style_of(name)
    expected = {site: round_up(reach, style.stride) for site, reach in reaches(style).items()}
    assert {site.name: site.halo for site in style.sites} == expected
    assert min(expected.values()) < max(expected.values()) <= style.halo or len(expected) == 1


def test_exact_statistics_of_short_windows_are_the_whole_pictures(picture, as_tensor, measured):
    """The first norms of a U-Net see a cell or two, the last all of its halo."""
    style, image = style_of("unet"), picture(608, 560)
    found, whole = measure_here(style, array_source(image)), measured(style, as_tensor(image))
    for name, moments in whole.items():
        assert found[name].n == moments.n
        np.testing.assert_allclose(found[name].mean, moments.mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found[name].m2, moments.m2, rtol=1e-4)


def test_downsampling_outside_of_modules_is_found():
    class Coarse(nn.Module):
        def forward(self, x):
            return F.interpolate(F.avg_pool2d(x, 4), scale_factor=4, mode="bilinear")

    style = ut.from_module(Coarse())
    assert (style.halo, style.stride) == (4, 4)


def test_the_real_depth_of_pix2pix_works_with_its_halo(picture, as_tensor, measured):
    net = lively(UNet(8, width=2))
    style, x = ut.from_module(net, range=(-1, 1)), as_tensor(picture(512, 256))
    assert (style.halo, style.stride, style.minimum) == (512, 256, 256)
    with torch.inference_mode():
        assert (nets.freeze(style, measured(style, x))(x).double() - own(net, x)).abs().max() < 1e-3


def test_plain_bytes_are_those_of_the_largest_moment():
    """Width 16 in full resolution: a copy before the pad, the padded one and its affine map's result."""
    style = ut.from_module(ResNet(width=16, blocks=1))
    assert 2 * 64 <= style.plain_bytes <= 5 * 64


# Law 1


def difference(net, image, core, halo=None, shift=0):
    """Largest difference of the tiled result from the whole one, and the whole one's deviation."""
    kernel, grid = Kernel(net), grid_of(net, image.shape[:2], core, halo)
    whole, tiled = whole_float(kernel, image, grid), tiled_float(kernel, image, grid, shift)
    return float(np.abs(tiled - whole).max()), float(whole.std())


def zero_padded():
    """Zero padding everywhere, halves and doubles, a norm: what the border sees differs from the inside."""
    layers = [padded_conv(3, 8), with_affine(8), nn.ReLU(), nn.Conv2d(8, 8, 4, 2, 1), nn.ReLU()]
    layers += [nn.MaxPool2d(3, 2, 1), padded_conv(8, 8), nn.ReLU(), nn.Upsample(scale_factor=4)]
    return nn.Sequential(*layers, padded_conv(8, 3))


@cache
def style_of(name):
    made = {
        "resnet": lambda: ResNet(),
        "zero": zero_padded,
        "batch": lambda: ResNet(norm=nn.BatchNorm2d, blocks=3),
        "unet": lambda: UNet(4),
    }
    return ut.from_module(lively(made[name]()), range=(-1, 1))


@pytest.fixture(params=["resnet", "zero", "batch", "unet"])
def frozen_module(request, measured, picture, as_tensor):
    style = style_of(request.param)
    return nets.freeze(style, measured(style, as_tensor(picture(128, 144))))


@pytest.mark.parametrize("size", SIZES, ids="{0[0]}x{0[1]}".format)
def test_tiled_equals_whole(frozen_module, size, picture):
    for core in (32, 48, 128):
        assert difference(frozen_module, picture(*size), core)[0] <= TOLERANCE


def test_broken_rules_show(frozen_module, picture, request):
    """Six strides for the ResNet: what reaches through all of its nine blocks weighs less than 1e-4."""
    net, image = frozen_module, picture(136, 401)
    exact, std = difference(net, image, 32)
    assert exact <= TOLERANCE and std > 0.1
    less = net.stride * (6 if "resnet" in request.node.name else 1)
    assert difference(net, image, 32, halo=net.halo - less)[0] > TOLERANCE
    if net.stride > 1:
        assert difference(net, image, 32, shift=1)[0] > 0.05


# What is refused


class Gate(nn.Module):
    """Squeeze and excite."""

    def __init__(self, width):
        super().__init__()
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(width, width)

    def forward(self, x):
        return x * torch.sigmoid(self.fc(self.pool(x).flatten(1)))[:, :, None, None]


class Centred(nn.Module):
    """A norm in plain code, between two convolutions."""

    def __init__(self):
        super().__init__()
        self.first, self.second = padded_conv(3, 8), padded_conv(8, 3)

    def forward(self, x):
        x = self.first(x)
        return self.second(x - x.mean((2, 3), keepdim=True))


class Attentive(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.down, self.up = nn.Conv2d(3, width, 8, 8), nn.ConvTranspose2d(width, 3, 8, 8)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)

    def forward(self, x):
        x = self.down(x)
        words = x.flatten(2).mT
        words = words + self.attention(words, words, words, need_weights=False)[0]
        return self.up(words.mT.reshape(x.shape))


class Mixer(nn.Module):
    """A linear layer over the pixels of 64 x 64."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(64 * 64, 64 * 64)

    def forward(self, x):
        return self.mix(x.flatten(2)).reshape(x.shape)


class Rows(nn.Module):
    """Looks along whole rows."""

    def __init__(self):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d((None, 1))

    def forward(self, x):
        return x + self.pool(x)


class Place(nn.Module):
    """Knows where it is."""

    def forward(self, x):
        return x + torch.linspace(0, 1, x.shape[3])


class Tuple(nn.Module):
    def forward(self, x):
        return x, x


def sequence(*layers):
    return nn.Sequential(padded_conv(3, 8), nn.ReLU(), *layers, padded_conv(8, 3))


@pytest.mark.parametrize(
    ("net", "sentence"),
    [
        (sequence(Gate(8)), r"AdaptiveAvgPool2d '2\.pool' sees the whole picture"),
        (sequence(nn.AdaptiveMaxPool2d(1)), "input's size, got 1 x 1"),
        (Centred(), r"the forward of Centred \(behind Conv2d 'first'\) sees the whole picture"),
        (Attentive(), "MultiheadAttention 'attention' sees the whole picture"),
        (Mixer(), "takes a picture of 64 px but not of 128 px: Linear 'mix'"),
        (Rows(), "AdaptiveAvgPool2d 'pool' sees the whole picture"),
        (Place(), "Place gives other pixels where its picture is cropped by 1 px"),
        (sequence(nn.LocalResponseNorm(2), nn.GroupNorm(1, 8), nn.Softmax2d()), None),
        (
            nn.Conv2d(3, 1, 3, padding=1),
            r"must give 3 channels for 3, got a tensor \(1, 1, 64, 64\)|channels",
        ),
        (nn.Upsample(scale_factor=2), "input's size, got 128 x 128 for 64 x 64"),
        (nn.Conv2d(3, 3, 3), "input's size, got 62 x 62 for 64 x 64"),
        (
            nn.Conv2d(4, 3, 3, padding=1),
            "fails on pictures of every size tried, at 256 px: the forward of Conv2d: .* to have 4 channels",
        ),
        (Tuple(), "must give one picture, got a tuple"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_what_cannot_run_in_tiles_is_refused_by_name(net, sentence):
    if sentence is None:
        assert len(ut.from_module(net).sites) == 1
        return
    with pytest.raises(BadInput, match=sentence):
        ut.from_module(net)


def test_a_norm_called_twice_is_refused():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.InstanceNorm2d(3)

        def forward(self, x):
            return self.norm(self.norm(x) ** 2)

    with pytest.raises(BadInput, match="InstanceNorm2d 'norm' of Twice is called twice"):
        ut.from_module(Twice())


def test_features_that_do_not_cover_the_picture_are_refused():
    net = nn.Sequential(nn.ReflectionPad2d(4), nn.Conv2d(3, 3, 5), nn.InstanceNorm2d(3), nn.Conv2d(3, 3, 5))
    with pytest.raises(
        BadInput, match="InstanceNorm2d '2' .* has features of 68 x 68 for a picture of 64 px"
    ):
        ut.from_module(net)


def test_a_reach_beyond_all_bounds_is_refused_with_numbers(monkeypatch):
    from urst_tiles.nets.module import probe

    monkeypatch.setattr(probe, "LIMIT", 256)
    layers = [nn.Conv2d(3, 3, 3, padding=32, dilation=32) for _ in range(4)]
    with pytest.raises(BadInput, match="one cell of 1 px reaches more than 96 px"):
        ut.from_module(nn.Sequential(*layers))


def test_kernels_with_holes_do_not_jump_over_the_border():
    """In a picture of 288 px their outermost taps lie outside, and none in its border."""
    layers = [nn.Conv2d(3, 3, 3, padding=n, dilation=n) for n in (64, 128, 64)]
    style = ut.from_module(lively(nn.Sequential(*layers)))
    assert (style.halo, style.stride) == (256, 1)


@pytest.mark.parametrize("range", [(1, 0), (0, 0), 1.0, "ab", (0, 1, 2)])
def test_ranges_are_checked(range):
    with pytest.raises(BadInput, match=r"range must be \(low, high\)"):
        ut.from_module(nn.Conv2d(3, 3, 1), range=range)


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile, nn.Module.half, nn.Module.double])
def test_wrapped_and_16_bit_modules_are_taken(wrap, generator, monet):
    style = ut.from_module(wrap(copy.deepcopy(generator)), range=(-1, 1))
    assert (style.halo, style.stride, style.sites) == (monet.halo, monet.stride, monet.sites)
    assert {t.dtype for t in style.state()[0].values()} == {torch.float32}


def test_antialiased_generators_of_cut_are_local(picture, as_tensor, measured):
    """Blurs by functions instead of layers (Park et al. 2020)."""

    class Blur(nn.Module):
        def __init__(self, channels, up):
            super().__init__()
            taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) if up else torch.tensor([1.0, 2.0, 1.0])
            taps = taps[:, None] * taps / taps.sum() ** 2 * (4 if up else 1)
            self.register_buffer("taps", taps.expand(channels, 1, *taps.shape).clone())
            self.up = up

        def forward(self, x):
            if not self.up:
                return F.conv2d(F.pad(x, (1,) * 4, "reflect"), self.taps, stride=2, groups=x.shape[1])
            x = F.pad(x, (1,) * 4, "replicate")
            return F.conv_transpose2d(x, self.taps, stride=2, padding=2, groups=x.shape[1])[..., 1:-1, 1:-1]

    layers = [padded_conv(3, 8), nn.InstanceNorm2d(8), nn.ReLU(True), Blur(8, up=False), padded_conv(8, 8)]
    layers += [nn.InstanceNorm2d(8), nn.ReLU(True), Blur(8, up=True), padded_conv(8, 3), nn.Tanh()]
    style = ut.from_module(lively(nn.Sequential(*layers)), range=(-1, 1))
    assert (style.halo, style.stride, [s.stride for s in style.sites]) == (6, 2, [1, 2])
    net = nets.freeze(style, measured(style, as_tensor(picture(64, 64))))
    assert difference(net, picture(97, 133), 32)[0] <= TOLERANCE
    assert difference(net, picture(97, 133), 32, halo=4)[0] > TOLERANCE


def test_scripted_modules_are_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on its way out of PyTorch
        scripted = torch.jit.trace(nn.Conv2d(3, 3, 1), torch.zeros(1, 3, 8, 8))
    with pytest.raises(BadInput, match="give the module it was made of"):
        ut.from_module(scripted)


def test_no_module_is_refused():
    with pytest.raises(BadInput, match=r"torch\.nn\.Module is needed, got a dict"):
        ut.from_module({})


# How it is found again


def test_save_and_load_in_this_process(monet, measured, picture, as_tensor, tmp_path):
    x = as_tensor(picture(64, 72))
    net = nets.freeze(monet, measured(monet, x))
    net.save(tmp_path / "net.safetensors")
    again = load_frozen(tmp_path / "net.safetensors")
    with torch.inference_mode():
        assert torch.equal(net(x), again(x))
    assert again.family == monet.model and again.style.footprint == monet.footprint


def test_the_family_takes_no_style(monet):
    family = nets.family(monet.model)
    assert not family.takes_style and nets.best_precision(monet.model, "cpu") == "float32"
    assert nets.build(monet.model, None, []).fingerprint == monet.fingerprint
    assert nets.build(monet.model, None, [], 0.5).alpha == 0.5
    with pytest.raises(BadInput, match="leave out --style"):
        nets.build(monet.model, None, [(np.zeros((8, 8, 3), np.float32), 1.0)])


def test_another_process_is_told_how(monet):
    assert module.only_here(monet.model) and not module.only_here("module:generator")
    with pytest.raises(BadInput, match="give --model package.module:function"):
        nets.build("module:ResNet-0123456789ab", None, [])


def test_fingerprints_tell_weights_layers_and_code_apart():
    class Bright(nn.Module):
        def forward(self, x):
            return x * 1.25

    class Dark(nn.Module):
        def forward(self, x):
            return x * 0.75

    Bright.__qualname__ = Dark.__qualname__ = Bright.__name__ = Dark.__name__ = "Net"
    found = [ut.from_module(net).fingerprint for net in (Bright(), Dark(), nn.ReLU(), nn.ELU(), nn.ELU())]
    assert len(set(found)) == 4 and found[3] == found[4]


MODULE = """
import torch
from torch import nn
import urst_tiles as ut

calls = 0

def plain():
    global calls
    calls += 1
    torch.manual_seed(calls)  # so that a second call gives other weights: those saved must win
    return net()

def net():
    up = nn.ConvTranspose2d(8, 3, 4, 2, 1)
    return nn.Sequential(nn.Conv2d(3, 8, 4, 2, 1), nn.InstanceNorm2d(8), nn.ReLU(), up)

def ranged():
    return ut.from_module(plain(), range=(-1, 1), alpha=0.5)

ready = plain()
nothing = 3

def number():
    return 3

def broken():
    raise OSError("no weights at\\n/nowhere")

def painting():
    torch.manual_seed(0)
    return ut.from_module(net(), range=(-1, 1), alpha=0.5)

def pooled():
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Upsample(scale_factor=2))
"""


@pytest.fixture
def paintings(tmp_path, monkeypatch):
    """A module of the user in the current folder, which is on the path."""
    (tmp_path / "paintings.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("paintings", None)


@pytest.mark.parametrize("name", ["plain", "ranged", "ready"])
def test_a_function_of_the_user(name, paintings, measured, picture, as_tensor, monkeypatch):
    model, x = f"paintings:{name}", as_tensor(picture(64, 48))
    style = nets.build(model, None, [])
    assert (style.name, style.stride, len(style.sites)) == (model, 2, 1)
    assert (style.range, style.alpha) == (((-1, 1), 0.5) if name == "ranged" else ((0, 1), 1.0))
    net = nets.freeze(style, measured(style, x))
    net.save(paintings / "net.safetensors")
    from urst_tiles.nets.module import style

    monkeypatch.setattr(style.Probe, "footprint", lambda self: pytest.fail("measured again"))
    with torch.inference_mode():
        assert torch.equal(load_frozen(paintings / "net.safetensors", model)(x), net(x))


def test_a_module_that_changed_is_told(paintings, measured, picture, as_tensor):
    style = nets.build("paintings:plain", None, [])
    nets.freeze(style, measured(style, as_tensor(picture(32, 32)))).save(paintings / "net.safetensors")
    sys.modules["paintings"].plain = lambda: nn.Conv2d(3, 3, 1)
    with pytest.raises(BadWeights, match="paintings:plain"):
        load_frozen(paintings / "net.safetensors", "paintings:plain")


@pytest.mark.parametrize("named", [None, "paintings:ranged", "lite"])
def test_a_file_never_names_code_that_is_run(named, paintings, monkeypatch):
    """Not even where the module could be imported; nor deep inside a file, where a cascade has its style."""
    style = nets.build("paintings:plain", None, [])
    some = {s.name: ut.Moments(2.0, np.zeros(s.channels), np.ones(s.channels)) for s in style.sites}
    nets.freeze(style, some).save(paintings / "net.safetensors")
    cascade = nets.CascadeStyle(style, 2)
    each = {s.name: ut.Moments(2.0, np.zeros(s.channels), np.ones(s.channels)) for s in cascade.sites}
    nets.Luminance(nets.freeze(cascade, each)).save(paintings / "deep.safetensors")
    del sys.modules["paintings"]
    for file in ("net.safetensors", "deep.safetensors"):
        with pytest.raises(BadInput, match=f"{file} names code, 'paintings:plain'.*--model"):
            load_frozen(paintings / file, named)
    assert "paintings" not in sys.modules
    assert load_frozen(paintings / "deep.safetensors", "paintings:plain").stride == 4


def test_the_current_folder_is_no_place_for_modules(paintings, monkeypatch):
    """Unless Python was told so: a module there may be anybody's."""
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(paintings))])
    with pytest.raises(BadInput, match="cannot import 'paintings'.*PYTHONPATH"):
        nets.build("paintings:plain", None, [])
    assert "paintings" not in sys.modules and str(paintings) not in sys.path


@pytest.mark.parametrize(
    "values", [{}, {"family": 3}, {"family": "lite", "settings": 1}, [1], {"kind": "varying"}]
)
def test_a_damaged_description_is_one_sentence(values, tmp_path):
    import json

    from safetensors.torch import save_file

    save_file({"x": torch.ones(1)}, tmp_path / "n", metadata={"urst_tiles": json.dumps(values)})
    with pytest.raises((BadWeights, BadInput), match="is no frozen network|there is no model"):
        load_frozen(tmp_path / "n")


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("nosuchmodule:net", "cannot import 'nosuchmodule': ModuleNotFoundError"),
        ("paintings:nosuch", "paintings has no 'nosuch'"),
        ("paintings:number", r"must give a torch\.nn\.Module, got a int"),
        ("paintings:nothing", "must name a function, got a int"),
        ("paintings:broken", "raised OSError: no weights at /nowhere"),
        ("paintings:pooled", "Sequential"),
        ("paintings:", "has no ''"),
        (":plain", "cannot import ''"),
    ],
)
def test_what_is_wrong_with_a_function_is_one_sentence(model, sentence, paintings):
    with pytest.raises(BadInput, match=sentence) as caught:
        nets.build(model, None, [])
    assert "\n" not in str(caught.value)


# The whole job


def test_the_command_line_gives_the_modules_own_picture(paintings, picture):
    """With exact statistics, over several windows: at most one level from the un-tiled module in float64."""
    from PIL import Image

    from urst_tiles.cli import main

    image = picture(300, 420)
    Image.fromarray(image).save("in.png")
    job = ["stylize", "in.png", "out.tif", "--model", "paintings:painting", "--statistics", "exact"]
    assert main([*job, "--tile", "128", "--block", "512"]) == 0
    style = sys.modules["paintings"].painting()
    x = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].double() / 255
    want = (0.5 * own(style.net, x) + 0.5 * x)[0].permute(1, 2, 0).numpy()
    with Image.open("out.tif") as out:
        got = np.asarray(out).astype(float)
    assert got.shape == image.shape and got.std() > 10
    assert np.abs(got - np.rint(np.clip(want, 0, 1) * 255)).max() <= 1


def test_the_command_line_says_what_is_wrong(paintings, picture, capsys):
    from PIL import Image

    from urst_tiles.cli import main

    Image.fromarray(picture(40, 40)).save("in.png")
    assert main(["stylize", "in.png", "out.tif", "--model", "paintings:pooled"]) == 2
    assert "Sequential must give a picture of its input's size, got 2 x 2" in capsys.readouterr().err
    assert not (paintings / "out.tif").exists()


def test_stylize_takes_what_from_module_gives(generator, monet, paintings, picture):
    from PIL import Image

    Image.fromarray(picture(96, 80)).save("in.png")
    report = ut.stylize("in.png", "out.tif", monet, statistics="exact")
    with Image.open(report.output) as out, torch.inference_mode():
        x = torch.from_numpy(picture(96, 80)).permute(2, 0, 1)[None] / 255
        want = own(generator, x)[0].permute(1, 2, 0).numpy()
        assert np.abs(np.asarray(out) - np.rint(np.clip(want, 0, 1) * 255)).max() <= 1


PEAK = """
import sys, threading, time
import numpy as np, psutil, torch
import urst_tiles as ut
from urst_tiles import nets
from urst_tiles.engine.kernel import Kernel
from urst_tiles.geometry import Box

sys.path[:0] = [{folder!r}, {tests!r}]
from test_module import ResNet

torch.set_num_threads(1)
style = ut.from_module(ResNet(width=16, blocks=3), range=(-1, 1))
some = {{s.name: ut.Moments(2.0, np.zeros(s.channels), np.ones(s.channels)) for s in style.sites}}
kernel, box, process = Kernel(nets.freeze(style, some)), Box(0, 0, 1024, 1024), psutil.Process()
before, peak, done = process.memory_info().rss, 0, False

def watch():
    global peak
    while not done:
        peak = max(peak, process.memory_info().rss)
        time.sleep(0.002)

thread = threading.Thread(target=watch)
thread.start()
kernel.run(np.zeros((1, 1024, 1024, 3), np.uint8), [box], [box])
done = True
thread.join()
print((peak - before) / 1024**2 / style.plain_bytes)
"""


@pytest.mark.slow
def test_the_peak_is_what_was_foretold():
    here = Path(__file__).parent
    program = PEAK.format(folder=str(here), tests=str(here.parent))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 0.6 <= float(done.stdout) <= 1.0
