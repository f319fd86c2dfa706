"""Style images: any kind, upright, resized; previews written whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import pyvips
import tifffile
from helpers import picture

from urst_tiles.errors import BadInput, MissingFile
from urst_tiles.source import picture as module
from urst_tiles.source.open import open_source
from urst_tiles.source.picture import own_side, picture_of, read_picture, write_png


def saved(path: Path, pixels: np.ndarray, interpretation: str = "srgb", **options: object) -> Path:
    pyvips.Image.new_from_array(pixels).copy(interpretation=interpretation).write_to_file(
        str(path), **options
    )
    return path


def test_resized_to_its_short_side(tmp_path: Path) -> None:
    got = read_picture(saved(tmp_path / "a.png", picture(200, 300)), 100)
    assert got.shape == (100, 150, 3) and got.dtype == np.float32 and 0 <= got.min() < got.max() <= 1


def test_the_same_size_is_the_same_pixels(tmp_path: Path) -> None:
    pixels = picture(120, 90)
    got = read_picture(saved(tmp_path / "a.png", pixels), 90)
    np.testing.assert_array_equal(np.rint(got * 255), pixels)


def test_grey_sixteen_bit_tiny_and_alpha(tmp_path: Path) -> None:
    pixels = picture(64, 80)
    grey = read_picture(saved(tmp_path / "g.png", pixels[..., :1], "b-w"), 64)
    assert (grey[..., 0] == grey[..., 2]).all()
    wide = read_picture(saved(tmp_path / "w.png", pixels.astype(np.uint16) * 257, "rgb16"), 64)
    np.testing.assert_allclose(wide, pixels / 255, atol=1.5 / 255)
    assert read_picture(saved(tmp_path / "t.png", picture(16, 16)), 256).shape == (256, 256, 3)
    clear = np.dstack([pixels, np.zeros((64, 80), np.uint8)])
    assert (read_picture(saved(tmp_path / "c.png", clear), 64) == 1).all()


def test_a_turned_photo_is_upright_and_not_squeezed(tmp_path: Path) -> None:
    pixels = picture(200, 300)
    image = pyvips.Image.new_from_array(pixels).copy(interpretation="srgb")
    image.set_type(pyvips.GValue.gint_type, "orientation", 6)
    image.write_to_file(str(tmp_path / "a.jpg"), Q=100)
    got = read_picture(tmp_path / "a.jpg", 200)
    assert got.shape == (300, 200, 3)
    assert np.abs(got - np.rot90(pixels, -1) / 255).mean() < 0.05


def test_what_libvips_cannot_decode_is_read_by_another_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """zstd inside TIFF, which this package writes and the wheel of libvips was built without."""
    pixels = picture(120, 180)
    tifffile.imwrite(tmp_path / "zstd.tif", pixels, compression="zstd", photometric="rgb")
    tifffile.imwrite(tmp_path / "plain.tif", pixels, photometric="rgb")
    got, wanted = (read_picture(tmp_path / name, 60) for name in ("zstd.tif", "plain.tif"))
    assert got.shape == wanted.shape == (60, 90, 3) and got.dtype == np.float32
    assert np.abs(got - wanted).mean() < 0.02
    assert own_side(tmp_path / "zstd.tif") == 120
    monkeypatch.setattr(module, "MAX_PIXELS", 120 * 180 - 1)
    for name in ("zstd.tif", "plain.tif"):
        with pytest.raises(BadInput, match=f"{name} has 180 x 120 pixels; make it smaller"):
            read_picture(tmp_path / name, 60)


def test_a_source_as_a_picture(tmp_path: Path) -> None:
    """Values are stretched as in a job, one band is grey, and what is not valid is white."""
    ramp = np.linspace(300, 900, 64 * 64).reshape(64, 64).astype(np.uint16)
    tifffile.imwrite(tmp_path / "dark.tif", ramp)
    got = picture_of(open_source(tmp_path / "dark.tif", stretch="300,900"), 64)
    np.testing.assert_allclose(got[..., 0], (ramp - 300) / 600, atol=1e-4)
    assert (got[..., 0] == got[..., 2]).all()
    clear = np.dstack([picture(64, 64), np.zeros((64, 64), np.uint8)])
    clear[:32, :, 3] = 255
    half = picture_of(open_source(saved(tmp_path / "clear.png", clear)), 64)
    assert (half[32:] == 1).all()
    np.testing.assert_allclose(half[:32], clear[:32, :, :3] / 255, atol=1e-6)
    assert picture_of(open_source(tmp_path / "clear.png"), 128).shape == (128, 128, 3)


def test_bad_ones_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="no.png"):
        read_picture(tmp_path / "no.png", 64)
    (tmp_path / "bad.png").write_text("no image")
    with pytest.raises(BadInput, match="bad.png"):
        read_picture(tmp_path / "bad.png", 64)


def test_png(tmp_path: Path) -> None:
    pixels = picture(50, 60)
    write_png(tmp_path / "a.png", pixels)
    np.testing.assert_array_equal(pyvips.Image.new_from_file(str(tmp_path / "a.png")).numpy(), pixels)
    with pytest.raises(MissingFile, match="make it first"):
        write_png(tmp_path / "no" / "a.png", pixels)
