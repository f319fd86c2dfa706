"""PNG and JPEG that are made in pieces are the streams that other encoders and decoders know."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import imagecodecs
import numpy as np
import pytest
import pyvips
from helpers import picture

from urst_tiles.pyramid.encode import encode_jpeg
from urst_tiles.pyramid.jpeg import write_jpeg
from urst_tiles.pyramid.png import write_png

JFIF = (0xE0, b"JFIF\0\1\2\0\0\1\0\1\0\0")


def strips(pixels: np.ndarray, side: int) -> Iterator[np.ndarray]:
    return (pixels[y : y + side] for y in range(0, len(pixels), side))


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("shape", [(1, 1), (63, 5), (129, 300), (512, 7), (700, 33)])
def test_png(shape: tuple[int, int], dtype: str, channels: int) -> None:
    pixels = np.dstack([picture(*shape), picture(*shape, seed=1)])[..., :channels].astype(dtype)
    pixels = pixels * np.array(251 if dtype == "uint16" else 1, dtype)
    file = io.BytesIO()
    with ThreadPoolExecutor(2) as pool:
        write_png(file, strips(pixels, 128), pixels.shape, dtype, [], pool)
    read = pyvips.Image.new_from_buffer(file.getvalue(), "", fail_on="warning").numpy()
    np.testing.assert_array_equal(read, pixels)
    np.testing.assert_array_equal(imagecodecs.png_decode(file.getvalue()), pixels)
    assert len(file.getvalue()) < 1.15 * len(imagecodecs.png_encode(pixels)) + 400


@pytest.mark.parametrize("quality", [50, 85, 90, 100])
@pytest.mark.parametrize("shape", [(1, 1), (15, 40), (16, 16), (129, 300), (700, 33)])
def test_jpeg(shape: tuple[int, int], quality: int) -> None:
    """Decoded it is what the whole picture is when it is encoded at once."""
    pixels, file = picture(*shape), io.BytesIO()
    with ThreadPoolExecutor(2) as pool:
        write_jpeg(file, strips(pixels, 128), shape, quality, [JFIF], pool)
    whole = encode_jpeg(pixels, quality)
    read = pyvips.Image.new_from_buffer(file.getvalue(), "", fail_on="warning").numpy()
    np.testing.assert_array_equal(read, pyvips.Image.new_from_buffer(whole, "").numpy())
    np.testing.assert_array_equal(imagecodecs.jpeg8_decode(file.getvalue()), imagecodecs.jpeg8_decode(whole))
