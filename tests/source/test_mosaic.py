"""Many files as one image: what is read, in which order files lie, and which files make no image."""

from __future__ import annotations

import os
import pickle
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
from helpers import geotiff, picture
from mosaics import EAST, KEYS, NORTH, SIZE, boxes, cut, placed, tile

import urst_tiles as ut
from urst_tiles.geometry import Box
from urst_tiles.source import mosaic
from urst_tiles.source.identity import content_of
from urst_tiles.source.members import find_members, is_many
from urst_tiles.source.mosaic import MOST_OPEN

RGBA = {"extrasamples": ["unassalpha"]}


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    return picture(700, 900)


def test_tiles_of_random_extents_are_the_scene(scene: np.ndarray, tmp_path: Path) -> None:
    source = ut.open_source(cut(tmp_path / "t", scene, 4, 5))
    whole = ut.open_source(geotiff(tmp_path / "s.tif", scene))
    assert source.shape == (700, 900) and source.channels == 3 and source.info.geo == whole.info.geo
    for box in (Box(0, 0, 700, 900), Box(333, 401, 334, 402), Box(255, 0, 513, 900)):
        np.testing.assert_array_equal(source.read(box), scene[box.slices])
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(again.read(Box(5, 6, 77, 88)), scene[5:77, 6:88])
    for side in (64, 101):
        a, b = (one.prepare(None, thumbnail=side).thumbnail for one in (source, whole))
        np.testing.assert_array_equal(a, b)


def test_what_no_file_covers_is_invalid(scene: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    tile(tmp_path / "t" / "a.tif", scene, 0, 0, 300, 400)
    tile(tmp_path / "t" / "b.tif", scene, 350, 380, 700, 900)
    source = ut.open_source(tmp_path / "t")
    covered = np.zeros((700, 900), bool)
    covered[:300, :400] = covered[350:, 380:] = True
    pixels = source.read(Box(0, 0, 700, 900))
    np.testing.assert_array_equal(pixels[..., 3] > 0, covered)
    np.testing.assert_array_equal(pixels[covered, :3], scene[covered])
    assert source.info.validity == "mask" and "invalid" in source.made_of
    assert "later" not in source.made_of


def test_later_files_lie_over_earlier_ones(scene: np.ndarray, tmp_path: Path) -> None:
    """Names are in natural order, lists in their own; only valid pixels cover others."""
    black, grey = np.zeros_like(scene), np.full((*scene.shape[:2], 4), 99, np.uint8)
    grey[..., 3] = 255
    grey[100:200, 100:200, 3] = 0
    (tmp_path / "t").mkdir()
    tile(tmp_path / "t" / "t10.tif", black, 0, 0, 700, 900)
    tile(tmp_path / "t" / "t9.tif", scene, 0, 0, 700, 900)
    assert not ut.open_source(tmp_path / "t").read(Box(0, 0, 9, 9)).any()
    (tmp_path / "list.txt").write_text("t/t10.tif\n\nt/t9.tif\n")
    listed = ut.open_source(f"@{tmp_path}/list.txt")
    np.testing.assert_array_equal(listed.read(Box(0, 0, 9, 9)), scene[:9, :9])
    assert "later" in listed.made_of
    (tmp_path / "a").mkdir()
    tile(tmp_path / "a" / "1.tif", np.dstack([scene, grey[..., 3] * 0 + 255]), 0, 0, 700, 900, **RGBA)
    tile(tmp_path / "a" / "2.tif", grey, 0, 0, 700, 900, **RGBA)
    pixels = ut.open_source(tmp_path / "a").read(Box(50, 50, 250, 250))
    np.testing.assert_array_equal(pixels[50:150, 50:150, :3], scene[100:200, 100:200])
    assert (pixels[:50, :, :3] == 99).all() and (pixels[..., 3] == 255).all()


def test_nodata_and_masks_of_each_file(scene: np.ndarray, tmp_path: Path) -> None:
    holes = scene.copy()
    holes[10:60, 20:70] = 7
    (tmp_path / "t").mkdir()
    nodata = (42113, "s", 0, "7", True)
    for name, x0, x1 in (("a", 0, 500), ("b", 500, 900)):
        tile(tmp_path / "t" / f"{name}.tif", holes, 0, x0, 700, x1, extratags=[*placed(0, x0), nodata])
    source = ut.open_source(tmp_path / "t")
    assert source.info.nodata == "7" and source.info.validity == "nodata"
    assert not source.read(Box(10, 20, 60, 70))[..., 3].any()
    mask = np.full((700, 400), 255, np.uint8)
    mask[300:400, 100:200] = 0
    tifffile.imwrite(tmp_path / "t" / "b.tif.msk", mask)
    masked = ut.open_source(tmp_path / "t")
    assert masked.info.validity == "mask" and masked.fingerprint != source.fingerprint
    assert not masked.read(Box(300, 600, 400, 700))[..., 3].any()
    assert masked.read(Box(300, 500, 400, 600))[..., 3].all()


def beside(path: Path, nodata: str) -> None:
    """GDAL's file beside an image, which tells a nodata value."""
    band = f"<PAMRasterBand band='1'><NoDataValue>{nodata}</NoDataValue></PAMRasterBand>"
    path.with_name(f"{path.name}.aux.xml").write_text(f"<PAMDataset>{band}</PAMDataset>")


def test_a_nodata_value_beside_each_file_counts(scene: np.ndarray, tmp_path: Path) -> None:
    """Also where it differs from file to file, comes before the file's own, or is missing."""
    holes = np.maximum(scene, 10)
    holes[10:60, 20:70], holes[10:60, 520:570], holes[400:450, 20:70] = 7, 8, 7
    folder = tmp_path / "t"
    folder.mkdir()
    own = (42113, "s", 0, "8", True)
    for name, y0, x0, y1, x1, more in (
        ("a", 0, 0, 350, 500, []), ("b", 0, 500, 350, 900, []), ("c", 350, 0, 700, 500, []),
        ("d", 350, 500, 700, 900, [own]),
    ):  # fmt: skip
        tile(folder / f"{name}.tif", holes, y0, x0, y1, x1, extratags=[*placed(y0, x0), *more])
    plain = ut.open_source(folder)
    beside(folder / "a.tif", "7.000E+00")
    beside(folder / "b.tif", "8")
    beside(folder / "d.tif", "7")
    source = ut.open_source(folder)
    valid = np.ones(holes.shape[:2], bool)
    valid[10:60, 20:70] = valid[10:60, 520:570] = False  # "c" has none, so its 7 is a colour
    pixels = source.read(Box(0, 0, 700, 900))
    np.testing.assert_array_equal(pixels[..., 3] > 0, valid)
    np.testing.assert_array_equal(pixels[valid, :3], holes[valid])
    assert source.info.validity == "mask" and source.info.nodata is None
    assert plain.fingerprint != source.fingerprint
    again = pickle.loads(pickle.dumps(source)).read(Box(0, 0, 70, 600))
    np.testing.assert_array_equal(again[..., 3] > 0, valid[:70, :600])


def test_one_nodata_value_beside_all_files_is_that_of_the_image(scene: np.ndarray, tmp_path: Path) -> None:
    holes = np.maximum(scene, 10)
    holes[300:400, 400:600] = 9
    folder = cut(tmp_path / "t", holes, 2, 3)
    for path in list(folder.glob("*.tif")):
        beside(path, "9")
    source = ut.open_source(folder)
    pixels = source.read(Box(0, 0, 700, 900))
    np.testing.assert_array_equal(pixels[..., 3] > 0, (holes != 9).any(axis=-1))
    assert (source.info.nodata, source.info.validity) == ("9", "nodata")


@pytest.mark.parametrize("dtype", ["uint16", "float32", "int16"])
def test_other_types_are_stretched_as_one(scene: np.ndarray, tmp_path: Path, dtype: str) -> None:
    values = (scene.astype(np.float64) * 37 - 1000 * (dtype != "uint16")).astype(dtype)
    source = ut.open_source(cut(tmp_path / "t", values, 2, 3))
    whole = ut.open_source(geotiff(tmp_path / "s.tif", values))
    box = Box(0, 0, 700, 900)
    np.testing.assert_array_equal(source.read(box), whole.read(box))
    assert source.stretch == whole.stretch and source.channels == whole.channels


def test_other_ways_to_tell_the_place(scene: np.ndarray, tmp_path: Path) -> None:
    """A matrix, the centre of a pixel (PixelIsPoint), a tiepoint at another pixel, and a world file."""
    points = (*KEYS[:8], 1025, 0, 1, 2, *KEYS[12:])
    (tmp_path / "t").mkdir()
    place = tmp_path / "t"
    tile(place / "a.tif", scene, 0, 0, 350, 450)
    matrix = (SIZE, 0, 0, EAST + SIZE * 450, 0, -SIZE, 0, NORTH, 0, 0, 0, 0, 0, 0, 0, 1)
    keys = (34735, 3, len(KEYS), KEYS, True)
    tile(place / "b.tif", scene, 0, 450, 350, 900, extratags=[(34264, 12, 16, matrix, True), keys])
    tile(place / "c.tif", scene, 350, 0, 700, 450, extratags=placed(350.5, 0.5, keys=points))
    moved = (3.0, 5.0, 0.0, EAST + SIZE * 453, NORTH - SIZE * 355, 0.0)
    tags = [(33550, 12, 3, (SIZE, SIZE, 0.0), True), (33922, 12, 6, moved, True), keys]
    tile(place / "d.tif", scene, 350, 450, 700, 900, extratags=tags)
    source = ut.open_source(place)
    np.testing.assert_array_equal(source.read(Box(0, 0, 700, 900)), scene)
    geotiff(place / "c.tif", scene[350:, :450], extratags=[keys])
    east, north = EAST + SIZE / 2, NORTH - SIZE * 350.5
    (place / "c.tfw").write_text(f"{SIZE}\n0\n0\n-{SIZE}\n{east}\n{north}\n")
    np.testing.assert_array_equal(ut.open_source(place).read(Box(0, 0, 700, 900)), scene)


def test_strips_are_spooled(scene: np.ndarray, tmp_path: Path) -> None:
    folder = cut(tmp_path / "t", scene, 2, 2, tile=None, rowsperstrip=16)
    source = ut.open_source(folder)
    assert not source.random_access and source.spool_bytes > 0
    ready = source.prepare(tmp_path / "job", thumbnail=64)
    np.testing.assert_array_equal(ready.read(Box(0, 0, 700, 900)), scene)


def test_overviews_of_the_files_make_the_thumbnail(tmp_path: Path) -> None:
    scene = np.repeat(np.repeat(picture(256, 320), 4, 0), 4, 1)
    (tmp_path / "t").mkdir()
    for number, (y, x) in enumerate(((0, 0), (0, 640), (512, 0), (512, 640))):
        part = scene[y : y + 512, x : x + 640]
        with tifffile.TiffWriter(tmp_path / "t" / f"{number}.tif") as writer:
            options = {"tile": (256, 256), "photometric": "rgb", "metadata": None}
            writer.write(part, extratags=placed(y, x), **options)
            writer.write(255 - part[::4, ::4], subfiletype=1, **options)
    source = ut.open_source(tmp_path / "t")
    assert source.overviews == [(256, 320)]
    made = source.prepare(None, thumbnail=64)
    assert "overview 320 x 256" in made.thumbnail_origin
    plain = ut.open_source(tmp_path / "t", overviews=False).prepare(None, thumbnail=64)
    difference = made.thumbnail.astype(int) - (255 - plain.thumbnail.astype(int))
    assert np.abs(difference).max() <= 1


def test_names_that_stand_for_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b10.tif", "b9.TIFF", ".hidden.tif", "quicklook.jpg", "b9.tif.aux.xml"):
        Path(name).touch()
    Path("deep").mkdir()
    Path("deep/c.tif").touch()
    Path("in[1].tif").touch()
    Path("@odd.tif").touch()
    names = [path.name for path in find_members(".")]
    assert names == ["@odd.tif", "b9.TIFF", "b10.tif", "in[1].tif"]
    assert [path.name for path in find_members("b*")] == ["b9.TIFF", "b10.tif"]
    assert [path.name for path in find_members("b[1-9]*.tif")] == ["b10.tif"]
    assert is_many("b?.TIFF") and is_many("b[0-9].TIFF") and is_many("@none.txt") and is_many("deep")
    assert not any(map(is_many, ("in[1].tif", "b9.TIFF", "@odd.tif", "no[1].tif", "https://a/b.tif?x=1", "")))


def test_at_most_so_many_files_are_open(tmp_path: Path) -> None:
    """Threads that read all over an image of more files than may be open."""
    scene = picture(480, 480)
    (tmp_path / "t").mkdir()
    for number in range(144):
        y, x = number // 12 * 40, number % 12 * 40
        tile(tmp_path / "t" / f"{number}.tif", scene, y, x, y + 40, x + 40)
    source = ut.open_source(tmp_path / "t")
    stop, most = threading.Event(), [0]

    def link(descriptor: str) -> str:
        try:
            return os.readlink(f"/proc/self/fd/{descriptor}")
        except FileNotFoundError:  # closed since it was listed
            return ""

    def count() -> int:
        return sum(link(one).startswith(str(tmp_path.resolve())) for one in os.listdir("/proc/self/fd"))

    def watch() -> None:
        while not stop.is_set():
            most[0] = max(most[0], count())

    assert count() == 0
    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(4) as pool:
        random = np.random.default_rng(0)
        corners = random.integers(0, 400, (60, 2)).tolist()
        read = pool.map(lambda at: source.read(Box(at[0], at[1], at[0] + 80, at[1] + 80)), corners)
        for (y, x), pixels in zip(corners, read, strict=True):
            np.testing.assert_array_equal(pixels, scene[y : y + 80, x : x + 80])
    stop.set()
    watcher.join()
    assert MOST_OPEN // 2 < count() <= MOST_OPEN and most[0] <= MOST_OPEN


def test_a_file_that_changes_is_noticed(scene: np.ndarray, tmp_path: Path) -> None:
    source = ut.open_source(cut(tmp_path / "t", scene, 2, 2, compression=None))
    box = Box(0, 0, 700, 900)
    before = source.read(box)
    path = source.files[2]
    os.utime(path)
    np.testing.assert_array_equal(source.read(box), before)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ut.DamagedFile, match=f"{path.name} was changed"):
        source.read(box)


def test_files_that_were_touched_are_read_once_more(
    scene: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a copy of the folder while a job runs: the content counts, and is read once for all files."""
    folder = cut(tmp_path / "t", scene, 3, 3)
    source = ut.open_source(folder).prepare(tmp_path / "job", thumbnail=64)
    read = []
    monkeypatch.setattr(mosaic, "content_of", lambda *a: read.append(1) or content_of(*a))
    for path in source.files:
        os.utime(path, (1, 1))
    np.testing.assert_array_equal(source.read(Box(0, 0, 700, 900)), scene)
    assert read == [1]
    tile(source.files[4], 255 - scene, 0, 0, 40, 40)
    with pytest.raises(ut.DamagedFile, match=f"{source.files[4].name} was changed"):
        source.read(Box(0, 0, 700, 900))


def test_a_mask_of_another_size_is_refused(scene: np.ndarray, tmp_path: Path) -> None:
    folder = cut(tmp_path / "t", scene, 2, 2)
    tifffile.imwrite(folder / "tile2.tif.msk", np.full((3, 4), 255, np.uint8))
    with pytest.raises(ut.BadInput, match=r"tile2\.tif\.msk is a mask of another size"):
        ut.open_source(folder)


def test_a_file_that_changes_between_two_runs_is_noticed(scene: np.ndarray, tmp_path: Path) -> None:
    """Also where no sample of the fingerprint falls on the change."""
    folder = cut(tmp_path / "t", np.tile(scene, (2, 2, 1)), 1, 1, compression=None)
    source = ut.open_source(folder)
    source.prepare(tmp_path / "job", thumbnail=64)
    path = source.files[0]
    content = bytearray(path.read_bytes())
    content[90_000] ^= 1  # samples of 64 KiB begin every 119 kB
    path.write_bytes(content)
    with pytest.raises(ut.JobDiffers, match="edited"):
        ut.open_source(folder).prepare(tmp_path / "job", thumbnail=64)


def other_crs(folder: Path, scene: np.ndarray) -> None:
    tile(folder / "b.tif", scene, 0, 400, 300, 700, extratags=placed(0, 400, keys=(*KEYS[:-1], 32633)))


def other_size(folder: Path, scene: np.ndarray) -> None:
    tile(folder / "b.tif", scene, 0, 400, 300, 700, extratags=placed(0, 400, size=20.0))


def almost_other_size(folder: Path, scene: np.ndarray) -> None:
    tile(folder / "b.tif", scene, 0, 400, 300, 700, extratags=placed(0, 400, size=10.001))


def turned(folder: Path, scene: np.ndarray) -> None:
    matrix = (8.0, 6.0, 0, EAST, 6.0, -8.0, 0, NORTH, 0, 0, 0, 0, 0, 0, 0, 1)
    keys = (34735, 3, len(KEYS), KEYS, True)
    tile(folder / "b.tif", scene, 0, 0, 300, 300, extratags=[(34264, 12, 16, matrix, True), keys])


def more_bands(folder: Path, scene: np.ndarray) -> None:
    tile(folder / "b.tif", np.dstack([scene, scene[..., 0]]), 0, 400, 300, 700, **RGBA)


def grey(folder: Path, scene: np.ndarray) -> None:
    tile(folder / "b.tif", scene[..., 0], 0, 400, 300, 700, photometric="minisblack")


def wider(folder: Path, scene: np.ndarray) -> None:
    tile(folder / "b.tif", scene.astype(np.uint16), 0, 400, 300, 700)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (other_crs, "EPSG:32633.*EPSG:32632"),
        (other_size, "20 x 20.*10 x 10"),
        (almost_other_size, "10.001 x 10.001"),
        (turned, "resolution|turned"),
        (more_bands, "4 band.*3"),
        (grey, "1 band.*3"),
        (wider, "uint16.*uint8"),
    ],
)
def test_files_that_make_no_image(scene: np.ndarray, tmp_path: Path, spoil, words: str) -> None:
    tile(tmp_path / "a.tif", scene, 0, 0, 300, 400)
    spoil(tmp_path, scene)
    with pytest.raises(ut.BadInput, match=words) as refused:
        ut.open_source(tmp_path)
    for word in ("a.tif", "b.tif", "gdalwarp"):
        assert word in str(refused.value)


@pytest.mark.parametrize(
    ("y", "x", "said"), [(0, 400.25, "0.25"), (-0.02, 400, "0.02"), (0.004, 399.996, "")]
)
def test_files_that_are_shifted_by_a_part_of_a_pixel(
    scene: np.ndarray, tmp_path: Path, y: float, x: float, said: str
) -> None:
    """Each is taken at the nearest pixel, and the shift is told."""
    tile(tmp_path / "a.tif", scene, 0, 0, 300, 400)
    tile(tmp_path / "b.tif", scene, 0, 400, 300, 700, extratags=placed(y, x))
    source = ut.open_source(tmp_path)
    assert source.shape == (300, 700) and ("shifted by up to " + said in source.made_of) == bool(said)
    read = source.prepare(tmp_path / "job").read(Box(0, 0, 300, 700))
    np.testing.assert_array_equal(read[..., :3], scene[:300, :700])


def test_files_that_have_no_place(scene: np.ndarray, tmp_path: Path) -> None:
    tile(tmp_path / "a.tif", scene, 0, 0, 300, 400)
    geotiff(tmp_path / "b.tif", scene[:9], extratags=())
    with pytest.raises(ut.BadInput, match=r"b\.tif has no georeferencing"):
        ut.open_source(tmp_path)
    points = tuple(float(n) for n in range(24))
    geotiff(tmp_path / "b.tif", scene[:9], extratags=[(33922, 12, 24, points, True)])
    with pytest.raises(ut.BadInput, match=r"b\.tif is georeferenced by control points.*gdalwarp"):
        ut.open_source(tmp_path)


def test_names_without_files(tmp_path: Path) -> None:
    for name, error, words in (
        (str(tmp_path), ut.BadInput, "without an image"),
        (f"{tmp_path}/*.tif", ut.MissingFile, "no file matches"),
        (f"@{tmp_path}/no.txt", ut.MissingFile, "no list of files"),
    ):
        with pytest.raises(error, match=words):
            ut.open_source(name)
    for text, error, words in (
        ("\n", ut.BadInput, "names no file"),
        ("a.tif\n", ut.MissingFile, "a.tif"),
        ("\0", ut.BadInput, "no list of paths"),
    ):
        (tmp_path / "l.txt").write_text(text)
        with pytest.raises(error, match=words):
            ut.open_source(f"@{tmp_path}/l.txt")


def test_a_crs_that_is_written_in_other_words_is_the_same(scene: np.ndarray, tmp_path: Path) -> None:
    tile(tmp_path / "a.tif", scene, 0, 0, 700, 450)
    text = "WGS 84 / UTM zone 32N|"
    keys = (1, 1, 0, 5, *KEYS[4:12], 1026, 34737, len(text), 0, *KEYS[12:], 3076, 0, 1, 9001)
    tags = [*placed(0, 450, keys=keys), (34737, "s", 0, text, True)]
    tile(tmp_path / "b.tif", scene, 0, 450, 700, 900, extratags=tags)
    np.testing.assert_array_equal(ut.open_source(tmp_path).read(Box(0, 0, 700, 900)), scene)


def test_the_boxes_cover_the_scene() -> None:
    covered = np.zeros((300, 400), int)
    for y0, x0, y1, x1 in boxes((300, 400), 3, 4):
        covered[y0:y1, x0:x1] += 1
    assert covered.min() == 1 < covered.max()


def test_the_same_tiles_elsewhere_are_read_there(tmp_path: Path) -> None:
    """Equal content in another folder is no reason to read the files of the first."""
    scene = picture(200, 300)
    folder = cut(tmp_path / "first", scene, 2, 2)
    whole = Box(0, 0, 200, 300)
    np.testing.assert_array_equal(ut.open_source(folder).read(whole)[..., :3], scene)
    shutil.copytree(folder, tmp_path / "second")
    shutil.rmtree(folder)
    np.testing.assert_array_equal(ut.open_source(tmp_path / "second").read(whole)[..., :3], scene)


def test_files_with_and_without_overlaps_are_read_straight_into_an_array(
    scene: np.ndarray, tmp_path: Path
) -> None:
    """As the samples of a cell, where a file cannot be read so too; never where pixels may be invalid."""
    folder = cut(tmp_path / "t", scene, 3, 4)
    want = scene.copy()
    want[200:500, 300:640] = over = 255 - scene[200:500, 300:640]
    planes = np.ascontiguousarray(np.moveaxis(over, -1, 0))
    geotiff(folder / "z.tif", planes, planarconfig="separate", extratags=placed(200, 300))
    reader = ut.open_source(folder).opener.open()
    assert reader.into is not None
    for box in (Box(0, 0, 700, 900), Box(190, 290, 301, 300), Box(210, 310, 300, 400)):
        out = np.full((*box.shape, 3), 9, np.uint8)
        reader.into(box, 0, out)
        np.testing.assert_array_equal(out, want[box.slices])
        np.testing.assert_array_equal(out, reader.cell(box).colour)
    tile(folder / "far.tif", scene, 0, 0, 40, 40, extratags=placed(800, 900))
    gaps = ut.open_source(folder).opener.open()
    assert gaps.has_valid and gaps.into is None
