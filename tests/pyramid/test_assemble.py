"""The finished file: equal in every reader, valid, the same bytes on every way, and never half there."""

from __future__ import annotations

import errno
import hashlib
import importlib
import os
import random
import shutil
import subprocess
import sys
import time

import numpy as np
import openslide
import pytest
import pyvips
import rasterio
import tifffile
from rio_cogeo.cogeo import cog_validate

from urst_tiles.errors import BadInput, DamagedFile, DiskFull, JobError, MissingFile
from urst_tiles.geometry import Grid
from urst_tiles.pyramid import Encoding, assemble, output_bytes, validate
from urst_tiles.pyramid.parts import Parts
from urst_tiles.pyramid.reduce import levels_below
from urst_tiles.storage.publish import attempt_name, is_attempt
from urst_tiles.tiff.metadata import Info, Tag

assemble_module = importlib.import_module("urst_tiles.pyramid.assemble")  # its name leads to the function

INFO = Info(
    geo=(
        Tag(33550, 12, 3, (2.0, 2.0, 0.0)),
        Tag(33922, 12, 6, (0.0, 0.0, 0.0, 500000.0, 4000000.0, 0.0)),
        Tag(34735, 3, 12, (1, 1, 0, 2, 1024, 0, 1, 1, 3072, 0, 1, 32633)),
    ),
    pixels_per_cm=(20000.0, 40000.0),
    icc=b"a profile of odd length",
    gdal_metadata='<GDALMetadata><Item name="place">here</Item></GDALMetadata>',
)


def picture(height=150, width=259, channels=3, dtype=np.uint8):
    """Smooth with some noise; its hole is a disc whose colours are no zeros."""
    y, x = np.mgrid[:height, :width]
    top = np.iinfo(dtype).max
    noise = np.random.default_rng(5).integers(0, top // 16, (height, width, 3))
    rgb = (
        np.stack([y * top // height, x * top // width, (x + y) * top // (height + width)], -1) * 7 // 8
        + noise
    )
    rgb[:20, :20] = 0
    alpha = np.where((y - height / 2) ** 2 + (x - width / 3) ** 2 < (min(height, width) / 3) ** 2, 0, top)
    return np.dstack([rgb, alpha])[..., :channels].astype(dtype)


def make(folder, pixels, encoding, *, block=64, info=INFO, order=None, **more):
    grid = Grid(*pixels.shape[:2], core=16, block=block, tile=encoding.tile)
    parts = Parts(folder / "job", "f00d", grid, encoding)
    for index in order or range(len(grid)):
        if not parts.is_done(index):
            parts.write(index, pixels[grid.block_box(index).slices])
    output = folder / "out.tif"
    assemble(parts, info, output, **more)
    return output


def encoding_for(compression, validity, dtype="uint8", tile=16):
    nodata = 0 if validity == "nodata" else None
    return Encoding(compression, 92, dtype, 3 if validity == "none" else 4, validity, nodata, tile)


def seen(pixels, encoding):
    """What a reader shall find for these pixels, (h, w, samples)."""
    if encoding.stored_validity == "none":
        return pixels[..., :3]
    hidden = pixels[..., 3] == 0
    out = pixels[..., : encoding.samples].copy()
    if encoding.stored_validity == "nodata":
        out[(out == 0).all(-1)] = 1
    out[hidden] = 0
    return out


def distance(pixels, channels):
    """Mean over the valid pixels."""
    wanted = picture(channels=4).astype(int)
    valid = wanted[..., 3] > 0 if channels == 4 else slice(None)
    return np.abs(pixels[valid] - wanted[valid][..., :3]).mean()


def by_rasterio(path):
    with rasterio.open(path) as data:
        return data.read().transpose(1, 2, 0)


def by_openslide(path, channels):
    with openslide.OpenSlide(path) as slide:
        size = slide.level_dimensions[0]
        return np.asarray(slide.read_region((0, 0), 0, size))[..., :channels]


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("validity", ["none", "alpha", "mask", "nodata"])
@pytest.mark.parametrize("compression", ["deflate", "lzw", "zstd"])
def test_lossless_files_open_equal_everywhere(tmp_path, compression, validity, dtype):
    encoding = encoding_for(compression, validity, dtype)
    pixels = picture(channels=encoding.channels, dtype=np.dtype(dtype).type)
    path = make(tmp_path, pixels, encoding)
    expected = seen(pixels, encoding)
    np.testing.assert_array_equal(by_rasterio(path), expected)
    np.testing.assert_array_equal(tifffile.imread(path), expected)
    if compression != "zstd":  # the libvips wheel has none inside TIFF
        np.testing.assert_array_equal(pyvips.Image.new_from_file(str(path)).numpy(), expected)
    if validity == "none" and dtype == "uint8":
        np.testing.assert_array_equal(by_openslide(path, 3), expected)
    assert cog_validate(path, strict=True) == (True, [], [])
    assert validate(path).problems == ()


@pytest.mark.parametrize(("validity", "quality"), [("none", 92), ("none", 75), ("alpha", 92), ("nodata", 75)])
def test_jpeg_opens_equal_up_to_the_readers_own_decoders(tmp_path, validity, quality):
    encoding = Encoding("jpeg", quality, "uint8", 3 if validity == "none" else 4, validity, 0, 16)
    path = make(tmp_path, picture(channels=encoding.channels), encoding)
    ours = tifffile.imread(path).astype(int)
    assert distance(ours, encoding.channels) < 10
    np.testing.assert_array_equal(pyvips.Image.new_from_file(str(path)).numpy(), ours)
    np.testing.assert_array_equal(by_openslide(path, 3), ours)
    # GDAL brings a libjpeg of its own, which rounds otherwise and enlarges colour otherwise
    assert np.abs(by_rasterio(path) - ours).max() <= (1 if quality >= 90 else 16)
    assert cog_validate(path, strict=True) == (True, [], [])
    assert validate(path).problems == ()


@pytest.mark.parametrize("validity", ["none", "mask"])
def test_webp_opens_equal_where_it_opens(tmp_path, validity):
    encoding = encoding_for("webp", validity)
    path = make(tmp_path, picture(channels=encoding.channels), encoding)
    ours = tifffile.imread(path)
    assert distance(ours, encoding.channels) < 10
    np.testing.assert_array_equal(by_rasterio(path), ours)
    np.testing.assert_array_equal(pyvips.Image.new_from_file(str(path)).numpy(), ours)
    assert cog_validate(path, strict=True) == (True, [], [])


@pytest.mark.parametrize("compression", ["deflate", "jpeg", "webp"])
@pytest.mark.parametrize("validity", ["alpha", "mask", "nodata"])
def test_gdal_sees_the_valid_pixels_on_every_level(tmp_path, compression, validity):
    pixels = picture(channels=4)
    encoding = encoding_for(compression, validity)
    path = make(tmp_path, pixels, encoding)
    for n, level in enumerate([pixels, *levels_below(pixels, 5, binary=encoding.binary)]):
        with rasterio.open(path, **({"overview_level": n - 1} if n else {})) as data:
            assert data.shape == level.shape[:2]
            np.testing.assert_array_equal(data.dataset_mask() > 0, level[..., 3] > 0)


@pytest.mark.parametrize("block", [16, 32, 128])
@pytest.mark.parametrize("validity", ["none", "alpha", "nodata"])
def test_every_level_is_that_of_the_whole_image(tmp_path, block, validity):
    """Across parts and upper stages alike."""
    encoding = encoding_for("zstd", validity)
    pixels = picture(channels=encoding.channels)
    path = make(tmp_path, pixels, encoding, block=block)
    expected = [pixels, *levels_below(pixels, 5, binary=encoding.binary)]
    with tifffile.TiffFile(path) as tif:
        assert len(tif.pages) == 6
        for page, level in zip(tif.pages, expected, strict=True):
            np.testing.assert_array_equal(page.asarray(), seen(level, encoding))


@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 200), (200, 1), (16, 16), (17, 16), (63, 65), (64, 64), (129, 257)]
)
@pytest.mark.parametrize("compression", ["deflate", "jpeg"])
def test_odd_sizes(tmp_path, shape, compression):
    encoding = encoding_for(compression, "alpha")
    pixels = picture(*shape, channels=4)
    path = make(tmp_path, pixels, encoding)
    report = validate(path)
    assert report.valid, report
    assert report.levels[0] == shape and max(report.levels[-1]) <= 16
    if compression == "deflate":
        np.testing.assert_array_equal(by_rasterio(path), seen(pixels, encoding))
    if shape[1] > 1:  # rasterio tells decimations from widths alone
        assert cog_validate(path, strict=True) == (True, [], [])


def test_metadata_arrives(tmp_path):
    path = make(tmp_path, picture(), Encoding(tile=16), description="a scene", software="urst-tiles 0")
    with rasterio.open(path) as data:
        assert data.crs.to_epsg() == 32633
        assert data.transform[:6] == (2, 0, 500000, 0, -2, 4000000)
        assert data.tags()["place"] == "here"
        assert data.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert data.nodata is None
    with tifffile.TiffFile(path) as tif:
        assert tif.pages.first.tags[34675].value == INFO.icc
        assert (tif.pages.first.description, tif.pages.first.software) == ("a scene", "urst-tiles 0")
        assert tif.pages[1].get_resolution("CENTIMETER") == (20000, 10000)
    with openslide.OpenSlide(path) as slide:
        assert float(slide.properties[openslide.PROPERTY_NAME_MPP_X]) == 0.25
        assert float(slide.properties[openslide.PROPERTY_NAME_MPP_Y]) == 0.5
        assert slide.level_count == 6


def test_nodata_is_told(tmp_path):
    path = make(tmp_path, picture(channels=4), encoding_for("deflate", "nodata"))
    with rasterio.open(path) as data:
        assert data.nodata == 0


@pytest.mark.parametrize("compression", ["deflate", "lzw", "zstd", "jpeg", "webp"])
def test_same_bytes_on_every_way(tmp_path, compression):
    """Any order, any number of threads, resumed or not."""
    pixels, encoding = picture(channels=4), encoding_for(compression, "alpha")
    hashes = set()
    for seed in range(2):
        folder = tmp_path / str(seed)
        folder.mkdir()
        order = list(range(15))
        random.Random(seed).shuffle(order)
        path = make(folder, pixels, encoding, order=order)
        hashes.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assemble(Parts(folder / "job", "f00d", Grid(150, 259, core=16, block=64, tile=16), encoding), INFO, path)
    hashes.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(hashes) == 1


@pytest.fixture
def job(tmp_path):
    """A complete job folder whose output is not yet made."""
    path = make(tmp_path, picture(), Encoding(tile=16), block=32)
    path.unlink()
    return Parts(tmp_path / "job", "f00d", Grid(150, 259, core=16, block=32, tile=16), Encoding(tile=16))


def test_every_part_is_required(job, tmp_path):
    job.path(7).unlink()
    with pytest.raises(BadInput, match="1 of 45 blocks are missing .* block 7"):
        assemble(job, INFO, tmp_path / "out.tif")
    assert not (tmp_path / "out.tif").exists()


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_damaged_parts_are_all_named_and_removed(job, tmp_path):
    for index in (3, 33):
        flip(job.path(index), job.footer(index).levels[0].start + 30)
    with pytest.raises(DamagedFile, match=r"blocks 3, 33.*run the same command again"):
        assemble(job, INFO, tmp_path / "out.tif")
    assert sorted(os.listdir(tmp_path)) == ["job"]
    assert job.missing() == [3, 33]
    make(tmp_path, picture(), Encoding(tile=16), block=32)
    assert validate(tmp_path / "out.tif").valid


def test_a_forged_block_is_not_known_as_one(job, tmp_path):
    """Checksums find damage. They are no signature: whoever may write into a job folder decides what is
    made."""
    other = Parts(tmp_path / "other", "f00d", job.grid, job.encoding)
    other.write(7, picture()[job.grid.block_box(7).slices][::-1].copy())
    job.path(7).write_bytes(other.path(7).read_bytes())
    assemble(job, INFO, tmp_path / "out.tif")
    assert validate(tmp_path / "out.tif").valid


def test_damaged_overviews_are_made_anew(job, tmp_path):
    first, second = job.upper, job.upper.upper
    for upper, place in ((first, first.footer(0).seed["offset"]), (second, second.footer(0).levels[0].start)):
        flip(upper.path(0), place)
        if upper is first:
            second.path(0).unlink()
        with pytest.raises(DamagedFile, match="overviews"):
            assemble(job, INFO, tmp_path / "out.tif")
        assemble(job, INFO, tmp_path / "out.tif")
        assert validate(tmp_path / "out.tif").valid


def test_a_killed_assembly_goes_on(job, tmp_path, monkeypatch):
    """Overviews that were finished are not made again, and what the kill left is overwritten."""
    whole = make(tmp_path, picture(), Encoding(tile=16), block=32).read_bytes()
    (tmp_path / "out.tif").unlink()
    left = attempt_name(tmp_path / "out.tif")
    left.write_bytes(b"left by a kill")
    job.upper.path(2).unlink()
    written = []
    real = Parts.write
    monkeypatch.setattr(
        Parts, "write", lambda self, i, p: written.append((self.stage, i)) or real(self, i, p)
    )
    assemble(job, INFO, tmp_path / "out.tif")
    assert written == [(1, 2)]
    assert (tmp_path / "out.tif").read_bytes() == whole
    assert not left.exists()


def job_of(folder, pixels):
    """A job whose parts are all written, in a folder of its own."""
    grid = Grid(*pixels.shape[:2], core=16, block=32, tile=16)
    parts = Parts(folder, "f00d", grid, Encoding(tile=16))
    for index in range(len(grid)):
        parts.write(index, pixels[grid.block_box(index).slices])
    return parts


@pytest.mark.parametrize("moment", ["while it writes", "before it gets its name"])
def test_two_jobs_with_one_output_never_mix(tmp_path, monkeypatch, moment):
    """One job assembles to the end while another, with the same output, is in the middle."""
    first, second = job_of(tmp_path / "a", picture()), job_of(tmp_path / "b", picture()[::-1].copy())
    output = tmp_path / "out.tif"
    wanted = {}
    for name, job in (("first", first), ("second", second)):
        assemble(job, INFO, tmp_path / name)
        wanted[name] = (tmp_path / name).read_bytes()
    real, met = os.fsync, []

    def meanwhile(handle):
        if not met:
            met.append(True)
            assemble(second, INFO, output)
            assert output.read_bytes() == wanted["second"]
        real(handle)

    def half(stage, done, total):
        if not met and done > total // 2:
            met.append(True)
            assemble(second, INFO, output)
            assert output.read_bytes() == wanted["second"]

    if moment == "before it gets its name":
        monkeypatch.setattr(os, "fsync", meanwhile)
        assemble(first, INFO, output)
    else:
        assemble(first, INFO, output, progress=half)
    assert met and output.read_bytes() == wanted["first"]
    assert set(os.listdir(tmp_path)) == {"a", "b", "first", "second", "out.tif"}


def test_an_existing_file_is_never_replaced_unasked(job, tmp_path):
    output, calls = tmp_path / "out.tif", []
    assemble(job, INFO, output)
    whole, before = output.read_bytes(), output.stat()
    assemble(job, INFO, output, overwrite=False, progress=lambda *call: calls.append(call[0]))
    assert os.path.samestat(output.stat(), before) and "assembling" not in calls
    for other in (b"mine", whole[:-1] + bytes([whole[-1] ^ 1])):
        output.write_bytes(other)
        with pytest.raises(BadInput, match="out.tif exists.*--overwrite"):
            assemble(job, INFO, output, overwrite=False)
        assert output.read_bytes() == other
    assert set(os.listdir(tmp_path)) == {"job", "out.tif"}


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("made", ["by somebody else", "by this job elsewhere"])
def test_a_file_that_comes_into_being_while_it_is_made(job, tmp_path, monkeypatch, made, links):
    output = tmp_path / "out.tif"
    assemble(job, INFO, output)
    whole = output.read_bytes() if made == "by this job elsewhere" else b"mine"
    output.unlink()
    if not links:
        monkeypatch.setattr(os, "link", lambda *a, **k: (_ for _ in ()).throw(PermissionError(1, "no links")))

    def appears(stage, done, total):
        if stage == "assembling" and done > total // 2 and not output.exists():
            output.write_bytes(whole)

    if made == "by this job elsewhere":
        assemble(job, INFO, output, overwrite=False, progress=appears)
    else:
        with pytest.raises(BadInput, match="out.tif exists"):
            assemble(job, INFO, output, overwrite=False, progress=appears)
    assert output.read_bytes() == whole
    assert set(os.listdir(tmp_path)) == {"job", "out.tif"}
    output.unlink()
    assemble(job, INFO, output, overwrite=False)
    assert validate(output).valid and output.stat().st_nlink == 1


def test_what_is_checked_is_what_gets_the_name(job, tmp_path):
    """Another program exchanges the file under its temporary name after it was written."""

    def exchanged(stage, done, total):
        if done == total and stage == "assembling":
            (attempt,) = (path for path in tmp_path.iterdir() if is_attempt(path.name, "out.tif"))
            attempt.unlink()
            attempt.write_bytes(b"something else")

    with pytest.raises(JobError, match="removed or replaced"):
        assemble(job, INFO, tmp_path / "out.tif", progress=exchanged)
    assert not (tmp_path / "out.tif").exists()
    assert [p.read_bytes() for p in tmp_path.iterdir() if p.is_file()] == [b"something else"]


def test_a_full_disk_is_seen_before_and_while_writing(job, tmp_path, monkeypatch):
    output = tmp_path / "out.tif"
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 1000})())
        with pytest.raises(DiskFull, match="free"):
            assemble(job, INFO, output)

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(assemble_module, "read_cells", full)
    with pytest.raises(DiskFull, match="no room left"):
        assemble(job, INFO, output)
    assert sorted(os.listdir(tmp_path)) == ["job"]
    assert job.missing() == []


def test_an_output_folder_that_is_not_there(job, tmp_path):
    with pytest.raises(MissingFile, match="nowhere"):
        assemble(job, INFO, tmp_path / "nowhere" / "out.tif")


def test_an_invalid_file_never_gets_its_name(job, tmp_path, monkeypatch):
    monkeypatch.setattr(assemble_module, "ghost", lambda masked, form: b"not a ghost.")
    with pytest.raises(DamagedFile, match="not valid"):
        assemble(job, INFO, tmp_path / "out.tif")
    assert sorted(os.listdir(tmp_path)) == ["job"]
    assert job.missing() == [], "the parts are not to blame"


def test_progress_ends_where_it_should(job, tmp_path):
    calls = []
    assemble(job, INFO, tmp_path / "out.tif", progress=lambda *call: calls.append(call))
    assert [call[0] for call in calls if call[1] == call[2]][-1] == "assembling"
    sizes = [call[1] for call in calls if call[0] == "assembling"]
    assert sizes == sorted(sizes) and sizes[-1] == (tmp_path / "out.tif").stat().st_size


def test_the_bound_for_the_disk_holds(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 4), np.uint8)
    encoding = encoding_for("lzw", "mask")
    path = make(tmp_path, noise, encoding)
    assert path.stat().st_size < output_bytes(Grid(200, 300, core=16, block=64, tile=16), encoding)


ASSEMBLE_AGAIN = """
import sys
from pathlib import Path
sys.path[:0] = {path!r}
from urst_tiles.geometry import Grid
from urst_tiles.pyramid import Encoding, assemble
from urst_tiles.pyramid.parts import Parts
from urst_tiles.tiff.metadata import Info
folder = Path(sys.argv[1])
parts = Parts(folder / "job", "f00d", Grid(2000, 3000, core=64, block=64, tile=16), Encoding(tile=16))
print("ready", flush=True)
assemble(parts, Info(), folder / "out.tif")
"""


@pytest.mark.slow
def test_kill_9_at_any_moment_of_assembling(tmp_path):
    """Each run is killed a little later than the one before; the output is absent or whole at any moment."""
    whole = make(tmp_path, picture(2000, 3000), Encoding(tile=16), info=Info())
    expected = whole.read_bytes()
    whole.unlink()
    shutil.rmtree(tmp_path / "job" / "upper-1")
    command = [sys.executable, "-c", ASSEMBLE_AGAIN.format(path=sys.path), str(tmp_path)]
    for kills in range(40):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as run:
            assert run.stdout.readline() == b"ready\n"
            time.sleep(0.05 + 0.1 * kills)
            run.kill()
        if whole.exists():
            break
        left = set(os.listdir(tmp_path)) - {"job"}
        assert len(left) <= 1 and all(is_attempt(name, "out.tif") for name in left)
    assert kills > 3
    assert whole.read_bytes() == expected
    assert set(os.listdir(tmp_path)) == {"job", "out.tif"}
