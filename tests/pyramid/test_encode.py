"""One tile: what is refused, what is stored for whom, and that it decodes."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest

from urst_tiles.errors import BadPlan
from urst_tiles.pyramid.encode import Encoding, encode_mask, encode_tile

LOSSLESS = {
    "deflate": imagecodecs.zlib_decode,
    "lzw": imagecodecs.lzw_decode,
    "zstd": imagecodecs.zstd_decode,
}


def tile(channels=3, dtype=np.uint8, shape=(32, 32), seed=0):
    top = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, top, (*shape, channels), dtype, endpoint=True)


def decoded(data, encoding):
    """(tile, tile, samples), by codecs and NumPy's own sum."""
    shape = encoding.tile, encoding.tile, encoding.samples
    if encoding.lossy:
        return {"jpeg": imagecodecs.jpeg_decode, "webp": imagecodecs.webp_decode}[encoding.compression](data)
    raw = np.frombuffer(LOSSLESS[encoding.compression](data), encoding.dtype).reshape(shape)
    return np.cumsum(raw, axis=1, dtype=encoding.dtype)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"compression": "jpeg", "dtype": "uint16"}, "8 bits"),
        ({"compression": "webp", "dtype": "uint16"}, "8 bits"),
        ({"compression": "png"}, "--compression"),
        ({"compression": "jpeg", "quality": 0}, "--quality"),
        ({"dtype": "float64"}, "--dtype"),
        ({"channels": 2}, "channels"),
        ({"channels": 4}, "needs? a validity"),
        ({"validity": "alpha"}, "RGBA"),
        ({"channels": 4, "validity": "perhaps"}, "validity"),
        ({"channels": 4, "validity": "nodata"}, "nodata"),
        ({"channels": 4, "validity": "nodata", "nodata": 256}, "nodata"),
        ({"tile": 100}, "16"),
        ({"tile": 32768}, "16368"),
    ],
)
def test_what_no_reader_understands_is_refused(facts, words):
    with pytest.raises(BadPlan, match=words):
        Encoding(**facts)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("compression", LOSSLESS)
@pytest.mark.parametrize("channels", [3, 4])
def test_lossless_codecs_are(compression, dtype, channels):
    encoding = Encoding(
        compression, dtype=dtype, channels=channels, validity="alpha" if channels == 4 else "none", tile=32
    )
    pixels = np.maximum(tile(channels, np.dtype(dtype).type), 1)
    data, mask = encode_tile(pixels, encoding)
    assert mask is None
    np.testing.assert_array_equal(decoded(data, encoding), pixels)


@pytest.mark.parametrize(("quality", "most"), [(100, 3), (92, 10), (60, 40)])
@pytest.mark.parametrize("compression", ["jpeg", "webp"])
def test_lossy_codecs_are_near_and_smaller(compression, quality, most):
    y, x = np.mgrid[:64, :64]
    pixels = np.stack([2 * y + x, 255 - 2 * x, y + 100], -1).astype(np.uint8)
    encoding = Encoding(compression, quality, tile=64)
    data, _ = encode_tile(pixels, encoding)
    assert np.abs(decoded(data, encoding).astype(int) - pixels).mean() < most
    assert len(data) < pixels.nbytes // 2


def test_quality_counts():
    sizes = [len(encode_tile(tile(), Encoding("webp", quality, tile=32))[0]) for quality in (20, 80, 100)]
    assert sizes == sorted(sizes) and sizes[0] < sizes[2]


@pytest.mark.parametrize("shape", [(1, 1), (7, 32), (32, 5), (31, 31)])
def test_edge_tiles_are_filled_by_replication(shape):
    encoding = Encoding(channels=4, validity="alpha", tile=32)
    pixels = tile(4, shape=shape) | 1
    result = decoded(encode_tile(pixels, encoding)[0], encoding)
    expected = np.pad(pixels, ((0, 32 - shape[0]), (0, 32 - shape[1]), (0, 0)), mode="edge")
    np.testing.assert_array_equal(result, expected)


def test_hidden_colours_are_stored_as_zero_beside_alpha():
    pixels = tile(4)
    pixels[:, :10, 3] = 0
    encoding = Encoding(channels=4, validity="alpha", tile=32)
    result = decoded(encode_tile(pixels, encoding)[0], encoding)
    assert not result[:, :10].any()
    np.testing.assert_array_equal(result[:, 10:], np.where(pixels[:, 10:, 3:] > 0, pixels[:, 10:], 0))


@pytest.mark.parametrize(
    ("dtype", "nodata", "moved"), [("uint8", 0, 1), ("uint8", 255, 254), ("uint16", 7, 6)]
)
def test_a_valid_pixel_that_reads_as_nodata_moves_one_level(dtype, nodata, moved):
    pixels = np.full((32, 32, 4), nodata, dtype)
    pixels[..., 3] = np.iinfo(dtype).max
    pixels[5, 5, 3] = 0
    pixels[6, 6, 0] = 99
    pixels[7, 7, 3] = 1
    encoding = Encoding(dtype=dtype, channels=4, validity="nodata", nodata=nodata, tile=32)
    result = decoded(encode_tile(pixels, encoding)[0], encoding)
    assert result[0, 0].tolist() == [moved] * 3
    assert result[5, 5].tolist() == [nodata] * 3
    assert result[6, 6].tolist() == [99, nodata, nodata]
    assert result[7, 7].tolist() == [moved] * 3, "partly transparent counts as valid"


def test_rgb_may_have_nodata_that_nothing_reads_as():
    encoding = Encoding(validity="nodata", nodata=0, tile=32)
    assert (decoded(encode_tile(np.zeros((32, 32, 3), np.uint8), encoding)[0], encoding) == 1).all()


@pytest.mark.parametrize("validity", ["alpha", "mask", "nodata"])
@pytest.mark.parametrize("compression", ["jpeg", "webp"])
def test_lossy_files_tell_validity_by_a_mask(compression, validity):
    pixels = tile(4)
    pixels[:9, :, 3], pixels[9:, :, 3] = 0, 3
    encoding = Encoding(compression, channels=4, validity=validity, nodata=0, tile=32)
    assert encoding.stored_validity == "mask" and encoding.samples == 3
    data, mask = encode_tile(pixels, encoding)
    assert decoded(data, encoding).shape == (32, 32, 3)
    bits = np.unpackbits(np.frombuffer(imagecodecs.zlib_decode(mask), np.uint8)).reshape(32, 32)
    np.testing.assert_array_equal(bits, pixels[..., 3] > 0)


@pytest.mark.parametrize("quality", [60, 92])
def test_a_hole_does_not_ring_into_valid_pixels(quality):
    """A bright flat picture with a round hole: beside the hole it is as exact as without one."""
    y, x = np.mgrid[:64, :64]
    pixels = np.full((64, 64, 4), 240, np.uint8)
    pixels[..., 3] = np.where(np.hypot(y - 30, x - 35) < 19, 0, 255)
    pixels[pixels[..., 3] == 0] = 0
    encoding = Encoding("jpeg", quality, channels=4, validity="mask", tile=64)
    result = decoded(encode_tile(pixels, encoding)[0], encoding)
    assert np.abs(result[pixels[..., 3] > 0].astype(int) - 240).max() <= 1
    assert result[20:30, 34:44].max() == 0, "cells without a valid pixel stay black"


def test_what_is_hidden_does_not_change_the_bytes():
    pixels = tile(4)
    pixels[5:20, 3:30, 3] = 0
    other = np.where(pixels[..., 3:] > 0, pixels, 0)
    for compression in ("deflate", "jpeg", "webp"):
        encoding = Encoding(compression, channels=4, validity="mask", tile=32)
        assert encode_tile(pixels, encoding) == encode_tile(other, encoding)


def test_masks_of_one_value_are_made_once():
    assert encode_mask(np.ones((32, 32), bool)) is encode_mask(np.ones((32, 32), bool))
    assert encode_mask(np.zeros((32, 32), bool)) != encode_mask(np.ones((32, 32), bool))


@pytest.mark.parametrize("compression", ["deflate", "lzw", "zstd", "jpeg", "webp"])
def test_same_pixels_same_bytes(compression):
    encoding = Encoding(compression, tile=32)
    pixels = tile()
    shifted = np.zeros((40, 40, 3), np.uint8)
    shifted[4:36, 5:37] = pixels
    assert encode_tile(pixels, encoding) == encode_tile(shifted[4:36, 5:37], encoding)
