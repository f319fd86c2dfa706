"""Zeiss's CZI through pylibCZIrw: what OpenSlide does not read of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from czi_files import NAMES, coarser, write_czi
from helpers import picture

import urst_tiles as ut
from urst_tiles.errors import BadInput, DamagedFile
from urst_tiles.geometry import Box
from urst_tiles.source import czi, open_source, slides
from urst_tiles.source import openslide as by_openslide
from urst_tiles.source.contents import contents_of

SMALL = {"model": "identity", "tile": 128, "block": 512, "thumbnail": 64}

#: Samples of two scenes as c, z, y, x.
FIRST, SECOND = (
    np.random.default_rng(seed).integers(0, 65536, shape).astype(np.uint16)
    for seed, shape in enumerate([(4, 3, 120, 150), (4, 3, 200, 170)])
)


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    """Two scenes, the second larger and left of the first, of four channels and three depths."""
    tiles = [
        (samples[c, z], y, x, scene, c, z)
        for scene, (samples, y, x) in enumerate([(FIRST, 0, 900), (SECOND, 40, -300)])
        for c in range(4)
        for z in range(3)
    ]
    return write_czi(tmp_path / "a.czi", tiles)


def read(path: Path, **chosen: object) -> np.ndarray:
    source = open_source(path, stretch="0,65535", **chosen)
    return source.read(Box(0, 0, *source.shape))


def test_scenes_planes_and_channels(slide: Path) -> None:
    source = open_source(slide)
    assert source.shape == (200, 170) and source.channels == 3 and source.file_dtype == np.uint16
    assert source.told == (
        "page 5 of 6 (scene 2, z 2); channels 1 (DAPI), 2 (FITC) and 3 (TRITC) of 4 as red, green and blue"
    )
    assert source.info.microns_per_pixel == pytest.approx((0.5, 0.25))
    np.testing.assert_array_equal(read(slide), np.moveaxis(SECOND[:3, 1], 0, -1))
    chosen = read(slide, page=3, channels=("Cy5", 2, "dapi"))
    np.testing.assert_array_equal(chosen, np.moveaxis(FIRST[[3, 1, 0], 2], 0, -1))
    np.testing.assert_array_equal(read(slide, page="scene 1, z 1", channels=("Cy5",))[..., 2], FIRST[3, 0])
    part = open_source(slide, stretch="0,65535").read(Box(33, 7, 190, 111))
    np.testing.assert_array_equal(part, np.moveaxis(SECOND[:3, 1], 0, -1)[33:190, 7:111])
    found = contents_of(slide)
    assert [page.shape for page in found.pages] == [(120, 150)] * 3 + [(200, 170)] * 3
    assert [channel.name for channel in found.channels] == list(NAMES.values())
    for wrong, words in (({"page": 7}, "no page '7'"), ({"channels": ("GFP",)}, "no channel 'GFP'")):
        with pytest.raises(BadInput, match=words):
            open_source(slide, **wrong)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_colours(dtype: str, tmp_path: Path) -> None:
    pixels = picture(150, 130).astype(dtype)
    path = write_czi(tmp_path / "a.czi", [(pixels, 0, 0, 0, 0, z) for z in range(2)], rgb=True)
    np.testing.assert_array_equal(read(path), pixels)
    np.testing.assert_array_equal(read(path, bands=(3, 2, 1)), pixels[..., ::-1])


def test_several_channels_in_colour(tmp_path: Path) -> None:
    """As of a polarisation microscope: each channel is a picture by itself, beside grey ones or not."""
    grey = FIRST[0, 0] // 256
    colours = [picture(120, 150, seed=seed) for seed in (1, 2)]
    tiles = [(grey.astype(np.uint8), 0, 0, 0, 0, 0), *((c, 0, 0, 0, n, 0) for n, c in enumerate(colours, 1))]
    path = write_czi(tmp_path / "a.czi", tiles)
    assert open_source(path).told == "channel 2 (FITC) of 3, which is in colour"
    np.testing.assert_array_equal(read(path), colours[0])
    np.testing.assert_array_equal(read(path, channels=("TRITC",)), colours[1])
    np.testing.assert_array_equal(read(path, channels=(1,))[..., 2], grey)
    with pytest.raises(BadInput, match=r"a\.czi: channel 3 \(TRITC\) is a picture in colour.*--channels 3"):
        open_source(path, channels=(1, 3, 2))
    only = write_czi(tmp_path / "b.czi", [(c, 0, 0, 0, n, 0) for n, c in enumerate(colours * 2)])
    assert open_source(only).told == "channel 1 (DAPI) of 4, which is in colour"
    np.testing.assert_array_equal(read(only, bands=(2,)), colours[1])


def test_openslide_comes_first(slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slides in colour that it opens are read by it; pylibCZIrw cannot write one."""
    assert slides.check_slide(slide, slide.read_bytes()[:16]) == "czi" and by_openslide.refused(slide)
    monkeypatch.setattr(slides, "refused", lambda path: "")
    assert slides.check_slide(slide, slide.read_bytes()[:16]) == "openslide"


def test_what_no_sub_block_covers_is_invalid(tmp_path: Path) -> None:
    one = FIRST[0, 0]
    path = write_czi(tmp_path / "a.czi", [(one, 0, 0, 0, 0, 0), (one, 120, 150, 0, 0, 0)])
    pixels = read(path)
    assert pixels.shape == (240, 300, 4)
    np.testing.assert_array_equal(
        pixels[..., 3] > 0, np.kron(np.eye(2, dtype=bool), np.ones((120, 150), bool))
    )
    np.testing.assert_array_equal(pixels[120:, 150:, 0], one)


def test_the_pyramid(tmp_path: Path) -> None:
    small = np.random.default_rng(3).integers(0, 65536, (77, 77)).astype(np.uint16)
    fine = np.random.default_rng(4).integers(0, 65536, (154, 154)).astype(np.uint16)
    path = write_czi(tmp_path / "a.czi", [(fine, 0, 0, 0, 0, 0), (small, 0, 0, 0, 0, 0)])
    coarser(path, 77, 2)
    source = open_source(path, stretch="0,65535")
    assert source.overviews == [(77, 77)] and source.shape == (154, 154) and source.channels == 3
    np.testing.assert_array_equal(source.read(Box(0, 0, 154, 154))[..., 0], fine)
    np.testing.assert_array_equal(read(path, level=1)[..., 0], small)
    coarse = open_source(path, stretch="0,65535", level=1)
    np.testing.assert_array_equal(coarse.read(Box(13, 5, 70, 66))[..., 0], small[13:70, 5:66])
    assert coarse.info.microns_per_pixel == pytest.approx((1.0, 0.5))


def test_a_job(slide: Path, tmp_path: Path) -> None:
    import tifffile

    ut.stylize(slide, tmp_path / "out.tif", None, stretch="0,65535", dtype="uint16", **SMALL)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), np.moveaxis(SECOND[:3, 1], 0, -1))


def test_a_file_that_is_cut_off(slide: Path) -> None:
    data = slide.read_bytes()
    slide.write_bytes(data[: len(data) // 2])
    with pytest.raises(DamagedFile, match=r"a\.czi, a Zeiss image, cannot be opened; libCZI says"):
        open_source(slide)


def test_without_pylibczirw(slide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slides, "czi", lambda: None)
    with pytest.raises(BadInput, match=r"a\.czi is a Zeiss .*urst-tiles\[czi\].*bfconvert a\.czi"):
        open_source(slide)
    assert czi.library() is not None
