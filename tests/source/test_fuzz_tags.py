"""Files with wrong tags: success or one of our errors, soon and in little memory, never another exception.

Small valid TIFFs of several kinds are changed as only somebody who knows TIFF can: types, counts, values,
places, codes, order, entries that are there twice, links. With each, the command ``info`` is run, a box is
read, and the header of an output is built.
"""

from __future__ import annotations

import argparse
import os
import resource
import struct
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import pyvips
import tifffile
from helpers import geotiff

from urst_tiles.cli.info import run_info
from urst_tiles.encoding import make_encoding
from urst_tiles.errors import DamagedFile, UrstError
from urst_tiles.geometry import Box, Grid
from urst_tiles.pyramid import check_header, validate
from urst_tiles.source import open_source

PIXELS = np.random.default_rng(1).integers(0, 256, (96, 80, 3), np.uint8)
XML = '<GDALMetadata><Item name="A">b &amp; c</Item></GDALMetadata>'
MORE = [(42112, 2, None, XML, True), (34736, 12, 2, (1.5, 2.5), True), (34737, 2, None, "WGS 84|", True)]
PLAIN = {"photometric": "rgb", "metadata": None}


def geo(path: Path) -> None:
    geotiff(path, PIXELS, tile=(32, 32), resolution=(100, 100), resolutionunit=3)


def aperio(path: Path) -> None:
    text = "Aperio Image Library\r\n80x96|AppMag = 20|MPP = 0.4990"
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        tif.write(PIXELS, tile=(32, 32), compression="jpeg", description=text, software=False, **PLAIN)
        tif.write(PIXELS[::2, ::2], tile=(32, 32), compression="jpeg", subfiletype=1, **PLAIN)


def masked(path: Path) -> None:
    with tifffile.TiffWriter(path, byteorder=">") as tif:
        tif.write(PIXELS, tile=(32, 32), compression="zlib", subifds=1, extratags=MORE, **PLAIN)
        tif.write(PIXELS[::2, ::2], tile=(32, 32), compression="zlib", subfiletype=1, **PLAIN)
        tif.write(PIXELS[..., 0] > 9, tile=(32, 32), subfiletype=4, metadata=None)


def palette(path: Path) -> None:
    colours = np.random.default_rng(2).integers(0, 1 << 16, (3, 256), np.uint16)
    tifffile.imwrite(
        path, PIXELS[..., 0], photometric="palette", colormap=colours, rowsperstrip=9, metadata=None
    )


def planes(path: Path) -> None:
    wide = PIXELS.transpose(2, 0, 1).astype(np.int16) * 99
    tags = [(42113, 2, None, "-9999", True), (274, 3, 1, 6, True)]
    tifffile.imwrite(path, wide, planarconfig="separate", byteorder=">", extratags=tags, **PLAIN)


def fax(path: Path) -> None:
    bits = pyvips.Image.new_from_array((PIXELS[..., 0] > 99).astype(np.uint8) * 255)
    bits.copy(interpretation="b-w").tiffsave(str(path), compression="ccittfax4", bitdepth=1, xres=9, yres=9)


KINDS: dict[str, Callable[[Path], None]] = {
    function.__name__: function for function in (geo, aperio, masked, palette, planes, fax)
}


class Tags:
    """The entries of the directories of a TIFF, which can be changed in its bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)
        self.order = "<" if data[:2] == b"II" else ">"
        self.big = struct.unpack_from(self.order + "H", data, 2)[0] == 43
        self.link = self.order + ("Q" if self.big else "I")
        self.wide = 8 if self.big else 4
        self.each = 20 if self.big else 12
        self.entries: list[int] = []
        self.links = [8 if self.big else 4]
        while at := self.get(self.links[-1]):
            (count,) = struct.unpack_from(self.order + ("Q" if self.big else "H"), data, at)
            first = at + (8 if self.big else 2)
            self.entries += range(first, first + count * self.each, self.each)
            self.links.append(first + count * self.each)

    def get(self, at: int) -> int:
        return int(struct.unpack_from(self.link, self.data, at)[0])

    def put(self, form: str, at: int, value: int) -> None:
        limit = 1 << 8 * struct.calcsize(form)
        if 0 <= at <= len(self.data) - struct.calcsize(form):
            struct.pack_into(self.order + form, self.data, at, value % limit)

    def change(self, random: np.random.Generator) -> str:
        """Change one thing; returns what."""
        entry = int(random.choice(self.entries))
        other = int(random.choice(self.entries))
        code = struct.unpack_from(self.order + "H", self.data, entry)[0]
        wide = self.link[1]
        edges = [0, 1, 2, 3, *(n + d for n in (1 << 8, 1 << 16, 1 << 31, 1 << 32, 1 << 63) for d in (-1, 0))]
        places = [len(self.data), len(self.data) - 1, entry, int(random.integers(len(self.data)))]
        values = [*edges, *places]
        value = values[int(random.integers(len(values)))]
        kind = int(random.integers(9))
        if kind == 0:
            self.put("H", entry + 2, int(random.choice([*range(20), 255, 65535])))
        elif kind == 1:
            self.put(wide, entry + 4, value)
        elif kind == 2:
            self.put(wide, entry + 4 + self.wide, value)
        elif kind == 3:  # the short value, or what the offset leads to
            self.put("H", entry + 4 + self.wide, value)
            self.put("I", self.get(entry + 4 + self.wide) + 2 * int(random.integers(8)), value)
        elif kind == 4:
            self.put("H", entry, struct.unpack_from(self.order + "H", self.data, other)[0])
        elif kind == 5:
            self.data[entry : entry + self.each] = self.data[other : other + self.each]
        elif kind == 6:
            a, b = self.data[entry : entry + self.each], self.data[other : other + self.each]
            self.data[entry : entry + self.each], self.data[other : other + self.each] = b, a
        elif kind == 7:
            self.put(wide, int(random.choice(self.links)), value)
        else:  # type and count together, so that the value has another length
            self.put("H", entry + 2, int(random.choice([1, 2, 3, 4, 5, 11, 12, 16])))
            self.put(wide, entry + 4, int(random.choice([1, 2, 3, 7, 64])))
        return f"{kind} of tag {code} at {entry}: {value}"


def use(path: Path, folder: Path) -> None:
    """What a job does before its first block, and for it."""
    validate(path)
    try:
        run_info(argparse.Namespace(file=path, json=False))
        source = open_source(path)
        height, width = source.shape
        encoding = make_encoding(source, "uint8", "deflate", 90, 512)
        check_header(Grid(height, width, 0, 1, 1024, 4096, 512, 1), encoding, source.info)
        if height * width < 1 << 20:
            source = source if source.random_access else source.prepare(folder, thumbnail=8)
            source.read(Box(0, 0, min(height, 40), min(width, 40)))
    except UrstError as error:
        assert str(path) in str(error) and "\n" not in str(error) and len(str(error)) < 500, str(error)


def run(kind: str, folder: Path, count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    path = folder / "a.tif"
    KINDS[kind](path)
    good = path.read_bytes()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for i in range(count):
        tags = Tags(good)
        done = [tags.change(random) for _ in range(int(random.integers(1, 4)))]
        path.write_bytes(tags.data)
        start = time.process_time()
        try:
            use(path, folder / f"job{i}")
        except Exception as error:
            raise AssertionError(f"file {i} of {kind} ({'; '.join(done)}): {error!r}") from error
        assert time.process_time() - start < 10, done
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 400_000, f"{grown} kB more"


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_tags_are_success_or_a_sentence(kind: str, tmp_path: Path) -> None:
    run(kind, tmp_path, 60, 12)


@pytest.mark.parametrize("kind", ["palette", "geo"])
def test_more_bands_than_there_can_be_are_damage(kind: str, tmp_path: Path) -> None:
    """And not a description of each: two thousand million of them take all memory."""
    path = tmp_path / "a.tif"
    KINDS[kind](path)
    tags = Tags(path.read_bytes())
    for entry in tags.entries:
        if struct.unpack_from(tags.order + "H", tags.data, entry)[0] == 277:
            tags.put("H", entry + 2, 4)
            tags.put(tags.link[1], entry + 4, 1)
            tags.put("I", entry + 4 + tags.wide, (1 << 31) - 1)
    path.write_bytes(tags.data)
    for look in (open_source, lambda path: run_info(argparse.Namespace(file=path, json=False))):
        with pytest.raises(DamagedFile, match="2147483647 bands|tag 277|damaged"):
            look(path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_thousands_of_wrong_tags(kind: str, tmp_path: Path) -> None:
    run(kind, tmp_path, int(os.environ.get("URST_FUZZ", "1000")), 99)
