"""Directories: what is written is what two other readers and our own read back."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from urst_tiles.errors import DamagedFile, MissingFile
from urst_tiles.pyramid.encode import Encoding
from urst_tiles.pyramid.levels import (
    TileSizes,
    ghost,
    info_fields,
    level_fields,
    level_of,
    resolution_fields,
)
from urst_tiles.pyramid.validate import validate
from urst_tiles.tiff.bytes import FileBytes
from urst_tiles.tiff.directory import read_chain
from urst_tiles.tiff.metadata import Info, Tag
from urst_tiles.tiff.pages import TiffFile
from urst_tiles.tiff.writing import (
    array_fields,
    directory,
    directory_bytes,
    field,
    header,
    rational,
    tag_field,
    text,
)

TAGS = (
    Tag(33550, 12, 3, (0.5, 0.25, 0.0)),
    Tag(34735, 3, 4, (1, 1, 0, 0)),
    Tag(34737, 2, 9, "WGS 84 |x"),
)


def written(fields, sizes=(10, 20, 30, 40)):
    """A file with one directory and no tiles worth the name."""
    arrays = array_fields(np.arange(len(sizes), dtype=np.uint64) + 5000, np.array(sizes, np.uint32))
    data = b"".join([header(16), *directory([*fields, *arrays], 16, 0)])
    assert len(data) == 16 + directory_bytes(fields, len(sizes))
    return data


def test_tags_survive_as_they_are():
    encoding = Encoding(channels=4, validity="alpha", tile=16)
    level = level_of(encoding, 32, 32, TileSizes.empty(4, False), overview=False)
    fields = [*level.fields, *(tag_field(tag) for tag in TAGS), text(305, "us")]
    with tifffile.TiffFile(io.BytesIO(written(fields))) as tif:
        page = tif.pages.first
        assert tif.is_bigtiff and page.shape == (32, 32, 4) and page.is_tiled
        assert page.tags[33550].value == (0.5, 0.25, 0.0)
        assert page.tags[34735].value == (1, 1, 0, 0)
        assert page.tags[34737].value == "WGS 84 |x"
        assert page.software == "us"
        assert page.databytecounts == (10, 20, 30, 40)
        assert page.extrasamples == (2,)


def test_our_reader_reads_what_tifffile_writes(tmp_path):
    for big, order in ((False, "<"), (False, ">"), (True, "<"), (True, ">")):
        path = tmp_path / "a.tif"
        pixels = np.arange(64 * 48 * 3, dtype=np.uint8).reshape(64, 48, 3)
        tifffile.imwrite(path, pixels, tile=(16, 32), bigtiff=big, byteorder=order, photometric="rgb")
        (read,) = TiffFile(path).directories
        with tifffile.TiffFile(path) as tif:
            page = tif.pages.first
            assert (read.number(257), read.number(256)) == (64, 48)
            assert read.array(324).tolist() == list(page.dataoffsets)
            assert read.array(325).tolist() == list(page.databytecounts)
            assert read.array(258).tolist() == [8, 8, 8]
            assert read.array(60000).size == 0 and read.number(60000, 7) == 7


@given(st.floats(1e-5, 1e8))
def test_a_rational_is_near(value):
    top, bottom = struct.unpack("<II", rational(282, value).data)
    assert top / bottom == pytest.approx(value, rel=1e-4)


def test_resolution_halves_with_each_level():
    info = Info(pixels_per_cm=(20000.0, 40000.0))
    for level in range(4):
        x, y, unit = resolution_fields(info, level)
        assert struct.unpack("<II", x.data)[0] / struct.unpack("<II", x.data)[1] == 40000 / 2**level
        assert struct.unpack("<II", y.data)[0] / struct.unpack("<II", y.data)[1] == 20000 / 2**level
        assert unit == field(296, 3, 3)
    assert resolution_fields(Info(), 0) == []


def test_nodata_is_told_only_where_it_is_how_validity_is_told():
    info = Info(nodata="-9999", icc=b"profile", gdal_metadata="<GDALMetadata/>")
    assert {f.code: f.data for f in info_fields(info)} == {34675: b"profile", 42112: b"<GDALMetadata/>\0"}
    for overview in (False, True):
        fields = level_fields(Encoding(validity="nodata", nodata=7), 9, 9, overview=overview)
        assert text(42113, "7") in fields
        assert 42113 not in {f.code for f in level_fields(Encoding(), 9, 9, overview=overview)}


@pytest.mark.parametrize("masked", [False, True])
def test_the_ghost_header_tells_its_own_length(masked):
    words = ghost(masked)
    assert int(words[30:36]) == len(words) - 43
    assert (16 + len(words)) % 8 == 0
    assert (b"MASK_INTERLEAVED_WITH_IMAGERY=YES" in words) == masked


def test_offsets_follow_from_sizes():
    sizes = TileSizes(np.array([10, 20], np.uint32), np.array([3, 4], np.uint32))
    assert sizes.offsets(100).tolist() == [104, 104 + 10 + 8 + 3 + 8]
    assert sizes.mask_offsets(100).tolist() == [104 + 10 + 8, 133 + 20 + 8]
    assert sizes.total_bytes == 10 + 20 + 3 + 4 + 4 * 8


def test_what_is_no_tiff_is_named(tmp_path):
    path = tmp_path / "x.tif"
    with pytest.raises(MissingFile, match=r"x\.tif"):
        validate(path)
    for content in (b"", b"II", b"PNG and so on...", b"II*\0", b"II\x2b\0\x08\0\0\0"):
        path.write_bytes(content)
        with pytest.raises(DamagedFile, match="not a TIFF"):
            TiffFile(path)
        assert "not a TIFF" in validate(path).problems[0]


def test_broken_chains_end(tmp_path):
    path = tmp_path / "x.tif"
    directory_ = struct.pack("<HHHIIHHIII", 2, 256, 4, 1, 9, 257, 4, 1, 9, 8)
    cases = {
        "endless": directory_,  # the next directory is this one
        "beyond the end": directory_[:-4] + struct.pack("<I", 10**6),
        "entries": struct.pack("<H", 65000),
    }
    for words, content in cases.items():
        path.write_bytes(struct.pack("<2sHI", b"II", 42, 8) + content)
        with pytest.raises(DamagedFile, match=words):
            TiffFile(path)


def test_a_value_beyond_the_file_is_not_followed(tmp_path):
    """A count of four thousand million is a sentence, not an allocation."""
    path = tmp_path / "x.tif"
    entry = struct.pack("<HHII", 324, 4, 2**32 - 1, 100)
    path.write_bytes(struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", 1) + entry + bytes(4))
    (directory,) = read_chain(FileBytes(path), checked=False)
    with pytest.raises(DamagedFile, match="beyond the end"):
        directory.array(324)
    with pytest.raises(DamagedFile, match="needs bytes up to"):
        TiffFile(path)


def test_the_validator_sees_every_directory_and_a_source_the_first_1024(tmp_path):
    path, each = tmp_path / "x.tif", 2 + 2 * 12 + 4
    chain = [
        struct.pack("<HHHIIHHIII", 2, 256, 4, 1, 9, 257, 4, 1, 9, 8 + (i + 1) * each if i < 1099 else 0)
        for i in range(1100)
    ]
    path.write_bytes(struct.pack("<2sHI", b"II", 42, 8) + b"".join(chain))
    assert len(list(read_chain(FileBytes(path)))) == 1100
    assert len(TiffFile(path).directories) == 1024
    assert len(validate(path, deep=False).levels) == 1100
    with pytest.raises(DamagedFile, match="claims 2 entries"):
        next(read_chain(FileBytes(path), most_entries=1))
