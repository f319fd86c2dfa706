"""The markers of a JPEG stream up to its first scan, found as libjpeg finds them.

References: ITU T.81, annex B; jdmarker.c of libjpeg.
"""

from __future__ import annotations

from collections.abc import Iterator

#: Markers of pictures (SOFn), of the first scan, and of the end.
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
SCAN, END = 0xDA, 0xD9

#: What may follow a byte 0xFF and has no content: a zero, a byte that fills, and markers that stand alone.
BARE = {0x00, 0x01, 0xFF, *range(0xD0, 0xD9)}


def markers(data: bytes) -> Iterator[tuple[int, int, int]]:
    """The markers that have a content, in their order, and at last that of the first scan, or of the end.

    Bytes between the content of one marker and the next marker are passed over.

    Yields
    ------
    code : the second byte of the marker.
    start : where the marker begins.
    end : where its content ends, by the length that it says; this may lie behind the end of the data.
    """
    at = 2
    while (at := data.find(b"\xff", at)) >= 0:
        code = data[at + 1] if at + 1 < len(data) else END
        if code in BARE:
            at += 1 if code == 0xFF else 2
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4].ljust(2, b"\0"), "big")
        yield code, at, end
        if code in (SCAN, END):
            return
        at = end
