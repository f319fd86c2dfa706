"""Feature nets against their formulas, and their files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from urst_tiles import weights
from urst_tiles.errors import BadInput, BadWeights, MissingFile
from urst_tiles.losses import backbones, torchvision_files, vgg
from urst_tiles.nets import adain

DOUBLE = {"dtype": torch.float64}


def random_vgg(path, last="2_1", seed=0):
    """A raw file of VGG-19 to ``last`` with random numbers, and these by layer."""
    random, layers, values = np.random.default_rng(seed), {}, []
    for name, i, o in backbones.convolutions(last):
        weight, bias = random.normal(0, 0.05, (o, i, 3, 3)), random.normal(0, 0.5, o)
        layers[name] = weight.astype("<f4"), bias.astype("<f4")
        values += [layers[name][0].ravel(), layers[name][1]]
    np.concatenate(values).tofile(path)
    return layers


def random_distilled(seed=0):
    random = torch.Generator().manual_seed(seed)
    return {k: torch.randn(s, generator=random) * 0.2 for k, s in backbones.distilled_shapes().items()}


def test_vgg_is_the_formula(tmp_path):
    layers = random_vgg(tmp_path / "vgg.raw")
    x = torch.rand(1, 3, 12, 16, dtype=torch.float64)
    found = backbones.vgg19_raw(tmp_path / "vgg.raw", "2_1", **DOUBLE)(x, ["relu1_1", "relu2_1"])

    def conv(h, name):
        weight, bias = (part.astype(float) for part in layers[name])
        rows, columns = h.shape[1:]
        h = np.pad(h, ((0, 0), (1, 1), (1, 1)))
        taps = [(i, j) for i in range(3) for j in range(3)]
        y = sum(np.tensordot(weight[:, :, i, j], h[:, i : i + rows, j : j + columns], 1) for i, j in taps)
        return np.maximum(y + bias[:, None, None], 0)

    blue_green_red = 255 * x[0].numpy()[::-1] - np.array([103.939, 116.779, 123.68])[:, None, None]
    first = conv(blue_green_red, "1_1")
    second = conv(first, "1_2")
    second = second.reshape(64, 6, 2, 8, 2).max(axis=(2, 4))
    assert np.allclose(found["relu1_1"][0], first / 20.6, atol=1e-5)
    assert np.allclose(found["relu2_1"][0], conv(second, "2_1") / 113.0, atol=1e-5)


def test_vgg_files_of_another_size_or_place_are_refused(tmp_path):
    random_vgg(tmp_path / "vgg.raw")
    with pytest.raises(BadWeights, match="conv3_1 has 555328"):
        backbones.vgg19_raw(tmp_path / "vgg.raw", "3_1")
    np.zeros(5, "<f4").tofile(tmp_path / "five.raw")
    with pytest.raises(BadWeights, match="holds 5 numbers"):
        backbones.vgg19_raw(tmp_path / "five.raw")
    with pytest.raises(MissingFile, match=r"nosuch\.raw"):
        backbones.vgg19_raw(tmp_path / "nosuch.raw")


def test_the_raw_file_is_the_rgb_network_with_red_and_blue_exchanged(weights_dir):
    """The same VGG-19 lies beside it in RGB order, exact to conv3_4."""
    net = backbones.vgg19_raw(weights_dir / "vgg19_relu3_1.raw")
    other = weights.load(weights_dir / "vgg19_conv4_1.safetensors")
    for name, _, _ in backbones.convolutions("3_1"):
        for part in ("weight", "bias"):
            assert torch.equal(net.weights[f"conv{name}.{part}"], other[f"conv{name}.{part}"])
    x = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    mean = torch.tensor([123.68, 116.779, 103.939])[:, None, None]
    first = F.conv2d(255 * x - mean, other["conv1_1.weight"], other["conv1_1.bias"], padding=1).relu()
    assert torch.allclose(net(x, ["relu1_1"])["relu1_1"] * 20.6, first, rtol=1e-4, atol=1e-3)


def test_only_what_is_asked_for_is_computed():
    """Deep layers are not touched for shallow features: their weights may be missing."""
    state = random_distilled()
    short = {k: t for k, t in state.items() if k.startswith(("conv0", "conv1", "conv21"))}
    x = torch.rand(1, 3, 32, 32)
    found = backbones.DistilledVGG19(short)(x, ["relu2_1"])
    assert set(found) == {"relu2_1"}
    everything = backbones.DistilledVGG19(state)(x, backbones.LAYERS)
    assert torch.equal(found["relu2_1"], everything["relu2_1"])
    assert [f.shape[1:] for f in everything.values()] == [
        (64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4), (512, 2, 2)
    ]  # fmt: skip


def test_without_heads_the_distilled_networks_own_features_come_out():
    """Of every layer, in a quarter of the channels; a head of them is what comes out otherwise."""
    state = random_distilled()
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    own = backbones.DistilledVGG19(state, heads=False)(x, ["relu1_2", "relu2_1", "relu4_1"])
    assert {k: f.shape[1] for k, f in own.items()} == {"relu1_2": 16, "relu2_1": 32, "relu4_1": 128}
    head = F.conv2d(own["relu4_1"], state["conv41_aux.weight"], state["conv41_aux.bias"]).relu()
    assert torch.equal(head, backbones.DistilledVGG19(state)(x, ["relu4_1"])["relu4_1"])


def test_the_distilled_network_resembles_vgg(shared):
    """Real files: the stand-in's relu3_1 follows VGG-19's own over channels and images."""
    from urst_tiles.source.picture import read_picture

    folder = shared / "weights"
    net = backbones.teachers(folder / "vgg19_relu3_1.raw", folder / "collaborative_wct" / "5SE.pth")
    stand_in = backbones.distilled_vgg19(folder / "collaborative_wct" / "5SE.pth")
    paths = sorted((shared / "data" / "train" / "content").glob("kodak*"))[:12]
    pictures = [torch.from_numpy(read_picture(path, 128)[:128, :128]).permute(2, 0, 1) for path in paths]
    with torch.inference_mode():
        true, like = (n(torch.stack(pictures), ["relu3_1"])["relu3_1"].mean((2, 3)) for n in (net, stand_in))
    pairs = [np.corrcoef(true[:, c], like[:, c])[0, 1] for c in range(256)]
    assert np.nanmedian(pairs) > 0.8


def narrow(seed=0, **fields):
    """VGG-19 of an eighth of the width in float64, biases not 0."""
    state = {k: t.double() for k, t in vgg.random_state(seed, 1 / 8).items()}
    random = torch.Generator().manual_seed(seed)
    for key, t in state.items():
        if key.endswith("bias"):
            t += 0.1 * torch.randn(t.shape, generator=random)
    return vgg.VGG(state, **fields)


@pytest.mark.parametrize("padding", ["zeros", "reflect"])
def test_the_normalised_vgg_is_the_same_network_with_channels_of_mean_activation_one(padding):
    """AdaIN's trap: what is divided behind one layer is multiplied in the next one's weights."""
    net = narrow(padding=padding)
    pictures = torch.rand(3, 3, 48, 48, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    means = vgg.mean_activations(net, [pictures[:2], pictures[2:]])
    scaled = vgg.rescaled(net, means)
    layers = [f"relu{name}" for name in means]
    before, after = net(pictures, layers), scaled(pictures, layers)
    for name, mean in means.items():
        alive = mean > 0
        assert alive.sum() > 0.5 * len(mean)
        divided = before[f"relu{name}"] / torch.where(alive, mean, 1.0)[:, None, None]
        assert torch.allclose(after[f"relu{name}"], divided, rtol=1e-9, atol=1e-12)
        assert torch.allclose(after[f"relu{name}"].mean((0, 2, 3))[alive], torch.ones(1).double())
    assert max(mean.max() / mean[mean > 0].min() for mean in means.values()) > 10, "nothing to rescale"


def test_the_real_vgg_is_loud_in_few_channels_until_it_is_rescaled(shared):
    from urst_tiles.source.picture import read_picture

    net = backbones.vgg19_raw(shared / "weights" / "vgg19_relu3_1.raw")
    paths = sorted((shared / "data" / "train" / "content").glob("kodak*"))[:4]
    pictures = [torch.from_numpy(read_picture(p, 128)).permute(2, 0, 1)[None] for p in paths]
    means = vgg.mean_activations(net, pictures, "3_1")
    every = torch.cat(list(means.values()))
    assert every.max() > 100 * every.min()
    scaled = vgg.mean_activations(vgg.rescaled(net, means), pictures, "3_1")
    for name, mean in scaled.items():
        assert torch.allclose(mean[means[name] > 0], torch.ones(1).double(), rtol=1e-3)


def test_a_rescaled_network_is_an_encoder_of_adain():
    """In AdaIN's own layout and with its own code: relu4_1 of both is one."""
    net = narrow(padding="reflect")
    x = torch.rand(1, 3, 32, 40, dtype=torch.float64)
    scaled = vgg.rescaled(net, vgg.mean_activations(net, [x]))
    state = {f"encoder.{k}": t for k, t in backbones.to_sequential(scaled).items()}
    assert torch.allclose(adain.encode(x, state), scaled(x, ["relu4_1"])["relu4_1"])


def test_the_normalised_file_round_trips(tmp_path):
    net = backbones.backbone("vgg19-normalised", seed=3)
    torch.save(backbones.to_sequential(net), tmp_path / "vgg_normalised.pth")
    again = backbones.backbone("vgg19-normalised", [tmp_path / "vgg_normalised.pth"])
    x = torch.rand(1, 3, 32, 32)
    assert torch.equal(net(x, ["relu5_1"])["relu5_1"], again(x, ["relu5_1"])["relu5_1"])
    short = {k: t for k, t in backbones.to_sequential(net).items() if int(k.split(".")[0]) <= 29}
    torch.save(short, tmp_path / "short.pth")
    cut = backbones.backbone("vgg19-normalised", [tmp_path / "short.pth"])
    assert torch.equal(cut(x, ["relu4_1"])["relu4_1"], net(x, ["relu4_1"])["relu4_1"])


def places_of_torchvision(depth):
    """Place in ``features`` -> layer, of the convolutions of torchvision's configurations D and E."""
    counts = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}[depth]
    at, found = 0, {}
    for stage, count in enumerate(counts, 1):
        for k in range(1, count + 1):
            found[at] = f"{stage}_{k}"
            at += 2
        at += 1
    return found


@pytest.mark.parametrize("depth", [16, 19])
def test_vgg_is_torchvisions(tmp_path, depth):
    models = torchvision_files.models()
    torch.manual_seed(0)
    theirs = getattr(models, f"vgg{depth}")().eval()
    torch.save(theirs.state_dict(), tmp_path / "vgg.pth")
    net = backbones.backbone(f"vgg{depth}", [tmp_path / "vgg.pth"])
    x = torch.rand(1, 3, 32, 48)
    mean, std = (torch.tensor(v)[:, None, None] for v in (vgg.MEAN, vgg.STD))
    places = places_of_torchvision(depth)
    last = max(places)
    with torch.no_grad():
        for place in (0, 10, 19, last):
            layer = f"relu{places[place]}"
            wanted = theirs.features[: place + 2]((x - mean) / std)
            assert torch.allclose(net(x, [layer])[layer], wanted, rtol=1e-4, atol=1e-5)


def original_file(path, depth, last, seed=0):
    """Random weights under the names of the original, in float16, in a safetensors file."""
    random, state = torch.Generator().manual_seed(seed), {}
    for name, i, o in vgg.convolutions(last, depth=depth):
        state[f"conv{name}.weight"] = (
            torch.randn(o, i, 3, 3, generator=random) * (2 / (9 * i)) ** 0.5
        ).half()
        state[f"conv{name}.bias"] = torch.randn(o, generator=random).half()
    save_file(state, path)
    return state


@pytest.mark.parametrize(("depth", "last"), [(16, "5_3"), (16, "3_3"), (19, "4_1"), (19, "4_4")])
def test_the_original_is_read_as_deep_as_the_file_goes(tmp_path, depth, last):
    state = original_file(tmp_path / "vgg.safetensors", depth, last)
    net = backbones.backbone(f"vgg{depth}", [tmp_path / "vgg.safetensors"])
    x = torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    h = 255 * x - torch.tensor([123.68, 116.779, 103.939])[:, None, None]
    for name, _, _ in vgg.convolutions(last, depth=depth):
        if name in ("2_1", "3_1", "4_1", "5_1"):
            h = F.max_pool2d(h, 2)
        h = F.conv2d(h, state[f"conv{name}.weight"].float(), state[f"conv{name}.bias"].float(), padding=1)
        h = h.relu()
    found = net(x, [f"relu{last}"])[f"relu{last}"]
    assert found.dtype == torch.float32 and torch.allclose(found, h, rtol=1e-3, atol=1e-4 * float(h.max()))


def test_a_lower_type_still_takes_pictures_in_float32(tmp_path):
    """Colours are prepared before they are rounded: bfloat16 has 3 digits."""
    original_file(tmp_path / "vgg.safetensors", 16, "1_2")
    files = [tmp_path / "vgg.safetensors"]
    exact, low = (backbones.backbone("vgg16", files, dtype=t) for t in (torch.float32, torch.bfloat16))
    x = torch.full((1, 3, 16, 16), 0.4851)
    prepared = low.prepared(x)
    assert prepared.dtype == torch.bfloat16
    assert torch.allclose(prepared.float(), exact.prepared(x), rtol=2**-8)


@pytest.mark.parametrize(
    ("depth", "change", "said"),
    [
        (16, lambda state: state.pop("conv2_1.bias"), r"misses conv2_1\.bias"),
        (16, lambda state: state.pop("conv2_1.weight"), r"misses conv2_1\.weight"),
        (19, lambda state: state.update({"conv9_1.bias": torch.zeros(1)}), r"unknown conv9_1\.bias"),
        (
            16,
            lambda state: state.update({"conv1_2.bias": torch.zeros(63)}),
            r"conv1_2\.bias has shape \(63,\)",
        ),
        (16, lambda state: state.clear(), "misses conv1_1"),
    ],
)
def test_other_keys_and_shapes_are_refused(tmp_path, depth, change, said):
    state = original_file(tmp_path / "vgg.safetensors", depth, "3_3")
    change(state)
    save_file(state, tmp_path / "vgg.safetensors")
    with pytest.raises(BadWeights, match=rf"vgg\.safetensors.*{said}"):
        backbones.backbone(f"vgg{depth}", [tmp_path / "vgg.safetensors"])


def test_vgg_of_the_other_depth_is_refused(tmp_path):
    for depth, other in ((16, 19), (19, 16)):
        original_file(tmp_path / "vgg.safetensors", depth, "5_3")
        with pytest.raises(BadWeights, match="conv3_4"):
            backbones.backbone(f"vgg{other}", [tmp_path / "vgg.safetensors"])
    with pytest.raises(MissingFile, match=r"nosuch\.safetensors"):
        backbones.backbone("vgg16", [tmp_path / "nosuch.safetensors"])


def test_the_real_vgg16_is_complete_and_knows_what_it_sees(weights_dir, shared):
    """conv1_1 to conv5_3; features of RGB are stronger than those of BGR."""
    from urst_tiles.source.picture import read_picture

    net = backbones.backbone("vgg16", [weights_dir / "vgg16.safetensors"])
    assert set(net.weights) == set(vgg.random_state(0, depth=16))
    paths = sorted((shared / "data" / "train" / "content").glob("kodak*"))[:8]
    x = torch.stack([torch.from_numpy(read_picture(p, 128)[:128, :128]).permute(2, 0, 1) for p in paths])
    with torch.inference_mode():
        right, wrong = (net(y, ["relu5_3"])["relu5_3"].mean() for y in (x, x.flip(1)))
    assert right > 0.1 and right > wrong


def test_teachers_take_the_original_as_safetensors(weights_dir):
    stand_in = weights_dir / "collaborative_wct" / "5SE.pth"
    files = (weights_dir / "vgg19_relu3_1.raw", weights_dir / "vgg19_conv4_1.safetensors")
    raw, other = (backbones.teachers(file, stand_in) for file in files)
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    one, two = (net(x, backbones.LAYERS) for net in (raw, other))
    assert all(torch.equal(one[k], two[k]) for k in backbones.LAYERS)


def test_a_layer_that_the_file_does_not_reach(tmp_path):
    random_vgg(tmp_path / "vgg.raw")
    net = backbones.vgg19_raw(tmp_path / "vgg.raw")
    for layer in ("relu3_1", "conv1"):
        with pytest.raises(BadInput, match=f"no layer '{layer}'"):
            net(torch.rand(1, 3, 32, 32), [layer])


def test_divided_layers_are_measured_undivided(tmp_path):
    random_vgg(tmp_path / "vgg.raw")
    net = backbones.vgg19_raw(tmp_path / "vgg.raw")
    x = torch.rand(1, 3, 32, 32)
    mean = vgg.mean_activations(net, [x], "1_1")["1_1"]
    assert torch.allclose(net(x, ["relu1_1"])["relu1_1"].mean((0, 2, 3)).double() * 20.6, mean, rtol=1e-5)


def test_random_weights_come_from_the_seed():
    one, same, other = (backbones.backbone("distilled", seed=s) for s in (1, 1, 2))
    x = torch.rand(1, 3, 32, 32)
    a, b, c = (net(x, ["relu4_1"])["relu4_1"] for net in (one, same, other))
    assert torch.equal(a, b) and not torch.allclose(a, c)


@pytest.mark.parametrize("name", backbones.BACKBONES)
def test_every_backbone_has_five_style_layers_and_knows_its_deep_ones(name):
    row = backbones.BACKBONES[name]
    assert len(row.style) == 5 and set(row.style) & set(row.deep) and row.name == name


def test_bad_names_and_files_are_one_sentence(tmp_path):
    with pytest.raises(BadInput, match="'vgg11'; known are vgg19, "):
        backbones.backbone("vgg11")
    with pytest.raises(BadInput, match="takes one file"):
        backbones.backbone("vgg19", [tmp_path / "a", tmp_path / "b"])
    with pytest.raises(BadInput, match="two files"):
        backbones.backbone("teachers", [tmp_path / "a"])
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "bad.pth")
    with pytest.raises(BadWeights, match=r"bad\.pth"):
        backbones.backbone("vgg19", [tmp_path / "bad.pth"])
    with pytest.raises(BadWeights, match=r"bad\.pth"):
        backbones.backbone("vgg19-normalised", [tmp_path / "bad.pth"])


def test_without_torchvision_the_sentence_says_what_to_install(monkeypatch):
    def missing():
        raise ImportError("No module named 'torchvision'")

    monkeypatch.setattr(torchvision_files, "_imported", missing)
    torchvision_files.models.cache_clear()
    with pytest.raises(BadInput, match=r"needs torchvision .*urst-tiles\[train\]"):
        torchvision_files.models()
    torchvision_files.models.cache_clear()
