"""One tile of pixels becomes the bytes that lie in the file.

Pixels come as RGB or RGBA; what the file says about validity (nothing, alpha, a mask, nodata) is decided
here, tile by tile, so that overviews are always made from the RGBA that came in.
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

codecs: Any = imagecodecs  # its stubs know bytes only, arrays are taken as well

Compression = Literal["deflate", "jpeg", "lzw", "zstd", "webp"]

#: On stylised pictures libdeflate's level 1 is 1.8 times as fast as 5, and no larger (design/output.md).
DEFLATE_LEVEL = 1
ZSTD_LEVEL = 5

#: From this quality on JPEG keeps its colours at full resolution (4:4:4), as libvips does.
FULL_CHROMA_QUALITY = 90


@dataclass(frozen=True)
class Encoding:
    """How pixels are stored.

    Parameters
    ----------
    compression : codec of the tiles.
    quality : 1 to 100, for JPEG and WebP.
    dtype : "uint8" or "uint16".
    channels : 3 (RGB) or 4 (RGBA), of the pixels handed in.
    validity : how the file shall tell which pixels are valid. JPEG and WebP tell everything by a mask.
    nodata : the value of invalid pixels, for validity "nodata".
    tile : side of a TIFF tile in pixels, a multiple of 16.

    Raises
    ------
    BadPlan : for combinations that no reader would understand.
    """

    compression: Compression = "deflate"
    quality: int = 90
    dtype: str = "uint8"
    channels: int = 3
    validity: Validity = "none"
    nodata: int | None = None
    tile: int = 512

    def __post_init__(self) -> None:
        if self.compression not in get_args(Compression):
            allowed = ", ".join(get_args(Compression))
            raise BadPlan(f"--compression must be one of {allowed}, got {self.compression!r}")
        if self.dtype not in ("uint8", "uint16"):
            raise BadPlan(f"--dtype must be uint8 or uint16, got {self.dtype!r}")
        if self.lossy and self.dtype == "uint16":
            raise BadPlan(
                f"{self.compression} stores 8 bits only: take --compression deflate (lzw, zstd) for uint16, "
                "or --dtype uint8"
            )
        if self.lossy and not 1 <= self.quality <= 100:
            raise BadPlan(f"--quality must lie between 1 and 100, got {self.quality}")
        if self.channels not in (3, 4):
            raise BadPlan(f"pixels must be RGB or RGBA, got {self.channels} channels")
        if self.tile < 16 or self.tile % 16 or self.tile > 16368:
            raise BadPlan(f"a TIFF tile must be a multiple of 16 px, at most 16368, got {self.tile}")
        self._check_validity()

    def _check_validity(self) -> None:
        if self.validity not in get_args(Validity):
            raise BadPlan(f"validity must be one of {', '.join(get_args(Validity))}, got {self.validity!r}")
        if self.channels == 4 and self.validity == "none":
            raise BadPlan("RGBA pixels need a validity (alpha, mask or nodata), got none")
        if self.channels == 3 and self.validity in ("alpha", "mask"):
            raise BadPlan(f"validity {self.validity} needs RGBA pixels, got RGB")
        if self.validity == "nodata":
            top = np.iinfo(self.dtype).max
            if self.nodata is None or not 0 <= self.nodata <= top:
                raise BadPlan(
                    f"nodata must be a whole number from 0 to {top} for {self.dtype}, got {self.nodata}"
                )

    @property
    def lossy(self) -> bool:
        """Whether decoding gives other pixels than were written."""
        return self.compression in ("jpeg", "webp")

    @property
    def stored_validity(self) -> Validity:
        """How the file tells validity in the end."""
        if not self.lossy:
            return self.validity
        return "mask" if self.channels == 4 else "none"

    @property
    def masked(self) -> bool:
        """Whether each level has a mask directory."""
        return self.stored_validity == "mask"

    @property
    def binary(self) -> bool:
        """Whether validity knows only yes and no."""
        return self.stored_validity in ("mask", "nodata")

    @property
    def samples(self) -> int:
        """Samples per pixel in the file."""
        return 4 if self.stored_validity == "alpha" else 3

    @property
    def full_chroma(self) -> bool:
        """Whether JPEG stores colour at full resolution."""
        return self.quality >= FULL_CHROMA_QUALITY

    @property
    def tile_bytes(self) -> int:
        """Raw bytes of one tile as handed in."""
        return self.tile * self.tile * self.channels * np.dtype(self.dtype).itemsize


#: Side of the cell in which hidden colours touch visible ones under JPEG (4:2:0) and WebP; divides any tile.
CELL = 16


def encode_tile(pixels: NDArray, encoding: Encoding) -> tuple[bytes, bytes | None]:
    """RGB or RGBA, (h, w, channels), at most a tile -> (encoded image tile, encoded mask tile or None).

    A smaller tile is filled by replicating its last row and column: zeros would ring under JPEG.
    """
    pixels = _fill_tile(pixels, encoding.tile)
    mask = encode_mask(pixels[..., 3] > 0) if encoding.masked else None
    samples = _DRESS[encoding.stored_validity](pixels, encoding)
    return _CODECS[encoding.compression](np.ascontiguousarray(samples), encoding), mask


def encode_mask(valid: NDArray) -> bytes:
    """bool, (tile, tile) -> one bit per pixel, most significant first, 1 = valid; deflate."""
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
    return pixels[..., :3]


def _dress_alpha(pixels: NDArray, encoding: Encoding) -> NDArray:
    """What nobody sees is stored as 0: it compresses, and does not depend on how the invalid was filled."""
    hidden = pixels[..., 3] == 0
    return _painted(pixels, hidden, 0)


def _dress_mask(pixels: NDArray, encoding: Encoding) -> NDArray:
    """As alpha; under lossy codecs the hidden part of a half-visible cell is levelled, not zeroed."""
    hidden = pixels[..., 3] == 0
    colour = _painted(pixels[..., :3], hidden, 0)
    return _levelled(colour, hidden) if encoding.lossy and hidden.any() else colour


def _levelled(colour: NDArray, hidden: NDArray) -> NDArray:
    """Hidden pixels take the mean of the valid ones in their cell, the largest unit of JPEG and WebP.

    No edge to 0 rings into valid pixels, and readers that know no masks see black a few pixels further.
    """
    n = len(hidden) // CELL
    cells = n, CELL, n, CELL
    count = np.maximum((~hidden).reshape(cells).sum((1, 3), dtype=np.uint32), 1)[..., None]
    mean = (colour.reshape(*cells, 3).sum((1, 3), dtype=np.uint32) + count // 2) // count
    fill = mean.astype(colour.dtype).repeat(CELL, 0).repeat(CELL, 1)
    return np.where(hidden[..., None], fill, colour)


def _dress_nodata(pixels: NDArray, encoding: Encoding) -> NDArray:
    """Valid pixels that would read as nodata move one level, the invalid become nodata."""
    value = encoding.nodata or 0
    colour = pixels[..., :3]
    moved = _painted(colour, (colour == value).all(axis=-1), value + 1 if value == 0 else value - 1)
    return moved if pixels.shape[-1] == 3 else _painted(moved, pixels[..., 3] == 0, value)


def _painted(pixels: NDArray, where: NDArray, value: int) -> NDArray:
    if not where.any():
        return pixels
    out = pixels.copy()
    out[where] = value
    return out


def _difference(samples: NDArray) -> NDArray:
    """TIFF 6.0, section 14 (predictor 2): each sample minus the one to its left, modulo the type's range."""
    h, _, n = samples.shape
    rows = samples.reshape(h, -1)
    out = np.empty_like(rows)
    out[:, :n] = rows[:, :n]
    np.subtract(rows[:, n:], rows[:, :-n], out=out[:, n:])
    return out


def _deflate(samples: NDArray, encoding: Encoding) -> bytes:
    return codecs.deflate_encode(_difference(samples), level=DEFLATE_LEVEL)


def _lzw(samples: NDArray, encoding: Encoding) -> bytes:
    return codecs.lzw_encode(_difference(samples))


def _zstd(samples: NDArray, encoding: Encoding) -> bytes:
    return codecs.zstd_encode(_difference(samples), level=ZSTD_LEVEL)


def _jpeg(samples: NDArray, encoding: Encoding) -> bytes:
    """A whole JPEG stream with its own tables: 0.6 kB per tile, and every reader takes it."""
    return codecs.jpeg8_encode(
        samples,
        level=encoding.quality,
        colorspace="RGB",
        outcolorspace="YCBCR",
        subsampling="444" if encoding.full_chroma else "420",
    )


def _webp(samples: NDArray, encoding: Encoding) -> bytes:
    return codecs.webp_encode(samples, level=float(encoding.quality), lossless=False, method=2)


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
