"""Validity inside the streams of tiles and strips: the masks of LERC, and alpha that no directory lists.

LERC says for every pixel whether it holds data. GDAL stores holes of NaN in this way, and the alpha of RGBA
where it is 0 or 255; Esri's writers use it for pixels of any type. WebP, JPEG 2000 and JPEG XL can hold a
band of alpha more than the directory lists.

References: libtiff, tif_lerc.c (tag 50674, LercParameters: version, compression behind it); the header of
Esri's Lerc2; RFC 9649 (WebP).
"""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from urst_tiles.tiff.bytes import FileBytes
from urst_tiles.tiff.chroma import JPEG2000
from urst_tiles.tiff.layout import Layout
from urst_tiles.tiff.streams import SIZES, lerc_blobs

LERC, WEBP, JPEG_XL = 34887, 50001, {50002, 52546}

#: Compressions whose streams may hold alpha that the directory does not list.
WITH_ALPHA = {WEBP} | JPEG2000 | JPEG_XL

#: So many streams, evenly spread over the page, and so many bytes of the start of each, are looked at.
MOST_STREAMS, HEAD_BYTES = 65536, 1024

#: Streams of LERC are looked at whole, up to so many bytes together; beyond them any may have a mask.
MOST_LERC_BYTES = 64 << 20


class Segment(NamedTuple):
    """A decoded tile or strip.

    Attributes
    ----------
    samples : (h, w, samples).
    valid : bool, (h, w): False where its stream marks pixels as invalid; None if it marks none.
    """

    samples: NDArray[Any]
    valid: NDArray[np.bool_] | None = None


def lerc_stream(data: bytes, behind: int, most: int) -> bytes:
    """The stream of LERC in the bytes of a segment.

    Parameters
    ----------
    data : the bytes.
    behind : the compression behind LERC: 0 none, 1 deflate, 2 zstd.
    most : bytes that the stream may have.

    Raises
    ------
    ValueError : the bytes are damaged, or hold more.
    """
    if behind == 0:
        return data
    if behind == 1:
        inflate = zlib.decompressobj()
        stream = inflate.decompress(data, most)
        if not inflate.eof:
            raise ValueError("its deflate stream ends early, or is too long")
        return stream
    if behind == 2:
        return bytes(imagecodecs.zstd_decode(data, out=most))
    raise ValueError(f"an unknown compression ({behind}) lies behind LERC")


def decode_lerc(stream: bytes, samples: int, alpha: bool, order: str) -> Segment:
    """Decode a stream of LERC, (h, w, samples), from a file of that byte order.

    As in libtiff, masked floats become NaN, and where the stream has a band less than the page, whose last is
    alpha, its mask is that band, with 0 and the largest value of the type. Any other mask marks invalid
    pixels. The numbers in a big-endian file (">") have their bytes swapped: libtiff swaps them before it
    encodes them.

    Raises
    ------
    ValueError : the stream holds another number of bands.
    """
    decoded: Any
    mask: Any
    decoded, mask = imagecodecs.lerc_decode(stream, masks=True)
    decoded = np.asarray(decoded)
    decoded = decoded.byteswap() if order == ">" else decoded
    if mask is not None and mask.ndim == 3 or len(list(lerc_blobs(stream))) > 1:  # bands one after another
        decoded, mask = np.moveaxis(decoded, 0, -1), None if mask is None else np.moveaxis(mask, 0, -1)
    if decoded.ndim == 2:
        decoded = decoded[..., None]
    there: NDArray[np.bool_] | None = (
        None if mask is None else np.broadcast_to(mask.reshape(*decoded.shape[:2], -1), decoded.shape)
    )
    if decoded.shape[-1] == samples - 1 and alpha:
        top = np.iinfo(decoded.dtype).max if decoded.dtype.kind in "ui" else 1
        full = np.ones(decoded.shape[:2], bool) if there is None else there[..., 0]
        band = np.where(full, decoded.dtype.type(top), decoded.dtype.type(0))
        return Segment(np.dstack([decoded, band]))
    if there is None:
        return Segment(decoded)
    if decoded.dtype.kind == "f":
        return Segment(np.where(there, decoded, decoded.dtype.type(np.nan)))
    return Segment(decoded, np.asarray(there.all(axis=-1)))


def lerc_may_mask(file: FileBytes, layout: Layout, behind: int) -> bool:
    """Whether any segment of a page marks pixels as invalid by LERC's mask.

    Segments that are damaged are passed over: reading them raises the error.
    """
    there = np.flatnonzero(layout.counts)
    if there.size > MOST_STREAMS or int(layout.counts.sum()) > MOST_LERC_BYTES:
        return True
    for index in there.tolist():
        data = file(int(layout.offsets[index]), int(layout.counts[index]))
        try:
            blobs = lerc_blobs(lerc_stream(data, behind, lerc_most(layout)))
            if any(blob.valid < blob.size.height * blob.size.width for blob in blobs):
                return True
        except Exception:
            continue
    return False


def lerc_most(layout: Layout) -> int:
    """Bytes that a stream of LERC may have in a segment of this layout: it never enlarges samples by half."""
    return 2 * layout.segment_bytes + 4096


def holds_alpha(file: FileBytes, layout: Layout, compression: int) -> bool:
    """Whether streams of a page hold a band of alpha more than the ``layout.samples`` of its directory."""
    there = np.flatnonzero(layout.counts)
    for index in there[:: 1 + there.size // MOST_STREAMS].tolist():
        head = file(int(layout.offsets[index]), min(int(layout.counts[index]), HEAD_BYTES))
        try:
            if _has_alpha(compression, head, layout.samples):
                return True
        except Exception:  # a damaged stream raises its error when it is read
            continue
    return False


def _has_alpha(compression: int, head: bytes, samples: int) -> bool:
    """Whether the start of a stream says that it has a band of alpha more than ``samples``."""
    if compression == WEBP:
        if head[12:16] == b"VP8X":
            return bool(head[20] & 0x10)
        at = 20 if head[12:16] == b"VP8L" else 0 if head[:1] == b"\x2f" else -1
        return at >= 0 and bool(head[at + 4] & 0x10)
    bands = max(size.bands for size in SIZES[compression](head))
    # JPEG XL counts its colours as three, also where it has one.
    return bands == 4 if compression in JPEG_XL else bands == samples + 1


def with_opaque(samples: NDArray[Any], wanted: int) -> NDArray[Any]:
    """Samples, (h, w, bands), with a band of opaque alpha where they have one less than ``wanted``."""
    if samples.shape[-1] != wanted - 1 or samples.dtype.kind not in "uif":
        return samples
    top = np.iinfo(samples.dtype).max if samples.dtype.kind in "ui" else 1
    return np.dstack([samples, np.full(samples.shape[:2], top, samples.dtype)])
