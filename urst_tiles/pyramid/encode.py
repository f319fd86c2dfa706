"""One tile of pixels becomes the bytes that lie in the file.

Pixels are RGB or RGBA, where alpha says how valid a pixel is; or any other number of bands, with or without
alpha behind them. A file can store validity as alpha, as a mask, as a nodata value, or not at all. Pixels are
converted to that form here, tile by tile and last of all, so overviews are always made from the original
pixels with alpha.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import BadPlan
from urst_tiles.tiff.metadata import Validity

codecs: Any = imagecodecs  # its functions also take arrays, which its type stubs do not say

Compression = Literal["deflate", "jpeg", "lzw", "zstd", "webp"]
Resampling = Literal["average", "nearest", "lanczos"]

#: On stylised pictures level 1 of libdeflate is 1.8 times as fast as level 5, and files are no larger
#: (design/output.md).
DEFLATE_LEVEL = 1
ZSTD_LEVEL = 5

#: From this quality on JPEG stores colour at full resolution (4:4:4), as libvips does.
FULL_CHROMA_QUALITY = 90


@dataclass(frozen=True)
class Encoding:
    """How pixels are stored.

    Parameters
    ----------
    compression : codec of the tiles.
    quality : 1 to 100, for JPEG and WebP.
    dtype : "uint8", "uint16" or "float32"; JPEG and WebP store "uint8" only.
    channels : of the pixels to be encoded: ``colours``, or one more where the last is alpha.
    colours : 3 for red, green and blue; any other number of bands is stored as bands without a colour.
    validity : how the file shall mark valid pixels. JPEG and WebP use a mask for RGBA pixels whatever is
        asked for, and nothing for RGB; ``stored_validity`` is the result.
    nodata : the value of invalid pixels, for validity "nodata".
    tile : side of a TIFF tile in pixels, a multiple of 16.
    keeps_hidden : whether the colours of invalid pixels stay, under a mask or alpha, and are not made black.
    predictor : whether deflate, LZW and zstd encode the differences between neighbours.
    overviews : how the smaller levels are made, see `urst_tiles.pyramid.reduce`.
    separate_mask : whether the format of the file has masks; if not, JPEG and WebP lose validity.

    Raises
    ------
    BadPlan : a value is not allowed, or these values do not go together.
    """

    compression: Compression = "deflate"
    quality: int = 90
    dtype: str = "uint8"
    channels: int = 3
    validity: Validity = "none"
    nodata: float | None = None
    tile: int = 512
    keeps_hidden: bool = False
    predictor: bool = True
    overviews: Resampling = "average"
    separate_mask: bool = True
    colours: int = 3

    def __post_init__(self) -> None:
        if self.compression not in get_args(Compression):
            allowed = ", ".join(get_args(Compression))
            raise BadPlan(f"--compression must be one of {allowed}, got {self.compression!r}")
        if self.dtype not in ("uint8", "uint16", "float32"):
            raise BadPlan(f"--dtype must be uint8, uint16 or float32, got {self.dtype!r}")
        if self.lossy and self.colours != 3:
            raise BadPlan(
                f"{self.compression} stores red, green and blue only: take --compression deflate (lzw, zstd)"
                f" for {self.colours} band(s)"
            )
        if self.lossy and self.dtype != "uint8":
            raise BadPlan(
                f"{self.compression} stores 8 bits only: take --compression deflate (lzw, zstd) for"
                f" {self.dtype}, or --dtype uint8"
            )
        if self.lossy and not 1 <= self.quality <= 100:
            raise BadPlan(f"--quality must lie between 1 and 100, got {self.quality}")
        if self.colours < 1 or self.channels not in (self.colours, self.colours + 1):
            raise BadPlan(
                f"pixels of {self.colours} bands have as many channels, or alpha besides, got {self.channels}"
            )
        if self.tile < 16 or self.tile % 16 or self.tile > 16368:
            raise BadPlan(f"a TIFF tile must be a multiple of 16 px, at most 16368, got {self.tile}")
        self._check_validity()

    def _check_validity(self) -> None:
        if self.validity not in get_args(Validity):
            raise BadPlan(f"validity must be one of {', '.join(get_args(Validity))}, got {self.validity!r}")
        if self.alpha and self.validity == "none":
            raise BadPlan("RGBA pixels need a validity (alpha, mask or nodata), got none")
        if not self.alpha and self.validity in ("alpha", "mask"):
            raise BadPlan(f"validity {self.validity} needs RGBA pixels, got RGB")
        if self.validity == "nodata" and self.dtype != "float32":
            top = np.iinfo(self.dtype).max
            if self.nodata is None or not 0 <= self.nodata <= top:
                raise BadPlan(
                    f"nodata must be a whole number from 0 to {top} for {self.dtype}, got {self.nodata}"
                )

    @property
    def alpha(self) -> bool:
        """Whether the last channel of the pixels says how valid they are."""
        return self.channels > self.colours

    @property
    def lossy(self) -> bool:
        """Whether decoded pixels may differ from those that were encoded."""
        return self.compression in ("jpeg", "webp")

    @property
    def stored_validity(self) -> Validity:
        """How the file really marks valid pixels: under JPEG and WebP by a mask, or not at all for RGB."""
        if not self.lossy:
            return self.validity
        return "mask" if self.alpha and self.separate_mask else "none"

    @property
    def masked(self) -> bool:
        """Whether each level has a mask directory."""
        return self.stored_validity == "mask"

    @property
    def binary(self) -> bool:
        """Whether the file can only store that a pixel is valid or invalid, and nothing between."""
        return self.stored_validity in ("mask", "nodata")

    @property
    def samples(self) -> int:
        """Samples per pixel in the file."""
        return self.colours + (self.stored_validity == "alpha")

    @property
    def full_chroma(self) -> bool:
        """Whether JPEG stores colour at full resolution."""
        return self.quality >= FULL_CHROMA_QUALITY

    @property
    def tile_bytes(self) -> int:
        """Bytes of the pixels of one tile before they are encoded."""
        return self.tile * self.tile * self.channels * np.dtype(self.dtype).itemsize


#: JPEG (4:2:0) and WebP encode squares of this side in pixels as a unit, in which colours mix. It divides the
#: side of every tile.
CELL = 16


def encode_tile(pixels: NDArray, encoding: Encoding) -> tuple[bytes, bytes | None]:
    """Encode the pixels of one tile.

    Pixels that do not fill a tile are continued by repeating their last row and column: a sudden change to
    zero would ring under JPEG.

    Parameters
    ----------
    pixels : (h, w, channels), of the encoding's dtype; h and w are at most the side of a tile.
    encoding : how pixels are stored.

    Returns
    -------
    The encoded tile, and the encoded tile of the mask; None where the file has no mask.
    """
    pixels = _fill_tile(pixels, encoding.tile)
    mask = encode_mask(pixels[..., -1] > 0) if encoding.masked else None
    samples = _DRESS[encoding.stored_validity](pixels, encoding)
    return _CODECS[encoding.compression](np.ascontiguousarray(samples), encoding), mask


def encode_mask(valid: NDArray) -> bytes:
    """Encode a mask, bool, (tile, tile): one bit per pixel, most significant first, 1 = valid; deflate."""
    if valid.all() or not valid.any():
        return _constant_mask(valid.shape, bool(valid.flat[0]))
    return codecs.deflate_encode(np.packbits(valid, axis=1), level=DEFLATE_LEVEL)


@lru_cache(maxsize=8)
def _constant_mask(shape: tuple[int, int], value: bool) -> bytes:
    return codecs.deflate_encode(np.packbits(np.full(shape, value), axis=1), level=DEFLATE_LEVEL)


def _fill_tile(pixels: NDArray, tile: int) -> NDArray:
    h, w = pixels.shape[:2]
    return pixels if h == w == tile else np.pad(pixels, ((0, tile - h), (0, tile - w), (0, 0)), mode="edge")


def _dress_none(pixels: NDArray, encoding: Encoding) -> NDArray:
    return pixels[..., : encoding.colours]


def _dress_alpha(pixels: NDArray, encoding: Encoding) -> NDArray:
    """Colours of fully transparent pixels become 0: this compresses well and is always the same."""
    hidden = pixels[..., -1] == 0
    return pixels if encoding.keeps_hidden else _painted(pixels, hidden, 0)


def _dress_mask(pixels: NDArray, encoding: Encoding) -> NDArray:
    """Colours of hidden pixels become 0; under a lossy codec, near valid pixels, the mean of these pixels."""
    if encoding.keeps_hidden:
        return pixels[..., : encoding.colours]
    hidden = pixels[..., -1] == 0
    colour = _painted(pixels[..., : encoding.colours], hidden, 0)
    return _levelled(colour, hidden) if encoding.lossy and hidden.any() else colour


def _levelled(colour: NDArray, hidden: NDArray) -> NDArray:
    """Give hidden pixels the mean colour of the valid pixels in the same square of ``CELL`` pixels.

    Without an edge to 0 there is no ringing into valid pixels. A reader that ignores masks sees black only a
    few pixels further outside.
    """
    n = len(hidden) // CELL
    cells = n, CELL, n, CELL
    count = np.maximum((~hidden).reshape(cells).sum((1, 3), dtype=np.uint32), 1)[..., None]
    mean = (colour.reshape(*cells, 3).sum((1, 3), dtype=np.uint32) + count // 2) // count
    fill = mean.astype(colour.dtype).repeat(CELL, 0).repeat(CELL, 1)
    return np.where(hidden[..., None], fill, colour)


def _dress_nodata(pixels: NDArray, encoding: Encoding) -> NDArray:
    """Valid pixels that equal the nodata value change by one level; invalid pixels become nodata."""
    value = encoding.nodata or 0
    colour = pixels[..., : encoding.colours]
    beside = value + 1 if value == 0 else value - 1
    if colour.dtype.kind == "f":
        beside = float(np.nextafter(np.float32(value), np.float32(np.inf)))
    moved = _painted(colour, (colour == value).all(axis=-1), beside)
    return _painted(moved, pixels[..., -1] == 0, value) if encoding.alpha else moved


def _painted(pixels: NDArray, where: NDArray, value: float) -> NDArray:
    if not where.any():
        return pixels
    out = pixels.copy()
    out[where] = value
    return out


def _float_difference(samples: NDArray) -> NDArray:
    """TIFF Technical Note 3 (predictor 3): the bytes of a row, the most significant of all its floats first,
    each minus the one as many bytes to its left as a pixel has samples."""
    h, w, n = samples.shape
    rows = samples.astype(">f4").view(np.uint8).reshape(h, w * n, 4).transpose(0, 2, 1).reshape(h, -1)
    out = np.empty_like(rows)
    out[:, :n] = rows[:, :n]
    np.subtract(rows[:, n:], rows[:, :-n], out=out[:, n:])
    return out


def _difference(samples: NDArray) -> NDArray:
    """TIFF 6.0, section 14 (predictor 2): each sample minus the one to its left, modulo the type's range."""
    h, _, n = samples.shape
    rows = samples.reshape(h, -1)
    out = np.empty_like(rows)
    out[:, :n] = rows[:, :n]
    np.subtract(rows[:, n:], rows[:, :-n], out=out[:, n:])
    return out


def _predicted(samples: NDArray, encoding: Encoding) -> NDArray:
    if not encoding.predictor:
        return samples
    return _float_difference(samples) if samples.dtype.kind == "f" else _difference(samples)


def _deflate(samples: NDArray, encoding: Encoding) -> bytes:
    return codecs.deflate_encode(_predicted(samples, encoding), level=DEFLATE_LEVEL)


def _lzw(samples: NDArray, encoding: Encoding) -> bytes:
    return codecs.lzw_encode(_predicted(samples, encoding))


def _zstd(samples: NDArray, encoding: Encoding) -> bytes:
    return codecs.zstd_encode(_predicted(samples, encoding), level=ZSTD_LEVEL)


def encode_jpeg(samples: NDArray, quality: int) -> bytes:
    """A complete JPEG stream of RGB pixels, uint8, (h, w, 3), at a quality of 1 to 100."""
    return codecs.jpeg8_encode(
        samples,
        level=quality,
        colorspace="RGB",
        outcolorspace="YCBCR",
        subsampling="444" if quality >= FULL_CHROMA_QUALITY else "420",
    )


def encode_webp(samples: NDArray, quality: int) -> bytes:
    """A WebP of RGB or RGBA pixels, uint8, (h, w, 3 or 4), at a quality of 1 to 100."""
    return codecs.webp_encode(samples, level=float(quality), lossless=False, method=2)


def _jpeg(samples: NDArray, encoding: Encoding) -> bytes:
    """A complete JPEG stream with tables, which take 0.6 kB per tile; every reader can decode it."""
    return encode_jpeg(samples, encoding.quality)


def _webp(samples: NDArray, encoding: Encoding) -> bytes:
    return encode_webp(samples, encoding.quality)


_DRESS: dict[Validity, Callable[[NDArray, Encoding], NDArray]] = {
    "none": _dress_none,
    "alpha": _dress_alpha,
    "mask": _dress_mask,
    "nodata": _dress_nodata,
}

_CODECS: dict[Compression, Callable[[NDArray, Encoding], bytes]] = {
    "deflate": _deflate,
    "jpeg": _jpeg,
    "lzw": _lzw,
    "zstd": _zstd,
    "webp": _webp,
}
