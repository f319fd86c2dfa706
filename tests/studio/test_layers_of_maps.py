"""The studio as a layer of web maps: its tiles lie where they should, and GDAL reads them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import pyvips
import tifffile
from helpers import geotiff, picture

pytest.importorskip("rasterio", reason="the extra gdal is not installed")
pytest.importorskip("starlette", reason="the extra studio is not installed")
pytest.importorskip("uvicorn", reason="the extra studio is not installed")

import rasterio
import rasterio.enums
import rasterio.warp
import rasterio.windows
from served import Served

import urst_tiles as ut
from urst_tiles.geometry import Box
from urst_tiles.pyramid.reduce import levels_below
from urst_tiles.source.mercator import HALF, SIDE, MapLayer, bounds_of, layer_of

STYLE = "hokusai-wave"
ZOOM, COLUMN, ROW = 12, 2150, 1430


def smooth(h: int, w: int, seed: int = 0) -> np.ndarray:
    return pyvips.Image.new_from_array(picture(h, w, seed)).gaussblur(2).cast("uchar").numpy()


def on_lattice(path: Path, pixels: np.ndarray) -> Path:
    """An image in Web Mercator whose pixels are those of tiles at ``ZOOM``, from tile COLUMN, ROW on."""
    step = 2 * HALF / 2**ZOOM / SIDE
    west, _, _, north = bounds_of(ZOOM, COLUMN, ROW)
    with rasterio.open(
        path, "w", driver="GTiff", width=pixels.shape[1], height=pixels.shape[0], count=3, dtype="uint8",
        crs="EPSG:3857", transform=rasterio.Affine(step, 0, west, 0, -step, north), tiled=True,
        blockxsize=256, blockysize=256,
    ) as file:  # fmt: skip
        file.write(pixels.transpose(2, 0, 1))
    return path


def reading(source: ut.Source):
    pixels = source.read(Box(0, 0, *source.shape))
    levels = [pixels, *levels_below(pixels, 12)]
    return lambda halvings, box: levels[halvings][box.slices]


def tile(layer: MapLayer, source: ut.Source, z: int, x: int, y: int) -> np.ndarray:
    made = layer.tile(z, x, y, reading(source))
    assert made is not None and made.shape == (256, 256, 4) and made.dtype == np.uint8
    return made


def test_pixels_on_the_lattice_of_tiles_stay_as_they_are(tmp_path: Path) -> None:
    pixels = smooth(512, 768)
    source = ut.open_source(on_lattice(tmp_path / "a.tif", pixels))
    layer = layer_of(source)
    assert layer.zoom == ZOOM
    for x, y in ((0, 0), (2, 1)):
        found = tile(layer, source, ZOOM, COLUMN + x, ROW + y)
        np.testing.assert_array_equal(found[..., :3], pixels[256 * y :, 256 * x :][:256, :256])
        assert (found[..., 3] == 255).all()
    half = levels_below(pixels, 1)[0]
    assert COLUMN % 2 == ROW % 2 == 0
    found = tile(layer, source, ZOOM - 1, COLUMN // 2, ROW // 2)
    np.testing.assert_array_equal(found[..., :3], half[:, :256])
    found = tile(layer, source, ZOOM - 1, COLUMN // 2 + 1, ROW // 2)
    np.testing.assert_array_equal(found[:, :128, :3], half[:, 256:])
    assert (found[:, :128, 3] == 255).all() and not found[:, 130:].any()
    assert layer.tile(ZOOM, COLUMN + 4, ROW, reading(source)) is None
    assert layer.tile(ZOOM, 0, 0, reading(source)) is None
    world = tile(layer, source, 0, 0, 0)
    assert 1 <= (world[..., 3] > 0).sum() <= 4


def warped_by_gdal(path: Path, affine: object, width: int, height: int) -> np.ndarray:
    """An image in Web Mercator, uint8, (4, height, width), as GDAL warps its file; the last band is alpha."""
    out = np.zeros((4, height, width), np.uint8)
    words = {"dst_transform": affine, "dst_crs": "EPSG:3857"}
    with rasterio.open(path) as file:
        bilinear = rasterio.enums.Resampling.bilinear
        rasterio.warp.reproject(rasterio.band(file, [1, 2, 3]), out[:3], resampling=bilinear, **words)
        ones = np.full(file.shape, 255, np.uint8)
        rasterio.warp.reproject(ones, out[3], src_transform=file.transform, src_crs=file.crs, **words)
    return out


@pytest.mark.parametrize("crs", ["EPSG:32632", pytest.param("EPSG:4326", marks=pytest.mark.slow)])
def test_other_reference_systems_are_warped_as_gdal_warps_them(crs: str, tmp_path: Path) -> None:
    pixels = smooth(400, 500)
    path = tmp_path / "a.tif"
    if crs == "EPSG:32632":
        geotiff(path, pixels)
    else:
        with rasterio.open(
            path, "w", driver="GTiff", width=500, height=400, count=3, dtype="uint8", crs=crs, tiled=True,
            transform=rasterio.Affine(1e-4, 0, 9.0, 0, -1e-4, 46.95), blockxsize=256, blockysize=256,
        ) as file:  # fmt: skip
            file.write(pixels.transpose(2, 0, 1))
    source = ut.open_source(path)
    layer = layer_of(source)
    west, south, east, north = layer.bounds
    with rasterio.open(path) as file:
        right = rasterio.warp.transform_bounds(file.crs, "EPSG:4326", *file.bounds)
    np.testing.assert_allclose(layer.bounds, right, atol=1e-5)
    n = 2**layer.zoom
    x = int((west + east + 360) / 720 * n)
    y = int((1 - np.arcsinh(np.tan(np.radians((south + north) / 2))) / np.pi) / 2 * n)
    for dx, dy in ((0, 0), (-1, 0), (0, 1)):
        found = tile(layer, source, layer.zoom, x + dx, y + dy)
        w, s, e, t = bounds_of(layer.zoom, x + dx, y + dy)
        affine = rasterio.Affine((e - w) / 256, 0, w, 0, (s - t) / 256, t)
        wanted = warped_by_gdal(path, affine, 256, 256).transpose(1, 2, 0)
        both = (found[..., 3] == 255) & (wanted[..., 3] == 255)
        assert both.sum() > 20000 and (both | (found[..., 3] == 0) | (wanted[..., 3] == 0)).mean() > 0.97
        assert abs(found.astype(int) - wanted)[both].mean() < 1


def test_images_without_a_place_are_refused_in_a_sentence(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "plain.tif", picture(64, 64), photometric="rgb", tile=(64, 64))
    with pytest.raises(ut.BadInput, match=r"plain\.tif is not georeferenced, and a map layer needs a place"):
        layer_of(ut.open_source(tmp_path / "plain.tif"))
    for name, north in (("pole.tif", 90.0), ("world.tif", 90.0)):
        pixel = 0.05 if name == "pole.tif" else 2.8125
        with rasterio.open(
            tmp_path / name, "w", driver="GTiff", width=128, height=64, count=3, dtype="uint8", tiled=True,
            blockxsize=64, blockysize=64, crs="EPSG:4326",
            transform=rasterio.Affine(pixel, 0, -180, 0, -pixel, north),
        ) as file:  # fmt: skip
            file.write(np.full((3, 64, 128), 200, np.uint8))
    with pytest.raises(ut.BadInput, match="ends at 85 degrees"):
        layer_of(ut.open_source(tmp_path / "pole.tif"))
    world = ut.open_source(tmp_path / "world.tif")
    layer = layer_of(world)  # what of it lies nearer to the poles is left out
    assert layer.zoom == 0 and -86 < layer.bounds[1] < -80 < 80 < layer.bounds[3] < 86
    found = tile(layer, world, 0, 0, 0)
    assert (found[4:-4, 4:-4] == [200, 200, 200, 255]).all()


# Over HTTP


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("maps")
    geotiff(folder / "scene.tif", smooth(400, 500))
    tifffile.imwrite(folder / "plain.tif", picture(64, 64), photometric="rgb", tile=(64, 64))
    ut.stylize(folder / "scene.tif", folder / "made.tif", STYLE, provenance=False)
    return folder


@pytest.fixture(scope="module")
def studio(root: Path) -> Iterator[Served]:
    with Served("scene.tif", cwd=root) as served:
        yield served


def agrees(root: Path, found: np.ndarray, affine: object) -> None:
    """Whether what was read through the studio is the finished painting, warped."""
    height, width = found.shape[1:]
    wanted = warped_by_gdal(root / "made.tif", affine, width, height)
    inside = (found[3] == 255) & (wanted[3] == 255)
    assert inside.sum() > 0.8 * 400 * 500 * (10 / 9.6) ** 2 / 2
    assert abs(found[:3].astype(int) - wanted[:3])[:, inside].mean() < 1.5
    assert found[:3][:, inside].std() > 20


def read_around(root: Path, file: rasterio.DatasetReader) -> tuple[np.ndarray, rasterio.Affine]:
    """What a map of the world has where the painting lies, and the place of its pixels."""
    with rasterio.open(root / "made.tif") as made:
        west, south, east, north = rasterio.warp.transform_bounds(made.crs, "EPSG:3857", *made.bounds)
    t = file.transform
    column, row = int((west - t.c) / t.a), int((north - t.f) / t.e)
    window = rasterio.windows.Window(column, row, int((east - west) / t.a), int((south - north) / t.e))
    return file.read(window=window), rasterio.Affine(t.a, 0, t.c + t.a * column, 0, t.e, t.f + t.e * row)


def test_gdal_reads_the_wmts(studio: Served, root: Path, tmp_path: Path) -> None:
    layer = studio.api("layer", image="scene.tif", style=STYLE)
    with (
        rasterio.Env(GDAL_DEFAULT_WMS_CACHE_PATH=str(tmp_path / "cache")),
        rasterio.open(f"WMTS:{layer['wmts']}") as file,
    ):
        assert file.crs.to_epsg() == 3857
        agrees(root, *read_around(root, file))


@pytest.mark.slow
def test_gdal_reads_the_tiles_by_their_address(studio: Served, root: Path, tmp_path: Path) -> None:
    address = f"{studio.url}xyz/${{z}}/${{x}}/${{y}}.png?image=scene.tif&amp;style={STYLE}"
    description = tmp_path / "xyz.xml"
    zoom = studio.api("layer", image="scene.tif")["zoom"]
    description.write_text(
        f"""<GDAL_WMS><Service name="TMS"><ServerUrl>{address}</ServerUrl></Service><DataWindow>
        <UpperLeftX>{-HALF}</UpperLeftX><UpperLeftY>{HALF}</UpperLeftY><LowerRightX>{HALF}</LowerRightX>
        <LowerRightY>{-HALF}</LowerRightY><TileLevel>{zoom}</TileLevel><TileCountX>1</TileCountX>
        <TileCountY>1</TileCountY><YOrigin>top</YOrigin></DataWindow><Projection>EPSG:3857</Projection>
        <BlockSizeX>256</BlockSizeX><BlockSizeY>256</BlockSizeY><BandsCount>4</BandsCount></GDAL_WMS>"""
    )
    with rasterio.open(description) as file:
        agrees(root, *read_around(root, file))


def test_a_layer_is_that_of_the_token_and_of_what_it_names(studio: Served) -> None:
    layer = studio.api("layer", image="scene.tif", style=STYLE)
    assert layer["xyz"].startswith(studio.url) and layer["wmts"].startswith(studio.url)
    assert layer["xyz"].endswith("/{z}/{x}/{y}.png")
    status, headers, data = studio.ask("xyz/0/0/0.png")  # the image that the studio was opened with
    assert status == 200 and headers["content-type"] == "image/png"
    assert pyvips.Image.new_from_buffer(data, "").numpy().shape == (256, 256, 4)
    empty = pyvips.Image.new_from_buffer(studio.ask("xyz/12/0/0.png")[2], "").numpy()
    assert not empty.any()
    assert studio.ask("xyz/0/0/0.png", token="x" * 32)[0] == 403
    assert studio.ask("wmts/WMTSCapabilities.xml", token="x" * 32)[0] == 403
    status, headers, body = studio.ask("wmts/WMTSCapabilities.xml?image=scene.tif")
    assert (
        status == 200
        and headers["content-type"].startswith("application/xml")
        and studio.token in body.decode()
    )
    for address in ("xyz/2/4/0.png", "xyz/2/0/4.png", "xyz/31/0/0.png"):
        assert "there is no tile" in json.loads(studio.ask(address)[2])["error"]
    assert "is not georeferenced" in studio.trouble("xyz/0/0/0.png", image="plain.tif")
    assert "is not georeferenced" in studio.trouble("wmts/WMTSCapabilities.xml", image="plain.tif")
    assert "folder that the studio was given" in studio.trouble("xyz/0/0/0.png", image="../scene.tif")
    assert "no style called" in studio.trouble("xyz/0/0/0.png", style="nosuch")
