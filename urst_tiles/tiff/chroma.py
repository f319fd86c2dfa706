"""YCbCr samples become RGB: brightness and two colour differences, of which there may be fewer.

Streams of JPEG and WebP do this in their decoders. Two kinds of TIFF leave it to the reader: those whose
YCbCr samples are stored without such a stream, and the slides of Aperio, whose JPEG 2000 streams say nothing
about colour (compression 33003).

References: TIFF 6.0 (1992), section 21; libtiff, tif_color.c and tif_getimage.c; ITU T.800, annex A;
OpenSlide, openslide-decode-jp2k.c.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from urst_tiles.errors import BadInput, DamagedFile
from urst_tiles.geometry import ceil_div
from urst_tiles.tiff.directory import Directory
from urst_tiles.tiff.types import fractions

#: Compressions (tag 259) whose streams are JPEG 2000: Aperio's YCbCr, lossy and RGB, and the general one.
JPEG2000 = {33003, 33004, 33005, 34712}

#: How many pixels across, and down, may share a pair of colour differences.
SUBSAMPLINGS = (1, 2, 4)

#: So many pixels are converted at once.
PIECE_PIXELS = 1 << 18


@dataclass(frozen=True)
class Chroma:
    """How the YCbCr samples of a page are stored.

    Attributes
    ----------
    across, down : so many pixels side by side, and on top of each other, share a pair of colour differences.
    weights : the shares of red, green and blue in the brightness (tag 529).
    reference : the codes of black and white of Y, Cb and Cr (tag 532).
    """

    across: int = 1
    down: int = 1
    weights: tuple[float, float, float] = (0.299, 0.587, 0.114)
    reference: tuple[float, ...] = (0.0, 255.0, 128.0, 255.0, 128.0, 255.0)

    @property
    def is_subsampled(self) -> bool:
        """Whether several pixels share a pair of colour differences."""
        return (self.across, self.down) != (1, 1)

    def stored_bytes(self, rows: int, width: int) -> int:
        """Bytes of so many rows of pixels."""
        units = ceil_div(rows, self.down) * ceil_div(width, self.across)
        return units * (self.across * self.down + 2)

    def unpacked(self, data: bytes, rows: int, width: int) -> NDArray[np.uint8]:
        """YCbCr, uint8, (rows, width, 3), from data units: the Y of a few pixels, then their Cb and Cr.

        As in libtiff, the pixels of a unit all have its Cb and Cr.
        """
        down, across = self.down, self.across
        high, wide = ceil_div(rows, down), ceil_div(width, across)
        units = np.frombuffer(data, np.uint8, self.stored_bytes(rows, width)).reshape(high, wide, -1)
        out = np.empty((high, down, wide, across, 3), np.uint8)
        out[..., 0] = units[..., :-2].reshape(high, wide, down, across).swapaxes(1, 2)
        out[..., 1:] = units[:, None, :, None, -2:]
        return out.reshape(high * down, wide * across, 3)[:rows, :width]

    def rgb(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """RGB, (h, w, 3), of YCbCr, (h, w, 3), uint8 or uint16; further bands stay as they are."""
        out = np.array(pixels)
        rows = max(1, PIECE_PIXELS // pixels.shape[1])  # in pieces, since floats take much memory
        for y in range(0, pixels.shape[0], rows):
            for k, band in enumerate(self._rgb(pixels[y : y + rows])):
                out[y : y + rows, :, k] = np.rint(np.clip(band, 0, np.iinfo(pixels.dtype).max))
        return out

    def _rgb(self, pixels: NDArray[Any]) -> tuple[NDArray[np.float32], ...]:
        """Red, green and blue, float32, (h, w) each, neither rounded nor clipped."""
        red, green, blue = self.weights
        top = np.iinfo(pixels.dtype).max
        scale = (top + 1) // 256
        black = [value * scale for value in self.reference[0::2]]
        white = [(value + 1) * scale - 1 for value in self.reference[1::2]]
        ranges = [top, top // 2, top // 2]
        y, cb, cr = (
            (pixels[..., k].astype(np.float32) - black[k]) * (ranges[k] / ((white[k] - black[k]) or 1.0))
            for k in range(3)
        )
        g = y - cr * (red * (2 - 2 * red) / green) - cb * (blue * (2 - 2 * blue) / green)
        return y + cr * (2 - 2 * red), g, y + cb * (2 - 2 * blue)


def page_chroma(directory: Directory) -> Chroma:
    """How the YCbCr samples of a page are stored, from its tags 529, 530 and 532.

    Raises
    ------
    DamagedFile : the tags hold numbers that make no sense.
    """
    sampling = [int(n) for n in directory.array(530).ravel()[:2]] or [2, 2]
    weights, reference = _numbers(directory, 529), _numbers(directory, 532)
    made = Chroma(sampling[0], sampling[-1])
    if len(weights) == 3:
        made = Chroma(made.across, made.down, (weights[0], weights[1], weights[2]))
    if len(reference) == 6:
        made = Chroma(made.across, made.down, made.weights, tuple(reference))
    finite = np.isfinite([*made.weights, *made.reference]).all() and made.weights[1] != 0
    if not finite or not {made.across, made.down} <= set(SUBSAMPLINGS):
        raise DamagedFile(
            f"{directory.path}: its YCbCr samples are described by numbers that make no sense (TIFF tags "
            "529, 530 and 532); it is damaged"
        )
    return made


def _numbers(directory: Directory, code: int) -> list[float]:
    """The numbers of a tag; fractions are divided, and nan where the divisor is 0."""
    values = directory.array(code)
    if values.ndim == 2:
        values = fractions(values, np.nan)
    return [float(value) for value in values] if values.dtype.kind in "uif" else []


def is_ycbcr_stream(data: bytes, aperio: bool) -> bool:
    """Whether the decoder of JPEG 2000 leaves YCbCr where a page says that its stream holds it.

    It converts by itself where the stream has fewer colour differences than pixels, or where the JP2 format
    around the stream says sYCC. Any writer but Aperio may mean the stream's own colour transform by YCbCr,
    which the decoder has undone, too (``aperio`` is False).
    """
    if steps_of(data) != {(1, 1)}:
        return False
    at = _start(data)
    return not _says_sycc(data[:at]) and (aperio or not _has_transform(data, at))


def _start(data: bytes) -> int:
    """Where the codestream of JPEG 2000 begins, which may lie in a box of the format JP2."""
    return max(data.find(b"\xff\x4f\xff\x51"), 0)


def steps_of(data: bytes) -> set[tuple[int, int]]:
    """The distances in pixels, across and down, between the samples of the bands of a JPEG 2000 stream."""
    at = _start(data)
    (bands,) = struct.unpack_from(">H", data, at + 40)
    return {(data[at + 43 + 3 * k], data[at + 44 + 3 * k]) for k in range(bands)}


def check_steps(path: Path, data: bytes) -> None:
    """Raise BadInput where the decoder does not know how often a JPEG 2000 stream has colour differences."""
    steps = steps_of(data) - {(1, 1)}
    if steps - {(2, 1), (2, 2)}:
        raise BadInput(
            f"{path}: the colour differences of its JPEG 2000 streams have steps of {max(steps)} pixels "
            "across and down, and only (2, 1) and (2, 2) can be read; rewrite it with another compression"
        )


def _says_sycc(boxes: bytes) -> bool:
    """Whether the boxes of the JP2 format say that the colour space is sYCC (ITU T.800, annex I.5.3.3)."""
    at = boxes.find(b"colr")
    return at >= 0 and boxes[at + 4 : at + 5] == b"\x01" and boxes[at + 7 : at + 11] == b"\0\0\0\x12"


def _has_transform(data: bytes, at: int) -> bool:
    """Whether the codestream that begins at this byte uses a colour transform (marker COD)."""
    at += 2
    while at + 4 <= len(data) and data[at : at + 2] not in (b"\xff\x90", b"\xff\x93"):
        marker, length = struct.unpack_from(">HH", data, at)
        if marker == 0xFF52:
            return data[at + 8 : at + 9] == b"\x01"
        at += 2 + length
    return False
