"""The plan's peak is a bound that is not idle: what a run takes lies between 60 and 100 % of it (law 2), and
between 70 and 100 % over the options of `benchmarks/memory_grid.py`."""

from __future__ import annotations

import json
import pickle
import sys
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from commands import Done
from helpers import geotiff, peak_of, picture

import urst_tiles as ut
from urst_tiles.api.stylize import open_job, stylize_on
from urst_tiles.budget import METADATA_COPIES, encoded_bytes, metadata_bytes
from urst_tiles.options import Options
from urst_tiles.plan import FILL_BYTES_PER_PIXEL, FILLING_BYTES_PER_PIXEL, Plan
from urst_tiles.source import Fill, array_source, open_source
from urst_tiles.source.windows import WindowReader
from urst_tiles.workers.run import Cluster, Outcome, Task, plain


def shares(run: Callable[..., Done], arguments: list[str]) -> float:
    """What a run of ``urst-tiles stylize`` takes, as a share of what ``plan`` promises."""
    planned = run("plan", *arguments, "--json")
    assert planned.returncode == 0, planned.stderr
    formula = json.loads(planned.stdout)["peak_bytes"]
    taken = peak_of([sys.executable, "-m", "urst_tiles", "stylize", *arguments])
    print(f"{taken >> 20} of {formula >> 20} MiB")
    return taken / formula


@pytest.mark.parametrize(
    ("model", "shape", "statistics"),
    [
        pytest.param("microast", (2048, 2048), "thumbnail", marks=pytest.mark.slow),
        pytest.param("microast", (512, 9000), "thumbnail", marks=pytest.mark.slow),
        ("lite", (2048, 2560), "exact"),
    ],
)
def test_a_run_keeps_to_its_plan(
    run, files: Path, weights_dir: Path, tmp_path: Path, model: str, shape: tuple[int, int], statistics: str
) -> None:
    scene = geotiff(tmp_path / "scene.tif", picture(*shape))
    arguments = [
        str(scene), str(tmp_path / "out.tif"), "--style", str(files / "style.png"), "--model", model,
        "--weights", str(weights_dir), "--tile", "512", "--block", "2048", "--statistics", statistics,
    ]  # fmt: skip
    assert 0.6 < shares(run, arguments) <= 1.0


#: Kinds of jobs whose memory is of another origin than the blocks and windows of RGB, each as a run that is
#: dominated by it as far as a quick test can.
KINDS = {
    "no network": ["--model", "identity"],
    "invalid pixels": ["--block", "1024"],
    "colours of invalid pixels": [
        "--block", "512", "--tile", "256", "--preserve-color", "coral", "--statistics", "exact",
    ],
    "local statistics": ["--block", "512", "--statistics", "local", "--local-scale", "512"],
    "blending": ["--seam", "blend", "--halo", "16", "--block", "2048"],
    "large tags": ["--block", "1024"],
    "a painting on two levels": ["--model", "painter", "--stroke", "2"],
}  # fmt: skip


#: The others are slow tests.
QUICK = ("invalid pixels", "large tags")


@pytest.mark.parametrize(
    "kind", [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_every_kind_of_job_keeps_to_its_plan(run, files: Path, tmp_path: Path, kind: str) -> None:
    side = 1024 if "--statistics" in KINDS[kind] else 2048
    pixels = picture(side, side)
    if "invalid" in kind or kind == "local statistics":
        scene = geotiff(tmp_path / "scene.tif", with_holes(pixels), extrasamples=["unassalpha"])
    elif kind == "large tags":
        scene = with_large_tags(tmp_path / "scene.tif", pixels, 1 << 21)
    else:
        scene = geotiff(tmp_path / "scene.tif", pixels)
    arguments = [str(scene), str(tmp_path / "out.tif"), "--style", str(files / "style.png"), *KINDS[kind]]
    assert 0.7 <= shares(run, [*arguments, *([] if "--tile" in arguments else ["--tile", "512"])]) <= 1.0


@pytest.mark.slow
@pytest.mark.parametrize("method", ["reinhard", "histogram"])
def test_counted_and_looked_up_colours_keep_to_their_plan(
    run, files: Path, tmp_path: Path, method: str
) -> None:
    """Of noise, in which almost every colour occurs."""
    noise = np.random.default_rng(0).integers(0, 256, (6144, 6144, 3), np.uint8)
    scene = geotiff(tmp_path / "scene.tif", noise)
    arguments = [str(scene), str(tmp_path / "out.tif"), "--style", str(files / "style.png")]
    assert 0.6 < shares(run, [*arguments, "--model", "colour", "--method", method]) <= 1.0


def with_holes(pixels: np.ndarray) -> np.ndarray:
    """The pixels as RGBA, of which a fifth are invalid."""
    y, x = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
    return np.dstack([pixels, np.where((y % 90 < 50) | (x % 90 < 50), 255, 0).astype(np.uint8)])


def with_large_tags(path: Path, pixels: np.ndarray, doubles: int) -> Path:
    """A GeoTIFF with so many GeoDoubleParams, a large colour profile and large GDAL metadata."""
    many = np.arange(doubles, dtype=np.float64).tobytes()
    items = "".join(f'<Item name="note{i}">{"x" * 1000}</Item>' for i in range(1000))
    xml = f"<GDALMetadata>{items}</GDALMetadata>"
    profile = bytes(16) + b"RGB " + bytes(16) + b"acsp" + bytes(1 << 20)
    keys = (1, 1, 0, 1, 1024, 0, 1, 1)
    tags = [
        (33550, 12, 3, (10.0, 10.0, 0.0), True),
        (33922, 12, 6, (0.0, 0.0, 0.0, 500000.0, 5200000.0, 0.0), True),
        (34735, 3, len(keys), keys, True),
        (34736, 12, doubles, many, True),
        (34675, 7, len(profile), profile, True),
        (42112, 2, len(xml) + 1, xml, True),
    ]
    return geotiff(path, pixels, extratags=tags)


@pytest.mark.parametrize("statistics", ["thumbnail", "exact", "local"])
def test_large_tags_travel_with_the_job_and_not_with_every_task(tmp_path: Path, statistics: str) -> None:
    """Neither blocks nor passes that measure carry them, and the output has them nevertheless."""
    scene = with_large_tags(tmp_path / "scene.tif", picture(300, 350), 1 << 17)
    sizes: dict[str, int] = {}

    def watched(task: Task, indexes: Iterable[int]) -> Iterator[Outcome]:
        sizes[type(task).__name__] = len(pickle.dumps(task))
        return plain(task, indexes)

    @contextmanager
    def opening(**options: Any) -> Iterator[Cluster]:
        yield Cluster(watched)

    options = Options(tile=128, block=256, statistics=statistics, local_scale=128)  # type: ignore[arg-type]
    stylize_on(scene, tmp_path / "out.tif", "van-gogh-starry-night", options, opening=opening)
    assert "StylizeBlock" in sizes and ("SitePass" in sizes) == (statistics != "thumbnail")
    assert max(sizes.values()) < 10_000, sizes
    with tifffile.TiffFile(tmp_path / "out.tif") as made, tifffile.TiffFile(scene) as given:
        for code in (34736, 34675):
            assert made.pages[0].tags[code].value == given.pages[0].tags[code].value
        assert len(made.pages[0].tags[42112].value) > 1_000_000


def planned(scene: Path, folder: Path, **options: Any) -> Plan:
    return open_job(scene, folder / "out.tif", "van-gogh-starry-night", Options(tile=256, **options))[-1]


def test_large_tags_are_counted(tmp_path: Path) -> None:
    """As they are held, and as they are copied while the output is written."""
    plain_scene = geotiff(tmp_path / "plain.tif", picture(600, 700))
    scene = with_large_tags(tmp_path / "scene.tif", picture(600, 700), 1 << 20)
    source = open_source(scene)
    held = sum(
        sys.getsizeof(tag.value) + sum(map(sys.getsizeof, tag.value))
        for tag in source.info.geo
        if isinstance(tag.value, tuple)
    )
    assert held > 32 << 20
    assert held <= metadata_bytes(source) <= 1.2 * held
    assert encoded_bytes(source) > 8 << 20
    more = planned(scene, tmp_path).peak_bytes - planned(plain_scene, tmp_path).peak_bytes
    assert more >= held
    assert planned(scene, tmp_path).finish_bytes >= METADATA_COPIES * encoded_bytes(source)


def test_filling_takes_what_is_said() -> None:
    """A fill, while it is made and afterwards, for each pixel of the thumbnail."""
    thumbnail = with_holes(picture(600, 800))
    pixels = thumbnail.shape[0] * thumbnail.shape[1]
    tracemalloc.start()
    try:
        fill = Fill(thumbnail, (6000, 8000))
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert fill.shape == (6000, 8000)
    assert 0.9 * FILL_BYTES_PER_PIXEL <= held / pixels <= 1.05 * FILL_BYTES_PER_PIXEL
    assert 0.6 * FILLING_BYTES_PER_PIXEL <= peak / pixels <= FILLING_BYTES_PER_PIXEL


def test_all_tasks_of_a_process_share_one_fill(tmp_path: Path) -> None:
    """Every task has a copy of the source; were the fill of each its own, memory would hold one for each."""
    scene = geotiff(tmp_path / "scene.tif", with_holes(picture(400, 500)), extrasamples=["unassalpha"])
    source = open_source(scene).prepare(tmp_path / "job", thumbnail=50)
    first, second = (WindowReader(pickle.loads(pickle.dumps(source))) for _ in range(2))
    assert first._fill is second._fill is not None
    whole = Fill(source.thumbnail, source.shape).apply(
        with_holes(picture(400, 500)), box := ut.Box(0, 0, 400, 500)
    )
    np.testing.assert_array_equal(first.read(box)[..., :3], whole)
    other = open_source(scene).prepare(tmp_path / "other", thumbnail=40)
    assert WindowReader(other)._fill is not first._fill


def test_black_where_invalid_takes_no_list_of_pixels() -> None:
    """A block with many invalid pixels takes the array of its windows, and no index of 16 bytes a pixel."""
    from urst_tiles.engine.block import stylize_block
    from urst_tiles.engine.kernel import Kernel
    from urst_tiles.geometry import Grid
    from urst_tiles.nets.identity import IdentityNet

    pixels = np.dstack([picture(512, 512), np.zeros((512, 512), np.uint8)])
    pixels[:16, :16, 3] = 255
    reader = WindowReader(array_source(pixels).prepare(None, thumbnail=16))
    grid = Grid(512, 512, core=512, block=512, tile=512)

    class Small:
        seam, dtype, batch, threads, colours = "crop", "uint8", 1, 1, 3

    Small.grid = grid  # type: ignore[attr-defined]
    tracemalloc.start()
    try:
        out = stylize_block(Kernel(IdentityNet()), reader, Small(), grid.image)  # type: ignore[arg-type]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert not out[100:, 100:].any() and out[:16, :16, :3].any()
    assert peak < 14 * 512 * 512


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["jp2", "each", "each-jp2"])
def test_an_end_of_another_kind_keeps_to_its_plan(run, tmp_path: Path, ending: str) -> None:
    """JPEG 2000 is encoded by GDAL, and the files of features are cut from the blocks of all of them."""
    scene = geotiff(tmp_path / "scene.tif", picture(4096, 5000), tile=(512, 512))
    arguments = [
        str(scene),
        str(tmp_path / "out"),
        "--model",
        "identity",
        "--block",
        "1024",
        "--tile",
        "1024",
    ]
    if ending == "jp2":
        arguments[1] += ".jp2"
    else:
        with tifffile.TiffFile(scene) as tif:
            (_, _, _, x, y, _), size = tif.pages[0].tags[33922].value, tif.pages[0].tags[33550].value[0]
        ring = [[x, y], [x + 4900 * size, y - 300 * size], [x + 900 * size, y - 4000 * size], [x, y]]
        shape = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [ring]}}
        crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32632"}}
        (tmp_path / "aoi.geojson").write_text(
            json.dumps({"type": "FeatureCollection", "crs": crs, "features": [shape]})
        )
        arguments += ["--aoi", str(tmp_path / "aoi.geojson"), "--each"]
        arguments += ["--format", "jp2"] if ending == "each-jp2" else []
    assert 0.6 < shares(run, arguments) <= 1.0
