"""The picture is the float32 picture: 16 bit differs by at most 1 level on average, and 40 dB at least, on
real images."""

from __future__ import annotations

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from peaks import peak_bytes
from PIL import Image

from urst_tiles import nets, weights
from urst_tiles.engine.kernel import Kernel
from urst_tiles.geometry import Box
from urst_tiles.nets import adain, named_styles

SIDE = 256
IMAGES = ("drone", "ortho", "night lights", "space")


def crop(inputs: Path, name: str) -> np.ndarray:
    """uint8 (SIDE, SIDE, 3) of a real image: textured ones, and nearly black ones, on which sites amplify
    most."""
    if name == "night lights":
        path = inputs / "geotiff" / "nasa_black_marble_2012_z7_32768_bigtiff_jpeg_3857.tif"
        with rasterio.open(path) as file:
            return file.read([1, 2, 3], window=((11000, 11000 + SIDE), (16000, 16000 + SIDE))).transpose(
                1, 2, 0
            )
    places = {
        "drone": ("brighton_DJI_0018.JPG", 500, 500),
        "ortho": ("aukerman_ortho.png", 200, 200),
        "space": ("nasa_pia19808.webp", 200, 200),
    }
    file_name, y, x = places[name]
    with Image.open(inputs / "photo" / file_name) as file:
        return np.asarray(file.convert("RGB").crop((x, y, x + SIDE, y + SIDE)))


def levels_of(net, precision, image):
    box = Box(0, 0, *image.shape[:2])
    return Kernel(net, precision=precision).run(image[None], [box], [box])[0].astype(float)


def check(style, image, precision, measured, as_tensor):
    net = nets.freeze(style, measured(style, as_tensor(image)))
    true, got = levels_of(net, "float32", image), levels_of(net, precision, image)
    difference = true - got
    psnr = 10 * np.log10(255**2 / max((difference**2).mean(), 1e-12))
    assert psnr >= 40, f"{psnr:.1f} dB"
    assert np.abs(difference).mean() <= 1
    assert difference.any(), "nothing was computed in 16 bit"


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", IMAGES)
def test_microast(name, precision, inputs, weights_dir, official, measured, as_tensor):
    style = nets.build("microast", weights_dir, [(official["style"].astype(np.float32) / 255, 1.0)])
    check(style, crop(inputs, name), precision, measured, as_tensor)


@pytest.mark.parametrize("style", ["hokusai-wave", "kandinsky-vii", "mondrian-composition"])
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", IMAGES)
def test_lite(name, precision, style, inputs, measured, as_tensor):
    check(
        nets.build("lite", None, [(named_styles.features(style), 1.0)]),
        crop(inputs, name),
        precision,
        measured,
        as_tensor,
    )


def standin(weights_dir: Path, art: np.ndarray):
    """AdaIN with trained weights: Collaborative Distillation's level-4 nets have its form at a quarter of
    the width."""
    names = [
        "conv0",
        "conv11",
        "conv12",
        "conv21",
        "conv22",
        "conv31",
        "conv32",
        "conv33",
        "conv34",
        "conv41",
    ]
    states = {}
    for file, source, convs, order in (
        (adain.ENCODER, "4SE.pth", adain.ENCODER_CONVS, names),
        (adain.DECODER, "4SD.pth", adain.DECODER_CONVS, names[:0:-1]),
    ):
        path = weights_dir / "collaborative_wct" / source
        state = torch.load(path, weights_only=True, map_location="cpu")["model"]
        parts = ("weight", "bias")
        states[file] = {
            f"{i}.{p}": state[f"{n}.{p}"] for i, n in zip(convs, order, strict=True) for p in parts
        }
    return adain.build(states, [(art.astype(np.float32) / 255, 1.0)])


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", IMAGES)
def test_adain(name, precision, inputs, weights_dir, official, measured, as_tensor):
    check(standin(weights_dir, official["style"]), crop(inputs, name), precision, measured, as_tensor)


@pytest.mark.parametrize("name", IMAGES)
def test_adain_with_its_own_weights(name, inputs, weights_dir, official, measured, as_tensor, tmp_path):
    files = {name: weights_dir / "adain" / name for name in (adain.ENCODER, adain.DECODER)}
    weights.add("adain", files, tmp_path)
    style = nets.build("adain", tmp_path, [(official["style"].astype(np.float32) / 255, 1.0)])
    check(style, crop(inputs, name), "bfloat16", measured, as_tensor)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", IMAGES)
def test_wct_16x(name, precision, inputs, weights_dir, official, measured, as_tensor):
    style = nets.build("wct-16x", weights_dir, [(official["style"].astype(np.float32) / 255, 1.0)])
    check(style, crop(inputs, name), precision, measured, as_tensor)


@pytest.mark.parametrize("model", nets.MODELS)
def test_auto_takes_bfloat16_only_where_it_is_fast(model, monkeypatch):
    monkeypatch.setattr(nets.families, "cpu_multiplies_bfloat16", lambda: False)
    assert nets.best_precision(model, "cpu") == "float32"
    monkeypatch.setattr(nets.families, "cpu_multiplies_bfloat16", lambda: True)
    assert nets.best_precision(model, "cpu") == nets.MODELS[model].precisions["cpu"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("model", "side"),
    [
        ("lite", 1120),
        ("microast", 1128),
        ("adain", 1152),
        ("fast", 1136),
        ("ghiasi", 1136),
        ("multimodal", 1536),
        ("wct-16x", 1536),
    ],
)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_bytes_per_pixel_is_an_upper_bound_and_not_a_wild_one(model, side, precision, seeded_style, frozen):
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=fresh) as pool:  # unlike Pool, says when its process died
        measured = pool.submit(peak_bytes, model, precision, side).result()
    told = frozen(model, 1.0).bytes_per_pixel(precision)
    assert 0.5 * told <= measured <= told
