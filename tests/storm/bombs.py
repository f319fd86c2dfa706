"""Images and files of weights that ask for all memory or time, or hold what nobody expects."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np

Random = np.random.Generator
Tag = tuple[int, int, int, int]  # code, type, count, value or offset


def tiff(path: Path, data: bytes, tags: list[Tag], more: bytes = b"", link: int | None = 0) -> None:
    """A TIFF whose directory comes behind ``data`` at 8; with ``link`` None it leads to itself."""
    data += bytes(len(data) % 2)
    start = 8 + len(data)
    entries = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    after = struct.pack("<I", start if link is None else link)
    head = struct.pack("<2sHI", b"II", 42, start) + data
    path.write_bytes(head + struct.pack("<H", len(tags)) + entries + after + more)


def tiled(data: bytes, compression: int, side: int = 64, bands: int = 3, **values: int) -> list[Tag]:
    """The tags of a TIFF of one tile, which lies at 8; ``values`` exchanges values: ``t256=9``."""
    meaning = 6 if compression == 7 and bands == 3 else 2 if bands == 3 else 1
    tags = [(256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, 8), (259, 3, 1, compression),
            (262, 3, 1, meaning), (277, 3, 1, bands), (322, 4, 1, side), (323, 4, 1, side),
            (324, 4, 1, 8), (325, 4, 1, len(data))]  # fmt: skip
    return [(code, kind, count, values.get(f"t{code}", value)) for code, kind, count, value in tags]


def plain(side: int = 64) -> bytes:
    return bytes(side * side * 3)


@lru_cache
def zeros(count: int) -> bytes:
    """So many zeros, deflated."""
    return zlib.compress(bytes(count))


def large(random: Random) -> int:
    """A large number of any size."""
    return int(2 ** random.uniform(10, 32)) - 1


def streams(path: Path, random: Random) -> None:
    """A tile whose stream says that it is larger than the tile."""
    side = int(2 ** random.uniform(6.1, 15.9))
    kind = int(random.integers(5))
    small = np.zeros((64, 64, 3), np.uint8)
    if kind == 0:
        data, code = bytearray(imagecodecs.jpeg8_encode(small)), 7
        struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, side, side)
    elif kind == 1:
        data, code = bytearray(imagecodecs.jpeg2k_encode(small)), 34712
        at = data.index(b"\xff\x4f\xff\x51") + 8
        struct.pack_into(">II", data, at, side, side)
        struct.pack_into(">II", data, at + 16, side, side)
    elif kind == 2:
        data, code = bytearray(imagecodecs.lerc_encode(small)), 34887
        struct.pack_into("<II", data, 14, side, side)
    elif kind == 3:
        bits = 0 | 2 << 1 | (side - 1) << 3 | 1 << 21 | 1 << 24
        data, code = bytearray(b"\xff\x0a" + bits.to_bytes(16, "little")), 50002
    else:
        side = min(side, 3000)
        data, code = (
            bytearray(imagecodecs.webp_encode(np.zeros((side, side, 3), np.uint8), lossless=True)),
            50001,
        )
    tiff(path, bytes(data), tiled(bytes(data), code))


def packed(path: Path, random: Random) -> None:
    """A tile that unpacks to far more than its pixels."""
    side = 1 << int(random.integers(14, 26))
    codecs: list[tuple[Callable[..., Any], int]] = [
        (zlib.compress, 8), (imagecodecs.zstd_encode, 50000), (imagecodecs.lzma_encode, 34925),
        (imagecodecs.lzw_encode, 5), (lambda data: b"\x81\0" * (len(data) // 128), 32773),
    ]  # fmt: skip
    encode, code = codecs[int(random.integers(len(codecs)))]
    data = zeros(1 << 28) if code == 8 else bytes(encode(bytes(side)))
    tiff(path, data, tiled(data, code))


def png(path: Path, random: Random) -> None:
    """A PNG that says it is huge, or whose profile or text unpacks to hundreds of megabytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    kind = int(random.integers(3))
    side = int(2 ** random.uniform(8, 30.9)) if kind == 0 else 16
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, int(random.integers(2)))
    rows = zlib.compress(bytes(16 * 49)) if kind else bytes(int(2 ** random.uniform(4, 20)))
    bomb = zeros(1 << 28)
    extra = (
        chunk(b"iCCP", b"x\0\0" + bomb)
        if kind == 1
        else chunk(b"zTXt", b"x\0\0" + bomb) * 3
        if kind == 2
        else b""
    )
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def jpeg(path: Path, random: Random) -> None:
    """A JPEG that says it is huge, or has thousands of scans."""
    data = bytearray(
        imagecodecs.jpeg8_encode(np.zeros((64, 64, 3), np.uint8), optimize=bool(random.integers(2)))
    )
    at = data.index(b"\xff\xc0")
    if random.integers(2):
        data[at + 1] = 0xC2
    struct.pack_into(">HH", data, at + 5, *(int(n) for n in random.integers(1, 65500, 2)))
    scan = data.index(b"\xff\xda")
    if random.integers(2):
        data = data[:-2] + data[scan:-2] * int(2 ** random.uniform(4, 12)) + data[-2:]
    path.write_bytes(data)


def webp(path: Path, random: Random) -> None:
    """A WebP that says it is of the largest size."""
    data = bytearray(imagecodecs.webp_encode(np.zeros((64, 64, 3), np.uint8), level=80, lossless=False))
    at = data.index(b"\x9d\x01\x2a") + 3
    struct.pack_into("<HH", data, at, *(int(n) for n in random.integers(1, 16383, 2)))
    path.write_bytes(data)


def loops(path: Path, random: Random) -> None:
    """Directories that lead to themselves, also as SubIFDs."""
    tags = tiled(plain(), 1)
    start = 8 + len(plain())
    kind = int(random.integers(3))
    if kind == 0:
        tiff(path, plain(), tags, link=None)
    elif kind == 1:
        tiff(path, plain(), [*tags, (330, 4, 1, start)])
    else:
        count = int(2 ** random.uniform(2, 16))
        end = start + 2 + 12 * (len(tags) + 1) + 4
        tiff(path, plain(), [*tags, (330, 4, count, end)], struct.pack("<I", start) * count)


def chains(path: Path, random: Random) -> None:
    """Many directories that share their bytes, of many entries."""
    count, entries = int(2 ** random.uniform(4, 13)), int(2 ** random.uniform(4, 15))
    tags = tiled(plain(), 1)
    start = 8 + len(plain()) + 2 + 12 * len(tags) + 4
    body = bytearray()
    for i in range(count):
        body += (
            struct.pack("<H", 1)
            + struct.pack("<HHII", 256, 4, 1, 64)
            + struct.pack("<I", start + 18 * (i + 1))
        )
    body += struct.pack("<H", entries) + struct.pack("<HHII", 65000, 7, 1 << 20, 8) * entries + bytes(4)
    tiff(path, plain(), tags, bytes(body), link=start)


def counts(path: Path, random: Random) -> None:
    """A tag, known or unknown, that says it has very many values."""
    tags = tiled(plain(), 1)
    code = int(
        random.choice([256, 258, 270, 282, 324, 325, 330, 347, 33550, 34735, 34737, 42112, 700, 65001])
    )
    kind = int(random.choice([1, 2, 3, 4, 5, 7, 12, 16]))
    tags = [tag for tag in tags if tag[0] != code] + [
        (code, kind, large(random), int(random.choice([8, 0, 100])))
    ]
    tiff(path, plain(), tags, bytes(1 << int(random.integers(4, 20))))


def sizes(path: Path, random: Random) -> None:
    """Sizes of the image, its tiles or its samples that cannot be."""
    codes = random.choice([256, 257, 258, 277, 322, 323, 325], int(random.integers(1, 4)), replace=False)
    values = {f"t{code}": int(random.choice([0, 1, 3, 16, 65535, large(random)])) for code in codes}
    tiff(path, plain(), tiled(plain(), int(random.choice([1, 8])), **values))


def types(path: Path, random: Random) -> None:
    """Tags of types that they cannot have, with more or fewer values than they need."""
    tags = tiled(plain(), 1)
    for at in random.integers(len(tags), size=2):
        code, _, count, value = tags[int(at)]
        tags[int(at)] = code, int(random.integers(20)), int(random.choice([0, 1, 2, count])), value
    tiff(path, plain(), tags)


def many(path: Path, random: Random) -> None:
    """Very many tags, or strips of nothing."""
    tags = tiled(plain(), 1)
    if random.integers(2):
        tags += [(40000 + i % 20000, 7, len(plain()), 8) for i in range(int(2 ** random.uniform(4, 15.9)))]
        return tiff(path, plain(), tags)
    rows = int(2 ** random.uniform(10, 18))
    tags = [(256, 4, 1, 1), (257, 4, 1, rows), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1),
            (273, 4, rows, 8), (278, 4, 1, 1), (279, 4, rows, 8)]  # fmt: skip
    tiff(path, bytes(4 * rows), tags)


def xml(path: Path, random: Random) -> None:
    """Entities, depth and length in the XML that GDAL and OME write."""
    n = int(2 ** random.uniform(3, 17))
    laughs = "".join(f'<!ENTITY l{i + 1} "&l{i};&l{i};&l{i};">' for i in range(min(n, 40)))
    texts = [
        f'<!DOCTYPE x [<!ENTITY l0 "ha">{laughs}]><GDALMetadata><Item name="A">&l9;</Item></GDALMetadata>',
        f'<!DOCTYPE x [<!ENTITY a "{"h" * n}">]><GDALMetadata>{"&a;" * n}</GDALMetadata>',
        "<GDALMetadata>" * n + "</GDALMetadata>" * n,
        '<GDALMetadata><Item name="A">' + "x" * 40 * n + "</Item></GDALMetadata>",
        '<!DOCTYPE x SYSTEM "file:///dev/zero"><GDALMetadata/>',
        "<GDALMetadata " + " ".join(f'a{i}="b"' for i in range(n)) + "/>",
        "\xff<\0GDALMetadata>",
    ]
    text = texts[int(random.integers(len(texts)))].encode("latin1") + b"\0"
    tags = tiled(plain(), 1)
    start = 8 + len(plain()) + 2 + 12 * (len(tags) + 1) + 4
    tiff(path, plain(), [*tags, (int(random.choice([42112, 270])), 2, len(text), start)], text)


def numbers(path: Path, random: Random) -> None:
    """Resolutions, places and microns per pixel that are no numbers, or absurd ones."""
    odd = [float("nan"), float("inf"), -float("inf"), 0.0, -1.0, 5e-324, 1.7e308, 1e30]
    tags = tiled(plain(), 1)
    start = 8 + len(plain()) + 2 + 12 * (len(tags) + 1) + 4
    kind = int(random.integers(4))
    if kind == 0:
        more = struct.pack("<II", *(int(random.choice([0, 1, 2**32 - 1])) for _ in range(2)))
        tag = (int(random.choice([282, 283])), 5, 1, start)
    elif kind == 1:
        code, count = ((33550, 3), (33922, 6), (34264, 16))[int(random.integers(3))]
        more, tag = struct.pack(f"<{count}d", *random.choice(odd, count)), (code, 12, count, start)
    elif kind == 2:
        digits = str(random.choice(["9" * 350, "1e999", "nan", "0", "-4", "0x10", "1_0"]))
        more = b"Aperio Image Library\r\n64x64|AppMag = 20|MPP = " + digits.encode() + b"\0"
        tag = (270, 2, len(more), start)
    else:
        keys = random.integers(0, 65536, 4 * int(random.integers(1, 40)))
        more, tag = struct.pack(f"<{keys.size}H", *keys), (34735, 3, int(keys.size), start)
    tiff(path, plain(), [*tags, tag], more)


IMAGES: dict[str, Callable[[Path, Random], None]] = {
    "streams larger than their tiles": streams,
    "tiles that unpack to far more": packed,
    "PNG bombs": png,
    "JPEG bombs": jpeg,
    "WebP bombs": webp,
    "loops of directories": loops,
    "chains of directories": chains,
    "huge counts": counts,
    "absurd sizes": sizes,
    "wrong types of tags": types,
    "very many tags or strips": many,
    "XML bombs": xml,
    "absurd numbers": numbers,
}


def header(path: Path, random: Random) -> None:
    """A safetensors file with a header that promises what is not there."""
    good = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
    changes: list[Any] = [
        {"a": good | {"shape": [1 << 31, 1 << 31]}}, {"a": good | {"shape": [-1]}},
        {"a": good | {"data_offsets": [0, 1 << 62]}}, {"a": good | {"data_offsets": [16, 0]}},
        {"a": good | {"dtype": "X99"}}, {"a": good, "b": good}, {"a": [good]}, [good], {"__metadata__": good},
        {"__metadata__": {"a": 1}}, {"a": good | {"shape": []}}, {"a" * 70000: good}, {"a": None},
        {f"t{i}": good | {"shape": [0], "data_offsets": [0, 0]} for i in range(50_000)},
    ]  # fmt: skip
    text = json.dumps(changes[int(random.integers(len(changes)))]).encode()
    if random.integers(8) == 0:
        text = b'{"a":' * 100_000
    length = (
        len(text)
        if random.integers(2)
        else [0, 1, 1 << 40, (1 << 64) - 1, len(text) + 99][int(random.integers(5))]
    )
    path.write_bytes(struct.pack("<Q", length) + text + bytes(16))


class _Harm:
    """Pickled, it asks for a call of the system."""

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, ("touch ran",)


def pickles(path: Path, random: Random) -> None:
    """A PyTorch file with code, a bomb, or odd things in it."""
    import pickle

    import torch

    kind = int(random.integers(6))
    if kind == 0:
        path.write_bytes(pickle.dumps({"a": _Harm()}))
    elif kind == 1:
        torch.save({"a": _Harm()}, path)
    elif kind == 2:
        buffer = io.BytesIO()
        torch.save({"a": torch.zeros(4)}, buffer)
        with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
            for name in old.namelist():
                new.writestr(name, bytes(1 << 30) if "/data/" in name else old.read(name))
    elif kind == 3:
        odd: list[Any] = [
            {},
            [],
            3,
            {"a": 3},
            {3: torch.zeros(1)},
            {"a": torch.zeros(1).to_sparse()},
            {"a": {"b": {}}},
        ]
        torch.save(odd[int(random.integers(len(odd)))], path)
    elif kind == 4:
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("../../x/data.pkl", b"\x80\x02}.")
    else:
        path.write_bytes(b"\x80\x02" + b"(" * int(2 ** random.uniform(4, 20)) + b".")


WEIGHTS: dict[str, Callable[[Path, Random], None]] = {
    "headers of safetensors": header,
    "PyTorch files": pickles,
}
