"""`map_blocks` is lazy, one task per chunk, and equal to the whole image's result."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import pyvips
import tifffile
import zarr
from helpers import geotiff, picture

import urst_tiles as ut
from urst_tiles import nets
from urst_tiles.engine.kernel import Kernel
from urst_tiles.engine.sampled import measure_sampled
from urst_tiles.engine.statistics import measure_here
from urst_tiles.geometry import Box, Grid
from urst_tiles.source import array_source
from urst_tiles.source.picture import write_png
from urst_tiles.source.windows import WindowReader

H, W = 306, 427


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return picture(H, W)


@pytest.fixture(scope="module")
def kernel(image: np.ndarray) -> Kernel:
    style = nets.seeded("microast", [(picture(96, 80, seed=3).astype(np.float32) / 255, 1.0)])
    return Kernel(nets.freeze(style, measure_here(style, array_source(image))))


@pytest.fixture(scope="module")
def whole(kernel: Kernel, image: np.ndarray) -> np.ndarray:
    grid = Grid(H, W, 0, kernel.net.stride, 1024, 1024, 512, kernel.net.minimum)
    window = WindowReader(array_source(image)).padded(grid.padded)[0]
    return kernel.run(window[None], [grid.padded], [Box(0, 0, H, W)])[0]


def close(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and int(np.abs(a.astype(int) - b).max()) <= 1


def test_of_arrays(kernel: Kernel, image: np.ndarray, whole: np.ndarray) -> None:
    stored = zarr.create_array({}, shape=image.shape, chunks=(100, 100, 3), dtype="uint8")
    stored[:] = image
    for source in (image, stored, array_source(image)):
        lazy = ut.map_blocks(kernel, source, chunk=128)
        assert isinstance(lazy, da.Array) and lazy.shape == (H, W, 3) and lazy.chunks[0] == (128, 128, 50)
        assert len(lazy.__dask_graph__()) == 3 * 4
        assert close(lazy.compute(), whole)


def test_a_part_computes_only_its_chunks(kernel: Kernel, image: np.ndarray, whole: np.ndarray) -> None:
    read: list[Box] = []
    source = array_source(image)
    reading = source.read
    source.read = lambda box: (read.append(box), reading(box))[1]  # type: ignore[method-assign]
    part = ut.map_blocks(kernel, source, chunk=128)[200:210, 5:9].compute()
    assert close(part, whole[200:210, 5:9])
    assert len(read) == 1


def test_of_a_path(kernel: Kernel, files: Path) -> None:
    lazy = ut.map_blocks(kernel, files / "scene.tif", chunk=512)
    assert lazy.shape == (900, 1100, 3)
    assert lazy[:20, :30].compute().shape == (20, 30, 3)


@pytest.mark.parametrize("chunks", [(128, 128, 3), (64, 200, 3), (1024, 1024, 3)])
def test_of_a_dask_array(
    kernel: Kernel, image: np.ndarray, whole: np.ndarray, chunks: tuple[int, int, int]
) -> None:
    lazy = ut.map_blocks(kernel.net, da.from_array(image, chunks=chunks))
    assert lazy.chunks[:2] == da.from_array(image, chunks=chunks).chunks[:2]
    assert close(lazy.compute(), whole)


def test_chunks_depend_on_their_neighbours_at_most(kernel: Kernel) -> None:
    made: list[tuple[int, ...]] = []

    def zeros(block_info: Any = None) -> np.ndarray:
        made.append(block_info[None]["chunk-location"][:2])
        return np.zeros((128, 128, 3), "uint8")

    chunks = ((128,) * 5, (128,) * 5, (3,))
    x = da.map_blocks(zeros, chunks=chunks, dtype="uint8", meta=np.empty((0, 0, 0), "uint8"))
    ut.map_blocks(kernel, x)[:10, :10].compute()
    assert set(made) == {(0, 0), (0, 1), (1, 0), (1, 1)}


@pytest.mark.parametrize(
    ("chunks", "said"), [((254, 256, 3), "stride 4.*rechunk to 1024"), ((32, 256, 3), "halo 52.*rechunk")]
)
def test_chunks_that_cannot_be_exact_are_refused(
    kernel: Kernel, image: np.ndarray, chunks: tuple, said: str
) -> None:
    with pytest.raises(ut.BadPlan, match=said):
        ut.map_blocks(kernel, da.from_array(image, chunks=chunks))


def test_the_page_on_arrays(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first program of docs/arrays.md does what the page says; the second needs xarray."""
    pixels, flags = picture(1500, 1100), {"photometric": "rgb", "tile": (256, 256), "compression": "deflate"}
    with tifffile.TiffWriter(tmp_path / "scene.tif") as file:
        file.write(pixels, **flags)
        file.write(pixels[::2, ::2], subfiletype=1, **flags)
    monkeypatch.chdir(tmp_path)
    program = re.findall(r"```python\n(.*?)```", (root / "docs" / "arrays.md").read_text(), re.DOTALL)[0]
    made: dict[str, Any] = {}
    exec(program, made)
    np.testing.assert_array_equal(made["pixels"][0:512, 0:512], pixels[:512, :512])
    lazy = made["lazy"]
    assert lazy.chunks == ((1024, 476), (1024, 76), (3,)) and lazy.dtype == np.uint8
    np.testing.assert_array_equal(lazy.compute(), pixels)
    np.testing.assert_allclose(made["means"], pixels.mean(axis=(0, 1)))
    assert made["coarse"].shape == (750, 550, 3)
    assert made["pixels"].metadata.dimension_names == ("y", "x", "channel")


def test_dask_tells_images_apart(tmp_path: Path) -> None:
    """dask merges tasks of one name: two images, or two levels of one, must not share any."""
    one, other = picture(300, 260), picture(300, 260, seed=1)
    geotiff(tmp_path / "a.tif", one)
    geotiff(tmp_path / "b.tif", other)
    lazy = [da.from_zarr(ut.open_source(tmp_path / name).array) for name in ("a.tif", "b.tif")]
    assert lazy[0].name != lazy[1].name
    both = da.concatenate(lazy).compute()
    np.testing.assert_array_equal(both, np.concatenate([one, other]))
    far = lazy[0].map_blocks(lambda x: x // 2, dtype=np.uint8).compute(scheduler="threads")
    np.testing.assert_array_equal(far, one // 2)


def test_the_painter_paints_arrays_as_a_job_does_on_one_level(tmp_path: Path) -> None:
    """With the noise from which its strokes begin, whatever the chunks."""
    pixels = picture(400, 500, 3)
    pixels[60:340, 80:400] = 50
    write_png(tmp_path / "in.png", pixels)
    options = ut.Options(model="painter", precision="float32", stroke=1, device="cpu")
    ut.stylize(tmp_path / "in.png", tmp_path / "made.png", "hokusai-wave", options)
    made = pyvips.Image.new_from_file(str(tmp_path / "made.png")).numpy()[..., :3].astype(int)
    style = ut.build_style(ut.recipe_of("hokusai-wave", options))
    kernel = Kernel(nets.freeze(style, measure_sampled(style, array_source(pixels))))
    shown = ut.map_blocks(kernel, pixels, chunk=256).compute()
    lazy = ut.map_blocks(kernel, da.from_array(pixels, chunks=(200, 200, 3))).compute()
    assert np.abs(made - shown).max() <= 1 and np.abs(shown.astype(int) - lazy).max() <= 1
    assert shown[150:250, 150:330].std() > 5  # strokes where the image is flat
