"""ResNets, the nets between ResNet and VGG, Inception: torchvision's own features, and what shortcuts do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from urst_tiles.errors import BadInput, BadWeights, MissingFile
from urst_tiles.losses import inception, residual
from urst_tiles.losses.torchvision_files import models

NETS = {
    "resnet50": residual.resnet50,
    "resnet50-plain": residual.resnet50_plain,
    "wide-resnet50-2": residual.wide_resnet50_2,
    "pseudo-vgg": residual.pseudo_vgg,
    "pseudo-resvgg": residual.pseudo_resvgg,
}
SHALLOW = ["stem", "conv1_2"]


def noise(side=64, seed=0, n=1):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed))


def lived(module, seed=0):
    """``module`` with batch normalisations that do something, as after a training."""
    random = torch.Generator().manual_seed(seed)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_(0, 0.2, generator=random)
            norm.running_var.uniform_(0.5, 2, generator=random)
            norm.weight.data.uniform_(0.5, 1.5, generator=random)
    return module.eval()


def hooked(module, names, x):
    """What torchvision's own forward gives behind the modules called ``names``."""
    found = {}
    for ours, theirs in names.items():
        place = module.get_submodule(theirs)
        place.register_forward_hook(lambda _m, _i, out, ours=ours: found.setdefault(ours, out.clone()))
    with torch.no_grad():
        module(x)
    return found


def imagenet(x):
    mean, std = x.new_tensor([0.485, 0.456, 0.406]), x.new_tensor([0.229, 0.224, 0.225])
    return (x - mean[:, None, None]) / std[:, None, None]


@pytest.mark.parametrize("name", ["resnet50", "wide_resnet50_2"])
def test_resnet_is_torchvisions_from_its_file(name, tmp_path):
    theirs = lived(getattr(models(), name)())
    torch.save(theirs.state_dict(), tmp_path / "net.pth")
    net = getattr(residual, name)([tmp_path / "net.pth"], dtype=torch.float64)
    places = {"conv1_2": "layer1.2", "conv2_3": "layer2.3", "conv3_5": "layer3.5", "conv4_2": "layer4.2"}
    x = noise().double()
    want = hooked(theirs.double(), {"stem": "relu"} | places, imagenet(x))
    with torch.no_grad():
        found = net(x, residual.STYLE)
    for layer in residual.STYLE:
        torch.testing.assert_close(found[layer], want[layer])


def test_inception_is_torchvisions_from_its_file(tmp_path):
    theirs = lived(models().inception_v3(init_weights=True, transform_input=True))
    torch.save(theirs.state_dict(), tmp_path / "net.pth")
    net = inception.inception_v3([tmp_path / "net.pth"], dtype=torch.float64)
    x = noise(96).double()
    want = hooked(theirs.double(), {name: name for name in inception.STYLE}, imagenet(x))
    with torch.no_grad():
        found = net(x, inception.STYLE)
    for layer in inception.STYLE:
        torch.testing.assert_close(found[layer], want[layer])


def test_the_walk_through_inception_is_its_forward():
    """No step is left out: what is behind the last is what torchvision averages for its classifier."""
    with torch.no_grad():
        net = models().inception_v3(init_weights=True, aux_logits=False).eval()
        net.fc = nn.Identity()
        walk = residual.Walk("", {name: getattr(net, name) for name in inception.LAYERS}, (0,) * 3, (1,) * 3)
        x = noise(80)
        torch.testing.assert_close(walk(x, ["Mixed_7c"])["Mixed_7c"].mean((2, 3)), net(x))


def test_old_checkpoints_without_counts_and_heads_will_do(tmp_path):
    state = lived(models().resnet50()).state_dict()
    torch.save(state, tmp_path / "new.pth")
    short = {k: t for k, t in state.items() if not k.startswith("fc.") and "num_batches" not in k}
    torch.save(short, tmp_path / "old.pth")
    nets = [residual.resnet50([tmp_path / name]) for name in ("new.pth", "old.pth")]
    new, old = (net(noise(32), ["conv2_0"]) for net in nets)
    assert torch.equal(new["conv2_0"], old["conv2_0"])


def test_files_of_other_nets_are_refused(tmp_path):
    torch.save(models().resnet50().state_dict(), tmp_path / "resnet.pth")
    torch.save({"a": torch.zeros(1)}, tmp_path / "a.pth")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(BadWeights, match=r"resnet\.pth: layer1.* has shape .* expected"):
        residual.wide_resnet50_2([tmp_path / "resnet.pth"])
    with pytest.raises(BadWeights, match="unknown layer1.0.downsample"):
        residual.resnet50_plain([tmp_path / "resnet.pth"])
    with pytest.raises(BadWeights, match="misses .* and has unknown"):
        residual.pseudo_vgg([tmp_path / "resnet.pth"])
    with pytest.raises(BadWeights, match="misses .* and has unknown a"):
        inception.inception_v3([tmp_path / "a.pth"])
    with pytest.raises(BadWeights, match=r"text\.pth holds no plain tensors"):
        residual.resnet50([tmp_path / "text.pth"])
    with pytest.raises(MissingFile, match=r"nosuch\.pth"):
        residual.resnet50([tmp_path / "nosuch.pth"])


def test_a_net_of_ours_comes_back_from_its_file(tmp_path):
    net = residual.pseudo_resvgg(seed=3, width=1 / 16)
    torch.save(nn.ModuleDict(net.steps).state_dict(), tmp_path / "net.pth")
    again = residual.pseudo_resvgg([tmp_path / "net.pth"], width=1 / 16)
    one, other = (n(noise(), ["conv4_2"])["conv4_2"] for n in (net, again))
    assert torch.equal(one, other)


@pytest.mark.parametrize("make", [residual.resnet50_plain, residual.pseudo_vgg, inception.inception_v3])
def test_random_weights_are_the_seeds_alone(make):
    before = torch.random.get_rng_state()
    first, again, other = (list(dict(make(seed=seed).steps).values())[0].state_dict() for seed in (1, 1, 2))
    key = next(k for k, t in first.items() if t.ndim == 4)
    assert torch.equal(first[key], again[key]) and not torch.equal(first[key], other[key])
    assert torch.equal(torch.random.get_rng_state(), before)


RESNET = [(64, 32), (256, 16), (512, 8), (1024, 4), (2048, 2)]
#: How often a shortcut needs a 1x1 convolution.
WIDENINGS = {"resnet50": 4, "wide-resnet50-2": 4, "pseudo-resvgg": 3}
PSEUDO = [(64, 64), (128, 32), (256, 16), (512, 8), (512, 4)]


@pytest.mark.parametrize("name", NETS)
def test_five_stages_of_style(name):
    net = NETS[name]()
    with torch.no_grad():
        found = net(noise(), residual.STYLE)
    want = PSEUDO if "pseudo" in name else RESNET
    assert [(f.shape[1], f.shape[2]) for f in found.values()] == want
    assert all(f.isfinite().all() and (f >= 0).all() and f.max() > 0 for f in found.values())
    assert residual.CONTENT in residual.STYLE and set(residual.DEEP) <= set(net.steps)
    assert len(residual.DEEP) == 9
    convolutions = [m for m in nn.ModuleDict(net.steps).modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 49 + WIDENINGS.get(name, 0)


def test_five_stages_of_inception():
    net = inception.inception_v3()
    with torch.no_grad():
        found = net(noise(96), inception.STYLE)
    assert [f.shape[1] for f in found.values()] == [64, 192, 288, 768, 2048]
    assert all(0.1 < f.max() < 100 for f in found.values())
    assert inception.CONTENT in inception.STYLE and set(inception.DEEP) <= set(net.steps)


def test_a_block_without_its_shortcut():
    """Where the last convolution of a block gives nothing, only a shortcut lets anything pass."""
    with_it, without = residual.resnet50(), residual.resnet50_plain()
    for net, last in ((with_it, "bn3"), (without, "7")):
        nn.init.zeros_(net.steps["conv1_1"].get_submodule(last).weight)
    a, b = (net(noise(32), ["conv1_0", "conv1_1"]) for net in (with_it, without))
    assert torch.equal(a["conv1_1"], a["conv1_0"]) and b["conv1_1"].max() == 0
    with_it, without = residual.pseudo_resvgg(width=1 / 16), residual.pseudo_vgg(width=1 / 16)
    for net in (with_it, without):
        nn.init.zeros_(net.steps["conv1_1"].body[-1].weight)
    a, b = (net(noise(32), ["conv1_0", "conv1_1"]) for net in (with_it, without))
    assert torch.equal(a["conv1_1"], a["conv1_0"]) and b["conv1_1"].max() == 0


def test_it_stops_at_the_deepest_layer():
    class Fails(nn.Module):
        def forward(self, x):
            raise AssertionError("too far")

    net = residual.pseudo_vgg(width=1 / 16)
    net.steps = {k: Fails() if k == "conv2_0" else step for k, step in net.steps.items()}
    assert set(net(noise(), SHALLOW)) == set(SHALLOW)
    with pytest.raises(AssertionError, match="too far"):
        net(noise(), ["conv2_0"])


def test_no_step_changes_what_the_one_before_gave():
    net = residual.resnet50()
    alone = {layer: net(noise(32), [layer])[layer] for layer in net.steps}
    together = net(noise(32), list(net.steps))
    assert all(torch.equal(alone[layer], together[layer]) for layer in net.steps)


@pytest.mark.parametrize("make", [residual.resnet50, residual.pseudo_resvgg])
def test_gradients_reach_the_picture_only(make):
    x = noise(32).requires_grad_()
    net = make()
    net(x, ["conv3_5"])["conv3_5"].square().mean().backward()
    assert x.grad.isfinite().all() and x.grad.abs().max() > 0
    assert all(p.grad is None for step in net.steps.values() for p in step.parameters())


def test_placed():
    net = residual.pseudo_resvgg(width=1 / 16, dtype=torch.bfloat16)
    exact = residual.pseudo_resvgg(width=1 / 16)(noise(), ["conv2_3"])["conv2_3"]
    found = net(noise().bfloat16(), ["conv2_3"])["conv2_3"]
    assert found.dtype == torch.bfloat16
    assert (found.float() - exact).abs().mean() < 0.05 * exact.mean()


def test_what_is_not_there_is_said():
    net = residual.pseudo_vgg(width=1 / 16)
    with pytest.raises(BadInput, match="pseudo-vgg has no layer 'relu1_1'; it has stem, pool1, conv1_0"):
        net(noise(), ["stem", "relu1_1"])
    with pytest.raises(BadInput, match="pseudo-vgg needs pictures of 16 px on each side, got 64 x 8"):
        net(noise()[:, :, :8], ["stem"])
    with pytest.raises(BadInput, match="inception-v3 needs pictures of 75 px"):
        inception.inception_v3()(noise(), ["Mixed_7c"])


def test_the_smallest_pictures():
    with torch.no_grad():
        assert residual.pseudo_vgg(width=1 / 16)(noise(16), ["conv4_2"])["conv4_2"].shape[2:] == (1, 1)
        assert inception.inception_v3()(noise(75), ["Mixed_7c"])["Mixed_7c"].shape[2:] == (1, 1)


def test_settled_normalisations_have_the_pictures_statistics():
    net, pictures = residual.resnet50(), noise(n=2)
    net.settle(pictures)
    norm = net.steps["stem"][1]
    x = net.steps["stem"][0](imagenet(pictures))
    torch.testing.assert_close(norm.running_mean, x.mean((0, 2, 3)), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(norm.running_var, x.var((0, 2, 3)), atol=1e-5, rtol=1e-4)
    assert not norm.training
    y = net.steps["conv4_2"].bn1.running_var
    assert (y != 1).all()
    assert torch.equal(net(pictures, ["conv4_2"])["conv4_2"], net(pictures, ["conv4_2"])["conv4_2"])


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("pair", [("resnet50", "resnet50-plain"), ("pseudo-resvgg", "pseudo-vgg")])
def test_with_shortcuts_random_activations_grow_and_without_they_do_not(pair, seed):
    with torch.no_grad():
        grown, kept = (
            [f.max().item() for f in NETS[name](seed=seed)(noise(), residual.STYLE).values()] for name in pair
        )
    assert grown[0] == kept[0]  # one stem, one seed
    assert all(later > former for former, later in zip(grown, grown[1:], strict=False))
    assert grown[-1] > 30 * grown[0]
    assert kept[-1] < 1.5 * kept[0]
