"""Small slides in formats of scanners, written by the tests themselves: Hamamatsu's NDPI and DICOM."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

#: UIDs of DICOM: whole-slide images, JPEG baseline, and the root of those that need no registration.
SLIDE_CLASS, JPEG_SYNTAX, ROOT = "1.2.840.10008.5.1.4.1.1.77.1.6", "1.2.840.10008.1.2.4.50", "2.25.1234"


def jpeg(pixels: np.ndarray) -> bytes:
    """A JPEG that keeps its pixels nearly."""
    data = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(data, "JPEG", quality=98, subsampling=0)
    return data.getvalue()


def write_ndpi(path: Path, pixels: np.ndarray) -> Path:
    """A slide of a quarter of a micron per pixel and magnification 20, two levels, a macro picture."""
    pages = [(pixels, 20.0, 1), (pixels[::2, ::2], 10.0, 2), (pixels[::4, ::4], -1.0, 4)]
    with tifffile.TiffWriter(path) as file:
        for page, lens, factor in pages:
            tags = [(65420, 4, 1, 1, True), (65421, 11, 1, lens, True)]
            tags += [(code, 9, 1, 0, True) for code in (65422, 65423, 65424)]
            file.write(
                iter([jpeg(page)]), shape=page.shape, dtype="uint8", photometric="ycbcr", subsampling=(1, 1),
                compression="jpeg", rowsperstrip=page.shape[0], metadata=None, resolutionunit=3,
                resolution=(40000 / factor, 40000 / factor), extratags=tags, software=False,
            )  # fmt: skip
    return path


def _element(tag: int, kind: str, value: bytes | str | int) -> bytes:
    """An element of DICOM with an explicit type, in little-endian."""
    if isinstance(value, int):
        value = struct.pack("<H" if kind == "US" else "<I", value)
    if isinstance(value, str):
        value = value.encode() + (b"\0" if kind == "UI" else b" ") * (len(value) % 2)
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + kind.encode()
    if kind in ("OB", "SQ", "UT", "UN"):
        return head + struct.pack("<HI", 0, len(value)) + value
    return head + struct.pack("<H", len(value)) + value


def _sequence(tag: int, *items: bytes) -> bytes:
    body = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item for item in items)
    return _element(tag, "SQ", body)


def write_dicom(path: Path, pixels: np.ndarray, tile: int = 64, without: set[int] | None = None) -> Path:
    """A slide of half a micron per pixel and magnification 20, in square tiles.

    Tiles whose numbers are in ``without`` are left out, as by a scanner that skips empty glass.
    """
    (height, width), full = pixels.shape[:2], without is None
    across, down = -(-width // tile), -(-height // tile)
    frames, places = [], []
    for number in range(across * down):
        if without and number in without:
            continue
        y, x = number // across * tile, number % across * tile
        part = pixels[y : y + tile, x : x + tile]
        part = np.pad(part, ((0, tile - part.shape[0]), (0, tile - part.shape[1]), (0, 0)), mode="edge")
        frames.append(jpeg(part))
        places.append((x + 1, y + 1))
    spacing = _sequence(0x00289110, _element(0x00280030, "DS", "0.0005\\0.0005"))
    lens = _sequence(0x00480105, _element(0x00480106, "SH", "1") + _element(0x00480112, "DS", "20"))
    data = [
        _element(0x00080008, "CS", "ORIGINAL\\PRIMARY\\VOLUME\\NONE"),
        _element(0x00080016, "UI", SLIDE_CLASS), _element(0x00080018, "UI", f"{ROOT}.2"),
        _element(0x00080060, "CS", "SM"), _element(0x0020000D, "UI", f"{ROOT}.3"),
        _element(0x0020000E, "UI", f"{ROOT}.4"),
        _element(0x00209311, "CS", "TILED_FULL" if full else "TILED_SPARSE"),
        _element(0x00280002, "US", 3), _element(0x00280004, "CS", "YBR_FULL_422"),
        _element(0x00280006, "US", 0), _element(0x00280008, "IS", str(len(frames))),
        _element(0x00280010, "US", tile), _element(0x00280011, "US", tile),
        _element(0x00280100, "US", 8), _element(0x00280101, "US", 8), _element(0x00280102, "US", 7),
        _element(0x00280103, "US", 0), _element(0x00480006, "UL", width), _element(0x00480007, "UL", height),
        lens, _element(0x00480302, "UL", 1), _element(0x00480303, "UL", 1), _sequence(0x52009229, spacing),
    ]  # fmt: skip
    if not full:
        data.append(_sequence(0x52009230, *(_place(x, y) for x, y in places)))
    meta = (
        _element(0x00020001, "OB", b"\0\1") + _element(0x00020002, "UI", SLIDE_CLASS)
        + _element(0x00020003, "UI", f"{ROOT}.2") + _element(0x00020010, "UI", JPEG_SYNTAX)
        + _element(0x00020012, "UI", f"{ROOT}.1")
    )  # fmt: skip
    body = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    for frame in frames:
        frame += b"\0" * (len(frame) % 2)
        body += struct.pack("<HHI", 0xFFFE, 0xE000, len(frame)) + frame
    body += struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    head = bytes(128) + b"DICM" + _element(0x00020000, "UL", len(meta)) + meta
    pixel_data = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF) + body
    path.write_bytes(head + b"".join(data) + pixel_data)
    return path


def _place(x: int, y: int) -> bytes:
    """Where a tile lies, of the functional groups of its frame; columns and rows count from 1."""
    column = struct.pack("<i", x)
    row = struct.pack("<i", y)
    place = _element(0x0048021E, "SL", column) + _element(0x0048021F, "SL", row)
    return _sequence(0x0048021A, place)
