"""MicroAST: parity with the original, the frozen form against the plain one, sites, mixing, saving."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from urst_tiles import nets
from urst_tiles.errors import BadInput, BadPlan, BadWeights, MissingFile
from urst_tiles.nets import Frozen, OwnStatistics, Style, live, load_frozen, microast


@pytest.fixture
def style(official, weights_dir):
    return nets.build("microast", weights_dir, [(official["style"].astype(np.float32) / 255, 1.0)])


def test_equals_the_original(style, official, as_tensor):
    with torch.inference_mode():
        y = style.forward(as_tensor(official["content"]), live(style))[0].numpy()
    assert np.abs(y - official["output"]).max() <= 1e-4


def test_frozen_on_its_own_statistics_equals_the_original(style, official, as_tensor, measured):
    x = as_tensor(official["content"])
    with torch.inference_mode():
        y = nets.freeze(style, measured(style, x))(x)[0].numpy()
        own = nets.freeze(style, None)(x)[0].numpy()
    assert np.abs(y - official["output"]).max() <= 1e-4
    assert np.abs(own - official["output"]).max() <= 1e-4


def test_has_as_many_weights_as_published():
    count = sum(int(np.prod(shape)) for keys in microast.shapes().values() for shape in keys.values())
    assert count == 471_987


@pytest.mark.parametrize("width", [1 / 8, 1 / 4])
@pytest.mark.parametrize("size", [(8, 8), (12, 8), (8, 140), (132, 16), (260, 136)])
def test_fast_form_equals_plain_form(width, size, seeded_style, measured, picture, as_tensor):
    style = seeded_style("microast", width)
    net = nets.freeze(style, measured(style, as_tensor(picture(128, 128))))
    x = torch.cat([as_tensor(picture(*size, seed=s)) for s in (3, 4)])
    with torch.inference_mode():
        fast, plain = net(x), Frozen(style, net.affines)(x)
    assert fast.shape == x.shape and fast.dtype == torch.float32
    assert (fast - plain).abs().max() <= 2e-5 * max(1.0, float(plain.abs().max()))


def test_fast_form_equals_plain_form_with_published_weights(style, official, measured, as_tensor):
    x = as_tensor(official["content"])
    net = nets.freeze(style, measured(style, x))
    with torch.inference_mode():
        assert (net(x) - Frozen(style, net.affines)(x)).abs().max() <= 1e-4


def test_sites_come_in_order_and_what_they_return_goes_on(seeded_style, picture, as_tensor):
    style = seeded_style("microast")
    assert isinstance(style, Style)
    seen = []

    def at(site, x):
        seen.append((site.name, tuple(x.shape)))
        return x * 0

    with torch.inference_mode():
        y = style.forward(as_tensor(picture(32, 48)), at)
    names = [name for name, _ in seen]
    weigh2, add2, weigh1, add1 = modulations = microast.MODULATIONS
    second, first = ([weigh, add, weigh, add] for weigh, add in ((weigh2, add2), (weigh1, add1)))
    assert names == ["content", *second, "decoder", *first]
    assert {name for name in names if name not in ("content", "decoder")} == set(modulations)
    assert {shape for _, shape in seen} == {(1, 8, 8, 12)}
    assert y.std((2, 3)).max() < 1e-5


def test_alpha_mixes_the_picture_with_the_image(seeded_style, measured, picture, as_tensor):
    x = as_tensor(picture(64, 64))
    full, half, none = (seeded_style("microast", 1 / 8, a) for a in (1.0, 0.5, 0.0))
    moments = measured(full, x)
    with torch.inference_mode():
        y = nets.freeze(full, moments)(x)
        assert torch.allclose(nets.freeze(half, moments)(x), 0.5 * y + 0.5 * x, atol=1e-5)
        plain = Frozen(half, nets.freeze(half, moments).affines)
        assert torch.allclose(plain(x), 0.5 * y + 0.5 * x, atol=1e-4)
        assert torch.allclose(nets.freeze(none, moments)(x), x, atol=1e-6)


def test_styles_mix_by_their_features(picture):
    a, b = (picture(40, 48, seed=s).astype(np.float32) / 255 for s in (1, 2))
    one, two, mixed = (nets.seeded("microast", p) for p in ([(a, 1.0)], [(b, 5.0)], [(a, 3.0), (b, 1.0)]))
    for name, values in mixed.features.items():
        expected = 0.75 * one.features[name] + 0.25 * two.features[name]
        assert torch.allclose(values, expected, atol=1e-6)
    assert len({one.fingerprint, two.fingerprint, mixed.fingerprint}) == 3


@pytest.mark.parametrize("own", [False, True])
def test_saved_net_needs_nothing_else(own, seeded_style, measured, picture, as_tensor, tmp_path):
    style = seeded_style("microast")
    x = as_tensor(picture(64, 64))
    net = nets.freeze(style, None if own else measured(style, x))
    net.save(tmp_path / "net.safetensors")
    again = load_frozen(tmp_path / "net.safetensors")
    assert isinstance(again, OwnStatistics if own else type(net))
    assert (again.family, again.halo, again.stride, again.minimum) == ("microast", 52, 4, 8)
    with torch.inference_mode():
        assert torch.equal(net(x), again(x))


def test_fingerprint_knows_weights_style_and_alpha(picture):
    image = picture(40, 48).astype(np.float32) / 255
    prints = {
        nets.seeded("microast", [(image, 1.0)]).fingerprint,
        nets.seeded("microast", [(image, 1.0)], 0.5).fingerprint,
        nets.seeded("microast", [(image, 1.0)], seed=1).fingerprint,
        nets.seeded("microast", [(image[::-1], 1.0)]).fingerprint,
    }
    assert len(prints) == 4
    assert nets.seeded("microast", [(image, 2.0)]).fingerprint in prints


def test_bad_styles_get_a_sentence(picture):
    image = picture(40, 48).astype(np.float32) / 255
    for styles in (
        [],
        [(image, 0.0)],
        [(image, -1.0), (image, 2.0)],
        [(image[:3], 1.0)],
        [(image[..., :1], 1.0)],
    ):
        with pytest.raises(BadInput, match="style"):
            nets.seeded("microast", styles)
    with pytest.raises(BadInput, match="alpha"):
        nets.seeded("microast", [(image, 1.0)], 1.5)


def test_statistics_must_fit(seeded_style, measured, picture, as_tensor):
    style = seeded_style("microast")
    moments = measured(style, as_tensor(picture(64, 64)))
    with pytest.raises(BadPlan, match="decoder"):
        nets.freeze(style, {"content": moments["content"]})
    with pytest.raises(BadPlan, match="channels"):
        nets.freeze(seeded_style("microast", 1 / 4), moments)


def test_unknown_files_are_no_network(tmp_path):
    with pytest.raises(MissingFile):
        load_frozen(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"not tensors at all")
    with pytest.raises(BadWeights):
        load_frozen(tmp_path / "bad.safetensors")
    with pytest.raises(BadInput, match="microast"):
        nets.build("nosuch", None, [])
