"""The head of a JPEG file without what libjpeg only warns of.

JPEGs are opened so that any warning is an error, since a damaged picture is no more than a warning to
libjpeg. But it warns of harmless things, too: bytes between two markers, a version of JFIF or a transform of
Adobe that nobody has defined, spectral bounds in the scan of a sequential picture, which have no meaning
there. They all lie in front of the first scan, and are mended here, as libjpeg does after its warning.

References: ITU T.81, annex B; jdmarker.c and jdinput.c of libjpeg; Adobe's technical note 5116.
"""

from __future__ import annotations

from pathlib import Path

from urst_tiles.tiff.bytes import FileBytes
from urst_tiles.tiff.markers import END, FRAMES, SCAN, markers

#: A file of more bytes is not mended: it is then in memory.
MOST_BYTES = 64 << 20

#: Most heads end within so many bytes.
FIRST_BYTES = 1 << 16

#: Markers of pictures that are sequential, and of metadata.
SEQUENTIAL = {0xC0, 0xC1}
JFIF, ADOBE = 0xE0, 0xEE

#: A scan of all coefficients: the first, the last, and no bits left for later ones.
ALL_COEFFICIENTS = bytes([0, 63, 0])


def mended_head(data: bytes) -> tuple[bytes, int] | None:
    """The head of a JPEG file up to its first scan, mended, and the length of that which it replaces.

    None where there is nothing to mend, or ``data``, the beginning of the file, holds no whole head.
    """
    parts: list[tuple[int, bytearray]] = []
    replaced = 0
    for code, start, end in markers(data):
        if code == END or end < start + 4 or end > len(data):
            return None
        parts.append((code, bytearray(data[start:end])))
        replaced = end
    if not parts or parts[-1][0] != SCAN:
        return None
    frame = next(((code, part) for code, part in parts if code in FRAMES and len(part) > 9), None)
    if frame is None:
        return None
    for code, part in parts:
        _mend(code, part, frame[0] in SEQUENTIAL, frame[1][9])
    head = data[:2] + b"".join(bytes(part) for _, part in parts)
    return None if head == data[:replaced] else (head, replaced)


def _mend(code: int, part: bytearray, is_sequential: bool, components: int) -> None:
    """Mend the part of a head that begins with the marker ``code``, in place."""
    if code == JFIF and part[4:9] == b"JFIF\0" and len(part) > 10 and part[9] not in (1, 2):
        part[9:11] = bytes([1, 2])
    elif code == ADOBE and part[4:9] == b"Adobe" and len(part) > 15 and part[15] > 2:
        part[15] = 2 if components == 4 else 1
    elif code == SCAN and is_sequential and len(part) > 7:
        part[-3:] = ALL_COEFFICIENTS


def mended_file(path: Path) -> bytes | None:
    """The bytes of the JPEG file ``path`` with its head mended.

    None if there is nothing to mend, or the file has more than ``MOST_BYTES``.
    """
    file = FileBytes(path)
    mended = mended_head(file(0, min(FIRST_BYTES, file.size)))
    if mended is None and FIRST_BYTES < file.size <= MOST_BYTES:
        mended = mended_head(file(0, file.size))
    if mended is None or file.size > MOST_BYTES:
        return None
    head, replaced = mended
    return head + file(replaced, file.size - replaced)
